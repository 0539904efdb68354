"""UDP multicast, IPv4 or IPv6, on one interface of the private network."""

import errno
import ipaddress
import socket
import struct
from contextlib import suppress

import trio

from jsync.engine import FrameSink
from jsync.log import Log
from jsync.transport import TransportStats

BATCH = 64
"""Datagrams that are handed to the engine at once."""
BUFFER_BYTES = 8 << 20
RETRY_SECONDS = 1.0
IP_MULTICAST_ALL = 49
IPV6_MULTICAST_ALL = 29
_GONE = {errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.ENETDOWN, errno.ENXIO}


class MulticastTransport:
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
        self.stats = TransportStats()
        self._sink = sink
        self._log = log
        self._group = ipaddress.ip_address(group)
        self._port = port
        self._interface = interface
        self._out_interface = out_interface or interface
        self._ttl = ttl
        self._socket: socket.socket | None = None
        self._send_fails = False
        self._destination: tuple[str, int] | tuple[str, int, int, int] = (group, port)

    async def run(self) -> None:
        """Receive until cancelled; the interface may come and go meanwhile."""
        complaint = ""
        while True:
            try:
                index = socket.if_nametoindex(self._interface)
                opened = self._open(index, socket.if_nametoindex(self._out_interface))
            except OSError as error:
                if complaint != str(error):  # once, not every second
                    complaint = str(error)
                    self._log.warning(
                        "the private interface can't be used; trying on",
                        interface=self._interface,
                        error=error.strerror or error,
                    )
                await trio.sleep(RETRY_SECONDS)
                continue
            complaint = ""
            self._log.info(
                "multicast is open", group=self._group, port=self._port, interface=self._interface
            )
            try:
                self._socket = opened
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch, index, nursery.cancel_scope)
                    nursery.start_soon(self._receive, opened)
            finally:
                self._socket = None
                trio.lowlevel.notify_closing(opened)
                opened.close()
            self.stats.reconnects += 1
            self._log.warning("the private interface went away", interface=self._interface)

    async def send(self, node: int, frame: bytes) -> None:
        """Send to the group: the frame says inside whom it is for."""
        opened = self._socket
        if opened is None:
            self.stats.send_drops += 1
            return
        while True:
            try:
                opened.sendto(frame, self._destination)
            except BlockingIOError:
                with suppress(trio.ClosedResourceError):
                    await trio.lowlevel.wait_writable(opened)
                if opened.fileno() < 0:
                    self.stats.send_drops += 1
                    return
            except OSError as error:
                # What is lost is sent again when a peer misses it.
                self.stats.send_drops += 1
                if error.errno != errno.ENOBUFS and not self._send_fails:
                    self._send_fails = True
                    self._log.warning(
                        "nothing can be sent on the private interface",
                        interface=self._interface,
                        error=error.strerror,
                    )
                return
            else:
                self.stats.frames_sent += 1
                if self._send_fails:
                    self._send_fails = False
                    self._log.info("the private interface sends", interface=self._interface)
                return

    async def drain(self) -> None:
        """Nothing waits here: the kernel has what was sent."""

    async def _watch(self, index: int, scope: trio.CancelScope) -> None:
        """End the socket's life when its interface is gone, or is another by the same name.

        The kernel drops the membership then, and doesn't tell.
        """
        while True:
            await trio.sleep(RETRY_SECONDS)
            try:
                current = socket.if_nametoindex(self._interface)
            except OSError:
                current = 0
            if current != index:
                scope.cancel()

    async def _receive(self, opened: socket.socket) -> None:
        datagrams: list[tuple[str, bytes]] = []
        while True:
            await trio.lowlevel.wait_readable(opened)
            while True:
                try:
                    while len(datagrams) < BATCH:
                        payload, address = opened.recvfrom(65_535)
                        datagrams.append((address[0].partition("%")[0], payload))
                except BlockingIOError:
                    pass
                except OSError as error:
                    if error.errno not in _GONE:
                        raise
                if not datagrams:
                    break
                self.stats.frames_received += len(datagrams)
                self.stats.frames_refused += self._deliver(datagrams)
                datagrams.clear()
                await trio.lowlevel.checkpoint()

    def _deliver(self, datagrams: list[tuple[str, bytes]]) -> int:
        """Hand over what came, with its sources; how many were refused."""
        return self._sink.receive_frames([payload for _, payload in datagrams]).count(0)

    def _open(self, index: int, out_index: int) -> socket.socket:
        is_v4 = self._group.version == 4
        family = socket.AF_INET if is_v4 else socket.AF_INET6
        opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._enlarge_buffers(opened)
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

    def _enlarge_buffers(self, opened: socket.socket) -> None:
        """A snapshot of a large table comes as fast as the network carries it."""
        # Past net.core.[rw]mem_max with CAP_NET_ADMIN only; else as far as that goes.
        for option, force in (
            (socket.SO_RCVBUF, 33),  # SO_RCVBUFFORCE
            (socket.SO_SNDBUF, 32),  # SO_SNDBUFFORCE
        ):
            try:
                opened.setsockopt(socket.SOL_SOCKET, force, BUFFER_BYTES)
            except PermissionError:
                opened.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
