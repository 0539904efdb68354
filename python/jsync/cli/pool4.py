"""`jsync pool4`."""

import argparse
import sys
from typing import NoReturn

from jsync.cli import tables
from jsync.cli.client import ask_list, ask_one
from jsync.cli.options import CHANGES, parser

COLUMNS = ("mark", "protocol", "prefix", "ports", "node")


def run(arguments: list[str]) -> int:
    """Display or change pool4."""
    commands = parser(
        "pool4", f"The IPv4 addresses and ports that IPv6 nodes are masked with. {CHANGES}"
    )
    verbs = commands.add_subparsers(dest="verb", required=True)
    display = verbs.add_parser("display", help="all entries, or those of some protocols")
    tables.add_options(display)
    tables.add_protocols(display)
    for verb, help in (
        ("add", "add an entry"),
        ("remove", "remove addresses and ports from all entries, and the sessions that had them"),
    ):
        change = verbs.add_parser(verb, help=help)
        tables.add_protocol(change)
        change.add_argument("prefix", metavar="PREFIX", help="an IPv4 address, or PREFIX/LENGTH")
        default = "1024-65535" if verb == "add" else "all"
        change.add_argument(
            "ports", metavar="PORTS", nargs="?", help=f"ports and ICMP identifiers ({default})"
        )
        change.add_argument(
            "--mark",
            metavar="N",
            type=int,
            help="only IPv6 packets of this firewall mark get its addresses and ports (0)",
        )
        change.add_argument(
            "--node",
            metavar="N",
            type=int,
            help="the node whose slice the entry is: no other gives its ports away"
            if verb == "add"
            else "only from the entries that are this node's slice",
        )
        if verb == "add":
            _add_jools(change)
        else:
            _refuse_quick(change)
    _refuse_quick(verbs.add_parser("flush", help="remove all entries and all sessions"))
    options = commands.parse_args(arguments)
    if options.verb == "display":
        rows = [
            {**row, "protocol": row["protocol"] or "all", "node": row["node"] or "all"}
            for row in ask_list(options, "pool4", "display")
            if not options.protocols or row["protocol"] in (None, *options.protocols)
        ]
        tables.show(rows, COLUMNS, options)
    elif options.verb == "flush":
        ask_one(options, "pool4", "flush")
    else:
        ask_one(
            options,
            "pool4",
            options.verb,
            protocol=options.protocol,
            prefix=options.prefix,
            ports=options.ports,
            node=options.node,
            mark=options.mark,
            force=getattr(options, "force", False) or None,
        )
        if isinstance(getattr(options, "max_iterations", None), int):
            print(f"jsync: --max-iterations changes nothing: {_ITERATIONS}", file=sys.stderr)
    return 0


_ITERATIONS = "a free port is found in about the same time however full pool4 is"


def _add_jools(add: argparse.ArgumentParser) -> None:
    """Options of Jool's for new entries."""
    add.add_argument(
        "--force", action="store_true", help="even if PREFIX has more addresses than a /24"
    )
    add.add_argument(
        "--max-iterations",
        metavar="N",
        type=_iterations,
        help=f"auto, infinity or a number, as for Jool; it needs no limit: {_ITERATIONS}",
    )


def _iterations(text: str) -> int | str:
    if text in {"auto", "infinity"}:
        return text
    if text.isascii() and text.isdecimal() and 1 <= int(text) < 1 << 32:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r}: write auto, infinity, or 1 to 4294967295")


class _Quick(argparse.Action):
    """Jool's --quick, which would leave mappings behind that nothing can use."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        parser.error(
            "--quick: no session outlives its address and port here, nor comes back with them; to"
            " keep sessions, add the new entry before the old one is removed: they may overlap"
        )


def _refuse_quick(to: argparse.ArgumentParser) -> None:
    to.add_argument("--quick", action=_Quick, nargs=0, help="refused: sessions are always removed")
