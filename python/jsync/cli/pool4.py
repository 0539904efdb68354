"""`jsync pool4`."""

from jsync.cli import tables
from jsync.cli.client import ask_list
from jsync.cli.options import parser

COLUMNS = ("protocol", "prefix", "ports")


def run(arguments: list[str]) -> int:
    """Display pool4."""
    commands = parser("pool4", "The IPv4 addresses and ports that IPv6 nodes are masked with.")
    verbs = commands.add_subparsers(dest="verb", required=True)
    display = verbs.add_parser("display", help="all entries")
    tables.add_options(display)
    options = commands.parse_args(arguments)
    tables.show(ask_list(options, "pool4", "display"), COLUMNS, options)
    return 0
