"""joold's group on a real network: the loopback interface."""

from collections.abc import Sequence
from io import StringIO

import pytest
import trio

from jsync import config
from jsync.errors import Failure
from jsync.log import Log
from jsync.transport.joold import JooldTransport

NAT64 = '[nat64]\npool4 = [{ prefix = "192.0.2.1" }]\n'


class Sink:
    def __init__(self) -> None:
        self.datagrams: list[tuple[str, bytes]] = []

    def receive_frames(self, frames: Sequence[bytes]) -> list[int]:
        raise NotImplementedError

    def receive_datagrams(self, datagrams: Sequence[tuple[str, bytes]]) -> list[bool]:
        self.datagrams += datagrams
        return [payload != b"bad" for _, payload in datagrams]


def test_datagrams_reach_the_engine_with_their_source() -> None:
    sink, group = Sink(), "239.64.64.64"
    joold = JooldTransport(
        sink, Log(stream=StringIO()), group=group, port=26400, interface="lo", ttl=1
    )

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(joold.run)
            with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sender:
                loopback = bytes([127, 0, 0, 1])
                sender.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_MULTICAST_IF, loopback)
                with trio.fail_after(5):
                    while len(set(sink.datagrams)) < 2:
                        await sender.sendto(b"good", (group, 26400))
                        await sender.sendto(b"bad", (group, 26400))
                        await trio.sleep(0.05)
            await joold.send(0, b"ours")
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert set(sink.datagrams) == {("127.0.0.1", b"good"), ("127.0.0.1", b"bad")}
    assert joold.stats.frames_received == len(sink.datagrams)
    assert joold.stats.frames_refused == sum(d == b"bad" for _, d in sink.datagrams)
    assert joold.stats.frames_sent == 1


def test_a_section_of_its_own() -> None:
    text = NAT64 + '[joold]\ngroup = "239.64.64.64"\ninterface = "eth1"\nformat = "4.1.13"\n'
    settings = config.parse(text, "f")
    assert settings.joold_json() == (
        b'{"format": "4.1.13", "flush-deadline": 5, "join-timeout": 2000}'
    )
    assert config.parse(NAT64, "f").joold_json() is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('group = "192.0.2.1"', "no multicast address"),
        ('group = "ff08::1"\nport = 0', "port: 0 is outside"),
        ('group = "ff08::1"\nttl = 256', "ttl: 256 is outside"),
        ('group = "ff08::1"\nformat = "4.2"', "format"),
        ('group = "ff08::1"\nflush-deadline = "2m"', "flush-deadline: is outside"),
        ('group = "ff08::1"\ngruop = 1', "did you mean 'group'"),
    ],
)
def test_a_mistake_is_named(lines: str, message: str) -> None:
    with pytest.raises(Failure, match=message):
        config.parse(NAT64 + f'[joold]\ninterface = "eth1"\n{lines}\n', "f")
