"""`jsync stats`."""

from jsync.cli import tables
from jsync.cli.client import ask_list
from jsync.cli.options import parser


def run(arguments: list[str]) -> int:
    """Display the counters."""
    commands = parser("stats", "The counters of the translator, of frames and of the transport.")
    verbs = commands.add_subparsers(dest="verb", required=True)
    display = verbs.add_parser("display", help="the counters that have counted something")
    tables.add_options(display)
    display.add_argument("--all", action="store_true", help="those at 0 too")
    display.add_argument("--explain", action="store_true", help="with what each one counts")
    options = commands.parse_args(arguments)
    rows = [r for r in ask_list(options, "stats", "display") if r["value"] or options.all]
    columns = ("name", "value", "help") if options.explain else ("name", "value")
    tables.show(rows, columns, options)
    return 0
