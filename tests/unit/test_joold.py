"""joold's datagrams: what real Jools wrote and took, and a node that speaks to joolds."""

from __future__ import annotations

import ipaddress
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jsync import _core
from jsync._core import DatagramError, Node

if TYPE_CHECKING:
    from jsync._core import JooldSession

VECTORS = Path(__file__).parents[1] / "vectors" / "joold"
FORMATS = ("4.1.9", "4.1.12", "4.1.13")
NAT64: dict[str, Any] = {"pool4": [{"prefix": "192.0.2.1", "ports": "61001-65535"}]}
SECRET = bytes(32)

pytestmark = pytest.mark.skipif(
    sys.byteorder == "big", reason="joold's datagrams have the byte order of the host"
)


def vectors(name: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((VECTORS / name).read_text())
    return loaded


def as_text(session: JooldSession) -> str:
    return " ".join(str(value) for value in session.values())


def session(**changes: Any) -> JooldSession:
    row: Any = {
        "proto": "udp",
        "src6": "2001:db8:6::77",
        "src6_port": 5000,
        "dst6": "64:ff9b::c000:208",
        "dst6_port": 53,
        "src4": "192.0.2.1",
        "src4_port": 62000,
        "dst4": "192.0.2.8",
        "dst4_port": 53,
        "state": "ESTABLISHED",
        "timer": "EST",
        "expires_ms": 200_000,
    }
    changed: JooldSession = row | changes
    return changed


@pytest.mark.parametrize("version", ["4.1.9", "4.1.13", "4.1.15"])
def test_what_real_joolds_sent_is_decoded_and_encoded(version: str) -> None:
    captured = vectors(f"jool-{version}.json")
    assert len(captured) > 15
    for datagram in captured:
        payload = bytes.fromhex(datagram["hex"])
        format, sessions, errors = _core.decode_joold(payload)
        assert format == ("4.1.9" if version == "4.1.9" else "4.1.13")
        assert errors == []
        assert [as_text(s) for s in sessions] == datagram["sessions"], datagram["name"]
        assert b"".join(_core.encode_joold(sessions, format)) == payload, datagram["name"]


REFUSED = {
    "datagram-cut": "truncated",
    "good-then-datagram-cut": "truncated",
    "data-31-of-36": "attribute of length 35",
    "data-32-of-36": "attribute of length 36",
    "nested-cut-31": "attribute of length 35",
    "nested-cut-32": "attribute of length 36",
    "good-then-short": "attribute of length 20",
    "short-then-good": "attribute of length 20",
    "extra-4-bytes": "attribute of length",
    "type-5": "type 0x(5|8005)",
    "garbage-100": "attribute of length 19877 and type 0x18ca",
    "zeros-40": "attribute of length 0",
    "one-byte": "truncated",
    "empty": "empty",
    "over-2048-bytes": "oversized",
}
WRONG = {"proto-3": "protocol 3", "state-7": "state 7", "timer-3": "timer 3"}


@pytest.mark.parametrize("version", ["4.1.9", "4.1.15"])
def test_what_real_joolds_were_given(version: str) -> None:
    """Whatever Jool takes for a session is one here, unless it is none."""
    for case in vectors(f"inject-{version}.json"):
        name, payload = case["case"], bytes.fromhex(case["hex"])
        if name in REFUSED:
            with pytest.raises(DatagramError, match=REFUSED[name]):
                _core.decode_joold(payload)
            continue
        _, sessions, errors = _core.decode_joold(payload)
        if name in WRONG:
            assert sessions == []
            assert len(errors) == 1
            assert WRONG[name] in errors[0]
            continue
        assert sessions, name
        assert errors == []
        if name == "other-version-format" or isinstance(case["jool_added"], int):
            continue
        shown = {",".join(str(v) for v in s.values()).upper() for s in sessions}
        for added in case["jool_added"]:
            # jool session display --csv: the addresses and ports come first.
            identity = ",".join(added.split(",")[:9]).upper()
            if name != "collision-v6-taken-other-dst":  # Jool keeps the mask that it has
                assert any(s.startswith(identity) for s in shown), name


def test_formats_are_told_apart_and_pinned() -> None:
    for written in FORMATS:
        (datagram,) = _core.encode_joold([session()], written)
        assert _core.decode_joold(datagram)[0] == written
        for pinned in FORMATS:
            if pinned == written:
                assert _core.decode_joold(datagram, pinned)[1] == [session()]
            else:
                with pytest.raises(DatagramError, match=f"Jool {written}, and {pinned} is conf"):
                    _core.decode_joold(datagram, pinned)
    with pytest.raises(ValueError, match=r"format: must be 4\.1\.9"):
        _core.decode_joold(b"", "4.2")


def ports() -> st.SearchStrategy[int]:
    return st.integers(0, 65535)


@st.composite
def sessions(draw: st.DrawFn) -> JooldSession:
    proto = draw(st.sampled_from(["tcp", "udp", "icmp"]))
    dst4 = draw(st.ip_addresses(v=4))
    src6_port, src4_port, dst4_port = draw(ports()), draw(ports()), draw(ports())
    if proto == "icmp":
        dst4_port = src4_port
    states = ["ESTABLISHED"]
    if proto == "tcp":
        states += ["V6_INIT", "V4_INIT", "V4_FIN_RCV", "V6_FIN_RCV", "V4_FIN_V6_FIN_RCV", "TRANS"]
    prefix = int(ipaddress.IPv6Address("64:ff9b::"))
    return session(
        proto=proto,
        src6=str(ipaddress.IPv6Address(draw(st.integers(2**48, 2**128 - 1)))),
        src6_port=src6_port,
        dst6=str(ipaddress.IPv6Address(prefix + int(dst4))),
        dst6_port=src6_port if proto == "icmp" else dst4_port,
        src4=str(draw(st.ip_addresses(v=4))),
        src4_port=src4_port,
        dst4=str(dst4),
        dst4_port=dst4_port,
        state=draw(st.sampled_from(states)),
        timer=draw(st.sampled_from(["EST", "TRANS", "SYN4"])),
        expires_ms=draw(st.integers(0, 2**32 - 1)),
    )


@settings(deadline=None)
@given(st.sampled_from(FORMATS), st.lists(sessions(), max_size=80))
def test_datagrams_give_back_what_was_put_in(format: str, rows: list[JooldSession]) -> None:
    got = []
    for datagram in _core.encode_joold(rows, format):
        assert len(datagram) <= 1452
        found, decoded, errors = _core.decode_joold(datagram, format)
        assert (found, errors) == (format, [])
        got += decoded
    assert got == rows


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_garbage_raises_nothing_else(garbage: bytes) -> None:
    for datagram in (garbage, *(d[:4] + garbage for d in _core.encode_joold([session()], "4.1.9"))):
        with suppress(DatagramError):
            _core.decode_joold(datagram)


def make_node(**joold: Any) -> Node:
    bridge = {"join-timeout": 0, "flush-deadline": 0} | joold
    nat64, options = json.dumps(NAT64).encode(), json.dumps(bridge).encode()
    return Node(nat64, None, keys=[], secret=SECRET, joold=options)


def shown(node: Node) -> list[dict[str, Any]]:
    rows, _ = node.sessions(None, 0, 1000)
    return [dict(row) for row in rows]


def stats(node: Node) -> dict[str, int]:
    return {name: value for name, _, value in node.stats() if value}


def wait_for(get: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if get():
            return
        time.sleep(0.005)
    raise AssertionError("it never came")


def test_a_node_takes_sessions_and_counts_those_that_cannot_be() -> None:
    node = make_node()
    rows = [
        session(),
        session(src6="2001:db8:6::78", src6_port=6000),  # its mask is taken
        session(src6_port=5001, src4_port=1024),  # outside pool4
        session(src6_port=5002, src4="203.0.113.9", src4_port=62002),
        session(src6_port=5003, src4_port=62003, expires_ms=0),
        session(src6_port=5004, src4_port=62004, expires_ms=2**32 - 1),
        session(src6_port=5005, src4_port=62005, expires_ms=900_000),
    ]
    (datagram,) = _core.encode_joold(rows, "4.1.13")
    assert node.receive_datagrams([("192.0.2.77", datagram), ("192.0.2.78", b"x")]) == [True, False]
    assert {row["src6_port"]: row["expires_ms"] > 370_000 for row in shown(node)} == {
        5000: False,
        5005: True,
    }
    assert stats(node).items() >= {
        ("joold_datagrams_received", 2),
        ("joold_datagrams_truncated", 1),
        ("joold_sessions_received", 7),
        ("joold_lifetimes_impossible", 2),
        ("joold_lifetimes_cut", 1),
        ("sync_collisions", 1),
        ("sync_rejected_sessions", 2),
        ("sessions_learned", 2),
    }
    events = " ".join(node.take_events())
    assert "joold at 192.0.2.77 is heard, in the format of Jool 4.1.13" in events
    assert "collide with mappings of ours" in events
    assert "truncated" in events
    (joold,) = node.joolds()
    assert (joold["format"], joold["sessions"], joold["refused"]) == ("4.1.13", 2, 5)


def test_a_new_joold_is_told_the_whole_table_in_its_format() -> None:
    node = make_node()
    rows = [session(src6_port=n, src4_port=61001 + n) for n in range(100)]
    for datagram in _core.encode_joold(rows, "4.1.13"):
        node.receive_datagrams([("192.0.2.77", datagram)])
    told: list[JooldSession] = []

    def all_told() -> bool:
        for datagram in node.take_datagrams():
            told.extend(_core.decode_joold(datagram, "4.1.13")[1])
        return len({row["src6_port"] for row in told}) == 100

    wait_for(all_told)
    assert all(0 < row["expires_ms"] <= 200_000 for row in told)


def test_joolds_are_told_in_the_format_that_is_the_modules_and_heard_in_every_one() -> None:
    node = make_node()
    node.tell_joolds_in("4.1.13")
    (datagram,) = _core.encode_joold([session()], "4.1.9")
    assert node.receive_datagrams([("192.0.2.77", datagram)]) == [True]
    told: list[bytes] = []

    def is_told() -> bool:
        told.extend(node.take_datagrams())
        return bool(told)

    wait_for(is_told)
    assert {_core.decode_joold(datagram)[0] for datagram in told} == {"4.1.13"}
    pinned = make_node(format="4.1.12")
    pinned.tell_joolds_in("4.1.13")
    assert pinned.receive_datagrams([("192.0.2.77", datagram)]) == [False]


def test_what_joold_tells_is_not_told_back() -> None:
    node = make_node(format="4.1.13")
    wait_for(lambda: node.status()["ready"])
    (datagram,) = _core.encode_joold([session()], "4.1.13")
    node.receive_datagrams([("192.0.2.77", datagram)])
    wait_for(
        lambda: any("told joold all" in e for e in node.take_events()) or node.take_datagrams()
    )
    time.sleep(0.05)
    node.take_datagrams()
    (newer,) = _core.encode_joold([session(expires_ms=290_000)], "4.1.13")
    node.receive_datagrams([("192.0.2.77", newer)])
    time.sleep(0.05)
    assert node.take_datagrams() == []


def test_nothing_is_sent_in_a_format_that_was_guessed() -> None:
    node = make_node()
    node.advertise()
    time.sleep(0.05)
    assert node.take_datagrams() == []
    assert any("its format isn't known" in event for event in node.take_events())


def test_another_format_than_the_configured_one_is_refused() -> None:
    node = make_node(format="4.1.9")
    (datagram,) = _core.encode_joold([session()], "4.1.13")
    assert node.receive_datagrams([("192.0.2.77", datagram)]) == [False]
    assert stats(node)["joold_datagrams_other_format"] == 1
    node.pin_format("4.1.13")
    assert node.receive_datagrams([("192.0.2.77", datagram)]) == [True]


def test_a_bad_option_is_named() -> None:
    with pytest.raises(_core.ConfigError, match=r"format: \"4.2\": no format of joold's"):
        make_node(format="4.2")
    with pytest.raises(_core.ConfigError, match="flush-deadline: 60001"):
        make_node(**{"flush-deadline": 60001})


def test_joolds_and_peers_are_joined() -> None:
    """A joold's session goes to a jsync peer and from there to another's joold, and ends there."""
    nodes = []
    for number in (1, 2):
        sync = {"node": number, "cluster": "c", "epoch": number, "join-timeout": 200}
        sync |= {"hello-interval": 20, "dead-interval": 2000}
        nodes.append(
            Node(
                json.dumps(NAT64).encode(),
                json.dumps(sync).encode(),
                keys=[SECRET],
                secret=bytes([number] * 32),
                joold=json.dumps({"format": FORMATS[number], "join-timeout": 0}).encode(),
            )
        )
    told: list[list[JooldSession]] = [[], []]

    def carry() -> None:
        for number, node in enumerate(nodes):
            nodes[1 - number].receive_frames([frame for _, frame in node.take_frames()])
            for datagram in node.take_datagrams():
                told[number] += _core.decode_joold(datagram)[1]

    def until(condition: Callable[[], bool]) -> None:
        def carried() -> bool:
            carry()
            return condition()

        wait_for(carried)

    until(lambda: all([p["state"] for p in node.peers()] == ["up"] for node in nodes))
    (datagram,) = _core.encode_joold(
        [session(proto="tcp", state="V6_INIT", timer="TRANS")], "4.1.12"
    )
    nodes[0].receive_datagrams([("192.0.2.77", datagram)])
    until(lambda: bool(told[1]))
    assert (told[1][0]["src6_port"], told[1][0]["state"]) == (5000, "V6_INIT")
    told[1].clear()
    (datagram,) = _core.encode_joold([session(proto="tcp", expires_ms=7_000_000)], "4.1.12")
    nodes[0].receive_datagrams([("192.0.2.77", datagram)])
    until(lambda: [s["state"] for s in told[1]] == ["ESTABLISHED"])


def make_joined() -> Node:
    """A node between joolds of 4.1.9 and a kernel module of 4.1.15."""
    return Node(
        json.dumps(NAT64).encode(),
        None,
        keys=[],
        secret=SECRET,
        joold=json.dumps({"format": "4.1.9", "join-timeout": 0, "flush-deadline": 0}).encode(),
        module=json.dumps({"format": "4.1.13", "join-timeout": 0, "flush-deadline": 0}).encode(),
    )


def told_to(node: Node, *, module: bool) -> list[JooldSession]:
    return [
        row
        for datagram in node.take_datagrams(module=module)
        for row in _core.decode_joold(datagram, "4.1.13" if module else "4.1.9")[1]
    ]


def test_module_and_joolds_are_joined_each_in_its_format() -> None:
    node = make_joined()
    wait_for(lambda: node.status()["ready"])
    told: list[JooldSession] = []

    def has_told(*, module: bool) -> bool:
        told.extend(told_to(node, module=module))
        return bool(told)

    (batch,) = _core.encode_joold([session(proto="tcp", state="V6_INIT", timer="TRANS")], "4.1.13")
    node.receive_datagrams([("127.0.0.1", batch)], module=True)
    wait_for(lambda: has_told(module=False))
    assert (told[0]["src6_port"], told[0]["state"]) == (5000, "V6_INIT")
    assert told[0]["expires_ms"] > 200_000, "joolds get slack, since mere refreshes come seldom"
    told.clear()
    (datagram,) = _core.encode_joold([session(proto="tcp", expires_ms=7_000_000)], "4.1.9")
    node.receive_datagrams([("192.0.2.77", datagram)])
    wait_for(lambda: has_told(module=True))
    assert [s["state"] for s in told] == ["ESTABLISHED"]
    assert [talker["address"] for talker in node.joolds()] == ["192.0.2.77"]


def test_the_module_is_told_what_it_doesnt_know_unless_it_is_new() -> None:
    node = make_joined()
    wait_for(lambda: node.status()["ready"])
    (batch,) = _core.encode_joold([session()], "4.1.13")
    node.receive_datagrams([("127.0.0.1", batch)] * 2, module=True)
    (datagram,) = _core.encode_joold([session(src6_port=6000, src4_port=62001)], "4.1.9")
    node.receive_datagrams([("192.0.2.77", datagram)])
    wait_for(lambda: told_to(node, module=True))
    for everything, ports in ((False, {6000}), (True, {5000, 6000})):
        node.advertise_to_module(all=everything)
        told: set[int] = set()

        def done(told: set[int] = told) -> bool:
            told |= {row["src6_port"] for row in told_to(node, module=True)}
            return any("told Jool's kernel module" in event for event in node.take_events())

        wait_for(done)
        assert told | {row["src6_port"] for row in told_to(node, module=True)} == ports
