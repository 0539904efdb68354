"""UDP multicast, IPv4 or IPv6, on one interface of the private network."""

import ipaddress
import socket
import struct
from collections.abc import Sequence

from jsync.engine import FrameSink
from jsync.log import Log
from jsync.transport.datagram import DatagramTransport, SocketAddress, enlarge_buffers

IP_MULTICAST_ALL = 49
IPV6_MULTICAST_ALL = 29


class MulticastTransport(DatagramTransport):
    """Sends to a group, and hears it."""

    def __init__(
        self,
        sink: FrameSink,
        log: Log,
        *,
        group: str,
        port: int,
        interface: str,
        ttl: int,
        out_interface: str | None = None,
    ) -> None:
        """What is sent leaves by `out_interface`, if that is another than what is heard."""
        super().__init__(sink, log, interface=interface)
        self._group = ipaddress.ip_address(group)
        self._port = port
        self._out_interface = out_interface or interface
        self._ttl = ttl
        self._destination: SocketAddress = (group, port)

    def _where(self) -> dict[str, object]:
        return {"group": self._group, "port": self._port, "interface": self._interface}

    def _destinations(self, _node: int) -> Sequence[SocketAddress]:
        """Everybody hears the group; a frame says inside whom it is for."""
        return (self._destination,)

    def _open(self) -> socket.socket:
        index = self._index()
        out_index = socket.if_nametoindex(self._out_interface)
        is_v4 = self._group.version == 4
        family = socket.AF_INET if is_v4 else socket.AF_INET6
        opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            enlarge_buffers(opened)
            self._filter(opened)
            group = self._group.packed
            if is_v4:
                # struct ip_mreqn: group, local address, interface index
                membership = struct.pack("4s4si", group, bytes(4), index)
                opened.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
                outgoing = struct.pack("4s4si", group, bytes(4), out_index)
                opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, outgoing)
                opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, self._ttl)
                opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
                opened.bind((str(self._group), self._port))
                opened.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
                self._destination = (str(self._group), self._port)
            else:
                membership = struct.pack("16si", group, index)
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                opened.setsockopt(socket.IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0)
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, out_index)
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, self._ttl)
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
                self._destination = (str(self._group), self._port, 0, out_index)
                opened.bind((str(self._group), self._port, 0, index))
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
        except OSError:
            opened.close()
            raise
        return opened
