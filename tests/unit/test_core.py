"""The boundary between Rust and Python: what `jsync._core` promises in its stub."""

import errno
import json
import select
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from jsync import _core
from jsync._core import ChangeError, ConfigError, DeviceError, Node

SECRET = bytes(range(32))
NAT64: dict[str, list[dict[str, str]]] = {
    "pool4": [{"prefix": "192.0.2.1", "ports": "61001-65535"}],
    "bib": [{"protocol": "tcp", "ipv6": "2001:db8::8#8001", "ipv4": "192.0.2.1#61001"}],
}


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def standalone() -> Node:
    return Node(as_json(NAT64), None, keys=[], secret=SECRET)


def readable(node: Node) -> bool:
    return bool(select.select([node], [], [], 0)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"globl": {}}, "globl: unknown field"),
        ({"global": {"udp-timeout": "soon"}}, "global.udp-timeout: invalid type"),
        ({"global": {"udp-timeout": 1}}, "udp-timeout"),
        ({"pool4": [{"prefix": "192.0.2.1/33"}]}, r"pool4\[0\].prefix: .*at most 32"),
        ({"pool4": []}, "pool4: is empty"),
        ({"pool6": "64:ff9b::/95"}, "pool6: .*64:ff9b::/95"),
        ({"max-sessions": -1}, "max-sessions: invalid value"),
    ],
)
def test_a_bad_configuration_names_its_key(change: dict[str, object], message: str) -> None:
    config = as_json(NAT64 | change)
    with pytest.raises(ConfigError, match=message):
        Node(config, None, keys=[], secret=SECRET)
    with pytest.raises(ConfigError, match=message):
        _core.check_nat64(config)


def test_what_is_no_json_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="nat64: not JSON"):
        _core.check_nat64(b"{")


@pytest.mark.parametrize(
    ("sync", "keys", "message"),
    [
        ({"node": 0}, [SECRET], "node: must be 1 to 65535"),
        ({"node": 70000}, [SECRET], "node: invalid value"),
        ({"flush": 1}, [SECRET], "flush: unknown field"),
        ({"max-sessions-per-frame": 0}, [SECRET], "max-sessions-per-frame: 0 is outside 1 to"),
        ({}, [], "key-files: name a key"),
        ({"plaintext": True}, [SECRET], "plaintext: is set although there is a key"),
    ],
)
def test_a_bad_sync_configuration_names_its_key(
    sync: dict[str, object], keys: list[bytes], message: str
) -> None:
    config = {"node": 1, "cluster": "test", "epoch": 1} | sync
    with pytest.raises(ConfigError, match=message):
        Node(as_json(NAT64), as_json(config), keys=keys, secret=SECRET)


def test_a_short_key_is_refused() -> None:
    sync = as_json({"node": 1, "cluster": "test", "epoch": 1})
    with pytest.raises(ValueError, match="keys: each must be 32 bytes"):
        Node(as_json(NAT64), sync, keys=[SECRET, b"short"], secret=SECRET)
    with pytest.raises(ValueError, match="secret: must be 32 bytes"):
        Node(as_json(NAT64), sync, keys=[SECRET], secret=b"")


def test_a_node_without_device_and_sync() -> None:
    node = standalone()
    status = node.status()
    assert status["worker"] == "stopped"
    assert status["ready"]
    assert status["max_sessions"] == 4_000_000
    assert node.peers() == []
    assert node.take_frames() == []
    assert node.receive_frames([b"anything"]) == [0]
    assert node.take_events() == []
    assert not readable(node)
    node.detach()
    node.leave()


def test_counters_have_names_and_help() -> None:
    stats = standalone().stats()
    names = [name for name, _, _ in stats]
    assert len(set(names)) == len(names)
    assert all(text.endswith(".") for _, text, _ in stats)
    assert {"drop_no_bib", "bib_created"} <= set(names)


@pytest.mark.parametrize("device", ["", "tun%d", "a/b", "sixteen-letters-"])
def test_a_bad_device_name_is_refused(device: str) -> None:
    with pytest.raises(DeviceError, match="can't be the name of a device") as caught:
        standalone().attach(device, persistent=False)
    assert caught.value.errno == errno.EINVAL
    assert isinstance(caught.value, OSError)


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(ValueError, match="proto: must be tcp, udp or icmp"):
        standalone().sessions("sctp", 0, 1)


def test_bib_entries_come_in_pages() -> None:
    entries = [
        {"protocol": protocol, "ipv6": f"2001:db8::{n:x}#80", "ipv4": f"192.0.2.1#{61000 + n}"}
        for protocol in ("tcp", "udp")
        for n in range(1, 51)
    ]
    node = Node(as_json(NAT64 | {"bib": entries}), None, keys=[], secret=SECRET)
    for proto, expected in (("udp", 50), (None, 100)):
        seen: list[tuple[str, str, int]] = []
        cursor: int | None = 0
        while cursor is not None:
            rows, cursor = node.bib(proto, cursor, 7)
            assert len(rows) <= 7
            assert all(row["static"] and row["sessions"] == 0 for row in rows)
            seen += [(row["proto"], row["src6"], row["src4_port"]) for row in rows]
        assert len(seen) == len(set(seen)) == expected
        assert ("udp", "2001:db8::32", 61050) in seen
    assert node.bib(None, 0, 0) == ([], 0)
    assert node.bib(None, 2**32 - 1, 10) == ([], None)
    assert node.status()["bib_entries"] == 100


def test_global_options_change_whole_or_not_at_all() -> None:
    node = standalone()
    before = json.loads(node.config())
    assert before["pool4"] == [
        {
            "protocol": None,
            "prefix": "192.0.2.1/32",
            "ports": "61001-65535",
            "node": None,
            "mark": 0,
        }
    ]
    node.update_global(as_json({"udp-timeout": 600_000, "tos": 3}))
    changed = {"udp-timeout": 600_000, "tos": 3}
    assert json.loads(node.config()) == before | {"global": before["global"] | changed}
    for options, message in (
        ({"tos": 4, "udp-timeout": 1}, "udp-timeout: "),
        ({"tos": 4, "udp-timeuot": 1}, "udp-timeuot: unknown field"),
        ({"tos": 256}, "tos: invalid value"),
        ([], "invalid type"),
    ):
        with pytest.raises(ConfigError, match=message):
            node.update_global(as_json(options))
    assert json.loads(node.config())["global"] == before["global"] | changed


def test_pool4_changes_whole_or_not_at_all() -> None:
    node = standalone()
    before = node.config()
    more = as_json({"prefix": "198.51.100.0/24", "protocol": "udp"})
    node.pool4_add(more)
    added = {
        "protocol": "udp",
        "prefix": "198.51.100.0/24",
        "ports": "1024-65535",
        "node": None,
        "mark": 0,
    }
    assert added in json.loads(node.config())["pool4"]
    with pytest.raises(ChangeError, match="such an entry already"):
        node.pool4_add(more)
    with pytest.raises(ConfigError, match=r"prefix: .*not an IPv4 address"):
        node.pool4_add(as_json({"prefix": "198.51.100.x"}))
    node.pool4_remove(more)
    with pytest.raises(ChangeError, match="no such entry"):
        node.pool4_remove(more)
    # The static entry needs the rest.
    with pytest.raises(ConfigError, match=r"bib\[0\]"):
        node.pool4_remove(as_json(NAT64["pool4"][0]))
    with pytest.raises(ConfigError, match=r"bib\[0\]"):
        node.pool4_replace(b"[]")
    assert node.config() == before
    node.bib_remove("tcp", "2001:db8::8#8001", None)
    node.pool4_replace(b"[]")
    assert json.loads(node.config())["pool4"] == []


def test_static_entries_come_and_go() -> None:
    node = standalone()
    entry = {"protocol": "udp", "ipv6": "2001:db8::9#53", "ipv4": "192.0.2.1#61053"}
    node.bib_add(as_json(entry))
    rows, _ = node.bib("udp", 0, 10)
    assert [(r["src6"], r["src4_port"], r["static"]) for r in rows] == [
        ("2001:db8::9", 61053, True)
    ]
    with pytest.raises(ChangeError, match="such an entry already"):
        node.bib_add(as_json(entry))
    with pytest.raises(ChangeError, match=r"in use by the static udp entry 2001:db8::9#53"):
        node.bib_add(as_json(entry | {"ipv6": "2001:db8::a#53"}))
    with pytest.raises(ConfigError, match=r"192.0.2.9#1024: not in pool4"):
        node.bib_add(as_json(entry | {"ipv4": "192.0.2.9#1024", "ipv6": "2001:db8::b#1"}))
    with pytest.raises(ConfigError, match=r"ipv4: .*write an IPv4 address, #, and a port"):
        node.bib_add(as_json(entry | {"ipv4": "192.0.2.1"}))
    with pytest.raises(ChangeError, match="no such entry"):
        node.bib_remove("udp", "2001:db8::9#53", "192.0.2.1#61054")
    with pytest.raises(ConfigError, match="write an IPv6 address"):
        node.bib_remove("udp", "2001:db8::9", None)
    node.bib_remove("udp", None, "192.0.2.1#61053")
    assert node.bib("udp", 0, 10) == ([], None)


OTHER_KEY = bytes(32)
SYNC = {"cluster": "test", "hello-interval": 20, "dead-interval": 100, "join-timeout": 200}


def clustered(number: int, *keys: bytes, epoch: int = 1, **nat64: object) -> Node:
    sync = as_json(SYNC | {"node": number, "epoch": epoch})
    return Node(as_json(NAT64 | nat64), sync, keys=keys or [SECRET], secret=bytes([number] * 32))


def exchange(nodes: dict[int, Node], until: Callable[[], bool]) -> list[tuple[int, int]]:
    """Carry frames between `nodes` until something is so: (receiver, sender or 0) of each."""
    accepted = []
    deadline = time.monotonic() + 5
    while not until():
        assert time.monotonic() < deadline
        select.select(nodes.values(), [], [], 0.01)
        for sender, node in nodes.items():
            while frames := node.take_frames(4):
                for to, frame in frames:
                    for receiver in nodes.keys() - {sender}:
                        if to in {0, receiver}:
                            (result,) = nodes[receiver].receive_frames([frame])
                            accepted.append((receiver, result))
    return accepted


def states(nodes: Iterable[Node]) -> list[list[str]]:
    return [[peer["state"] for peer in node.peers()] for node in nodes]


def counter(node: Node, name: str) -> int:
    return {key: value for key, _, value in node.stats()}[name]


def test_a_node_that_waits_for_its_peers_is_not_ready() -> None:
    sync = as_json(SYNC | {"node": 1, "epoch": 1, "join-timeout": 600_000})
    node = Node(as_json(NAT64), sync, keys=[SECRET], secret=bytes(32))
    assert not node.status()["ready"]


def test_two_nodes_find_each_other_and_part() -> None:
    nodes = {1: clustered(1), 2: clustered(2, epoch=9)}
    accepted = exchange(
        nodes,
        lambda: (
            all(node.status()["ready"] for node in nodes.values())
            and states(nodes.values()) == [["up"], ["up"]]
        ),
    )
    assert {(1, 2), (2, 1)} <= set(accepted)
    (peer,) = nodes[1].peers()
    assert (peer["node"], peer["epoch"], peer["mismatch"]) == (2, 9, None)
    events = nodes[1].take_events()
    assert any("node 2 is up" in event for event in events), events
    assert any(event.startswith("ready:") for event in events), events

    nodes[2].take_events()
    nodes[1].advertise()
    exchange(nodes, lambda: "comparing sessions with node 1" in nodes[2].take_events())
    nodes[2].leave()
    exchange(nodes, lambda: states([nodes[1]]) == [["down"]])
    assert any("node 2 has left" in event for event in nodes[1].take_events())


def test_the_eventfd_is_readable_while_there_is_output() -> None:
    node = clustered(1)
    assert select.select([node], [], [], 5)[0]
    for _ in range(2):
        while node.take_frames(1):
            pass
        while node.take_events():
            pass
        if not readable(node):
            return
    pytest.fail("nothing to take, and still readable")


def test_frames_of_another_key_are_refused_and_counted() -> None:
    nodes = {1: clustered(1), 2: clustered(2, OTHER_KEY)}
    accepted = exchange(nodes, lambda: counter(nodes[1], "sync_frame_authentication") > 0)
    assert {sender for _, sender in accepted} == {0}
    assert nodes[1].peers() == []
    assert any("no key opens it" in event for event in nodes[1].take_events())


def test_a_second_key_opens_during_rotation() -> None:
    nodes = {1: clustered(1, SECRET, OTHER_KEY), 2: clustered(2, OTHER_KEY, SECRET)}
    exchange(nodes, lambda: states(nodes.values()) == [["up"], ["up"]])


def test_a_repeated_frame_is_refused() -> None:
    nodes = {1: clustered(1), 2: clustered(2)}
    exchange(nodes, lambda: states(nodes.values()) == [["up"], ["up"]])
    nodes[1].take_events()
    assert select.select([nodes[1]], [], [], 5)[0]
    ((_, frame),) = nodes[1].take_frames(1)
    assert nodes[2].receive_frames([frame, frame]) == [1, 0]
    assert counter(nodes[2], "sync_frame_replayed") == 1


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("pool6", {"pool6": "2001:db8:64::/96"}),
        ("pool4", {"pool4": [{"prefix": "192.0.2.1", "ports": "61001-65534"}]}),
        ("pool4", {"pool4": [{"prefix": "192.0.2.1", "ports": "61001-65535", "node": 2}]}),
        ("bib", {"bib": []}),
        ("timeouts", {"global": {"tcp-est-timeout": 7_200_001}}),
        ("filtering", {"global": {"address-dependent-filtering": True}}),
    ],
    ids=["pool6", "pool4", "slices", "bib", "timeouts", "filtering"],
)
def test_a_peer_that_is_configured_otherwise_is_named(field: str, change: dict[str, Any]) -> None:
    nodes = {1: clustered(1), 2: clustered(2, **change)}
    exchange(nodes, lambda: [p["mismatch"] is not None for p in nodes[1].peers()] == [True])
    (peer,) = nodes[1].peers()
    assert (peer["state"], peer["mismatch"]) == ("differs", field)
    told = f"node 2 is configured otherwise: {field} differs"
    assert any(told in event for event in nodes[1].take_events())


def test_peers_see_a_change_and_agree_again_when_they_follow() -> None:
    nodes = {1: clustered(1), 2: clustered(2)}
    exchange(nodes, lambda: states(nodes.values()) == [["up"], ["up"]])
    options = as_json({"udp-timeout": 600_000})
    nodes[1].update_global(options)
    exchange(nodes, lambda: states(nodes.values()) == [["differs"], ["differs"]])
    nodes[2].update_global(options)
    exchange(nodes, lambda: states(nodes.values()) == [["up"], ["up"]])


def test_a_silent_peer_goes_down() -> None:
    nodes = {1: clustered(1), 2: clustered(2)}
    exchange(nodes, lambda: states(nodes.values()) == [["up"], ["up"]])
    alone = {1: nodes[1]}
    exchange(alone, lambda: states([nodes[1]]) == [["down"]])


@pytest.mark.parametrize("junk", [b"", b"x", b"jsyn", bytes(2000), b"jsyn\x01\x01" + bytes(60)])
def test_bytes_that_are_no_frame_are_refused(junk: bytes) -> None:
    node = clustered(1)
    assert node.receive_frames([junk]) == [0]
    assert counter(node, "sync_frame_malformed") + counter(node, "sync_frame_cluster") == 1


def test_the_simulated_story_without_synchronisation_loses_its_connections() -> None:
    report = json.loads(_core.simulate_failover(7, synchronised=False))
    assert report["tcp_total"] == 64
    assert report["tcp_survived"] == report["static_survived"] <= 4
    assert json.loads(_core.simulate_failover(7, synchronised=False)) == report
