"""`jsync demo`: the two stories, on the lab or in the simulator."""

import argparse
import json
import sys

from rich.console import Console

from jsync.demo.report import Report
from jsync.demo.timeline import Timeline
from jsync.errors import FAILED, Failure
from jsync.lab import isolation

EXAMPLES = """\
examples:
  jsync demo
  jsync demo --simulate --json
"""


def run(arguments: list[str]) -> int:
    """0 if synchronisation saved every connection, and only synchronisation did; else 1."""
    parser = argparse.ArgumentParser(
        prog="jsync demo",
        description="Watch connections survive the death of their NAT64: the sample network in"
        " namespaces, real keepalived, real traffic; once without synchronisation, once with it."
        " Where that can't be had, the same in the simulator.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--simulate", action="store_true", help="play it in the simulator only")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args(arguments)

    console = Console(width=None if sys.stdout.isatty() else 120, soft_wrap=True)
    report = simulated(console) if options.simulate else _played(console)
    report.print(console)
    for violation in report.violations():
        console.print(f"[bold red]{violation}[/bold red]")
    if options.json:
        print(json.dumps(report.to_json()))
    return FAILED if report.violations() else 0


def _played(console: Console) -> Report:
    """Play the stories on the lab, or in the simulator where the lab can't be built."""
    from jsync.demo.stage import Stage
    from jsync.lab.load import LoadError
    from jsync.lab.network import NetworkError
    from jsync.lab.service import ServiceError

    stage = Stage(Timeline(console))
    try:
        isolation.require_programs()
        isolation.enter()
        stage.build()
    except (isolation.LabUnavailable, NetworkError) as error:
        console.print(f"The lab can't be built: {error}.\nThis is the simulator instead.")
        return simulated(console)
    try:
        report = stage.play()
    except (LoadError, NetworkError, ServiceError) as error:
        print(stage.last_words(), file=sys.stderr)
        raise Failure(f"the demo broke off: {error}") from None
    if report.violations():
        print(stage.last_words(), file=sys.stderr)
    return report


def simulated(console: Console) -> Report:
    """Play the stories in the simulator."""
    from jsync.demo.simulated import play

    return play(Timeline(console))
