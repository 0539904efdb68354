"""The parts of the set-up. Each knows how it is done and undone, and is written to the journal.

`before` reads what has to be known for undoing; it is in the journal before `apply` is called.
`apply` may be repeated. `undo` takes back only what is still as `apply` left it.
"""

from typing import Any, Literal

import msgspec

from jsync.errors import Failure
from jsync.netlink.kernel import Family, Kernel
from jsync.netlink.nftables import remove_commands

MARK_SPACE = (0x6A73_0000, 0xFFFF_0000)
"""Mark and mask that the marks of all daemons of a host have in common."""


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the set-up."""

    @property
    def key(self) -> tuple[object, ...]:
        """What it is about: a later step with the same key takes its place."""
        return (type(self).__name__, *msgspec.structs.astuple(self))

    def before(self, kernel: Kernel) -> Any:
        """What `undo` needs to know, fit for JSON."""
        return None

    def before_both(self, kernel: Kernel, before: Any) -> Any:
        """The same when this takes the place of an earlier step with `before`."""
        return before

    def apply(self, kernel: Kernel) -> None:
        """Do it."""
        raise NotImplementedError

    def settle(self, kernel: Kernel, before: Any) -> Any:
        """Take back what only an earlier step wanted, in whose place this one is; the new `before`.

        It is called when everything else has been done that leads away from that.
        """
        return before

    def undo(self, kernel: Kernel, before: Any) -> None:
        """Take it back."""
        raise NotImplementedError


class Route(Step, frozen=True, tag="route"):
    """A route to a device, or with None into a black hole."""

    destination: str
    table: int
    metric: int
    device: str | None

    def apply(self, kernel: Kernel) -> None:
        """Add it."""
        kernel.change_route("add", self.destination, self.table, self.metric, self.device)

    def undo(self, kernel: Kernel, before: Any) -> None:
        """Remove it."""
        kernel.change_route("del", self.destination, self.table, self.metric, self.device)


class MarkRule(Step, frozen=True, tag="mark-rule"):
    """Marked packets are looked up in a table of their own."""

    priority: int
    mark: int
    table: int
    family: Family = 4

    def apply(self, kernel: Kernel) -> None:
        """Add it."""
        kernel.change_mark_rule("add", self.family, self.priority, self.mark, self.table)

    def undo(self, kernel: Kernel, before: Any) -> None:
        """Remove it."""
        kernel.change_mark_rule("del", self.family, self.priority, self.mark, self.table)


class LocalRule(Step, frozen=True, tag="local-rule"):
    """Rule 0, which delivers what is for the host's addresses, lets marked packets pass by.

    For all others it stays where it was, before any rule that an operator has. A host whose
    `local` rule was moved elsewhere already, for VRFs say, is left alone.
    """

    def before(self, kernel: Kernel) -> bool:
        """Whether it is our business."""
        return bool(kernel.local_rules())

    def apply(self, kernel: Kernel) -> None:
        """Put the rule with the exception beside the old one, then remove that."""
        rules = kernel.local_rules()
        if rules and MARK_SPACE not in rules:
            kernel.change_local_rule("add", MARK_SPACE)
        if None in rules:
            # The kernel deletes the first that fits, and the old one was first.
            kernel.change_local_rule("del", None)

    def undo(self, kernel: Kernel, before: Any) -> None:
        """The other way round; the last daemon of the host does it."""
        if not before:
            return
        rules = kernel.local_rules()
        if None not in rules:
            kernel.change_local_rule("add", None)
        if MARK_SPACE in rules:
            kernel.change_local_rule("del", MARK_SPACE)


class Sysctl(Step, frozen=True, tag="sysctl"):
    """A value below /proc/sys."""

    path: str
    value: str

    @property
    def key(self) -> tuple[object, ...]:
        """One value has one path."""
        return ("Sysctl", self.path)

    def before(self, kernel: Kernel) -> str | None:
        """The old value; None if it needs no change."""
        old = kernel.read_sysctl(self.path)
        return None if old == self.value else old

    def apply(self, kernel: Kernel) -> None:
        """Set it, unless it is so."""
        if kernel.read_sysctl(self.path) != self.value:
            kernel.write_sysctl(self.path, self.value)

    def undo(self, kernel: Kernel, before: Any) -> None:
        """Set the old value, unless somebody else has changed it meanwhile."""
        if before is not None and kernel.read_sysctl(self.path) == self.value:
            kernel.write_sysctl(self.path, before)


class Forwarding(Step, frozen=True, tag="forwarding"):
    """The host forwards packets of a family.

    The kernel's switch changes the value of every interface, so all of them are remembered.
    """

    family: Family

    @property
    def _switch(self) -> str:
        return f"net/ipv{self.family}/conf/all/forwarding"

    def before(self, kernel: Kernel) -> dict[str, str] | None:
        """All values that the switch changes; None if it is on."""
        if kernel.read_sysctl(self._switch) == "1":
            return None
        paths = kernel.forwarding_sysctls(self.family)
        if self.family == 4:
            paths.append("net/ipv4/conf/all/accept_redirects")
        values = {path: kernel.read_sysctl(path) for path in paths}
        return {path: value for path, value in values.items() if value is not None}

    def apply(self, kernel: Kernel) -> None:
        """Switch it on."""
        if kernel.read_sysctl(self._switch) != "1":
            kernel.write_sysctl(self._switch, "1")

    def undo(self, kernel: Kernel, before: Any) -> None:
        """Switch it off and restore what that changed besides."""
        if before is None or kernel.read_sysctl(self._switch) != "1":
            return
        kernel.write_sysctl(self._switch, "0")
        for path, value in before.items():
            if kernel.read_sysctl(path) not in {None, value}:
                kernel.write_sysctl(path, value)


class ReservedPorts(Step, frozen=True, tag="reserved-ports"):
    """The host takes none of these ports as the source of a connection of its own."""

    ranges: tuple[tuple[int, int], ...]

    _path = "net/ipv4/ip_local_reserved_ports"

    def _ports(self) -> set[int]:
        return {port for first, last in self.ranges for port in range(first, last + 1)}

    @property
    def key(self) -> tuple[object, ...]:
        """There is one list of them."""
        return ("ReservedPorts",)

    def before(self, kernel: Kernel) -> str:
        """The ports that get reserved and weren't."""
        return self.before_both(kernel, "")

    def before_both(self, kernel: Kernel, before: Any) -> str:
        """With those of the earlier step, which stay reserved until `settle`."""
        earlier = _parse_ports(before)
        old = _parse_ports(kernel.read_sysctl(self._path) or "")
        new = self._ports() - old
        low, high = (kernel.read_sysctl("net/ipv4/ip_local_port_range") or "32768 60999").split()
        left = set(range(int(low), int(high) + 1)) - (old - earlier) - self._ports()
        if new and len(left) < 1000:
            raise Failure(
                f"pool4 leaves the host {len(left)} of its own source ports {low}-{high}; give"
                ' the shared addresses of pool4 fewer, ports = "61001-65535" say'
            )
        return _format_ports(earlier | new)

    def apply(self, kernel: Kernel) -> None:
        """Reserve them beside those that are reserved."""
        old = _parse_ports(kernel.read_sysctl(self._path) or "")
        if not self._ports() <= old:
            kernel.write_sysctl(self._path, _format_ports(old | self._ports()))

    def settle(self, kernel: Kernel, before: Any) -> str:
        """Release those of an earlier step."""
        earlier = _parse_ports(before)
        self._release(kernel, earlier - self._ports())
        return _format_ports(earlier & self._ports())

    def undo(self, kernel: Kernel, before: Any) -> None:
        """Release those that weren't."""
        self._release(kernel, _parse_ports(before))

    def _release(self, kernel: Kernel, ports: set[int]) -> None:
        old = _parse_ports(kernel.read_sysctl(self._path) or "")
        if old & ports:
            kernel.write_sysctl(self._path, _format_ports(old - ports))


def _parse_ports(text: str) -> set[int]:
    """The ports of `1,5-7`."""
    ports: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        ports.update(range(int(first), int(last or first) + 1))
    return ports


def _format_ports(ports: set[int]) -> str:
    ranges: list[list[int]] = []
    for port in sorted(ports):
        if ranges and ranges[-1][1] == port - 1:
            ranges[-1][1] = port
        else:
            ranges.append([port, port])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ranges)


class Nftables(Step, frozen=True, tag="nftables"):
    """A table of nftables."""

    table: str
    commands: list[dict[str, Any]]

    @property
    def key(self) -> tuple[object, ...]:
        """The commands replace the table as a whole."""
        return ("Nftables", self.table)

    def apply(self, kernel: Kernel) -> None:
        """Put it in place, in one transaction."""
        kernel.run_nft(self.commands)

    def undo(self, kernel: Kernel, before: Any) -> None:
        """Remove it."""
        kernel.run_nft(remove_commands(self.table))


class Device(Step, frozen=True, tag="device"):
    """The TUN. The engine makes it; here it is removed, unless the operator had made it."""

    device: str

    def before(self, kernel: Kernel) -> bool:
        """Whether it was there."""
        return kernel.index(self.device) is not None

    def apply(self, kernel: Kernel) -> None:
        """Take one down that a crash has left: only a node that is ready brings it up."""
        kernel.take_down(self.device)

    def undo(self, kernel: Kernel, before: Any) -> None:
        """Remove it."""
        if not before:
            kernel.delete_device(self.device)


class LinkUp(Step, frozen=True, tag="link-up"):
    """The TUN is up."""

    device: str

    def apply(self, kernel: Kernel) -> None:
        """Bring it up."""
        kernel.bring_up(self.device)

    def undo(self, kernel: Kernel, before: Any) -> None:
        """Nothing: a TUN without a daemon has no carrier."""


class Address(Step, frozen=True, tag="address"):
    """An address of the TUN that no packet takes as its source by itself."""

    address: str
    device: str

    def apply(self, kernel: Kernel) -> None:
        """Add it."""
        kernel.change_address("add", self.address, self.device)

    def undo(self, kernel: Kernel, before: Any) -> None:
        """Remove it."""
        kernel.change_address("del", self.address, self.device)


class ProxyNeighbour(Step, frozen=True, tag="proxy-neighbour"):
    """The host answers ARP for an address of pool4."""

    address: str
    device: str

    def apply(self, kernel: Kernel) -> None:
        """Answer."""
        kernel.change_proxy_neighbour("add", self.address, self.device)

    def undo(self, kernel: Kernel, before: Any) -> None:
        """Answer no more."""
        kernel.change_proxy_neighbour("del", self.address, self.device)


AnyStep = (
    Route
    | MarkRule
    | LocalRule
    | Sysctl
    | Forwarding
    | ReservedPorts
    | Nftables
    | Device
    | LinkUp
    | Address
    | ProxyNeighbour
)
HOST_WIDE: tuple[Literal["LocalRule", "Forwarding"], ...] = ("LocalRule", "Forwarding")
"""Steps that other daemons of the host rely on too."""
