"""What the host has to look like for a configuration.

Black holes come first and stand right behind the routes to the TUN: while the TUN has no daemon,
packets for the translator vanish, and the host's own stack, which would reset the connections
that another node is about to go on with, never sees them.
"""

from collections.abc import Collection

from jsync.config import Settings
from jsync.devices import routing_table
from jsync.failover import WHOLE
from jsync.netlink.nftables import ruleset, table_name
from jsync.netlink.steps import (
    MARK_SPACE,
    Address,
    AnyStep,
    Device,
    Forwarding,
    LinkUp,
    LocalRule,
    MarkRule,
    Nftables,
    ProxyNeighbour,
    ReservedPorts,
    Route,
    Sysctl,
)

TABLE_MAIN = 254
METRIC = 512
"""Of the routes to the TUN; lower than what routes have by default (1024 in IPv6)."""
BLACKHOLE_METRIC = METRIC + 1
MARK_RULE_PRIORITY = 1
DUMMY_ADDRESS = "192.0.0.8"
"""RFC 7600's dummy address: the kernel lets no packet with a local source pass in from a device
without an address where rp_filter is on, as udev switches it on behind our back."""


def prepare_steps(settings: Settings, learned: list[str]) -> list[AnyStep]:
    """What is done before the TUN exists.

    `learned` are interfaces with a default route that a router announced: a host that begins to
    forward drops those, unless it is told to go on listening to routers.
    """
    device = settings.dataplane.device
    pool6 = str(settings.pool6)
    marked = settings.mark_devices
    tables = [TABLE_MAIN, *(entry.table for entry in marked)]
    steps: list[AnyStep] = [Route(pool6, table, BLACKHOLE_METRIC, None) for table in tables]
    if settings.dataplane.pool4 == "routed":
        steps += [Route(n, TABLE_MAIN, BLACKHOLE_METRIC, None) for n in _networks(settings)]
        # The kernel delays answers for others' addresses at random, by up to 0.8 s.
        steps += [
            Sysctl(f"net/ipv4/neigh/{interface}/proxy_delay", "0")
            for interface in settings.dataplane.proxy_arp
        ]
    else:
        table = routing_table(device)
        mark = MARK_SPACE[0] | table
        name = table_name(device)
        steps += [
            Route("0.0.0.0/0", table, BLACKHOLE_METRIC, None),
            MarkRule(MARK_RULE_PRIORITY, mark, table, 4),
            LocalRule(),
            ReservedPorts(_reserved(settings)),
            Nftables(name, ruleset(name, settings.pool4, mark)),
        ]
    steps += [Sysctl(f"net/ipv6/conf/{interface}/accept_ra", "2") for interface in learned]
    steps += [MarkRule(MARK_RULE_PRIORITY, entry.mark, entry.table, 6) for entry in marked]
    steps += [Forwarding(4), Forwarding(6), Device(device)]
    return [*steps, *(Device(entry.name) for entry in marked)]


def connect_steps(settings: Settings) -> list[AnyStep]:
    """What is done when the TUN exists."""
    device = settings.dataplane.device
    pool6 = str(settings.pool6)
    conf4 = f"net/ipv4/conf/{device}"
    # Without a daemon a TUN has no carrier: then the black holes count.
    steps: list[AnyStep] = [
        Sysctl(f"{conf4}/ignore_routes_with_linkdown", "1"),
        *_ipv6_steps(device),
    ]
    if settings.dataplane.pool4 == "shared":
        steps += [
            # What the translator sends has a source that is the host's own.
            Sysctl(f"{conf4}/accept_local", "1"),
            Sysctl(f"{conf4}/rp_filter", "2"),
        ]
    steps += [LinkUp(device)]
    if settings.dataplane.pool4 == "shared":
        steps += [
            Address(DUMMY_ADDRESS, device),
            Route("0.0.0.0/0", routing_table(device), METRIC, device),
        ]
    else:
        steps += [Route(network, TABLE_MAIN, METRIC, device) for network in _networks(settings)]
    steps += [Route(pool6, TABLE_MAIN, METRIC, device)]
    for marked in settings.mark_devices:
        steps += [
            *_ipv6_steps(marked.name),
            LinkUp(marked.name),
            Route(pool6, marked.table, METRIC, marked.name),
        ]
    return steps


def _ipv6_steps(device: str) -> list[AnyStep]:
    conf = f"net/ipv6/conf/{device}"
    return [
        Sysctl(f"{conf}/disable_ipv6", "0"),
        Sysctl(f"{conf}/ignore_routes_with_linkdown", "1"),
        # No link-local address, so no router solicitations and no MLD into the translator.
        Sysctl(f"{conf}/addr_gen_mode", "1"),
        Sysctl(f"{conf}/accept_ra", "0"),
    ]


def held_steps(settings: Settings, held: Collection[int]) -> list[AnyStep]:
    """What only who holds slices of pool4 does for them (see `pool4_addresses`)."""
    return [
        ProxyNeighbour(address, interface)
        for interface in settings.dataplane.proxy_arp
        for address in pool4_addresses(settings, held)
    ]


def pool4_addresses(settings: Settings, held: Collection[int]) -> list[str]:
    """Every address of these nodes' slices of pool4; with `WHOLE` among them all of it."""
    networks = {p.network for p in settings.pool4 if WHOLE in held or p.node in held}
    return [str(address) for network in sorted(networks) for address in network]


def _networks(settings: Settings) -> list[str]:
    return sorted({str(pool.network) for pool in settings.pool4})


def _reserved(settings: Settings) -> tuple[tuple[int, int], ...]:
    """The ports that the host leaves to the translator. ICMP identifiers aren't ports."""
    return tuple(sorted({(p.first, p.last) for p in settings.pool4 if p.protocols != ("icmp",)}))
