"""What an instance's configuration means to the engine.

A node of the native backend has the same in `[nat64]`; nodes that differ don't synchronise. So the
instance's pool4, which Jool keeps by protocol, mark and address, becomes what one would write.
"""

import ipaddress
from collections import defaultdict
from collections.abc import Iterable
from itertools import chain
from typing import Any

from jsync.errors import Failure
from jsync.jool import messages
from jsync.jool.messages import Command
from jsync.jool.module import PROTOCOLS

ENGINE_OPTIONS = (
    "udp-timeout",
    "icmp-timeout",
    "tcp-est-timeout",
    "tcp-trans-timeout",
    "address-dependent-filtering",
    "drop-externally-initiated-tcp",
)
"""The options that matter to who only keeps copies: the other nodes' must be the same."""

_STATIC_AT = messages.BIB_LEN - 4
"""Where a BIB entry says whether it is static: its last attribute's first byte of value."""


def read(
    options: dict[str, Any], pool4_raw: dict[str, list[bytes]], max_sessions: int
) -> dict[str, Any]:
    """`[nat64]` for the instance, short of the BIB. Raises Failure."""
    if options.get("pool6") is None:
        raise Failure("Jool's instance has no pool6; make it anew with one (--pool6 64:ff9b::/96)")
    pool4 = merge_pool4(
        {
            name: chain.from_iterable(messages.pool4_rows(page) for page in pages)
            for name, pages in pool4_raw.items()
        }
    )
    if not pool4:
        raise Failure(
            "Jool's instance has an empty pool4, so each machine masks with addresses of its own;"
            " give it one that the machines share (jool pool4 add …)"
        )
    return {
        "pool6": options["pool6"],
        "max-sessions": max_sessions,
        "pool4": pool4,
        "global": {name: options[name] for name in ENGINE_OPTIONS if name in options},
    }


def merge_pool4(rows: dict[str, Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Entries for the rows of each protocol: ranges and prefixes as large as can be."""
    ranges: dict[tuple[str, int, ipaddress.IPv4Network], list[tuple[int, int]]] = defaultdict(list)
    for protocol, entries_of in rows.items():
        for row in entries_of:
            network = ipaddress.IPv4Network(row["prefix"], strict=False)
            ranges[protocol, row["mark"], network].append((row["first"], row["last"]))
    networks: dict[tuple[str, int, int, int], list[ipaddress.IPv4Network]] = defaultdict(list)
    for (protocol, mark, network), ports in ranges.items():
        for first, last in _joined(ports):
            networks[protocol, mark, first, last].append(network)
    found: dict[tuple[ipaddress.IPv4Network, int, int, int], list[str]] = defaultdict(list)
    for (protocol, mark, first, last), those in networks.items():
        for network in ipaddress.collapse_addresses(those):
            found[network, first, last, mark].append(protocol)
    merged = []
    for (network, first, last, mark), protocols in sorted(found.items()):
        entry: dict[str, Any] = {"prefix": str(network), "ports": f"{first}-{last}"}
        if mark:
            entry["mark"] = mark
        if set(protocols) == set(PROTOCOLS):
            merged.append(entry)
        else:
            merged += [{"protocol": protocol, **entry} for protocol in sorted(protocols)]
    return merged


def _joined(ports: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ports):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def static_bib(page: bytes, protocol: str) -> list[dict[str, str]]:
    """The static entries of a page of the BIB."""
    is_static = page[messages.HEADER_LEN + _STATIC_AT :: messages.BIB_LEN]
    if messages.is_run_of(messages.BIB_LEN, page) and not any(is_static):
        return []
    return [
        {
            "protocol": protocol,
            "ipv6": f"{row['src6']}#{row['src6_port']}",
            "ipv4": f"{row['src4']}#{row['src4_port']}",
        }
        for row in messages.bib_rows(page)
        if row["static"]
    ]


def bib_rows(page: bytes, protocol: str) -> list[dict[str, Any]]:
    """The rows of a page of the BIB. The module doesn't count an entry's sessions."""
    return [{"proto": protocol, **row, "sessions": None} for row in messages.bib_rows(page)]


def datagrams(page: bytes) -> list[bytes]:
    """The sessions of a page of SESSION_FOREACH as datagrams of Jool 4.1.9."""
    body = page[messages.HEADER_LEN :]
    return [body[at : at + _DATAGRAM] for at in range(0, len(body), _DATAGRAM)]


_DATAGRAM = 14 * 140
"""As many sessions as joold reads at once."""

FOREACH = {"bib": Command.BIB_FOREACH, "session": Command.SESSION_FOREACH}
