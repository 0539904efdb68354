"""`jsync notify`: a state of keepalived's, told to the daemon."""

import os

from jsync.cli.client import ask_one, split_target
from jsync.errors import USAGE, Failure

HELP = """\
usage: jsync notify [--control PATH] [-i NAME] INSTANCE|GROUP NAME STATE PRIORITY

Tell the daemon a state: MASTER, BACKUP, FAULT, STOP or DELETED. The arguments are those that
keepalived appends to its notify script.

examples:
  jsync notify INSTANCE VI_1 MASTER 200
  jsync notify GROUP jsync BACKUP 100"""


def run(arguments: list[str]) -> int:
    """Tell the daemon; 0 if it heard."""
    if "-h" in arguments or "--help" in arguments:
        print(HELP)
        return 0
    target, rest = split_target(arguments, HELP)
    if len(rest) != 4:
        raise Failure(f"four arguments are needed\n{HELP}", USAGE)
    kind, name, state, priority = rest
    ask_one(
        target, "notify", type=kind, name=name, state=state, priority=priority, started=_started()
    )
    return 0


def _started() -> "list[int]":
    """When this process began, in clock ticks since boot, and its number, to tell it from others.

    keepalived doesn't wait for one notify script before it starts the next, so a busy machine may
    let them overtake each other; by this the daemon sees which state is the newer one.
    """
    with open("/proc/self/stat", "rb") as file:
        stat = file.read()
    # proc_pid_stat(5): the 22nd field; the second, in brackets, may contain anything.
    return [int(stat.rpartition(b")")[2].split()[19]), os.getpid()]
