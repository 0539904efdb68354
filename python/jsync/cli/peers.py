"""`jsync peers`."""

from jsync.cli import tables
from jsync.cli.client import ask_list
from jsync.cli.options import parser

COLUMNS = (
    "node",
    "state",
    "ready",
    "heard_ms_ago",
    "frames_received",
    "gaps",
    "unacknowledged",
    "epoch",
    "mismatch",
)


def run(arguments: list[str]) -> int:
    """Show the other nodes."""
    commands = parser("peers", "The other nodes of the cluster, as this one sees them.")
    tables.add_options(commands)
    options = commands.parse_args(arguments)
    tables.show(ask_list(options, "peers"), COLUMNS, options)
    return 0
