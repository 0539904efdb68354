"""`jsync bib`."""

import argparse
from collections.abc import Iterator

from jsync.cli import tables
from jsync.cli.client import ask, ask_one
from jsync.cli.options import CHANGES, parser
from jsync.errors import USAGE, Failure

COLUMNS = ("proto", "src6", "src6_port", "src4", "src4_port", "static", "sessions")


def run(arguments: list[str]) -> int:
    """Display or change the BIB."""
    commands = parser(
        "bib", f"The binding information base: who has which IPv4 address and port. {CHANGES}"
    )
    verbs = commands.add_subparsers(dest="verb", required=True)
    display = verbs.add_parser("display", help="all entries, or those of some protocols")
    tables.add_options(display)
    tables.add_protocols(display)
    tables.add_numeric(display)
    for verb, help, number in (
        ("add", "add a static entry", 2),
        ("remove", "remove an entry and its sessions; one of the addresses is enough", "+"),
    ):
        change = verbs.add_parser(verb, help=help)
        tables.add_protocol(change, default="tcp")
        change.add_argument(
            "ends", metavar="ADDRESS#PORT", nargs=number, help="IPv6 and IPv4, in any order"
        )
    options = commands.parse_args(arguments)
    if options.verb != "display":
        return _change(options)

    def rows() -> Iterator[tables.Row]:
        for answer in ask(options, "bib", "display", protocols=options.protocols):
            yield from answer.get("rows", ())

    def text(row: tables.Row) -> str:
        kind = "Static" if row["static"] else "Dynamic"
        ipv4 = tables.endpoint(row["src4"], row["src4_port"], True)
        ipv6 = tables.endpoint(row["src6"], row["src6_port"], options.numeric)
        # Jool doesn't count them.
        sessions = "" if row["sessions"] is None else f" ({row['sessions']} sessions)"
        return f"[{kind} {row['proto'].upper()}] {ipv4} - {ipv6}{sessions}"

    count = tables.show(rows(), COLUMNS, options, text)
    if not (options.json or options.csv or options.no_headers):
        print(f"{count} entries")
    return 0


def _change(options: argparse.Namespace) -> int:
    ends = {"ipv6" if ":" in end else "ipv4": end for end in options.ends}
    if len(ends) != len(options.ends):
        raise Failure("name one IPv6 and one IPv4 transport address", USAGE)
    ask_one(options, "bib", options.verb, protocol=options.protocol, **ends)
    return 0
