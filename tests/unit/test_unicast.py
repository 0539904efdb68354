"""UDP from address to address, on the loopback interface."""

import socket
from collections.abc import Awaitable, Callable
from io import StringIO

import pytest
import trio
import trio.testing
from meshes import Sink, eventually, frame_of

from jsync import config
from jsync.errors import Failure
from jsync.log import Log
from jsync.transport import FRAMES_BEGIN
from jsync.transport.datagram import kernel_drops, refuse_garbage
from jsync.transport.unicast import UnicastTransport, path_mtu


@pytest.fixture(autouse=True)
def frames_of_the_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in's frames begin otherwise than the engine's."""
    monkeypatch.setattr("jsync.transport.datagram.FRAMES_BEGIN", b"node")


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Pair:
    """Nodes 1, 2 and 3 on 127.0.0.n."""

    def __init__(self) -> None:
        self.port = free_port()
        self.addresses = [f"127.0.0.{n}" for n in (1, 2, 3)]
        self.sinks = {n: Sink() for n in (1, 2, 3)}
        self.log = StringIO()
        self.transports = {
            n: UnicastTransport(
                self.sinks[n],
                Log(stream=self.log),
                listen=f"127.0.0.{n}",
                port=self.port,
                peers=self.addresses,
            )
            for n in (1, 2, 3)
        }

    async def opened(self) -> None:
        await eventually(lambda: self.log.getvalue().count("is open") == 3)


def run(test: Callable[[Pair], Awaitable[None]]) -> None:
    async def main() -> None:
        pair = Pair()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for transport in pair.transports.values():
                    nursery.start_soon(transport.run)
                await pair.opened()
                await test(pair)
                nursery.cancel_scope.cancel()

    trio.run(main)


def test_frames_go_to_all_and_then_to_the_node_that_was_heard() -> None:
    async def test(pair: Pair) -> None:
        sender = pair.transports[1]
        await sender.send(2, frame_of(1, b"where is 2?"))
        for node in (2, 3):
            await pair.sinks[node].wait_for(frame_of(1, b"where is 2?"))
        await pair.transports[2].send(0, frame_of(2, b"here"))
        await pair.sinks[1].wait_for(frame_of(2, b"here"))
        await sender.send(2, frame_of(1, b"to 2"))
        await sender.send(0, frame_of(1, b"to all"))
        for node in (2, 3):
            await pair.sinks[node].wait_for(frame_of(1, b"to all"))
        assert frame_of(1, b"to 2") in pair.sinks[2].frames
        assert frame_of(1, b"to 2") not in pair.sinks[3].frames

    run(test)


def test_who_sends_much_lets_others_have_their_turn() -> None:
    async def test(pair: Pair) -> None:
        with trio.testing.assert_checkpoints():
            await pair.transports[1].room()

    run(test)


def test_strangers_and_garbage_cost_the_engine_nothing() -> None:
    async def test(pair: Pair) -> None:
        for address, payload in (("127.0.0.9", frame_of(2)), ("127.0.0.3", b"garbage")):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.bind((address, 0))
                stranger.sendto(payload, ("127.0.0.1", pair.port))
        await pair.transports[2].send(1, frame_of(2, b"last"))
        await pair.sinks[1].wait_for(frame_of(2, b"last"))
        assert pair.sinks[1].frames == [frame_of(2, b"last")]
        stats = pair.transports[1].stats
        assert (stats.frames_received, stats.frames_refused) == (2, 1)
        await eventually(lambda: stats.receive_drops == 1)

    run(test)


def test_the_kernel_drops_what_is_no_frame() -> None:
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as theirs,
    ):
        ours.bind(("::1", 0))
        ours.setblocking(False)
        refuse_garbage(ours)
        for payload in (b"", b"no", b"nodd", b"node", b"node and more"):
            theirs.sendto(payload, ours.getsockname())
        assert [ours.recv(100) for _ in range(2)] == [b"node", b"node and more"]
        with pytest.raises(BlockingIOError):
            ours.recv(100)
        assert kernel_drops(ours) == 3
    assert FRAMES_BEGIN == b"jsyn"


def test_the_path_tells_how_large_a_frame_may_be() -> None:
    assert path_mtu("127.0.0.1", ["127.0.0.1", "127.0.0.2"], None, 1500) > 60_000
    assert path_mtu("192.0.2.77", ["192.0.2.78"], None, 1500) == 1500


NAT64 = '[node]\nid = 1\n[nat64]\npool4 = [{ prefix = "192.0.2.1" }]\n'


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "sync.listen: name this node's address"),
        ('listen = "10.0.0.1"', "sync.peers: list the addresses"),
        ('listen = "10.0.0.1"\npeers = ["fd00::2"]', "different IP versions"),
        ('listen = "10.0.0.1"\npeers = ["10.0.0.2"]\ngroup = "239.0.0.1"', "group: has no meaning"),
        ('listen = "10.0.0.1"\npeers = ["239.1.1.1"]', "peers.* is a multicast address"),
    ],
)
def test_a_mistake_is_named(lines: str, message: str) -> None:
    text = f'[sync]\ncluster = "c"\nplaintext = true\ntransport = "unicast"\n{lines}\n'
    with pytest.raises(Failure, match=message):
        config.parse(NAT64 + text, "f")
