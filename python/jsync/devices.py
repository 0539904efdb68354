"""The devices of a daemon: its TUN, and one more for each mark that pool4 distinguishes.

A packet that is read from a TUN carries no firewall mark. So the host leads what is marked to a TUN
of that mark, by a rule and a routing table of their own.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from jsync.errors import Failure

FIRST_TABLE = 6464
MAX_MARKS = 64
"""All devices are asked for packets in turn."""
_LONGEST_NAME = 15
"""Bytes of an interface's name (IFNAMSIZ, less the zero)."""


def routing_table(device: str) -> int:
    """The routing table of a device's marked packets: jsync0 has 6464, jsync1 6465."""
    digits = re.search(r"(\d{1,4})$", device)
    return FIRST_TABLE + (int(digits[1]) if digits else 0)


@dataclass(frozen=True)
class MarkDevice:
    """The TUN of a mark, and the IPv6 routing table that leads to it."""

    mark: int
    name: str
    table: int


def mark_devices(device: str, marks: Iterable[int]) -> list[MarkDevice]:
    """The devices of these marks beside `device`, which is that of mark 0: jsync0-5, jsync0-1f.

    Raises Failure where a name or a table can't be had.
    """
    found: list[MarkDevice] = []
    wanted = sorted(set(marks) - {0})
    if len(wanted) > MAX_MARKS:
        raise Failure(
            f"{len(wanted)} marks need as many devices, and the translator reads at most"
            f" {MAX_MARKS}; use fewer marks"
        )
    for mark in wanted:
        name = f"{device}-{mark:x}"
        if len(name.encode()) > _LONGEST_NAME:
            raise Failure(
                f"mark {mark} needs a device of its own, and {name!r} is longer than"
                f" {_LONGEST_NAME} bytes; choose a lower mark, or a shorter name for {device}"
            )
        # A table for each device and each mark, whatever other marks there are.
        table = routing_table(device) << 16 | (mark >> 16 ^ mark) & 0xFFFF
        if other := next((entry for entry in found if entry.table == table), None):
            raise Failure(
                f"marks {other.mark} and {mark} can't be told apart by routing table; choose"
                " others, below 65536 say"
            )
        found.append(MarkDevice(mark, name, table))
    return found
