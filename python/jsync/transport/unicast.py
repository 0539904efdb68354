"""UDP from address to address, IPv4 or IPv6: where the private network carries no multicast."""

import ipaddress
import socket
from collections.abc import Sequence
from contextlib import suppress

from jsync.engine import FrameSink
from jsync.log import Log
from jsync.transport.datagram import DatagramTransport, SocketAddress, enlarge_buffers

IP_MTU_DISCOVER = 10
IP_MTU = 14
IPV6_MTU_DISCOVER = 23
IPV6_MTU = 24
PMTUDISC_DONT = 0


class UnicastTransport(DatagramTransport):
    """Sends to every peer's address, or to that of a node; hears nobody else's."""

    def __init__(
        self,
        sink: FrameSink,
        log: Log,
        *,
        listen: str,
        port: int,
        peers: list[str],
        interface: str | None = None,
    ) -> None:
        """`interface` is for link-local addresses. The own address among `peers` is ignored."""
        local = ipaddress.ip_address(listen)
        super().__init__(sink, log, interface=interface if local.is_link_local else None)
        self._listen = local
        self._port = port
        others = {ipaddress.ip_address(peer) for peer in peers} - {local}
        self._peers: dict[str, SocketAddress] = {
            str(peer): (str(peer), port) for peer in sorted(others, key=int)
        }
        self._homes: dict[int, str] = {}
        """The address that a node's last authentic frame came from."""

    def _where(self) -> dict[str, object]:
        return {"address": self._listen, "port": self._port}

    def _destinations(self, node: int) -> Sequence[SocketAddress]:
        home = self._homes.get(node)
        return (self._peers[home],) if home is not None else tuple(self._peers.values())

    def _deliver(self, datagrams: list[tuple[str, bytes]]) -> int:
        # The kernel writes addresses as ipaddress does.
        heard = [(source, frame) for source, frame in datagrams if source in self._peers]
        senders = self._sink.receive_frames([frame for _, frame in heard]) if heard else []
        for sender, (source, _) in zip(senders, heard, strict=True):
            if sender:
                self._homes[sender] = source
        return len(datagrams) - len(heard) + senders.count(0)

    def _open(self) -> socket.socket:
        scope = self._index()
        family = socket.AF_INET if self._listen.version == 4 else socket.AF_INET6
        opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            enlarge_buffers(opened)
            self._filter(opened)
            # A path that shrinks costs fragments, not frames.
            if family == socket.AF_INET:
                opened.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)
            else:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                opened.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DONT)
            opened.bind(socket_address(self._listen, self._port, scope))
        except OSError:
            opened.close()
            raise
        for peer in self._peers:
            self._peers[peer] = socket_address(ipaddress.ip_address(peer), self._port, scope)
        return opened


def socket_address(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, scope: int
) -> SocketAddress:
    """What a socket takes; only link-local addresses have a scope."""
    if address.version == 4:
        return (str(address), port)
    return (str(address), port, 0, scope if address.is_link_local else 0)


def path_mtu(listen: str, peers: Sequence[str], interface: str | None, default: int) -> int:
    """The smallest MTU on the way to any peer, as far as this host knows now."""
    local = ipaddress.ip_address(listen)
    family = socket.AF_INET if local.version == 4 else socket.AF_INET6
    level, option = (
        (socket.IPPROTO_IP, IP_MTU) if local.version == 4 else (socket.IPPROTO_IPV6, IPV6_MTU)
    )
    found = []
    for peer in map(ipaddress.ip_address, peers):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            scope = socket.if_nametoindex(interface) if interface else 0
            probe.bind(socket_address(local, 0, scope))
            probe.connect(socket_address(peer, 9, scope))
            if peer != local:
                found.append(probe.getsockopt(level, option))
    return min(found, default=default)
