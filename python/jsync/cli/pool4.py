"""`jsync pool4`."""

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
        ("remove", "remove an entry, and the sessions that no other entry covers"),
    ):
        change = verbs.add_parser(verb, help=help)
        tables.add_protocol(change, required=False)
        change.add_argument("prefix", metavar="PREFIX", help="an IPv4 address, or PREFIX/LENGTH")
        change.add_argument(
            "ports", metavar="PORTS", nargs="?", help="ports and ICMP identifiers (1024-65535)"
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
            help="the node whose slice the entry is: no other gives its ports away",
        )
    verbs.add_parser("flush", help="remove all entries and all sessions")
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
        )
    return 0
