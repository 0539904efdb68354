"""The boundary between Rust and Python: what `jsync._core` promises in its stub."""

import errno
import json
import select

import pytest

from jsync import _core
from jsync._core import ConfigError, DeviceError, Node

SECRET = bytes(range(32))
NAT64 = {
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
    assert all(text.endswith(".") and value == 0 for _, text, value in stats)


@pytest.mark.parametrize("device", ["", "tun%d", "a/b", "sixteen-letters-"])
def test_a_bad_device_name_is_refused(device: str) -> None:
    with pytest.raises(DeviceError, match="can't be the name of a device") as caught:
        standalone().attach(device, persistent=False)
    assert caught.value.errno == errno.EINVAL
    assert isinstance(caught.value, OSError)


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(ValueError, match="proto: must be tcp, udp or icmp"):
        standalone().sessions("sctp", 0, 1)
