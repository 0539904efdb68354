"""`jsync notify`: a state of keepalived's, told to the daemon."""

from jsync.cli.client import ask_one, parser


def run(arguments: list[str]) -> int:
    """Tell the daemon; 0 if it heard."""
    options = parser(
        "notify", "Tell the daemon a state. The arguments are those of keepalived's notify script."
    )
    options.add_argument("type", choices=["INSTANCE", "GROUP"])
    options.add_argument("name")
    options.add_argument("state", metavar="STATE", help="MASTER, BACKUP, FAULT, STOP or DELETED")
    options.add_argument("priority", type=int)
    told = options.parse_args(arguments)
    ask_one(
        told, "notify", type=told.type, name=told.name, state=told.state, priority=told.priority
    )
    return 0
