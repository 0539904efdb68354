"""The translator judged by scapy, which shares no code with it."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.packet import Packet, Raw

ROOT = Path(__file__).parents[2]
CLIENT = "2001:db8::8"
SERVER4 = "198.51.100.9"
SERVER6 = "64:ff9b::198.51.100.9"
POOL4 = "192.0.2.1"
CONFIG = {
    "pool4": [{"prefix": POOL4, "ports": "61001-65535"}],
    "bib": [
        {"protocol": protocol, "ipv6": f"{CLIENT}#{port}", "ipv4": f"{POOL4}#{mask}"}
        for protocol, port, mask in [("tcp", 80, 61001), ("udp", 53, 61002), ("icmp", 7, 61003)]
    ],
    "max-sessions": 1000,
}


@dataclass
class Answer:
    """What became of a packet, and what the translator made besides."""

    verdict: str
    packet: Packet | None
    made: list[Packet]


def dissect(text: str) -> Packet:
    raw = bytes.fromhex(text)
    return (IP if raw[0] >> 4 == 4 else IPv6)(raw)


class Translator:
    """A translator in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.now = 0
        self.send(json.dumps(CONFIG))

    def send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def __call__(self, packet: Packet) -> Answer:
        self.now += 1
        self.send(f"{self.now} {bytes(packet).hex()}")
        assert self.process.stdout is not None
        answer, *made = self.process.stdout.readline().strip().split(" made ")
        verdict, _, rest = answer.partition(" ")
        forwarded = dissect(rest) if verdict == "forward" else None
        return Answer(answer, forwarded, [dissect(m) for m in made])


@pytest.fixture(scope="module")
def translate() -> Iterator[Translator]:
    command = ["cargo", "run", "--quiet", "-p", "jsync-core", "--example", "translate"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield Translator(process)
        assert process.stdin is not None
        process.stdin.close()


def assert_right(packet: Packet) -> None:
    """Its checksums and lengths are those that scapy computes for it."""
    fresh = packet.copy()
    layer: Any = fresh
    while layer and not isinstance(layer, Raw):
        for field in ("chksum", "cksum", "len", "plen", "ihl"):
            # The packet that an ICMP error quotes is cut: its lengths speak of the original.
            if field in layer.fields and not layer.name.endswith("in ICMP"):
                delattr(layer, field)
        layer = layer.payload
        if "Error" in type(layer).__name__ or layer.name in ("IP in ICMP", "IPv6 in ICMPv6"):
            break
    assert bytes(fresh) == bytes(packet)


payloads = st.binary(max_size=600)
ports = st.integers(1, 65535)
classes = st.integers(0, 255)
hops = st.integers(2, 255)
gentle = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@gentle
@given(port=ports, tc=classes, hop=hops, payload=payloads)
def test_udp_there_and_back(
    translate: Translator, port: int, tc: int, hop: int, payload: bytes
) -> None:
    sent = IPv6(src=CLIENT, dst=SERVER6, tc=tc, hlim=hop) / UDP(sport=port, dport=9009) / payload
    there = translate(sent).packet
    assert there is not None
    assert_right(there)
    assert (there.src, there.dst, there.tos, there.ttl) == (POOL4, SERVER4, tc, hop - 1)
    assert bytes(there[UDP].payload) == payload
    assert there[UDP].sport in (*range(61001, 65536),)

    answer = IP(src=SERVER4, dst=POOL4, tos=tc, ttl=hop) / UDP(sport=9009, dport=there[UDP].sport)
    back = translate(answer / payload[::-1]).packet
    assert back is not None
    assert_right(back)
    assert (back.src, back.dst, back.tc, back.hlim) == (SERVER6.lower(), CLIENT, tc, hop - 1) or (
        back.src == "64:ff9b::c633:6409" and back.dst == CLIENT and back.tc == tc
    )
    assert back[UDP].dport == port
    assert bytes(back[UDP].payload) == payload[::-1]


@gentle
@given(port=ports, seq=st.integers(0, 2**32 - 1), payload=payloads)
def test_tcp_there_and_back(translate: Translator, port: int, seq: int, payload: bytes) -> None:
    options = [("MSS", 1440), ("SAckOK", b""), ("Timestamp", (seq, 0)), ("WScale", 7)]
    syn = TCP(sport=port, dport=443, flags="S", seq=seq, options=options)
    there = translate(IPv6(src=CLIENT, dst=SERVER6) / syn).packet
    assert there is not None
    assert_right(there)
    assert there[TCP].options[: len(options)] == options
    assert there[TCP].seq == seq

    head = IP(src=SERVER4, dst=POOL4, flags="DF")
    mask = there[TCP].sport
    for flags in ("SA", "PA"):
        body = payload if flags == "PA" else b""
        back = translate(head / TCP(sport=443, dport=mask, flags=flags) / body).packet
        assert back is not None
        assert_right(back)
        assert back[TCP].flags == flags
        assert bytes(back[TCP].payload) == body


@gentle
@given(identifier=st.integers(0, 65535), seq=st.integers(0, 65535), payload=payloads)
def test_ping_there_and_back(
    translate: Translator, identifier: int, seq: int, payload: bytes
) -> None:
    echo = ICMPv6EchoRequest(id=identifier, seq=seq, data=payload)
    there = translate(IPv6(src=CLIENT, dst=SERVER6) / echo).packet
    assert there is not None
    assert_right(there)
    assert (there[ICMP].type, there[ICMP].seq) == (8, seq)

    reply = ICMP(type=0, id=there[ICMP].id, seq=seq)
    back = translate(IP(src=SERVER4, dst=POOL4) / reply / payload).packet
    assert back is not None
    assert_right(back)
    assert (back[ICMPv6EchoReply].id, back[ICMPv6EchoReply].data) == (identifier, payload)


@gentle
@given(payload=st.binary(min_size=8, max_size=600), mtu=st.integers(1280, 9000))
def test_fragmentation_needed_becomes_packet_too_big(
    translate: Translator, payload: bytes, mtu: int
) -> None:
    there = translate(IPv6(src=CLIENT, dst=SERVER6) / UDP(sport=5000, dport=53) / payload).packet
    assert there is not None
    error = IP(src="203.0.113.7", dst=POOL4) / ICMP(type=3, code=4, nexthopmtu=mtu)
    back = translate(error / bytes(there)[: 28 + len(payload) // 2]).packet
    assert back is not None
    assert_right(back)
    assert back.dst == CLIENT
    assert back[ICMPv6PacketTooBig].mtu == mtu + 20
    inner = IPv6(bytes(back[ICMPv6PacketTooBig].payload))
    assert (inner.src, inner[UDP].sport, inner[UDP].dport) == (CLIENT, 5000, 53)


def test_a_packet_at_its_end_is_answered(translate: Translator) -> None:
    answer = translate(IPv6(src=CLIENT, dst=SERVER6, hlim=1) / UDP(sport=5000, dport=53) / b"x")
    assert answer.verdict == "drop drop_ttl_expired"
    (made,) = answer.made
    assert_right(made)
    assert made.dst == CLIENT
    assert ICMPv6TimeExceeded in made


def test_static_entries_let_ipv4_in(translate: Translator) -> None:
    syn = IP(src=SERVER4, dst=POOL4) / TCP(sport=4000, dport=61001, flags="S")
    back = translate(syn).packet
    assert back is not None
    assert_right(back)
    assert (back.dst, back[TCP].dport) == (CLIENT, 80)


def test_strangers_are_refused(translate: Translator) -> None:
    stranger = IP(src=SERVER4, dst=POOL4) / UDP(sport=1, dport=65000) / b"x"
    assert translate(stranger).verdict == "drop drop_no_bib"
    outside = IP(src=SERVER4, dst=POOL4) / UDP(sport=1, dport=22) / b"x"
    assert translate(outside).verdict == "drop drop_not_pool4"
