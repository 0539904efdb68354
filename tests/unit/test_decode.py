"""`jsync decode`: datagrams in captures of every kind."""

import json
import struct
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import CookedLinux, Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap, wrpcapng

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


def test_what_is_no_capture_is_said() -> None:
    with pytest.raises(Failure, match=r"neither a file, nor a capture"):
        run(["/nowhere/x.pcap"])
    unknown = struct.pack("<IHHiIIIIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 147, 0, 0, 1, 1) + b"x"
    with pytest.raises(Failure, match="link type 147"):
        list(datagrams(unknown))
