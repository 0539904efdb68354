"""`jsync bib`."""

from collections.abc import Iterator

from jsync.cli import tables
from jsync.cli.client import ask
from jsync.cli.options import parser

COLUMNS = ("proto", "src6", "src6_port", "src4", "src4_port", "static", "sessions")


def run(arguments: list[str]) -> int:
    """Display the BIB."""
    commands = parser("bib", "The binding information base: who has which IPv4 address and port.")
    verbs = commands.add_subparsers(dest="verb", required=True)
    display = verbs.add_parser("display", help="all entries, or those of some protocols")
    tables.add_options(display)
    tables.add_protocols(display)
    options = commands.parse_args(arguments)

    def rows() -> Iterator[tables.Row]:
        for answer in ask(options, "bib", "display", protocols=options.protocols):
            yield from answer.get("rows", ())

    def text(row: tables.Row) -> str:
        kind = "Static" if row["static"] else "Dynamic"
        ipv4 = tables.endpoint(row["src4"], row["src4_port"], True)
        ipv6 = tables.endpoint(row["src6"], row["src6_port"], options.numeric)
        return f"[{kind} {row['proto'].upper()}] {ipv4} - {ipv6} ({row['sessions']} sessions)"

    count = tables.show(rows(), COLUMNS, options, text)
    if not (options.json or options.csv or options.no_headers):
        print(f"{count} entries")
    return 0
