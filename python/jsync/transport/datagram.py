"""What the UDP transports share: a socket that follows its interface, and datagrams in batches."""

import ctypes
import errno
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress

import trio

from jsync.engine import FrameSink
from jsync.log import Log
from jsync.transport import FRAMES_BEGIN, Complaints, TransportStats

BATCH = 64
"""Datagrams that are handed to the engine at once."""
BUFFER_BYTES = 8 << 20
RETRY_SECONDS = 1.0
SO_ATTACH_FILTER = 26
SO_MEMINFO = 55
MEMINFO_DROPS = 8
_GONE = {errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.ENETDOWN, errno.ENXIO}

SocketAddress = tuple[str, int] | tuple[str, int, int, int]


class DatagramTransport:
    """Sends datagrams, and hears them; whom to and from is a subclass's business."""

    def __init__(self, sink: FrameSink, log: Log, *, interface: str | None) -> None:
        """`interface` is the one that the socket's life hangs on, if there is one."""
        self.stats = TransportStats()
        self._sink = sink
        self._log = log
        self._interface = interface
        self._socket: socket.socket | None = None
        self._complaints = Complaints()

    def _open(self) -> socket.socket:
        """A socket that is bound and doesn't block. Raises OSError: it is tried again."""
        raise NotImplementedError

    def _destinations(self, node: int) -> Sequence[SocketAddress]:
        """Where a frame for that node goes."""
        raise NotImplementedError

    def _where(self) -> dict[str, object]:
        """What the log says of the socket."""
        raise NotImplementedError

    def _deliver(self, datagrams: list[tuple[str, bytes]]) -> int:
        """Hand over what came, with its sources; how many were refused."""
        return self._sink.receive_frames([payload for _, payload in datagrams]).count(0)

    def _filter(self, opened: socket.socket) -> None:
        """Spare this process what can't be meant for it."""
        refuse_garbage(opened)

    async def run(self) -> None:
        """Receive until cancelled; the interface may come and go meanwhile."""
        complaint = ""
        while True:
            try:
                index = self._index()
                opened = self._open()
            except OSError as error:
                if complaint != str(error):  # once, not every second
                    complaint = str(error)
                    self._log.warning(
                        "the private network can't be used; trying on",
                        **self._where(),
                        error=error.strerror or error,
                    )
                await trio.sleep(RETRY_SECONDS)
                continue
            complaint = ""
            self._log.info("the private network is open", **self._where())
            try:
                self._socket = opened
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch, opened, index, nursery.cancel_scope)
                    nursery.start_soon(self._receive, opened)
            finally:
                self._socket = None
                trio.lowlevel.notify_closing(opened)
                opened.close()
            self.stats.reconnects += 1
            self._log.warning("the private interface went away", interface=self._interface)

    async def send(self, node: int, frame: bytes) -> None:
        """Send to one node, or to all if it is 0."""
        opened = self._socket
        if opened is None:
            self.stats.send_drops += 1
            return
        for destination in self._destinations(node):
            await self._send(opened, frame, destination)

    async def _send(self, opened: socket.socket, frame: bytes, destination: SocketAddress) -> None:
        while True:
            try:
                opened.sendto(frame, destination)
            except BlockingIOError:
                with suppress(trio.ClosedResourceError):
                    await trio.lowlevel.wait_writable(opened)
                if opened.fileno() < 0:
                    self.stats.send_drops += 1
                    return
            except OSError as error:
                # What is lost is sent again when a peer misses it.
                self.stats.send_drops += 1
                if error.errno != errno.ENOBUFS and self._complaints.may(destination[0]):
                    self._log.warning(
                        "a frame can't be sent on the private network",
                        to=destination[0],
                        error=error.strerror,
                        dropped=self.stats.send_drops,
                    )
                return
            else:
                self.stats.frames_sent += 1
                self.stats.bytes_sent += len(frame)
                return

    async def room(self) -> None:
        """There always is, since `send` waits for the network device; others get their turn."""
        await trio.lowlevel.checkpoint()

    async def drain(self) -> None:
        """Nothing waits here: the kernel has what was sent."""

    async def _watch(self, opened: socket.socket, index: int, scope: trio.CancelScope) -> None:
        """End the socket's life when its interface is gone, or is another by the same name.

        The kernel drops the membership then, and doesn't tell.
        """
        before = 0
        while True:
            await trio.sleep(RETRY_SECONDS)
            try:
                current = self._index()
            except OSError:
                current = 0
            if current != index:
                scope.cancel()
            drops = kernel_drops(opened)
            self.stats.receive_drops += drops - before
            before = drops

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
                self.stats.bytes_received += sum(len(payload) for _, payload in datagrams)
                self.stats.frames_refused += self._deliver(datagrams)
                datagrams.clear()
                await trio.lowlevel.checkpoint()

    def _index(self) -> int:
        """The number of the interface, 0 without one. Raises OSError."""
        return socket.if_nametoindex(self._interface) if self._interface else 0


def refuse_garbage(opened: socket.socket) -> None:
    """Have the kernel drop what doesn't even begin as a frame does: that costs no time here."""
    instructions = b"".join(
        struct.pack("HBBI", code, if_true, if_false, value)
        for code, if_true, if_false, value in (
            (0x20, 0, 0, 8),  # load the four bytes behind the UDP header
            (0x15, 0, 1, int.from_bytes(FRAMES_BEGIN, "big")),  # skip one unless they are equal
            (0x06, 0, 0, 0xFFFFFFFF),  # take all of it
            (0x06, 0, 0, 0),  # take nothing
        )
    )
    program = ctypes.create_string_buffer(instructions)
    filter_ = struct.pack("HP", len(instructions) // 8, ctypes.addressof(program))
    opened.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_)


def kernel_drops(opened: socket.socket) -> int:
    """Datagrams that the kernel dropped at this socket: garbage, or there was no room."""
    info = opened.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * (MEMINFO_DROPS + 1))
    drops: int = struct.unpack_from("I", info, 4 * MEMINFO_DROPS)[0]
    return drops


def enlarge_buffers(opened: socket.socket) -> None:
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
