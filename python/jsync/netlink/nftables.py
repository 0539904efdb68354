"""The ruleset that sends packets for the translator's ports of a shared address to it.

`meta mark` is set where a packet that arrives is for an address the host has at this moment, and
for a port or an ICMP identifier of pool4, or is an ICMP error about a packet that came from one.
Packets in transit to the node that has the address now are not touched.

- Echo requests count as well as replies: an identifier that is mapped answers them (RFC 6146
  §3.5.3). So the host itself answers only pings whose identifier lies outside pool4's range.
- ICMP errors that the host makes itself (a packet is too big for the way out) are marked in
  `output`, where a change of the mark leads to a new choice of the route.
- Fragments: only the first one has ports, so packets are reassembled before the rules see them.
  `tproxy` needs that and so switches it on (nf_defrag_ipv4) without connection tracking; the
  chain that asks for it is never reached. The kernel cuts the packets again at the old places
  when it routes them to the TUN.
"""

import re
from typing import Any

from jsync.config import Pool4Range

_ERRORS = ["destination-unreachable", "time-exceeded", "parameter-problem"]
_PROTOCOL_NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1}
# Bits from the outer ICMP header to fields of the inner packet, whose header has no options:
# the translator never sends any.
_INNER_VERSION, _INNER_PROTOCOL, _INNER_SOURCE = 64, 136, 160
_INNER_PORT, _INNER_IDENTIFIER = 224, 256
_PRIORITY_MANGLE = -150


def table_name(device: str) -> str:
    """The table's name for a device: what nft reads without quotes."""
    return "jsync_" + re.sub(r"\W", "_", device, flags=re.ASCII)


def _match(left: dict[str, Any], right: object) -> dict[str, Any]:
    return {"match": {"op": "==", "left": left, "right": right}}


def _field(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def _raw(offset: int, length: int) -> dict[str, Any]:
    return {"payload": {"base": "th", "offset": offset, "len": length}}


def _range(first: int, last: int) -> object:
    return first if first == last else {"range": [first, last]}


def _marks(pool: Pool4Range, mark: int) -> list[list[dict[str, Any]]]:
    """The rules for packets to a range of pool4, errors aside."""
    set_mark = {"mangle": {"key": {"meta": {"key": "mark"}}, "value": mark}}
    ports = _range(pool.first, pool.last)
    return [
        [
            _destination(pool),
            *(
                [
                    _match(_field("icmp", "type"), {"set": ["echo-request", "echo-reply"]}),
                    _match(_field("icmp", "id"), ports),
                ]
                if protocol == "icmp"
                else [_match(_field(protocol, "dport"), ports)]
            ),
            set_mark,
        ]
        for protocol in pool.protocols
    ]


def _error_marks(pool: Pool4Range, mark: int) -> list[list[dict[str, Any]]]:
    """The rules for ICMP errors about packets from a range of pool4."""
    first = int(pool.network.network_address)
    last = int(pool.network.broadcast_address)
    return [
        [
            _destination(pool),
            _match(_field("icmp", "type"), {"set": _ERRORS}),
            _match(_raw(_INNER_VERSION, 8), 0x45),
            _match(_raw(_INNER_PROTOCOL, 8), _PROTOCOL_NUMBERS[protocol]),
            _match(_raw(_INNER_SOURCE, 32), _range(first, last)),
            _match(
                _raw(_INNER_IDENTIFIER if protocol == "icmp" else _INNER_PORT, 16),
                _range(pool.first, pool.last),
            ),
            {"mangle": {"key": {"meta": {"key": "mark"}}, "value": mark}},
        ]
        for protocol in pool.protocols
    ]


def _destination(pool: Pool4Range) -> dict[str, Any]:
    network = pool.network
    if network.prefixlen == 32:
        return _match(_field("ip", "daddr"), str(network.network_address))
    prefix = {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}
    return _match(_field("ip", "daddr"), prefix)


def remove_commands(table: str) -> list[dict[str, Any]]:
    """The commands that remove the table, whether it is there or not."""
    named = {"table": {"family": "ip", "name": table}}
    return [{"add": named}, {"delete": named}]


def ruleset(table: str, pool4: list[Pool4Range], mark: int) -> list[dict[str, Any]]:
    """The commands that put the table in place of what it was before, at once."""
    here = {"family": "ip", "table": table}

    def chain(name: str, **hook: object) -> dict[str, Any]:
        return {"add": {"chain": {**here, "name": name, **hook}}}

    def rule(chain: str, *expressions: dict[str, Any]) -> dict[str, Any]:
        return {"add": {"rule": {**here, "chain": chain, "expr": list(expressions)}}}

    # Entries that differ in what is none of the host's business, their marks say, are one here.
    pool4 = [*{(p.network, p.protocols, p.first, p.last): p for p in pool4}.values()]
    is_own = _match({"fib": {"result": "type", "flags": ["daddr"]}}, "local")
    networks = {pool.network: pool for pool in pool4}.values()
    return [
        *remove_commands(table),
        {"add": {"table": {"family": "ip", "name": table}}},
        chain("reassemble"),
        rule("reassemble", _match({"meta": {"key": "l4proto"}}, "tcp"), {"tproxy": {"port": 1}}),
        chain("errors"),
        *[rule("errors", *e) for pool in pool4 for e in _error_marks(pool, mark)],
        chain("pool4"),
        *[rule("pool4", *e) for pool in pool4 for e in _marks(pool, mark)],
        rule("pool4", _match(_field("ip", "protocol"), "icmp"), {"jump": {"target": "errors"}}),
        chain("arriving", type="filter", hook="prerouting", prio=_PRIORITY_MANGLE, policy="accept"),
        *[
            rule("arriving", _destination(p), is_own, {"jump": {"target": "pool4"}})
            for p in networks
        ],
        chain("leaving", type="route", hook="output", prio=_PRIORITY_MANGLE, policy="accept"),
        rule("leaving", _match(_field("ip", "protocol"), "icmp"), {"jump": {"target": "errors"}}),
    ]
