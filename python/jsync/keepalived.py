"""Generates keepalived's configuration from that of the daemon.

keepalived moves the virtual addresses; this module makes sure that it moves them to a node that
has the sessions. The reasons of each line stand in the generated file itself, because that is
where an operator reads them.
"""

import ipaddress
import re
from typing import Annotated, NamedTuple

import msgspec

VIRTUAL_ROUTER_ID_MAX = 255
PRIORITY_MAX = 254
"""255 means that the node owns the address by birth (RFC 9568 §5.2.4); a NAT64 never does."""
OWNER_PRIORITY = 250
"""Of a slice's own node."""
PRIORITY_STEP = 25
"""Between a slice's node and its heirs; less where there are more than eight nodes."""


class KeepalivedError(ValueError):
    """The section `[keepalived]` can't work: the path of the key within it, and why."""

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.path = path


class VirtualAddresses(msgspec.Struct, forbid_unknown_fields=True, rename="kebab"):
    """The virtual addresses of one IP version: `[keepalived.ipv6]`, `[keepalived.ipv4]`."""

    interface: str
    addresses: list[str]
    """With prefix length, as keepalived puts them on the interface. The first IPv6 address is
    link-local: adverts come from it (RFC 9568 §5.1.2.1).
    """


class SliceSection(msgspec.Struct, forbid_unknown_fields=True, rename="kebab"):
    """The virtual addresses of a slice of pool4: `[[keepalived.slice]]`."""

    node: int
    """Whose slice it is; the other nodes take its addresses over when that node dies."""
    ipv6: VirtualAddresses | None = None
    ipv4: VirtualAddresses | None = None


class KeepalivedSection(msgspec.Struct, forbid_unknown_fields=True, rename="kebab"):
    """The section `[keepalived]`."""

    priority: Annotated[int, msgspec.Meta(ge=1, le=PRIORITY_MAX)] | None = None
    """The ready node of the highest priority is MASTER. High and different ones make a takeover
    fast: a backup waits (256 - priority) / 256 of `advert-int` after a MASTER resigns. With slices
    there is one for each, which follows from the nodes' numbers (`slice_priority`)."""
    ipv6: VirtualAddresses | None = None
    ipv4: VirtualAddresses | None = None
    slices: list[SliceSection] = msgspec.field(default_factory=list, name="slice")
    """Active/active: the same on every node. Empty where all addresses move together."""
    virtual_router_id: Annotated[int, msgspec.Meta(ge=1, le=VIRTUAL_ROUTER_ID_MAX)] = 64
    """The same on every node of the cluster, different from other clusters on the link. Slices
    have this one and those that follow, in the order of their nodes."""
    advert_int: Annotated[float, msgspec.Meta(ge=0.01, le=40.95)] = 0.1
    """Seconds, in hundredths. A dead machine is noticed after three of them."""
    preempt_delay: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 2.0
    """Seconds for which a node that comes back watches the MASTER of lower priority before it
    takes over. One that was cut off, its daemon running on, learns meanwhile what it has missed:
    several `hello-interval` and the time that fetching the sessions takes. It doesn't delay a
    takeover from a dead MASTER."""
    fifo: str | None = None
    """A FIFO that the daemon reads, in place of one `jsync notify` per change of state."""


def check(section: KeepalivedSection) -> None:
    """Raise KeepalivedError unless keepalived can work with the section."""
    if section.slices:
        _check_slices(section)
        return
    if section.priority is None:
        raise KeepalivedError((), "the key 'priority' is missing")
    _check_versions((), section)


def _check_slices(section: KeepalivedSection) -> None:
    if section.priority is not None:
        message = "has no meaning with slices: a slice's own node has the highest one; remove it"
        raise KeepalivedError(("priority",), message)
    for key in ("ipv6", "ipv4"):
        if getattr(section, key) is not None:
            raise KeepalivedError((key,), "stands in each [[keepalived.slice]]; move it there")
    last = section.virtual_router_id + len(section.slices) - 1
    if last > VIRTUAL_ROUTER_ID_MAX:
        message = f"slices need one each, and the last would have {last}; begin lower"
        raise KeepalivedError(("virtual-router-id",), message)
    nodes: set[int] = set()
    used: dict[str, int] = {}
    for index, entry in enumerate(section.slices):
        path = ("slice", index)
        if entry.node in nodes:
            raise KeepalivedError((*path, "node"), f"node {entry.node} has a slice already")
        nodes.add(entry.node)
        _check_versions(path, entry)
        for key, virtual in (("ipv6", entry.ipv6), ("ipv4", entry.ipv4)):
            for position, text in enumerate(virtual.addresses if virtual else []):
                address = str(ipaddress.ip_interface(text).ip)
                if used.setdefault(address, entry.node) != entry.node:
                    message = f"{address} moves with the slice of node {used[address]} already"
                    raise KeepalivedError((*path, key, "addresses", position), message)


def _check_versions(path: tuple[str | int, ...], where: KeepalivedSection | SliceSection) -> None:
    if where.ipv6 is None and where.ipv4 is None:
        raise KeepalivedError(path, "name virtual addresses: ipv6, ipv4 or both")
    for version, virtual in ((6, where.ipv6), (4, where.ipv4)):
        if virtual is not None:
            _check_addresses((*path, f"ipv{version}", "addresses"), version, virtual.addresses)


def _check_addresses(path: tuple[str | int, ...], version: int, texts: list[str]) -> None:
    if not texts:
        raise KeepalivedError(path, "name at least one address")
    for index, text in enumerate(texts):
        try:
            address = ipaddress.ip_interface(text)
        except ValueError:
            raise KeepalivedError((*path, index), f"{text!r} is not an IP address") from None
        if address.version != version:
            raise KeepalivedError((*path, index), f"{text} is not an IPv{version} address")
    if version == 6 and not ipaddress.ip_interface(texts[0]).is_link_local:
        message = "the first address must be link-local, fe80::64/64 say (RFC 9568 §5.1.2.1)"
        raise KeepalivedError((*path, 0), message)


def slice_priority(owner: int, node: int, nodes: list[int]) -> int:
    """The priority that `node` has for the slice of `owner`; `nodes` are all nodes with slices.

    The node behind the owner, in the order of their numbers, is its first heir, the last one's
    heir is the first: so the slices of two dead nodes don't go to the same one.
    """
    order = sorted(nodes)
    distance = (order.index(node) - order.index(owner)) % len(order)
    return OWNER_PRIORITY - distance * min(PRIORITY_STEP, 200 // len(order))


def slice_of(name: str) -> int | None:
    """The node whose slice moves with an instance or group of that name; None if none does."""
    match = re.fullmatch(r"jsync[46]?-(\d+)", name)
    return int(match[1]) if match else None


class _Group(NamedTuple):
    """What moves together."""

    name: str
    comment: str
    instances: dict[str, VirtualAddresses]
    virtual_router_id: int
    priority: int


def _groups(section: KeepalivedSection, node: int) -> list[_Group]:
    if not section.slices:
        assert section.priority is not None
        comment = "# Both IP versions move together: a translator needs both sides.\n"
        instances = _instances(section, "")
        return [_Group("jsync", comment, instances, section.virtual_router_id, section.priority)]
    slices = sorted(section.slices, key=lambda entry: entry.node)
    nodes = [entry.node for entry in slices]
    return [
        _Group(
            name=f"jsync-{entry.node}",
            comment=_slice_comment(entry.node, node, nodes),
            instances=_instances(entry, f"-{entry.node}"),
            virtual_router_id=section.virtual_router_id + index,
            priority=slice_priority(entry.node, node, nodes),
        )
        for index, entry in enumerate(slices)
    ]


def _instances(where: KeepalivedSection | SliceSection, suffix: str) -> dict[str, VirtualAddresses]:
    versions = (("jsync6", where.ipv6), ("jsync4", where.ipv4))
    return {f"{name}{suffix}": virtual for name, virtual in versions if virtual is not None}


def _slice_comment(owner: int, node: int, nodes: list[int]) -> str:
    if owner == node:
        return f"""\
# The slice of pool4 that belongs to node {owner}, this one. Its addresses are here whenever this
# node is ready. Both IP versions move together: a translator needs both sides.
"""
    heirs = sorted(nodes, key=lambda other: -slice_priority(owner, other, nodes))[1:]
    order = ", then ".join(f"node {heir}" for heir in heirs)
    return f"""\
# The slice of pool4 that belongs to node {owner}. If that dies, {order} takes its addresses and
# goes on with its sessions; new ones get ports of the slice of whoever translates them.
"""


def generate(
    section: KeepalivedSection,
    *,
    node: int,
    router_id: str,
    device: str | None,
    command: str,
    control: str | None = None,
    script_security: bool = True,
) -> str:
    """Give the text of keepalived.conf for a checked section.

    `node` is this node's number, `router_id` names it, `device` is the daemon's TUN (None: the
    kernel translates), `command` the absolute path of `jsync`, `control` the daemon's control
    socket if it isn't the default one. `script_security` has keepalived refuse scripts that others
    than root could change.
    """
    option = f" --control {control}" if control is not None else ""
    notify = f'    notify "{command} notify{option}"\n' if section.fifo is None else ""
    parts = [
        _globals(router_id, section.fifo, script_security),
        _check(f"{command} check{option}"),
    ]
    for group in _groups(section, node):
        parts.append(_group(group, device, notify))
        parts += [
            _instance(name, virtual, group, section) for name, virtual in group.instances.items()
        ]
    return "\n".join(parts)


def _globals(router_id: str, notify_fifo: str | None, script_security: bool) -> str:
    fifo = f"    vrrp_notify_fifo {notify_fifo}\n" if notify_fifo is not None else ""
    security = "    enable_script_security\n" if script_security else ""
    return f"""\
# Generated by `jsync keepalived conf`: change jsync's configuration rather than this file.
global_defs {{
    router_id {router_id}
    vrrp_version 3
    # Adverts leave in time on a busy machine too.
    vrrp_rt_priority 20
    vrrp_rlimit_rttime 200000
    # The daemon makes its TUN, so it may not exist yet or may be made anew.
    dynamic_interfaces allow_if_changes
    # Who misses the first announcements of a new MASTER hears them again after a second.
    vrrp_garp_master_delay 1
    # Two MASTERs hear each other ten times a second: an announcement each time, not a storm.
    vrrp_garp_lower_prio_repeat 1
    script_user root
{security}{fifo}}}
"""


def _check(command: str) -> str:
    return f"""\
# Succeeds when the daemon is ready: it has the sessions of its peers, or has found itself alone.
# A node that isn't, in particular one that has just started, never becomes MASTER.
vrrp_script jsync_check {{
    script "{command}"
    interval 1
    # An interface below shows a death: this is for a daemon that hangs, not for a busy host.
    timeout 5
    fall 2
    rise 1
    init_fail
}}
"""


def _group(group: _Group, device: str | None, notify: str) -> str:
    members = "\n".join(f"        {name}" for name in group.instances)
    track = "" if device is None else _track(device)
    return f"""\
{group.comment}vrrp_sync_group {group.name} {{
    group {{
{members}
    }}
{track}    track_script {{
        jsync_check
    }}
{notify}}}
"""


def _track(device: str) -> str:
    return f"""    track_interface {{
        # Up while the daemon runs and is ready; goes with the daemon, whatever ends it. That is
        # noticed at once, where a script is polled.
        {device}
    }}
"""


def _instance(
    name: str, virtual: VirtualAddresses, group: _Group, section: KeepalivedSection
) -> str:
    addresses = "\n".join(f"        {address}" for address in virtual.addresses)
    return f"""\
vrrp_instance {name} {{
    state BACKUP
    interface {virtual.interface}
    virtual_router_id {group.virtual_router_id}
    priority {group.priority}
    advert_int {section.advert_int:g}
    # Who was cut off learns what it has missed. From a dead MASTER it takes over at once.
    preempt_delay {section.preempt_delay:g}
    virtual_ipaddress {{
{addresses}
    }}
}}
"""
