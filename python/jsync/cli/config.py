"""`jsync config`."""

import argparse
import json
import sys
from typing import TYPE_CHECKING

from jsync.config import Settings, load, parse

if TYPE_CHECKING:
    from jsync.jool.importing import Backend

EXAMPLES = """\
examples:
  jsync config check /etc/jsync/jsync.toml
  jsync config show /etc/jsync/jsync.toml
  jsync config import netsocket.json modsocket.json > /etc/jsync/jsync.toml
"""
IMPORT_EXAMPLES = """\
examples:
  jsync config import netsocket.json modsocket.json > /etc/jsync/jsync.toml
        what joold was started with: the daemon synchronises the kernel module's instance
  jsync config import jool.conf netsocket.json
        what `jool file handle` reads: jsync translates itself, in the joolds' group
  jsync config import --backend jool jool.conf
        the instance stays, and is synchronised

The configuration goes to standard output, and what has no counterpart or has to be decided stands
at its end, and on standard error. Exit status 1: `jsync config check` would refuse it.
"""


def run(arguments: list[str]) -> int:
    """Check a file, show what it means, or make one."""
    parser = argparse.ArgumentParser(
        prog="jsync config",
        description="Check a configuration file, show it with the defaults filled in, or make one"
        " of Jool's.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, help in (
        ("check", "say what is wrong, with line and remedy; keys are looked at too"),
        ("show", "the configuration as JSON, durations of nat64 in milliseconds"),
    ):
        sub = verbs.add_parser(
            verb,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            epilog=f"example:\n  jsync config {verb} /etc/jsync/jsync.toml",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("file", metavar="FILE")
    sub = verbs.add_parser(
        "import",
        help="a configuration from Jool's files",
        description="Make a configuration from Jool's files: the one that `jool file handle` reads,"
        " and joold's for its network socket and its module socket.",
        epilog=IMPORT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.add_argument("files", metavar="FILE", nargs="+")
    sub.add_argument(
        "--backend",
        choices=["native", "jool"],
        help="who translates: jsync, or the kernel module; jsync if its configuration is given",
    )
    options = parser.parse_args(arguments)
    if options.verb == "import":
        return _import(options.files, options.backend)
    settings = load(options.file)
    if options.verb == "check":
        settings.keys()
        print(f"{options.file}: ok")
    else:
        print(json.dumps(_shown(settings), indent=2))
    return 0


def _import(files: list[str], backend: "Backend | None") -> int:
    from jsync.jool.importing import import_files

    imported = import_files(files, backend)
    text = imported.toml(f"Made by `jsync config import` of {', '.join(files)}.")
    print(text, end="", flush=True)
    for note in imported.notes:
        print(f"jsync: {'to be decided: ' if note.undecided else ''}{note}", file=sys.stderr)
    parse(text, "the configuration")
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
