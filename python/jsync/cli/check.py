"""`jsync check`: may this node become MASTER?"""

from jsync.cli.client import ask_one, split_target
from jsync.errors import NOT_READY, USAGE, Failure

HELP = """\
usage: jsync check [--control PATH] [-i NAME]

Exit with 0 if the node translates and has the cluster's sessions (or found itself alone), 4 if
not yet, 3 if no daemon runs. Meant for keepalived's vrrp_script.

examples:
  jsync check
  jsync check --control /run/jsync/second.sock"""


def run(arguments: list[str]) -> int:
    """0 if the node is ready, 4 if it isn't, 3 if no daemon runs."""
    if "-h" in arguments or "--help" in arguments:
        print(HELP)
        return 0
    target, rest = split_target(arguments, HELP)
    if rest:
        raise Failure(f"too many arguments\n{HELP}", USAGE)
    answer = ask_one(target, "check")
    print(("ready: " if answer["ready"] else "not ready: ") + answer["reason"])
    return 0 if answer["ready"] else NOT_READY
