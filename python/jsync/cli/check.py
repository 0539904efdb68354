"""`jsync check`: may this node become MASTER?"""

from jsync.cli.client import ask_one, parser
from jsync.errors import NOT_READY


def run(arguments: list[str]) -> int:
    """0 if the node is ready, 4 if it isn't, 3 if no daemon runs."""
    options = parser(
        "check",
        "Exit with 0 if the node translates and has the cluster's sessions (or found itself"
        " alone), 4 if not yet, 3 if no daemon runs. Meant for keepalived's vrrp_script.",
    ).parse_args(arguments)
    answer = ask_one(options, "check")
    print(("ready: " if answer["ready"] else "not ready: ") + answer["reason"])
    return 0 if answer["ready"] else NOT_READY
