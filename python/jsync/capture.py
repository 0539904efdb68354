"""UDP datagrams in a capture file: pcap or pcapng, of Ethernet, Linux "cooked" or bare IP packets.

Fragments are put together. What is no UDP, or is cut, is passed over.
"""

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from jsync.errors import Failure

MAX_PARTIAL = 256
"""Datagrams in fragments that are waited for at once."""
MAX_PACKET = 1 << 20
_PCAP = {
    b"\xd4\xc3\xb2\xa1": "<",
    b"\x4d\x3c\xb2\xa1": "<",
    b"\xa1\xb2\xc3\xd4": ">",
    b"\xa1\xb2\x3c\x4d": ">",
}
_PCAPNG = b"\x0a\x0d\x0d\x0a"
_IPV4, _IPV6, _VLAN = 0x0800, 0x86DD, {0x8100, 0x88A8}
_UDP, _FRAGMENT = 17, 44
_IPV6_OPTIONS = {0, 43, 60}
_ETHERNET, _COOKED, _COOKED2 = 1, 113, 276
_BARE_IP = {12, 14, 101, 228, 229}


@dataclass(frozen=True)
class Datagram:
    """A UDP datagram."""

    packet: int
    """The number in the file of the packet that completed it, from 1."""
    source: str
    port: int
    """The port that it was sent to."""
    payload: bytes


def is_capture(data: bytes) -> bool:
    """Whether a file begins as captures do."""
    return data[:4] in _PCAP or data[:4] == _PCAPNG


def datagrams(data: bytes) -> Iterator[Datagram]:
    """The UDP datagrams of a capture. Raises Failure on a file or link type that is unknown."""
    packets = _pcapng(data) if data[:4] == _PCAPNG else _pcap(data)
    fragments = _Fragments()
    for number, (link, frame) in enumerate(packets, 1):
        packet = _network_layer(link, frame)
        found = fragments.datagram(packet) if packet else None
        if found is not None:
            source, udp = found
            if len(udp) >= 8:
                port, length = struct.unpack_from("!HH", udp, 2)
                yield Datagram(number, source, port, udp[8 : max(length, 8)])


def _pcap(data: bytes) -> Iterator[tuple[int, bytes]]:
    order = _PCAP.get(data[:4])
    if order is None or len(data) < 24:
        raise Failure("neither pcap nor pcapng")
    link = struct.unpack_from(order + "I", data, 20)[0] & 0xFFFF
    at = 24
    while at + 16 <= len(data):
        size = struct.unpack_from(order + "I", data, at + 8)[0]
        at += 16
        if size > MAX_PACKET or at + size > len(data):
            return
        yield link, data[at : at + size]
        at += size


def _pcapng(data: bytes) -> Iterator[tuple[int, bytes]]:
    order, links, at = "<", list[int](), 0
    while at + 12 <= len(data):
        if data[at : at + 4] == _PCAPNG:
            order = "<" if data[at + 8 : at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
            links = []
        kind, size = struct.unpack_from(order + "II", data, at)
        if size < 12 or at + size > len(data):
            return
        body = data[at + 8 : at + size - 4]
        if kind == 1 and len(body) >= 2:
            links.append(struct.unpack_from(order + "H", body)[0])
        elif kind == 6 and len(body) >= 20:
            interface, captured = struct.unpack_from(order + "I8xI", body)
            if interface < len(links):
                yield links[interface], body[20 : 20 + captured]
        elif kind == 3 and len(body) >= 4 and links:
            yield links[0], body[4:]
        at += size


def _network_layer(link: int, frame: bytes) -> bytes:
    """The IP packet of a frame; empty if it has none."""
    if link in _BARE_IP:
        return frame
    offset = {_ETHERNET: 12, _COOKED: 14, _COOKED2: 0}.get(link)
    if offset is None:
        raise Failure(f"link type {link} is not known; capture on Ethernet, or with -i any")
    start = 20 if link == _COOKED2 else offset + 2
    kind = int.from_bytes(frame[offset : offset + 2], "big")
    while kind in _VLAN:
        kind = int.from_bytes(frame[start + 2 : start + 4], "big")
        start += 4
    return frame[start:] if kind in {_IPV4, _IPV6} else b""


@dataclass
class _Partial:
    parts: dict[int, bytes] = field(default_factory=dict)
    total: int | None = None

    def whole(self) -> bytes | None:
        data = b""
        while self.total is not None and len(data) < self.total:
            part = self.parts.get(len(data))
            if not part:
                return None
            data += part
        return data if self.total is not None else None


class _Fragments:
    def __init__(self) -> None:
        self._partial: dict[tuple[bytes, int], _Partial] = {}

    def datagram(self, packet: bytes) -> tuple[str, bytes] | None:
        """Source and UDP of a packet, or of the fragments that it completes."""
        version = packet[0] >> 4
        if version == 4 and len(packet) >= 20:
            return self._ipv4(packet)
        if version == 6 and len(packet) >= 40:
            return self._ipv6(packet)
        return None

    def _ipv4(self, packet: bytes) -> tuple[str, bytes] | None:
        total, ident, place = struct.unpack_from("!HHH", packet, 2)
        if packet[9] != _UDP:
            return None
        data = packet[(packet[0] & 15) * 4 : total]
        more, offset = bool(place & 0x2000), (place & 0x1FFF) * 8
        source = str(ipaddress.IPv4Address(packet[12:16]))
        return self._collect(source, (packet[12:20], ident), data, offset, more)

    def _ipv6(self, packet: bytes) -> tuple[str, bytes] | None:
        length, header, at = struct.unpack_from("!H", packet, 4)[0], packet[6], 40
        end = min(40 + length, len(packet))
        source = str(ipaddress.IPv6Address(packet[8:24]))
        while header in _IPV6_OPTIONS and at + 8 <= end:
            header, at = packet[at], at + 8 * (packet[at + 1] + 1)
        if header == _FRAGMENT and at + 8 <= end:
            header, place, ident = struct.unpack_from("!BxHI", packet, at)
            if header != _UDP:
                return None
            key = (packet[8:40], ident)
            return self._collect(source, key, packet[at + 8 : end], place & 0xFFF8, bool(place & 1))
        return (source, packet[at:end]) if header == _UDP else None

    def _collect(
        self, source: str, key: tuple[bytes, int], data: bytes, offset: int, more: bool
    ) -> tuple[str, bytes] | None:
        if not more and offset == 0:
            return source, data
        partial = self._partial.setdefault(key, _Partial())
        partial.parts[offset] = data
        if not more:
            partial.total = offset + len(data)
        whole = partial.whole()
        if whole is not None:
            del self._partial[key]
            return source, whole
        if len(self._partial) > MAX_PARTIAL:
            del self._partial[next(iter(self._partial))]
        return None
