"""Gratuitous ARP: neighbours send to us what they sent to the former primary."""

import fcntl
import socket
import struct

from jsync.errors import Failure

_SIOCGIFHWADDR = 0x8927
_ETHERTYPE_ARP = 0x0806
_BROADCAST = b"\xff" * 6


def announcement(hardware: bytes, address: str) -> bytes:
    """An Ethernet frame with an ARP request of `address` for itself (RFC 5227 §2.3)."""
    packed = socket.inet_aton(address)
    ethernet = _BROADCAST + hardware + struct.pack("!H", _ETHERTYPE_ARP)
    request = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    return ethernet + request + hardware + packed + bytes(6) + packed


def announce(interface: str, addresses: list[str]) -> None:
    """Tell the neighbours on an Ethernet that the addresses are here. Raises Failure."""
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            request = struct.pack("16s16x", interface.encode())
            answer = fcntl.ioctl(sender, _SIOCGIFHWADDR, request)
            kind, hardware = struct.unpack_from("=16xH6s", answer)
            if kind != 1:
                return  # no Ethernet, no ARP
            sender.bind((interface, _ETHERTYPE_ARP))
            for address in addresses:
                sender.send(announcement(hardware, address))
    except OSError as error:
        raise Failure(f"ARP on {interface}: {error.strerror}") from None
