"""Generates keepalived's configuration from that of the daemon.

keepalived moves the virtual addresses; this module makes sure that it moves them to a node that
has the sessions. The reasons of each line stand in the generated file itself, because that is
where an operator reads them.
"""

import ipaddress
from typing import Annotated

import msgspec

VIRTUAL_ROUTER_ID_MAX = 255
PRIORITY_MAX = 254
"""255 means that the node owns the address by birth (RFC 9568 §5.2.4); a NAT64 never does."""


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


class KeepalivedSection(msgspec.Struct, forbid_unknown_fields=True, rename="kebab"):
    """The section `[keepalived]`."""

    priority: Annotated[int, msgspec.Meta(ge=1, le=PRIORITY_MAX)]
    """The ready node of the highest priority is MASTER. High and different ones make a takeover
    fast: a backup waits (256 - priority) / 256 of `advert-int` after a MASTER resigns."""
    ipv6: VirtualAddresses | None = None
    ipv4: VirtualAddresses | None = None
    virtual_router_id: Annotated[int, msgspec.Meta(ge=1, le=VIRTUAL_ROUTER_ID_MAX)] = 64
    """The same on every node of the cluster, different from other clusters on the link."""
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
    if section.ipv6 is None and section.ipv4 is None:
        message = "name virtual addresses in [keepalived.ipv6], [keepalived.ipv4] or both"
        raise KeepalivedError((), message)
    for version, virtual in ((6, section.ipv6), (4, section.ipv4)):
        if virtual is not None:
            _check_addresses(version, virtual.addresses)


def _check_addresses(version: int, texts: list[str]) -> None:
    path = (f"ipv{version}", "addresses")
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


def generate(
    section: KeepalivedSection,
    *,
    router_id: str,
    device: str | None,
    command: str,
    control: str | None = None,
    script_security: bool = True,
) -> str:
    """Give the text of keepalived.conf for a checked section.

    `router_id` names the node, `device` is the daemon's TUN (None: the kernel translates),
    `command` the absolute path of `jsync`, `control` the daemon's control socket if it isn't the
    default one. `script_security` has keepalived refuse scripts that others than root could change.
    """
    instances = {
        name: _instance(name, virtual, section)
        for name, virtual in (("jsync6", section.ipv6), ("jsync4", section.ipv4))
        if virtual is not None
    }
    option = f" --control {control}" if control is not None else ""
    notify = f'    notify "{command} notify{option}"\n' if section.fifo is None else ""
    return "\n".join(
        [
            _globals(router_id, section.fifo, script_security),
            _check(f"{command} check{option}"),
            _group(list(instances), device, notify),
            *instances.values(),
        ]
    )


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


def _group(names: list[str], device: str | None, notify: str) -> str:
    members = "\n".join(f"        {name}" for name in names)
    track = "" if device is None else _track(device)
    return f"""\
# Both IP versions move together: a translator needs both sides.
vrrp_sync_group jsync {{
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


def _instance(name: str, virtual: VirtualAddresses, section: KeepalivedSection) -> str:
    addresses = "\n".join(f"        {address}" for address in virtual.addresses)
    return f"""\
vrrp_instance {name} {{
    state BACKUP
    interface {virtual.interface}
    virtual_router_id {section.virtual_router_id}
    priority {section.priority}
    advert_int {section.advert_int:g}
    # Who was cut off learns what it has missed. From a dead MASTER it takes over at once.
    preempt_delay {section.preempt_delay:g}
    virtual_ipaddress {{
{addresses}
    }}
}}
"""
