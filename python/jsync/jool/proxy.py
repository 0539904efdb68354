"""A node in the place of `jool session proxy`: its configuration comes from options, not a file."""

import ipaddress
from dataclasses import replace

from jsync.config import Settings, parse
from jsync.errors import USAGE, Failure
from jsync.jool.files import Group
from jsync.jool.importing import Imported, Section, joold_section
from jsync.netlink.interfaces import interface_for


def proxy_settings(
    instance: str, group: Group, *, stats: tuple[str, str] | None, control: str | None
) -> Settings:
    """The configuration of a daemon between an instance of Jool's and a group of joolds.

    What isn't said about interfaces is left to the routing table, as Jool does. `stats` is where
    the statistics are served. Raises Failure.
    """
    try:
        is_group = ipaddress.ip_address(group.address).is_multicast
    except ValueError:
        is_group = False
    if not is_group:
        message = f"{group.address!r} is no multicast address; 239.64.64.64 or ff08::db8:64:64, say"
        raise Failure(message, USAGE)
    if not 1 <= group.ttl <= 255:
        raise Failure(f"the time to live, {group.ttl}, is outside 1 to 255", USAGE)
    group = replace(
        group,
        dev_in=interface_for(group.address, group.dev_in),
        dev_out=interface_for(group.address, group.dev_out),
    )
    node: dict[str, object] = {"backend": "jool"}
    if control is not None:
        node["control"] = control
    sections: list[Section] = [
        ("[node]", node),
        ("[jool]", {"instance": instance}),
        joold_section(group),
    ]
    settings = parse(Imported(sections).toml("options"), "the options")
    return replace(settings, path="", joold_stats=stats)
