"""`jsync config`."""

import argparse
import json

from jsync.config import Settings, load


def run(arguments: list[str]) -> int:
    """Check a file, or show what it means."""
    parser = argparse.ArgumentParser(
        prog="jsync config",
        description="Check a configuration file, or show it with the defaults filled in.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, help in (
        ("check", "say what is wrong, with line and remedy; keys are looked at too"),
        ("show", "the configuration as JSON, durations of nat64 in milliseconds"),
    ):
        sub = verbs.add_parser(verb, help=help)
        sub.add_argument("file", metavar="FILE")
    options = parser.parse_args(arguments)
    settings = load(options.file)
    if options.verb == "check":
        settings.keys()
        print(f"{options.file}: ok")
    else:
        print(json.dumps(_shown(settings), indent=2))
    return 0


def _shown(settings: Settings) -> dict[str, object]:
    import msgspec

    return {
        "node": msgspec.to_builtins(settings.node),
        **(
            {"nat64": settings.nat64, "dataplane": msgspec.to_builtins(settings.dataplane)}
            if settings.jool is None
            else {"jool": msgspec.to_builtins(settings.jool)}
        ),
        "sync": msgspec.to_builtins(settings.sync),
        "joold": msgspec.to_builtins(settings.joold),
        "metrics": msgspec.to_builtins(settings.metrics),
        "keepalived": msgspec.to_builtins(settings.keepalived),
    }
