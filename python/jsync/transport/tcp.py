"""A full mesh of TCP connections, IPv4 or IPv6: every node listens, and dials whom it misses.

On the wire each frame follows its length, four bytes, most significant first. A connection is
somebody's only after the engine has accepted a frame from it: who delivers none in time, or
garbage, is cut off, and only addresses of the configured peers are heard at all. Two nodes that
dial each other at once have two connections: both hear on both and send on one.
"""

import ipaddress
import math
import random
import socket
from collections import deque
from dataclasses import dataclass, field

import trio

from jsync.engine import FrameSink
from jsync.log import Log
from jsync.transport import TransportStats

MAX_FRAME = 65_535
QUEUE_BYTES = 8 << 20
"""What may wait for a peer; one that is further behind is cut off, and takes a snapshot later."""
READ_BYTES = 256 << 10
INTRODUCTION_SECONDS = 10.0
"""Time for a connection to deliver an authentic frame."""
REFUSALS = 64
"""Frames in a row that the engine may refuse before the connection is cut off."""
PENDING_PER_PEER = 4
STRANGERS = 64
"""Addresses that are no peer's and whose attempts get a line in the log, one each."""
RETRY_SECONDS = (0.2, 5.0)
USER_TIMEOUT_MS = 5_000
"""Time that data may stay unacknowledged before the kernel gives a connection up."""


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completes. Raises ValueError on an impossible length."""
        buffer = self._buffer
        buffer += data
        frames = []
        at = 0
        while len(buffer) - at >= 4:
            length = int.from_bytes(buffer[at : at + 4], "big")
            if not 1 <= length <= MAX_FRAME:
                raise ValueError(f"a frame of {length} bytes")
            if len(buffer) - at - 4 < length:
                break
            frames.append(bytes(buffer[at + 4 : at + 4 + length]))
            at += 4 + length
        del buffer[:at]
        return frames


def with_length(frame: bytes) -> bytes:
    """A frame as it goes on the wire."""
    return len(frame).to_bytes(4, "big") + frame


class SendQueue:
    """Frames that wait for one connection, bounded in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._filled = trio.Event()
        self._sent = trio.Event()
        self._sent.set()

    def put(self, frame: bytes) -> bool:
        """Append a frame; False if there is no room."""
        if self._bytes + len(frame) > self._limit:
            return False
        self._frames.append(with_length(frame))
        self._bytes += len(frame)
        self._filled.set()
        if self._sent.is_set():
            self._sent = trio.Event()
        return True

    async def take(self) -> bytes:
        """All that waits, as bytes for the wire; waits until there is something."""
        if not self._frames:
            self._sent.set()
        await self._filled.wait()
        data = b"".join(self._frames)
        self._frames.clear()
        self._bytes = 0
        self._filled = trio.Event()
        return data

    async def drained(self) -> None:
        """Wait until all that was put has been taken, and more is asked for."""
        await self._sent.wait()


@dataclass(eq=False)
class _Connection:
    stream: trio.SocketStream
    dialled: bool
    node: int = 0
    """Who is at the other end; 0 until an authentic frame came."""
    queue: SendQueue = field(default_factory=lambda: SendQueue(QUEUE_BYTES))
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    why: str = "closed by the peer"


@dataclass(eq=False)
class _Peer:
    address: str
    connections: list[_Connection] = field(default_factory=list)
    changed: trio.Event = field(default_factory=trio.Event)
    complaint: str = ""

    def established(self) -> list[_Connection]:
        return [c for c in self.connections if c.node]


class TcpTransport:
    """Connections to all peers."""

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
        self.stats = TransportStats()
        self._sink = sink
        self._log = log
        self._listen = ipaddress.ip_address(listen)
        self._port = port
        self._interface = interface
        self._strangers: set[str] = set()
        others = {ipaddress.ip_address(peer) for peer in peers} - {self._listen}
        self._peers = {str(address): _Peer(str(address)) for address in sorted(others, key=int)}

    async def run(self) -> None:
        """Listen, dial and receive until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve, nursery)
            for peer in self._peers.values():
                nursery.start_soon(self._dial, peer)

    async def send(self, node: int, frame: bytes) -> None:
        """Queue for one node, or for all; never waits. A peer that is far behind is cut off."""
        known = [p for p in self._peers.values() if any(c.node == node for c in p.connections)]
        reached = False
        for peer in known if node and known else self._peers.values():
            connection = self._preferred(peer)
            if connection is None:
                continue
            if connection.queue.put(frame):
                reached = True
                self.stats.frames_sent += 1
            else:
                connection.why = "too slow"
                connection.scope.cancel()
        if not reached:
            self.stats.send_drops += 1

    async def drain(self) -> None:
        """Wait until no frame waits for a peer."""
        for peer in self._peers.values():
            for connection in list(peer.connections):
                await connection.queue.drained()

    def _preferred(self, peer: _Peer) -> _Connection | None:
        """The connection to send on: of two, that which the lower address dialled.

        Both ends choose the same. One that nobody has authenticated yet must do if there is no
        other, since somebody has to speak first.
        """
        choice = peer.established() or peer.connections
        lower_dials = int(self._listen) < int(ipaddress.ip_address(peer.address))
        return min(choice, key=lambda c: c.dialled != lower_dials, default=None)

    def _scoped(self, address: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
        """A socket address; link-local ones need the interface. Raises OSError."""
        if self._listen.version == 4:
            return (address, port)
        is_local = ipaddress.ip_address(address).is_link_local
        index = socket.if_nametoindex(self._interface) if is_local and self._interface else 0
        return (address, port, 0, index)

    def _socket(self) -> trio.socket.SocketType:
        family = socket.AF_INET if self._listen.version == 4 else socket.AF_INET6
        return trio.socket.socket(family, socket.SOCK_STREAM)

    async def _serve(self, nursery: trio.Nursery) -> None:
        complaint = ""
        while True:
            listener = self._socket()
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                await listener.bind(self._scoped(str(self._listen), self._port))
                listener.listen(len(self._peers) * PENDING_PER_PEER)
                self._log.info("waiting for peers", address=self._listen, port=self._port)
                complaint = ""
                while True:
                    accepted, address = await listener.accept()
                    self._welcome(accepted, address[0].partition("%")[0], nursery)
            except OSError as error:
                if complaint != str(error):
                    complaint = str(error)
                    self._log.warning(
                        "can't listen for peers; trying on",
                        address=self._listen,
                        port=self._port,
                        error=error.strerror or error,
                    )
            finally:
                listener.close()
            await trio.sleep(RETRY_SECONDS[0] * 5)

    def _welcome(
        self, accepted: trio.socket.SocketType, address: str, nursery: trio.Nursery
    ) -> None:
        peer = self._peers.get(str(ipaddress.ip_address(address)))
        if peer is None or len(peer.connections) >= PENDING_PER_PEER:
            accepted.close()
            if peer is None and address not in self._strangers and len(self._strangers) < STRANGERS:
                self._strangers.add(address)
                self._log.warning("refused a connection from no peer", address=address)
            return
        connection = _Connection(trio.SocketStream(accepted), dialled=False)
        nursery.start_soon(self._converse, peer, connection)

    async def _dial(self, peer: _Peer) -> None:
        """Keep a connection to `peer`, its or ours."""
        low, high = RETRY_SECONDS
        wait = low
        while True:
            if peer.connections:
                peer.changed = trio.Event()
                await peer.changed.wait()
                continue
            dialling = self._socket()
            try:
                await dialling.bind(self._scoped(str(self._listen), 0))
                with trio.fail_after(high):
                    await dialling.connect(self._scoped(peer.address, self._port))
            except (OSError, trio.TooSlowError):
                dialling.close()
                # Not in step with the others, who lost the same network at the same time.
                await trio.sleep(wait * random.uniform(0.5, 1.0))
                wait = min(wait * 2, high)
                continue
            except trio.Cancelled:
                dialling.close()
                raise
            connection = _Connection(trio.SocketStream(dialling), dialled=True)
            await self._converse(peer, connection)
            wait = low if connection.node else min(wait * 2, high)
            await trio.sleep(wait * random.uniform(0.5, 1.0))

    async def _converse(self, peer: _Peer, connection: _Connection) -> None:
        """Live the connection's life."""
        stream = connection.stream
        peer.connections.append(connection)
        peer.changed.set()
        try:
            with connection.scope:
                async with stream, trio.open_nursery() as nursery:
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    for option, value in (
                        (socket.TCP_NODELAY, 1),
                        (socket.TCP_KEEPIDLE, 2),
                        (socket.TCP_KEEPINTVL, 1),
                        (socket.TCP_KEEPCNT, 3),
                        (socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS),
                    ):
                        stream.setsockopt(socket.IPPROTO_TCP, option, value)
                    nursery.start_soon(self._write, connection)
                    await self._read(peer, connection)
                    nursery.cancel_scope.cancel()
        finally:
            peer.connections.remove(connection)
            peer.changed.set()
            if connection.node:
                self.stats.reconnects += 1
                self._log.warning(
                    "lost a connection",
                    address=peer.address,
                    node=connection.node,
                    reason=connection.why,
                )
            elif connection.why not in {peer.complaint, "closed by the peer"}:
                peer.complaint = connection.why  # once, not at every attempt
                self._log.warning(
                    "cut off a connection", address=peer.address, reason=connection.why
                )

    async def _write(self, connection: _Connection) -> None:
        while True:
            data = await connection.queue.take()
            try:
                await connection.stream.send_all(data)
            except trio.BrokenResourceError:
                connection.scope.cancel()
                return

    async def _read(self, peer: _Peer, connection: _Connection) -> None:
        reader = FrameReader()
        refusals = 0
        with trio.CancelScope(deadline=trio.current_time() + INTRODUCTION_SECONDS) as patience:
            while True:
                try:
                    data = await connection.stream.receive_some(READ_BYTES)
                except trio.BrokenResourceError as error:
                    connection.why = str(error.__cause__ or error)
                    return
                if not data:
                    return
                try:
                    frames = reader.feed(data)
                except ValueError as error:
                    self.stats.frames_refused += 1
                    connection.why = f"it sends garbage: {error}"
                    return
                if not frames:
                    continue
                for sender in self._sink.receive_frames(frames):
                    self.stats.frames_received += 1
                    if sender:
                        refusals = 0
                        if connection.node != sender:
                            connection.node = sender
                            peer.complaint = ""
                            patience.deadline = math.inf
                            self._log.info("connected", address=peer.address, node=sender)
                    else:
                        refusals += 1
                        self.stats.frames_refused += 1
                if refusals > (REFUSALS if connection.node else 0):
                    connection.why = "its frames are not authentic, or not of our cluster"
                    return
        if patience.cancelled_caught:
            connection.why = "it delivered no authentic frame in time"
