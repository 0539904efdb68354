"""`jsync session`."""

from collections.abc import Iterator

from jsync.cli import tables
from jsync.cli.client import ask, ask_one
from jsync.cli.options import parser
from jsync.durations import format_duration

COLUMNS = (
    "proto",
    "src6",
    "src6_port",
    "dst6",
    "dst6_port",
    "src4",
    "src4_port",
    "dst4",
    "dst4_port",
    "state",
    "expires_ms",
)


def run(arguments: list[str]) -> int:
    """Display the sessions, or do what else there is to do with them."""
    if "proxy" in arguments:  # `-i` has another meaning behind it
        from jsync.cli import proxy

        at = arguments.index("proxy")
        return proxy.run(arguments[:at], arguments[at + 1 :])
    commands = parser("session", "The sessions of the translator.")
    verbs = commands.add_subparsers(dest="verb", required=True)
    display = verbs.add_parser("display", help="all sessions, or those of some protocols")
    tables.add_options(display)
    tables.add_protocols(display)
    tables.add_numeric(display)
    verbs.add_parser(
        "advertise",
        help="have peers compare their tables with this one, and joolds hear every session",
    )
    verbs.add_parser("proxy", help="exchange those of Jool's kernel module, as Jool's proxy does")
    options = commands.parse_args(arguments)
    if options.verb == "advertise":
        ask_one(options, "session", "advertise")
        return 0

    def rows() -> Iterator[tables.Row]:
        for answer in ask(options, "session", "display", protocols=options.protocols):
            yield from answer.get("rows", ())

    def text(row: tables.Row) -> str:
        def end(name: str) -> str:
            return tables.endpoint(row[name], row[f"{name}_port"], options.numeric)

        state = f"({row['state']}) " if row["proto"] == "tcp" else ""
        return (
            f"{row['proto'].upper()} {state}expires in {format_duration(row['expires_ms'])}\n"
            f"Remote: {end('dst4')}\t{end('src6')}\n"
            f"Local: {end('src4')}\t{end('dst6')}\n"
            "---------------------------------"
        )

    count = tables.show(rows(), COLUMNS, options, text)
    if not (options.json or options.csv or options.no_headers):
        print(f"{count} sessions")
    return 0
