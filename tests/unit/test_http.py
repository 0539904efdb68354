import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from jsync.errors import Failure
from jsync.http import MAX_CLIENTS, MAX_REQUEST, PATIENCE, PageServer, open_listener

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
BODY = b"x" * 200_000  # more than a socket's buffer takes from a sender whose reader sleeps


def page(accept: str) -> tuple[str, bytes]:
    if accept == "refuse":
        raise Failure("not now")
    return "text/plain", (accept or "none").encode()


@asynccontextmanager
async def served(server: PageServer | None = None) -> AsyncIterator[tuple[str, int]]:
    with open_listener("127.0.0.1", 0) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon((server or PageServer(page)).serve, listener)
            yield listener.getsockname()
            nursery.cancel_scope.cancel()


async def ask(where: tuple[str, int], request: bytes) -> bytes:
    """What comes back until the server closes; empty if it resets the connection."""
    async with await trio.open_tcp_stream(*where) as stream:
        answer = b""
        try:
            await stream.send_all(request)
            async for data in stream:
                answer += data
        except trio.BrokenResourceError:
            pass
        return answer


def run(test: Callable[[tuple[str, int]], Awaitable[None]]) -> None:
    async def main() -> None:
        async with served() as where:
            await test(where)

    trio.run(main)


def split(answer: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    fields = dict(header.split(b": ") for header in headers)
    return int(line.split()[1]), {name.lower(): value for name, value in fields.items()}, body


def test_serves_the_page() -> None:
    async def test(where: tuple[str, int]) -> None:
        answers = [await ask(where, GET + b"Accept: text/plain\r\n\r\n") for _ in range(3)]
        for answer in answers:
            status, headers, body = split(answer)
            assert (status, body) == (200, b"text/plain")
            assert headers[b"content-type"] == b"text/plain"
            assert headers[b"content-length"] == b"10"
            assert headers[b"connection"] == b"close"
        assert split(await ask(where, GET + b"\r\n"))[2] == b"none"
        query = GET.replace(b"/metrics", b"/metrics?a=1")
        assert split(await ask(where, query + b"\r\n"))[0] == 200

    run(test)


def test_head_has_no_body() -> None:
    async def test(where: tuple[str, int]) -> None:
        status, headers, body = split(await ask(where, GET.replace(b"GET", b"HEAD") + b"\r\n"))
        assert (status, headers[b"content-length"], body) == (200, b"4", b"")

    run(test)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /metrics/x HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),  # RFC 9112 section 3.2: no Host
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (GET + b"X: " + b"y" * 2 * MAX_REQUEST + b"\r\n\r\n", 431),
        (GET + b"X: y\r\n" * MAX_REQUEST, 431),
        (GET + b"Accept: refuse\r\n\r\n", 503),
    ],
)
def test_refuses_the_rest_with_the_right_status(request_: bytes, status: int) -> None:
    async def test(where: tuple[str, int]) -> None:
        assert split(await ask(where, request_))[0] == status

    run(test)


def test_clients_that_dawdle_are_cut_off() -> None:
    async def main() -> None:
        async with served(PageServer(lambda _: ("text/plain", BODY * 50))) as where:
            start = trio.current_time()
            async with trio.open_nursery() as nursery:
                for words in (b"", GET, GET + b"\r\n"):  # the last one doesn't read its answer
                    stream = await trio.open_tcp_stream(*where)
                    nursery.start_soon(_hold, stream, words)
            assert PATIENCE - 1 < trio.current_time() - start < PATIENCE + 2

    async def _hold(stream: trio.SocketStream, words: bytes) -> None:
        async with stream:
            if words:
                await stream.send_all(words)
            await trio.sleep(PATIENCE + 0.5)
            with pytest.raises(trio.BrokenResourceError):
                await _write_on(stream)  # the server's end is closed: that meets a reset

    async def _write_on(stream: trio.SocketStream) -> None:
        while True:
            await stream.send_all(b"x" * 65_536)
            await trio.sleep(0.01)

    # The sockets are real and on this machine: what they have to say is there at once.
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.05))


def test_more_clients_than_there_is_room_for_are_turned_away() -> None:
    async def test(where: tuple[str, int]) -> None:
        held = [await trio.open_tcp_stream(*where) for _ in range(MAX_CLIENTS)]
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await ask(where, GET + b"\r\n") == b""
        for stream in held:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert split(await ask(where, GET + b"\r\n"))[0] == 200

    run(test)


@given(st.lists(st.binary(max_size=200), max_size=3))
def test_no_bytes_end_the_server(pieces: list[bytes]) -> None:
    async def test(where: tuple[str, int]) -> None:
        async with await trio.open_tcp_stream(*where) as stream:
            for piece in pieces:
                try:
                    await stream.send_all(piece)
                except trio.BrokenResourceError:
                    break
        assert split(await ask(where, GET + b"\r\n"))[0] == 200

    run(test)


@given(st.text(st.characters(max_codepoint=255)))
def test_no_accept_header_is_too_strange_for_the_library(accept: str) -> None:
    from prometheus_client.exposition import choose_encoder

    choose_encoder(accept)


def test_a_port_that_is_taken_is_named() -> None:
    with open_listener("127.0.0.1", 0) as one:
        port = one.getsockname()[1]
        with pytest.raises(Failure, match=f"{port}: Address already in use"):
            open_listener("127.0.0.1", port)


def test_listens_on_ipv6_too() -> None:
    with open_listener("::1", 0) as listener:
        assert listener.family == socket.AF_INET6
