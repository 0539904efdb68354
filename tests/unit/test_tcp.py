from collections.abc import Awaitable, Callable
from io import StringIO

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from meshes import Mesh, Sink, eventually, frame_of, mesh, with_length

from jsync.log import Log
from jsync.transport import Complaints, tcp
from jsync.transport.tcp import MAX_FRAME, FrameReader, SendQueue, TcpTransport


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


def test_frames_are_made_as_fast_as_the_fastest_peer_takes_them() -> None:
    """Meanwhile changes coalesce in the engine's table, and nothing waits here."""

    async def test() -> None:
        async with trio.open_nursery() as nursery:
            nodes = Mesh(nursery, 3)
            nodes.start(1)
            nodes.start(3)
            await eventually(lambda: "waiting" in nodes.logs[1].getvalue())
            lazy = await trio.open_tcp_stream("127.0.0.1", nodes.port, local_address="127.0.0.2")
            await lazy.send_all(with_length(frame_of(2)))
            while frame_of(3, b"here") not in nodes.sinks[1].frames:
                await nodes.transports[3].send(0, frame_of(3, b"here"))
                await trio.sleep(0.01)
            big, most = frame_of(1, bytes(60_000)), 0
            for n in range(100):
                await nodes.transports[1].send(0, big)
                await nodes.transports[1].room()
                await nodes.transports[3].send(0, frame_of(3, b"%d" % n))
                queues = [
                    len(c.queue)
                    for p in nodes.transports[1]._peers.values()
                    for c in p.connections
                    if c.node == 3
                ]
                most = max([most, *queues])
            await eventually(lambda: nodes.sinks[3].frames.count(big) == 100)
            assert most < tcp.ROOM_BYTES + len(big)
            assert "too slow" not in nodes.logs[1].getvalue()
            await lazy.aclose()
            nursery.cancel_scope.cancel()

    run(test)


def test_who_is_one_node_is_no_other() -> None:
    async def test() -> None:
        async with mesh(2) as nodes:
            await nodes.transports[2].send(1, frame_of(7))
            await eventually(lambda: "speaks for node 7 too" in nodes.logs[1].getvalue())
        async with trio.open_nursery() as nursery:
            nodes = Mesh(nursery, 3)
            for node in (1, 3):
                nodes.start(node)
            await nodes.transports[3].send(0, frame_of(3))
            await eventually(lambda: "waiting" in nodes.logs[1].getvalue())
            three = await trio.open_tcp_stream("127.0.0.1", nodes.port, local_address="127.0.0.3")
            await three.send_all(with_length(frame_of(3)))
            await nodes.sinks[1].wait_for(frame_of(3))
            two = await trio.open_tcp_stream("127.0.0.1", nodes.port, local_address="127.0.0.2")
            await two.send_all(with_length(frame_of(3)))
            async with two, three:
                with trio.fail_after(5):
                    assert await two.receive_some() == b""
            assert "which is at 127.0.0.3" in nodes.logs[1].getvalue()
            nursery.cancel_scope.cancel()

    run(test)


def test_a_flood_of_connections_costs_little() -> None:
    """Strangers, and who has a peer's address but no key: no more than some hundred a second."""

    async def test() -> None:
        async with trio.open_nursery() as nursery:
            nodes = Mesh(nursery, 2)
            nodes.start(1)
            await eventually(lambda: "waiting" in nodes.logs[1].getvalue())

            async def flood(address: str) -> None:
                while True:
                    try:
                        stream = await trio.open_tcp_stream(
                            "127.0.0.1", nodes.port, local_address=address
                        )
                        async with stream:
                            await stream.send_all(with_length(b"forged"))
                            await stream.receive_some()
                    except (OSError, trio.BrokenResourceError):
                        await trio.sleep(0)

            # A busy machine floods more slowly: what is allowed depends on the time that passed.
            stats, begin = nodes.transports[1].stats, trio.current_time()
            async with trio.open_nursery() as flooding:
                for address in ("127.0.0.2", "127.0.0.9"):
                    for _ in range(8):
                        flooding.start_soon(flood, address)
                await eventually(
                    lambda: stats.connections_refused >= 50 and stats.frames_refused >= 3
                )
                flooding.cancel_scope.cancel()
            seconds = trio.current_time() - begin
            conversations = (seconds / tcp.PENALTY_SECONDS + 1) * tcp.PENDING_PER_PEER
            assert stats.frames_refused <= conversations
            assert stats.connections_refused <= seconds / tcp.REFUSAL_SECONDS + 1 + conversations
            assert nodes.logs[1].getvalue().count("message=") <= 3 + seconds / 10
            nursery.cancel_scope.cancel()

    run(test)


def test_complaints_about_a_subject_have_a_pause() -> None:
    now = 100.0
    complaints = Complaints(lambda: now)
    assert complaints.may("a")
    assert complaints.may("b")
    now = 109.9
    assert not complaints.may("a")
    now = 110.0
    assert complaints.may("a")
    complaints.forget("a")
    assert complaints.may("a")


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
