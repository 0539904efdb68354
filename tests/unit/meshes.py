"""Transports of a few nodes on the loopback interface, with stand-ins for their engines."""

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from io import StringIO

import trio

from jsync.log import Log
from jsync.tls import Credentials
from jsync.transport.tcp import TcpTransport


class Sink:
    """Takes frames that begin with b"node" and the sender's number."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.arrived = trio.Event()

    def receive_frames(self, frames: Sequence[bytes]) -> list[int]:
        senders = []
        for frame in frames:
            authentic = frame.startswith(b"node")
            senders.append(frame[4] if authentic else 0)
            if authentic:
                self.frames.append(frame)
        self.arrived.set()
        return senders

    async def wait_for(self, frame: bytes) -> None:
        while frame not in self.frames:
            self.arrived = trio.Event()
            await self.arrived.wait()


def with_length(frame: bytes) -> bytes:
    """A frame as it goes on the wire."""
    return len(frame).to_bytes(4, "big") + frame


def frame_of(node: int, text: bytes = b"") -> bytes:
    return b"node" + bytes([node]) + text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Mesh:
    """Nodes 1, 2, … on 127.0.0.1, 127.0.0.2, …"""

    def __init__(
        self,
        nursery: trio.Nursery,
        size: int,
        credentials: Callable[[int], Credentials] | None = None,
    ) -> None:
        self.nursery = nursery
        self.credentials = credentials
        self.port = free_port()
        self.addresses = [f"127.0.0.{n}" for n in range(1, size + 1)]
        self.sinks = {n: Sink() for n in range(1, size + 1)}
        self.logs = {n: StringIO() for n in range(1, size + 1)}
        self.transports = {n: self._make(n) for n in self.sinks}
        self.scopes: dict[int, trio.CancelScope] = {}

    def _make(self, node: int) -> TcpTransport:
        return TcpTransport(
            self.sinks[node],
            Log(stream=self.logs[node]),
            listen=self.addresses[node - 1],
            port=self.port,
            peers=self.addresses,
            credentials=self.credentials(node) if self.credentials else None,
        )

    async def _run(self, node: int) -> None:
        with trio.CancelScope() as self.scopes[node]:
            await self.transports[node].run()

    def start(self, node: int) -> None:
        self.nursery.start_soon(self._run, node)

    def restart(self, node: int) -> None:
        self.scopes[node].cancel()
        self.transports[node] = self._make(node)
        self.start(node)

    async def introduce(self) -> None:
        """Say hello, as engines do in intervals, until everybody has heard everybody."""
        hello = {n: frame_of(n, b"hello") for n in self.sinks}

        async def talk() -> None:
            while True:
                for node, transport in self.transports.items():
                    await transport.send(0, hello[node])
                await trio.sleep(0.02)

        async with trio.open_nursery() as talking:
            talking.start_soon(talk)
            for node, sink in self.sinks.items():
                for other in self.sinks:
                    if other != node:
                        await sink.wait_for(hello[other])
            talking.cancel_scope.cancel()


@asynccontextmanager
async def mesh(
    size: int, credentials: Callable[[int], Credentials] | None = None
) -> AsyncIterator[Mesh]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nodes = Mesh(nursery, size, credentials)
            for node in nodes.sinks:
                nodes.start(node)
            await nodes.introduce()
            yield nodes
            nursery.cancel_scope.cancel()


async def eventually(is_so: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not is_so():
            await trio.sleep(0.01)
