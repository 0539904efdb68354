"""`jsync global`."""

from jsync.cli import tables
from jsync.cli.client import ask_one
from jsync.cli.options import CHANGES, parser
from jsync.config import is_duration
from jsync.durations import format_duration


def run(arguments: list[str]) -> int:
    """Display or change the options."""
    commands = parser("global", f"The options of the translator, by Jool's names. {CHANGES}")
    verbs = commands.add_subparsers(dest="verb", required=True)
    display = verbs.add_parser("display", help="all options")
    tables.add_options(display)
    update = verbs.add_parser("update", help="change an option")
    update.add_argument("key", metavar="KEY")
    update.add_argument("value", metavar="VALUE", help="as `global display` shows it")
    options = commands.parse_args(arguments)
    if options.verb == "update":
        ask_one(options, "global", "update", key=options.key, value=options.value)
        return 0
    values = ask_one(options, "global", "display")
    rows = [
        {"option": key, "value": option_text(key, value)} for key, value in sorted(values.items())
    ]
    tables.show(rows, ("option", "value"), options)
    return 0


def option_text(key: str, value: object) -> str:
    """The value of an option, as it is shown and as it may be written."""
    if is_duration(key) and isinstance(value, int):
        return format_duration(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)
