"""Jool's files become a configuration, or a word on why not."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jsync import cli, config
from jsync.durations import parse_duration
from jsync.errors import Failure
from jsync.jool.files import timeout_ms
from jsync.jool.importing import COUNTERPARTS, ELSEWHERE, WITHOUT, import_files, toml_value

# Every option of Jool 4.1.9's and 4.1.15's NAT64, with its default.
GLOBALS: dict[str, Any] = {
    "manually-enabled": True,
    "pool6": "64:ff9b::/96",
    "lowest-ipv6-mtu": 1280,
    "logging-debug": False,
    "zeroize-traffic-class": False,
    "override-tos": False,
    "tos": 0,
    "mtu-plateaus": [65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68],
    "address-dependent-filtering": False,
    "drop-externally-initiated-tcp": False,
    "drop-icmpv6-info": False,
    "source-icmpv6-errors-better": True,
    "f-args": 11,
    "handle-rst-during-fin-rcv": False,
    "tcp-est-timeout": "2:00:00",
    "tcp-trans-timeout": "0:04:00",
    "udp-timeout": "0:05:00",
    "icmp-timeout": "0:01:00",
    "logging-bib": False,
    "logging-session": False,
    "maximum-simultaneous-opens": 10,
    "ss-enabled": False,
    "ss-flush-asap": True,
    "ss-flush-deadline": 2000,
    "ss-capacity": 512,
    "ss-max-payload": 1452,
    "ss-max-sessions-per-packet": 10,
}
POOL4 = [{"protocol": "TCP", "prefix": "192.0.2.1/32"}]
NET = {"multicast address": "ff08::db8:64:64", "multicast port": "6464", "in interface": "eth0"}


@pytest.fixture
def files(tmp_path: Path) -> "Files":
    return Files(tmp_path)


class Files:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, name: str, value: object) -> str:
        path = self._directory / name
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return str(path)

    def instance(self, **tags: object) -> str:
        return self.write("jool.json", {"framework": "netfilter", "pool4": POOL4, **tags})


def toml(*paths: str, backend: Any = None) -> tuple[dict[str, Any], list[str]]:
    """What the files make, which passes the check, and the notes."""
    imported = import_files(paths, backend)
    text = imported.toml("A title.")
    config.parse(text, "imported")
    for note in imported.notes:
        assert f"# - {note}" in text
    return tomllib.loads(text), [str(note) for note in imported.notes]


def test_every_option_of_jools_has_a_counterpart_or_is_named(files: Files) -> None:
    assert GLOBALS.keys() == COUNTERPARTS.keys() | ELSEWHERE | WITHOUT.keys()
    odd = {**GLOBALS, "manually-enabled": False, "logging-debug": True, "ss-enabled": True}
    values, notes = toml(files.instance(**{"global": odd}))
    for key, value in odd.items():
        if key in COUNTERPARTS:
            assert values["nat64"]["global"][key] == value
        elif key != "pool6":
            assert any(f"global.{key}: " in note for note in notes), key


def test_counterparts_lose_nothing(files: Files) -> None:
    changed = {
        "tos": 46,
        "f-args": 15,
        "mtu-plateaus": [1500, 1280],
        "tcp-est-timeout": "150:00",  # minutes and seconds
        "udp-timeout": "300",
        "icmp-timeout": "0:00:01.500",
        "override-tos": True,
        "lowest-ipv6-mtu": 70_000,  # no packet is that large
        "maximum-simultaneous-opens": 4_000_000_000,
    }
    values, _ = toml(files.instance(**{"global": changed}))
    options = values["nat64"]["global"]
    assert options.pop("tcp-est-timeout") == "2:30:00"
    assert options.pop("udp-timeout") == "0:05:00"
    assert options.pop("icmp-timeout") == "0:00:01.500"
    assert options.pop("lowest-ipv6-mtu") == 65_535
    assert options == {key: changed[key] for key in options}


@given(st.integers(0, 999), st.integers(0, 99), st.integers(0, 999), st.integers(0, 999))
def test_durations_mean_the_same(hours: int, minutes: int, seconds: int, ms: int) -> None:
    from jsync.durations import format_duration

    expected = ((hours * 60 + minutes) * 60 + seconds) * 1000 + ms
    assert timeout_ms(f"{hours}:{minutes}:{seconds}.{ms:03}") == expected
    assert parse_duration(format_duration(expected), bare_ms=1000) == expected


@pytest.mark.parametrize("text", ["", "1.5", "1:2:3:4", "-1", "5m", "1:", " 1"])
def test_what_jool_takes_for_no_duration_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        timeout_ms(text)


@given(
    st.recursive(
        st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
        lambda inner: st.lists(inner, max_size=3),
    )
)
def test_values_are_toml(value: Any) -> None:
    assert tomllib.loads(f"key = {toml_value(value)}")["key"] == value


def test_pool4_and_bib(files: Files) -> None:
    pool4 = [{"protocol": p, "prefix": "192.0.2.1", "comment": "c"} for p in ("TCP", "udp", "ICMP")]
    more: list[dict[str, Any]] = [
        {"protocol": "TCP", "prefix": "192.0.2.2/32", "port range": "80"},
        {"protocol": "UDP", "prefix": "10.0.0.0/15", "port range": "2000-1000"},
        {"protocol": "TCP", "prefix": "192.0.2.3/32", "mark": 5},
    ]
    bib = [{"protocol": "TCP", "ipv6 address": "2001:db8::1#80", "ipv4 address": "192.0.2.2#80"}]
    values, notes = toml(files.instance(pool4=pool4 + more, bib=bib))
    assert values["nat64"]["pool4"] == [
        {"prefix": "192.0.2.1/32", "ports": "61001-65535"},
        {"prefix": "192.0.2.2/32", "ports": "80", "protocol": "tcp"},
        {"prefix": "10.0.0.0/16", "ports": "1000-2000", "protocol": "udp"},
        {"prefix": "10.1.0.0/16", "ports": "1000-2000", "protocol": "udp"},
        {"prefix": "192.0.2.3/32", "ports": "61001-65535", "mark": 5, "protocol": "tcp"},
    ]
    assert values["nat64"]["bib"] == [
        {"protocol": "tcp", "ipv6": "2001:db8::1#80", "ipv4": "192.0.2.2#80"}
    ]
    assert not any("mark" in note for note in notes)


def test_marks_tell_entries_apart(files: Files) -> None:
    both = [
        {"protocol": p, "prefix": "192.0.2.1", "mark": m} for p in ("TCP", "UDP") for m in (0, 7)
    ]
    values, _ = toml(files.instance(pool4=[*both, {**both[1], "protocol": "ICMP"}]))
    assert values["nat64"]["pool4"] == [
        {"prefix": "192.0.2.1/32", "ports": "61001-65535", "protocol": "tcp"},
        {"prefix": "192.0.2.1/32", "ports": "61001-65535", "protocol": "udp"},
        {"prefix": "192.0.2.1/32", "ports": "61001-65535", "mark": 7},
    ]
    for mark in (-1, 1 << 32, "5", True):
        with pytest.raises(Failure, match=r"pool4\[0\]: mark: .* is no number"):
            toml(files.instance(pool4=[{**both[0], "mark": mark}]))


def test_joolds_files(files: Files) -> None:
    net = {**NET, "out interface": "eth1", "ttl": 3, "reuseaddr": 1}
    paths = files.write("net.json", net), files.write("mod.json", {"instance": "potato"})
    values, notes = toml(*paths)
    assert values == {
        "node": {"backend": "jool"},
        "jool": {"instance": "potato"},
        "joold": {
            "group": "ff08::db8:64:64",
            "port": 6464,
            "interface": "eth0",
            "out-interface": "eth1",
            "ttl": 3,
        },
    }
    assert any("reuseaddr" in note for note in notes)


def test_a_native_node_joins_the_group(files: Files) -> None:
    instance = files.instance(instance="potato", **{"global": {"ss-flush-deadline": 100}})
    values, notes = toml(instance, files.write("net.json", NET))
    assert values["joold"]["flush-deadline"] == "100ms"
    assert "node" not in values
    assert any("[joold] format" in note for note in notes)
    assert any("out interface" in note for note in notes)


def test_the_instance_may_stay(files: Files) -> None:
    instance = files.instance(instance="potato", **{"global": {"ss-enabled": False}})
    values, notes = toml(instance, files.write("net.json", NET), backend="jool")
    assert values["jool"] == {"instance": "potato"}
    assert "nat64" not in values
    assert any("jool -i potato global update ss-enabled true" in note for note in notes)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", r"f:1: is not JSON"),
        ([], "is no JSON object"),
        ({"a": 1}, "none of Jool's files"),
        ('{"framework": "netfilter", "FRAMEWORK": "iptables"}', "stands there twice"),
        ({"framework": "netfilter", "eamt": []}, "SIIT"),
        ({"framework": "netfilter", "colour": 1}, "colour: is no tag"),
        ({"framework": "netfilter", "global": {"colour": 1}}, "global.colour: is no option"),
        ({"framework": "netfilter", "global": {"tos": 256}}, "global.tos: 256 is no number"),
        ({"framework": "netfilter", "global": {"udp-timeout": 5}}, "is no text"),
        ({"framework": "netfilter", "global": {"override-tos": 1}}, "neither true nor false"),
        ({"framework": "netfilter", "pool4": [{"protocol": "TCP"}]}, r"pool4\[0\]: prefix"),
        ({"framework": "netfilter", "pool4": {}}, "pool4: is no list"),
    ],
)
def test_what_is_no_file_of_jools_is_refused(files: Files, value: object, message: str) -> None:
    with pytest.raises(Failure, match=message):
        import_files([files.write("f", value)], "native")


def test_files_that_contradict_each_other(files: Files) -> None:
    instance = files.instance(instance="potato")
    module = files.write("mod.json", {"instance": "tomato"})
    with pytest.raises(Failure, match=r"potato.*tomato"):
        import_files([instance, module], None)
    with pytest.raises(Failure, match="same kind"):
        import_files([module, module], None)


def test_the_command_says_what_is_to_be_decided(
    files: Files, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = files.instance(pool4=[])
    monkeypatch.setattr("sys.argv", ["jsync", "config", "import", path])
    assert cli.main() == 1  # there is nothing to mask with
    out, err = capsys.readouterr()
    assert tomllib.loads(out)["nat64"]["pool6"] == "64:ff9b::/96"
    assert "to be decided: " in err
    assert "pool4: is empty" in err.splitlines()[-1]
