"""The node's role, from what keepalived tells, and whether it may take one.

The daemon never acts on VRRP by itself: promotion moves no state and does no set-up but the
answering of ARP (see `jsync.netlink`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

State = Literal["MASTER", "BACKUP", "FAULT", "STOP"]
STATES: tuple[State, ...] = get_args(State)

# States that keepalived writes to its FIFO and that change nothing about who is MASTER.
_UNCHANGED = {"MASTER_RX_LOWER_PRI", "MASTER_PRIORITY", "BACKUP_PRIORITY"}


@dataclass(frozen=True)
class Instance:
    """What keepalived last said of one of its instances or groups."""

    type: str
    name: str
    state: State
    priority: int


class Failover:
    """The roles of this node."""

    def __init__(self, *, alone: bool, changed: Callable[[Instance], None] | None = None) -> None:
        """`alone`: there is no cluster, so this node is primary unless keepalived says otherwise.

        `changed` is called after each change of a state.
        """
        self._alone = alone
        self._changed = changed
        self._instances: dict[tuple[str, str], Instance] = {}

    @property
    def instances(self) -> list[Instance]:
        """All that keepalived has told of, in the order in which it came."""
        return list(self._instances.values())

    @property
    def is_master(self) -> bool:
        """Whether keepalived says that this node is MASTER of anything."""
        return any(instance.state == "MASTER" for instance in self._instances.values())

    @property
    def is_primary(self) -> bool:
        """Whether this node is the one that translates."""
        return self.is_master if self._instances else self._alone

    @property
    def role(self) -> str:
        """`is_primary` in a word."""
        return "primary" if self.is_primary else "backup"

    def notify(self, type: str, name: str, state: str, priority: int) -> None:
        """Take note of a state, named as keepalived's notify script gets it.

        Raises ValueError.
        """
        if type not in {"INSTANCE", "GROUP"}:
            raise ValueError(f"{type!r} is neither INSTANCE nor GROUP")
        key = (type, name)
        before = self._instances.get(key)
        if state in _UNCHANGED:
            return
        # DELETED: keepalived reloaded without the instance; what that held is held no more.
        wanted = "STOP" if state == "DELETED" else state
        now = next((Instance(type, name, s, priority) for s in STATES if s == wanted), None)
        if now is None:
            raise ValueError(f"{state!r} is none of {', '.join(STATES)}")
        self._instances[key] = now
        if now != before and self._changed is not None:
            self._changed(now)


_FIFO_LINE = re.compile(r'(INSTANCE|GROUP) "([^"]*)" ([A-Z_]+) (\d+)')


def parse_fifo_line(line: str) -> tuple[str, str, str, int] | None:
    """`notify`'s arguments from a line of keepalived's notify FIFO; None if it is another's.

    A line reads `INSTANCE "VI_1" MASTER 100` (keepalived.conf(5), vrrp_notify_fifo).
    """
    match = _FIFO_LINE.fullmatch(line.strip())
    if match is None:
        return None
    return match[1], match[2], match[3], int(match[4])
