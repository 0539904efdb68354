"""`jsync decode`: datagrams in captures of every kind."""

import ipaddress
import json
import struct
import sys
import time
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import CookedLinux, Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap, wrpcapng

from jsync import _core
from jsync.capture import datagrams
from jsync.cli.decode import run
from jsync.errors import Failure

VECTORS = Path(__file__).parents[1] / "vectors" / "joold"


def vector(version: str, number: int) -> bytes:
    captured = json.loads((VECTORS / f"jool-{version}.json").read_text())
    return bytes.fromhex(captured[number]["hex"])


def udp(payload: bytes) -> Packet:
    return UDP(sport=6464, dport=6464) / Raw(payload)


def v4(payload: bytes) -> Packet:
    return IP(src="198.51.100.1", dst="239.64.64.64", id=7) / udp(payload)


def v6(payload: bytes) -> Packet:
    return IPv6(src="fe80::1", dst="ff08::db8:64:64") / udp(payload)


SMALL, LARGE = vector("4.1.13", 1), vector("4.1.9", -1)


@pytest.mark.parametrize(
    ("name", "packets"),
    [
        ("ethernet", [Ether() / v4(SMALL), Ether() / v6(SMALL)]),
        ("vlan", [Ether() / Dot1Q(vlan=5) / v4(SMALL), Ether() / Dot1Q(vlan=5) / v6(SMALL)]),
        ("cooked", [CookedLinux() / v4(SMALL), CookedLinux() / v6(SMALL)]),
        ("raw", [v4(SMALL), v6(SMALL)]),
    ],
)
def test_every_link_type(name: str, packets: list[Packet], tmp_path: Path) -> None:
    for write in (wrpcap, wrpcapng):
        path = tmp_path / name
        write(str(path), packets)
        found = list(datagrams(path.read_bytes()))
        assert [(d.packet, d.source, d.port, d.payload) for d in found] == [
            (1, "198.51.100.1", 6464, SMALL),
            (2, "fe80::1", 6464, SMALL),
        ]


def test_fragments_are_put_together_in_any_order(tmp_path: Path) -> None:
    assert len(LARGE) == 1540
    parts = [Ether() / part for part in reversed(fragment(v4(LARGE), 1480))]  # type: ignore[no-untyped-call]
    whole6 = IPv6(src="fe80::1", dst="ff08::db8:64:64") / IPv6ExtHdrFragment(id=9) / udp(LARGE)
    parts += [Ether() / part for part in fragment6(whole6, 1280)]  # type: ignore[no-untyped-call]
    path = tmp_path / "fragments.pcap"
    wrpcap(str(path), parts)
    found = list(datagrams(path.read_bytes()))
    assert [(d.packet, d.payload) for d in found] == [(2, LARGE), (4, LARGE)]
    for cut in range(0, path.stat().st_size, 97):
        assert len(list(datagrams(path.read_bytes()[: max(cut, 24)]))) < 2


def test_sessions_are_printed_and_mistakes_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "joold.pcap"
    wrpcap(str(path), [Ether() / v4(SMALL), Ether() / v4(SMALL[:-4])])
    assert run([str(path)]) == 1
    output = capsys.readouterr()
    (line,) = [json.loads(line) for line in output.out.splitlines()]
    assert list(line) == [
        "proto",
        "src6",
        "src6_port",
        "dst6",
        "dst6_port",
        "src4",
        "src4_port",
        "dst4",
        "dst4_port",
        "state",
        "timer",
        "expires_ms",
        "format",
    ]
    assert (line["proto"], line["format"]) == ("udp", "4.1.13")
    assert output.err.startswith("packet 2, 198.51.100.1: truncated")
    assert run([str(path), "--port", "53"]) == 0
    assert run([SMALL.hex()]) == 0
    capsys.readouterr()
    for data in (path.read_bytes(), SMALL.hex().encode() + b"\n"):
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(data)))
        run(["-"])
        assert capsys.readouterr().out == output.out
    assert run([SMALL.hex(), "--format", "4.1.9"]) == 1
    assert "and 4.1.9 is configured" in capsys.readouterr().err


def update(*records: bytes) -> bytes:
    """A frame in clear, as docs/ss-protocol.md has it: update 1 of node 3."""
    body = struct.pack("!Q", 1) + b"".join(records)
    head = struct.pack("!BBBxIHHQQHH", 1, 3, 1, 77, 3, 0, 9, 5, len(records), 36 + len(body))
    return b"jsyn" + head + body


def record(tag: int, rest: bytes = b"") -> bytes:
    src6 = ipaddress.ip_address("2001:db8::8").packed + struct.pack("!H", 5000)
    src4 = bytes([192, 0, 2, 1]) + struct.pack("!H", 61001)
    dst4 = bytes([203, 0, 113, 24]) + struct.pack("!H", 80)
    return bytes([tag]) + src6 + src4 + dst4 + struct.pack("!I", 7) + rest


def test_frames_of_nodes_are_decoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = update(record(0x10, struct.pack("!I", 299_000)), record(0x50))
    path = tmp_path / "ss.pcap"
    wrpcap(str(path), [Ether() / v4(frame), Ether() / v4(SMALL), Ether() / v6(frame[:-1])])
    assert run([str(path)]) == 1
    output = capsys.readouterr()
    session, removal, joolds = map(json.loads, output.out.splitlines())
    place = {
        "proto": "udp",
        "src6": "2001:db8::8",
        "src6_port": 5000,
        "dst6": "64:ff9b::cb00:7118",
        "dst6_port": 80,
        "src4": "192.0.2.1",
        "src4_port": 61001,
        "dst4": "203.0.113.24",
        "dst4_port": 80,
    }
    sender = {"format": "jsync", "node": 3, "version": 7}
    life = {"state": "ESTABLISHED", "timer": "EST", "expires_ms": 299_000}
    assert session == {**place, **life, **sender}
    assert removal == {**place, "state": "REMOVED", "timer": "NONE", "expires_ms": 0, **sender}
    assert joolds["format"] == "4.1.13"
    assert output.err == "packet 3, fe80::1: not a frame\n"
    # Only what was asked for.
    assert run([SMALL.hex(), "--format", "jsync"]) == 1
    assert run([frame.hex(), "--format", "4.1.13"]) == 1


def test_sealed_frames_are_opened_by_the_clusters_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sync = {"node": 1, "cluster": "campus", "epoch": 5}
    node = _core.Node(
        json.dumps({"pool4": [{"prefix": "192.0.2.1"}]}).encode(),
        json.dumps(sync).encode(),
        keys=[bytes(range(32))],
        secret=bytes(32),
    )
    until = time.monotonic() + 5
    while not (frames := node.take_frames()):
        assert time.monotonic() < until
        time.sleep(0.005)
    hello = frames[0][1].hex()
    for name, key in (("right", bytes(range(32))), ("wrong", bytes(32))):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(key.hex())
    right, wrong = str(tmp_path / "right"), str(tmp_path / "wrong")
    assert run([hello, "--key", wrong, "--key", right]) == 0
    assert capsys.readouterr() == ("", "")
    assert run([hello, "--key", wrong]) == 1
    assert "no key opens it (claims node 1)" in capsys.readouterr().err


def test_what_is_no_capture_is_said() -> None:
    with pytest.raises(Failure, match=r"neither a file, nor a capture"):
        run(["/nowhere/x.pcap"])
    unknown = struct.pack("<IHHiIIIIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 147, 0, 0, 1, 1) + b"x"
    with pytest.raises(Failure, match="link type 147"):
        list(datagrams(unknown))
