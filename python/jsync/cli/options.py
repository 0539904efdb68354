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


def parser(command: str, description: str) -> Parser:
    """The parser of a command."""
    return Parser(prog=f"jsync {command}", description=description)
