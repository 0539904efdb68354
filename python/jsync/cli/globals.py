"""`jsync global`."""

from jsync.cli import tables
from jsync.cli.client import ask_one
from jsync.cli.options import parser
from jsync.config import is_duration
from jsync.durations import format_duration


def run(arguments: list[str]) -> int:
    """Display the options."""
    commands = parser("global", "The options of the translator, by Jool's names.")
    verbs = commands.add_subparsers(dest="verb", required=True)
    display = verbs.add_parser("display", help="all options that the file sets")
    tables.add_options(display)
    options = commands.parse_args(arguments)
    values = ask_one(options, "global", "display")
    rows = [{"option": key, "value": _text(key, value)} for key, value in sorted(values.items())]
    tables.show(rows, ("option", "value"), options)
    return 0


def _text(key: str, value: object) -> object:
    return format_duration(value) if is_duration(key) and isinstance(value, int) else value
