import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from io import StringIO

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from jsync.log import Log
from jsync.transport import tcp
from jsync.transport.tcp import MAX_FRAME, FrameReader, SendQueue, TcpTransport, with_length


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


def frame_of(node: int, text: bytes = b"") -> bytes:
    return b"node" + bytes([node]) + text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Mesh:
    """Nodes 1, 2, … on 127.0.0.1, 127.0.0.2, …"""

    def __init__(self, nursery: trio.Nursery, size: int) -> None:
        self.nursery = nursery
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
async def mesh(size: int) -> AsyncIterator[Mesh]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nodes = Mesh(nursery, size)
            for node in nodes.sinks:
                nodes.start(node)
            await nodes.introduce()
            yield nodes
            nursery.cancel_scope.cancel()


async def eventually(is_so: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not is_so():
            await trio.sleep(0.01)


def run(test: Callable[[], Awaitable[None]]) -> None:
    trio.run(test)


@given(st.lists(st.binary(min_size=1, max_size=300)), st.data())
def test_cuts_a_stream_into_frames_wherever_it_is_split(
    frames: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(map(with_length, frames))
    reader, found, at = FrameReader(), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, 100))
        found += reader.feed(stream[at : at + size])
        at += size
    assert found == frames


@pytest.mark.parametrize("length", [0, MAX_FRAME + 1, 2**32 - 1])
def test_an_impossible_length_is_an_error(length: int) -> None:
    with pytest.raises(ValueError, match="bytes"):
        FrameReader().feed(length.to_bytes(4, "big"))


def test_a_queue_is_bounded_in_bytes() -> None:
    async def test() -> None:
        queue = SendQueue(limit=10)
        assert queue.put(b"12345")
        assert queue.put(b"12345")
        assert not queue.put(b"1")
        assert await queue.take() == with_length(b"12345") * 2
        assert queue.put(b"1")

    run(test)


def test_drained_means_taken_and_more_asked_for() -> None:
    async def test() -> None:
        queue = SendQueue(limit=10)
        await queue.drained()
        queue.put(b"x")
        with trio.move_on_after(0.01) as patience:
            await queue.drained()
        assert patience.cancelled_caught
        await queue.take()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.take)
            await queue.drained()
            nursery.cancel_scope.cancel()

    run(test)


def test_frames_go_to_one_node_or_to_all() -> None:
    async def test() -> None:
        async with mesh(3) as nodes:
            sender = nodes.transports[1]
            await sender.send(0, frame_of(1, b"all"))
            await sender.send(3, frame_of(1, b"three"))
            await nodes.sinks[2].wait_for(frame_of(1, b"all"))
            await nodes.sinks[3].wait_for(frame_of(1, b"three"))
            assert frame_of(1, b"three") not in nodes.sinks[2].frames

    run(test)


def test_two_connections_of_a_pair_carry_each_frame_once() -> None:
    async def test() -> None:
        async with mesh(2) as nodes:
            for n in range(200):
                await nodes.transports[1].send(0, frame_of(1, b"%d" % n))
            await nodes.sinks[2].wait_for(frame_of(1, b"199"))
            texts = [f[5:] for f in nodes.sinks[2].frames if f[5:] != b"hello"]
            assert texts == [b"%d" % n for n in range(200)]

    run(test)


def test_a_node_that_comes_back_is_found_again() -> None:
    async def test() -> None:
        async with mesh(2) as nodes:
            nodes.restart(2)
            nodes.sinks[2].frames.clear()
            nodes.sinks[1].frames.clear()
            await nodes.introduce()
            assert "lost a connection" in nodes.logs[1].getvalue()

    run(test)


def test_garbage_from_a_peers_address_closes_the_connection() -> None:
    async def test() -> None:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", with_length(b"forged")):
            async with trio.open_nursery() as nursery:
                nodes = Mesh(nursery, 2)
                nodes.start(1)
                await eventually(lambda: "waiting" in nodes.logs[1].getvalue())  # noqa: B023
                stream = await trio.open_tcp_stream(
                    "127.0.0.1", nodes.port, local_address="127.0.0.2"
                )
                async with stream:
                    await stream.send_all(garbage)
                    with trio.fail_after(5):
                        assert await stream.receive_some() == b""
                assert nodes.transports[1].stats.frames_refused == 1
                assert nodes.sinks[1].frames == []
                nursery.cancel_scope.cancel()

    run(test)


def test_strangers_are_not_heard() -> None:
    async def test() -> None:
        async with trio.open_nursery() as nursery:
            nodes = Mesh(nursery, 2)
            nodes.start(1)
            await eventually(lambda: "waiting" in nodes.logs[1].getvalue())
            stream = await trio.open_tcp_stream("127.0.0.1", nodes.port, local_address="127.0.0.9")
            async with stream:
                with trio.fail_after(5):
                    assert await stream.receive_some() == b""
            assert "no peer" in nodes.logs[1].getvalue()
            nursery.cancel_scope.cancel()

    run(test)


def test_a_peer_that_says_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "INTRODUCTION_SECONDS", 0.1)

    async def test() -> None:
        async with trio.open_nursery() as nursery:
            nodes = Mesh(nursery, 2)
            nodes.start(1)
            await eventually(lambda: "waiting" in nodes.logs[1].getvalue())
            stream = await trio.open_tcp_stream("127.0.0.1", nodes.port, local_address="127.0.0.2")
            async with stream:
                with trio.fail_after(5):
                    assert await stream.receive_some() == b""
            assert "in time" in nodes.logs[1].getvalue()
            nursery.cancel_scope.cancel()

    run(test)


def test_a_peer_that_does_not_read_is_cut_off_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tcp, "QUEUE_BYTES", 1 << 20)

    async def test() -> None:
        async with trio.open_nursery() as nursery:
            nodes = Mesh(nursery, 3)
            nodes.start(1)
            await eventually(lambda: "waiting" in nodes.logs[1].getvalue())
            lazy = await trio.open_tcp_stream("127.0.0.1", nodes.port, local_address="127.0.0.2")
            await lazy.send_all(with_length(frame_of(2)))
            nodes.start(3)
            await nodes.transports[3].send(0, frame_of(3))
            await eventually(lambda: nodes.logs[1].getvalue().count("message=connected") >= 1)
            big = frame_of(1, bytes(60_000))
            for _ in range(400):
                await nodes.transports[1].send(0, big)
                await nodes.transports[3].send(0, frame_of(3))
                await trio.sleep(0)
            await eventually(lambda: 'reason="too slow"' in nodes.logs[1].getvalue())
            await nodes.transports[1].send(0, frame_of(1, b"last"))
            await nodes.sinks[3].wait_for(frame_of(1, b"last"))
            await lazy.aclose()
            nursery.cancel_scope.cancel()

    run(test)


def test_an_address_that_is_not_there_yet_is_waited_for() -> None:
    async def test() -> None:
        log = StringIO()
        transport = TcpTransport(
            Sink(), Log(stream=log), listen="192.0.2.77", port=1, peers=["192.0.2.78"]
        )
        with trio.move_on_after(0.2):
            await transport.run()
        assert log.getvalue().count("trying on") == 1

    run(test)
