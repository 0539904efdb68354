"""Short exchanges with one server: `python exchanges.py VERB ADDRESS PORT [COUNT KIND …]`.

`serve` answers TCP connections and UDP requests until it is killed. `open` begins an exchange of
each kind every 5 ms, and none is tried a second time by this program: `tcp`, a connection of three
rounds with data both ways, `udp`, a single request, and `ping` (IPv6) with an identifier of its
own. It prints a line of JSON: of each kind the `count`, the `failed` and why, and the milliseconds
that each took.
"""

import errno
import json
import random
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

PAUSE = 0.005
ROUNDS = 3
PATIENCE = 15.0
"""A TCP connection that isn't done by then has failed: a SYN is sent again after 1, 3 and 7 s."""
ANSWER = 3.0
"""A single request without an answer by then is lost."""
SIZE = 2000
"""Bytes each way in a round: two segments."""


async def serve(address: str, port: int) -> None:
    family = trio.socket.AF_INET6 if ":" in address else trio.socket.AF_INET
    udp = trio.socket.socket(family, trio.socket.SOCK_DGRAM)
    await udp.bind((address, port))

    async def answer_udp() -> None:
        while True:
            data, source = await udp.recvfrom(65_536)
            await udp.sendto(data, source)

    async def answer_tcp(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                async for data in stream:
                    await stream.send_all(data)
        except trio.BrokenResourceError:
            pass  # the other end says so

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_udp)
        listeners = await nursery.start(
            lambda *, task_status: trio.serve_tcp(
                answer_tcp, port, host=address, backlog=1024, task_status=task_status
            )
        )
        assert listeners
        print("listening", flush=True)


async def connection(address: str, port: int, number: int) -> None:
    """A TCP connection with data both ways. Raises an exception that says why it failed."""
    with trio.fail_after(PATIENCE):
        async with await trio.open_tcp_stream(address, port, happy_eyeballs_delay=60) as stream:
            dice = random.Random(number)
            for _ in range(ROUNDS):
                data = dice.randbytes(SIZE)
                await stream.send_all(data)
                back = b""
                while len(back) < SIZE:
                    more = await stream.receive_some(65_536)
                    if not more:
                        raise OSError("closed too early")
                    back += more
                if back != data:
                    raise OSError("wrong data")
            await stream.send_eof()
            if await stream.receive_some(1):
                raise OSError("too much data")


async def request(address: str, port: int, number: int) -> None:
    """A single UDP request, which is answered or not."""
    family = trio.socket.AF_INET6 if ":" in address else trio.socket.AF_INET
    with trio.socket.socket(family, trio.socket.SOCK_DGRAM) as udp:
        await udp.connect((address, port))
        data = number.to_bytes(8, "big") * 8
        await udp.send(data)
        with trio.fail_after(ANSWER):
            if await udp.recv(65_536) != data:
                raise OSError("wrong data")


class Pings:
    """Pings over one raw socket, each with an identifier of its own."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket = trio.socket.socket(
            trio.socket.AF_INET6, trio.socket.SOCK_RAW, trio.socket.IPPROTO_ICMPV6
        )
        self._answered: dict[int, trio.Event] = {}

    async def listen(self) -> None:
        while True:
            data = await self._socket.recv(65_536)
            if data[0] == 129:
                identifier = struct.unpack_from("!4xH", data)[0]
                if identifier in self._answered:
                    self._answered[identifier].set()

    async def ping(self, _address: str, _port: int, number: int) -> None:
        answered = self._answered[10_000 + number] = trio.Event()
        message = struct.pack("!BBHHH", 128, 0, 0, 10_000 + number, 1) + bytes(56)
        await self._socket.sendto(message, (self._address, 0))
        with trio.fail_after(ANSWER):
            await answered.wait()


Exchange = Callable[[str, int, int], Awaitable[None]]


async def open_all(address: str, port: int, count: int, names: Sequence[str]) -> None:
    exchanges: dict[str, Exchange] = {"tcp": connection, "udp": request}
    results: dict[str, dict[str, Any]] = {
        n: {"count": count, "failed": [], "ms": []} for n in names
    }

    async def one(kind: str, number: int) -> None:
        began = time.monotonic()
        try:
            await exchanges[kind](address, port, number)
        except (OSError, trio.TooSlowError, trio.BrokenResourceError) as error:
            name = errno.errorcode.get(getattr(error, "errno", None) or 0)
            results[kind]["failed"].append(f"{number}: {name or error!r}")
        else:
            results[kind]["ms"].append(round(1000 * (time.monotonic() - began), 1))

    async with trio.open_nursery() as listeners:
        if "ping" in names:
            pings = Pings(address)
            exchanges["ping"] = pings.ping
            listeners.start_soon(pings.listen)
        async with trio.open_nursery() as nursery:
            for number in range(count):
                for kind in names:
                    nursery.start_soon(one, kind, number)
                await trio.sleep(PAUSE)
        listeners.cancel_scope.cancel()
    print(json.dumps(results))


def main(verb: str, address: str, port: str, count: str = "0", *kinds: str) -> None:
    if verb == "serve":
        trio.run(serve, address, int(port))
    else:
        trio.run(open_all, address, int(port), int(count), kinds)


if __name__ == "__main__":
    main(*sys.argv[1:])
