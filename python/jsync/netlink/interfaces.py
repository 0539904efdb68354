"""Interfaces by other means than their name: an address that one has, or the way to a group."""

import ipaddress
import socket
from typing import Any

from jsync.errors import Failure


def interface_for(group: str, wanted: str | None) -> str:
    """The name of the interface `wanted`, which may be one of its addresses.

    None stands for the interface by which the routing table reaches the multicast group. Blocks for
    as long as the kernel takes. Raises Failure.
    """
    if wanted is not None:
        try:
            address = ipaddress.ip_address(wanted)
        except ValueError:
            return wanted
        return _with_address(str(address))
    return _towards(group)


def _with_address(address: str) -> str:
    from pyroute2 import IPRoute  # type: ignore[import-untyped]

    with IPRoute() as ip:
        found = list(ip.get_addr(address=address))
        if not found:
            raise Failure(f"no interface has the address {address}; name one, or add the address")
        return _name(ip, found[0]["index"])


def _towards(group: str) -> str:
    from pyroute2 import IPRoute, NetlinkError

    is_v6 = ipaddress.ip_address(group).version == 6
    family = socket.AF_INET6 if is_v6 else socket.AF_INET
    with IPRoute() as ip:
        try:
            (route,) = ip.route("get", dst=group, family=family)
        except NetlinkError:
            raise Failure(
                f"no route leads to {group}, so its interface has to be named: --net.dev.in,"
                " or [joold] interface"
            ) from None
        return _name(ip, route.get_attr("RTA_OIF"))


def _name(ip: Any, index: int) -> str:
    (link,) = ip.get_links(index)
    name: str = link.get_attr("IFLA_IFNAME")
    return name
