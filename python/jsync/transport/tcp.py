"""A full mesh of TCP connections, IPv4 or IPv6: every node listens, and dials whom it misses.

On the wire each frame follows its length, four bytes, most significant first. A connection is
somebody's only after the engine has accepted a frame from it: who delivers none in time, or
garbage, is cut off, and only addresses of the configured peers are heard at all. Two nodes that
dial each other at once have two connections: both hear on both and send on one.

With certificates the stream is TLS, and both ends show theirs before anything else.
"""

import ipaddress
import math
import random
import socket
from dataclasses import dataclass, field

import trio

from jsync import tls
from jsync.engine import FrameSink
from jsync.errors import Failure
from jsync.log import Log
from jsync.transport import Complaints, TransportStats

MAX_FRAME = 65_535
"""What is taken."""
FRAME_BYTES = 16 << 10
"""What is made. Packets wait while a frame's sessions go into the table or come out of it: those of
64 KiB took up to 1.8 ms of a table of ten million, and were not faster altogether.
"""
QUEUE_BYTES = 8 << 20
"""What may wait for a peer; one that is further behind is cut off, and takes a snapshot later."""
ROOM_BYTES = 512 << 10
"""More frames are made when less than this waits for the peer that takes them fastest."""
ROOM_SECONDS = 0.1
"""How long frames wait to be made; then they go to whoever has room, and others fall behind."""
READ_BYTES = 256 << 10
INTRODUCTION_SECONDS = 10.0
"""Time for a connection to deliver an authentic frame."""
REFUSALS = 64
"""Frames in a row that the engine may refuse before the connection is cut off."""
PENDING_PER_PEER = 4
STRANGERS = 64
"""Addresses that are no peer's and whose attempts get a line in the log, one each."""
RETRY_SECONDS = (0.2, 5.0)
REFUSAL_SECONDS = 0.005
"""Pause after a connection that is refused at once: a flood of them costs little."""
PENALTY_SECONDS = 0.2
"""How long nothing is accepted from an address that delivered no authentic frame."""
USER_TIMEOUT_MS = 5_000
"""Time that data may stay unacknowledged before the kernel gives a connection up."""


class FrameReader:
    """Cuts a stream of bytes into frames. Each byte is copied once."""

    def __init__(self) -> None:
        self._begun = bytearray()
        """What has come of a frame that isn't whole yet, its length included."""

    def feed(self, data: bytes | bytearray) -> list[bytes]:
        """The frames that `data` completes. Raises ValueError on an impossible length."""
        begun, frames, at = self._begun, [], 0
        while begun and at < len(data):
            wanted = 4 + _length(begun) if len(begun) >= 4 else 4
            missing = wanted - len(begun)
            begun += data[at : at + missing]
            at += missing
            if len(begun) >= 4 and len(begun) == 4 + _length(begun):
                frames.append(bytes(memoryview(begun)[4:]))
                begun.clear()
        while len(data) - at >= 4:
            end = at + 4 + _length(data, at)
            if end > len(data):
                break
            frames.append(bytes(data[at + 4 : end]))
            at = end
        begun += data[at:]
        return frames


def _length(data: bytes | bytearray, at: int = 0) -> int:
    length = int.from_bytes(data[at : at + 4], "big")
    if not 1 <= length <= MAX_FRAME:
        raise ValueError(f"a frame of {length} bytes")
    return length


class SendQueue:
    """Frames that wait for one connection, bounded in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        """Lengths and frames, in turn."""
        self._bytes = 0
        self._filled = trio.Event()
        self._sent = trio.Event()
        self._sent.set()

    def __len__(self) -> int:
        """Bytes that wait."""
        return self._bytes

    def put(self, frame: bytes) -> bool:
        """Append a frame; False if there is no room."""
        if self._bytes + len(frame) > self._limit:
            return False
        self._pieces += (len(frame).to_bytes(4, "big"), frame)
        self._bytes += len(frame)
        self._filled.set()
        if self._sent.is_set():
            self._sent = trio.Event()
        return True

    async def take(self) -> bytes:
        """All that waits, as bytes for the wire; waits until there is something."""
        if not self._pieces:
            self._sent.set()
        await self._filled.wait()
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._bytes = 0
        self._filled = trio.Event()
        return data

    async def drained(self) -> None:
        """Wait until all that was put has been taken, and more is asked for."""
        await self._sent.wait()


Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


@dataclass(eq=False)
class _Connection:
    socket: trio.SocketStream
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
    refused_until: float = 0.0
    """Nothing is accepted before that time: the last connection was nobody's."""

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
        credentials: tls.Credentials | None = None,
    ) -> None:
        """`interface` is for link-local addresses. The own address among `peers` is ignored.

        With `credentials` connections are TLS.
        """
        self.stats = TransportStats()
        self._sink = sink
        self._log = log
        self._listen = ipaddress.ip_address(listen)
        self._port = port
        self._interface = interface
        self._credentials = credentials
        self._strangers: set[str] = set()
        self._complaints = Complaints()
        self._taken = trio.Event()
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
                self.stats.bytes_sent += len(frame)
            else:
                connection.why = "too slow"
                connection.scope.cancel()
        if not reached:
            self.stats.send_drops += 1

    async def room(self) -> None:
        """Wait, not for long, until little waits for the peer that takes frames fastest."""
        with trio.move_on_after(ROOM_SECONDS):
            while True:
                chosen = [self._preferred(peer) for peer in self._peers.values()]
                waiting = [len(connection.queue) for connection in chosen if connection]
                if min(waiting, default=0) < ROOM_BYTES:
                    break
                self._taken = trio.Event()
                await self._taken.wait()
        await trio.lowlevel.checkpoint()

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
                    if not self._welcome(accepted, address[0].partition("%")[0], nursery):
                        self.stats.connections_refused += 1
                        await trio.sleep(REFUSAL_SECONDS)
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
    ) -> bool:
        """Begin a conversation with a peer; False if it is none, or has too many or bad ones."""
        peer = self._peers.get(str(ipaddress.ip_address(address)))
        if (
            peer is None
            or len(peer.connections) >= PENDING_PER_PEER
            or trio.current_time() < peer.refused_until
        ):
            accepted.close()
            if peer is None and address not in self._strangers and len(self._strangers) < STRANGERS:
                self._strangers.add(address)
                self._log.warning("refused a connection from no peer", address=address)
            return False
        connection = _Connection(trio.SocketStream(accepted), dialled=False)
        nursery.start_soon(self._converse, peer, connection)
        return True

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
        peer.connections.append(connection)
        peer.changed.set()
        try:
            with connection.scope:
                async with connection.socket:
                    await self._live(peer, connection)
        finally:
            peer.connections.remove(connection)
            peer.changed.set()
            self._taken.set()
            if connection.node:
                self.stats.reconnects += 1
                self._log.warning(
                    "lost a connection",
                    address=peer.address,
                    node=connection.node,
                    reason=connection.why,
                )
            elif not connection.dialled or connection.why != "closed by the peer":
                self.stats.connections_refused += 1
                peer.refused_until = trio.current_time() + PENALTY_SECONDS
                # At a bounded rate: whoever has the address may try as often as it likes.
                if connection.why != "closed by the peer" and self._complaints.may(peer.address):
                    self._log.warning(
                        "cut off a connection", address=peer.address, reason=connection.why
                    )

    async def _live(self, peer: _Peer, connection: _Connection) -> None:
        """Exchange frames until the connection ends; `connection.why` says why it did."""
        for level, option, value in (
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS),
        ):
            connection.socket.setsockopt(level, option, value)
        with trio.CancelScope(deadline=trio.current_time() + INTRODUCTION_SECONDS) as patience:
            stream = await self._secure(peer, connection)
            if stream is not None:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, connection, stream)
                    await self._read(peer, connection, stream, patience)
                    nursery.cancel_scope.cancel()
        if patience.cancelled_caught:
            connection.why = "it delivered no authentic frame in time"

    async def _secure(self, peer: _Peer, connection: _Connection) -> Stream | None:
        """Shake hands, if there are certificates; None if the peer's isn't good."""
        if self._credentials is None:
            return connection.socket
        try:
            server, client = self._credentials.contexts()
        except Failure as failure:
            connection.why = f"our certificate can't be used: {failure}"
            return None
        stream = trio.SSLStream(
            connection.socket,
            client if connection.dialled else server,
            server_hostname=peer.address if connection.dialled else None,
            server_side=not connection.dialled,
            https_compatible=True,  # a frame says where it ends
        )
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            connection.why = tls.reason(error)
            return None
        # Who dials has had OpenSSL check it against the address that it dialled.
        if not connection.dialled and not tls.names_address(stream.getpeercert(), peer.address):
            connection.why = f"its certificate is not good: it doesn't name {peer.address}"
            return None
        return stream

    async def _write(self, connection: _Connection, stream: Stream) -> None:
        while True:
            data = await connection.queue.take()
            self._taken.set()
            try:
                await stream.send_all(data)
            except trio.BrokenResourceError:
                connection.scope.cancel()
                return

    async def _read(
        self, peer: _Peer, connection: _Connection, stream: Stream, patience: trio.CancelScope
    ) -> None:
        reader = FrameReader()
        refusals = 0
        while True:
            try:
                data = await stream.receive_some(READ_BYTES)
            except trio.BrokenResourceError as error:
                connection.why = tls.reason(error)
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
            for frame, sender in zip(frames, self._sink.receive_frames(frames), strict=True):
                self.stats.frames_received += 1
                self.stats.bytes_received += len(frame)
                if sender == 0:
                    refusals += 1
                    self.stats.frames_refused += 1
                    continue
                refusals = 0
                if connection.node != sender:
                    if not self._may_be(peer, connection, sender):
                        return
                    connection.node = sender
                    self._complaints.forget(peer.address)
                    patience.deadline = math.inf
                    self._log.info("connected", address=peer.address, node=sender)
            if refusals > (REFUSALS if connection.node else 0):
                connection.why = "its frames are not authentic, or not of our cluster"
                return

    def _may_be(self, peer: _Peer, connection: _Connection, node: int) -> bool:
        """Whether the other end may be that node: it is one only, and no two addresses are one."""
        others = (p for p in self._peers.values() if p is not peer)
        at = [p.address for p in others if any(c.node == node for c in p.connections)]
        if connection.node:
            connection.why = f"it speaks for node {node} too"
        elif at:
            connection.why = f"it speaks for node {node}, which is at {at[0]}"
        else:
            return True
        return False
