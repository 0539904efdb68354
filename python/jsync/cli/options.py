"""The options of commands that speak to the daemon and that nobody waits for."""

import argparse
from typing import Any

from jsync.cli.client import DEFAULT_CONTROL

CHANGES = (
    "A change holds until the daemon ends; write it into the file too. Make it on every node:"
    " nodes that differ don't synchronise."
)


class Parser(argparse.ArgumentParser):
    """A parser with what every verb that speaks to the daemon understands.

    argparse makes the parsers of a noun's verbs of this class too: the options may stand anywhere.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.add_argument(
            "--control",
            metavar="PATH",
            default=argparse.SUPPRESS,
            help=f"the daemon's control socket (or $JSYNC_CONTROL; {DEFAULT_CONTROL})",
        )
        self.add_argument(
            "-i",
            "--instance",
            dest="instance",
            metavar="NAME",
            default=argparse.SUPPRESS,
            help="refuse unless the node has this name",
        )


EXAMPLES = {
    "session": ("session display --tcp --numeric", "session display --csv", "session advertise"),
    "bib": (
        "bib display --numeric",
        "bib add --tcp 2001:db8::8#80 192.0.2.1#61001",
        "bib remove --tcp 2001:db8::8#80",
    ),
    "pool4": (
        "pool4 display",
        "pool4 add 192.0.2.2 61001-65535",
        "pool4 add --tcp 198.51.100.0/23 1024-65535 --force",
        "pool4 remove --udp 192.0.2.2 61001-62000",
    ),
    "global": (
        "global display",
        "global update udp-timeout 0:10:00",
        "global update mtu-plateaus 9000,1500,1280",
        "global update override-tos true",
    ),
    "stats": ("stats display --explain", "stats display --all --csv"),
    "instance": ("instance status", "instance status --json"),
    "peers": ("peers", "peers --json"),
}


def parser(command: str, description: str) -> Parser:
    """The parser of a command."""
    lines = [f"  jsync {words}" for words in EXAMPLES.get(command, ())]
    return Parser(
        prog=f"jsync {command}",
        description=description,
        epilog="\n".join(["examples:", *lines]) if lines else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
