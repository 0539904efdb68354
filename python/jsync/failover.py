"""The node's role, from what keepalived tells: of the whole, or of each slice of pool4.

The daemon never acts on VRRP by itself: promotion moves no state and does no set-up but the
answering of ARP (see `jsync.netlink`).
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from jsync.keepalived import slice_of

WHOLE = 0
"""Stands for all of pool4 where it moves as a whole; slices have the numbers of their nodes."""

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

    def __init__(
        self,
        *,
        alone: bool,
        slices: Iterable[int] = (),
        changed: Callable[[Instance], None] | None = None,
    ) -> None:
        """`alone`: there is no cluster, so this node is primary unless keepalived says otherwise.

        `slices` are the nodes whose slices of pool4 keepalived moves apart from each other.
        `changed` is called after each change of a state.
        """
        self._alone = alone
        self._slices = sorted(slices)
        self._changed = changed
        self._instances: dict[tuple[str, str], Instance] = {}
        self._started: dict[tuple[str, str], tuple[int, int]] = {}

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
    def slices(self) -> dict[int, State | None]:
        """What keepalived said last of each slice, by its node; None if it said nothing.

        MASTER if one IP version has come, as both will have in a moment.
        """
        told: dict[int, State | None] = dict.fromkeys(self._slices)
        for instance in self._instances.values():
            node = slice_of(instance.name)
            if node in told and told[node] != "MASTER":
                told[node] = instance.state
        return told

    @property
    def held(self) -> frozenset[int]:
        """The slices that this node is MASTER of, or `WHOLE` if it is primary."""
        if not self._slices:
            return frozenset({WHOLE} if self.is_primary else ())
        return frozenset(node for node, state in self.slices.items() if state == "MASTER")

    @property
    def role(self) -> str:
        """`is_primary` in a word."""
        return "primary" if self.is_primary else "backup"

    def notify(
        self,
        type: str,
        name: str,
        state: str,
        priority: int,
        started: tuple[int, int] | None = None,
    ) -> None:
        """Take note of a state, named as keepalived's notify script gets it.

        `started` orders the scripts of an instance or group: what one tells that began before
        another which was heard already is old, and ignored. Raises ValueError.
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
        if started is not None:
            if started < self._started.get(key, started):
                return
            self._started[key] = started
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
