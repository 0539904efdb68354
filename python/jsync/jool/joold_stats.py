"""The statistics of `jool session proxy`: whatever datagram comes, six lines go back."""

import socket
from collections.abc import Sequence

import trio

from jsync.errors import Failure
from jsync.jool.stream import StreamStats
from jsync.transport import TransportStats

DEFAULT_ADDRESS = "::"
DEFAULT_PORT = "6401"
_READ_BYTES = 1024


def open_stats_sockets(address: str, port: str) -> list[socket.socket]:
    """UDP sockets on every meaning of the address; "::" hears IPv4 as well. Raises Failure."""
    opened: list[socket.socket] = []
    try:
        for family, kind, protocol, _, where in socket.getaddrinfo(
            address, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
        ):
            opened.append(socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol))
            opened[-1].bind(where)
    except OSError as error:
        for one in opened:
            one.close()
        raise Failure(
            f"statistics can't be served on {address}, port {port}: {error.strerror};"
            " choose another --stats.address or --stats.port"
        ) from None
    return opened


class StatsServer:
    """Answers with what was carried between the kernel module and the network."""

    def __init__(
        self, sockets: Sequence[socket.socket], module: StreamStats, network: TransportStats
    ) -> None:
        """The sockets stay their opener's to close."""
        self._sockets = sockets
        self._module = module
        self._network = network

    def text(self) -> bytes:
        """The answer: NAME,NUMBER lines. KERNEL_SENT is what the kernel module has sent."""
        lines = (
            ("KERNEL_SENT_PKTS", self._module.batches_received),
            ("KERNEL_SENT_BYTES", self._module.bytes_received),
            ("NET_RCVD_PKTS", self._network.frames_received),
            ("NET_RCVD_BYTES", self._network.bytes_received),
            ("NET_SENT_PKTS", self._network.frames_sent),
            ("NET_SENT_BYTES", self._network.bytes_sent),
        )
        return "".join(f"{name},{value}\n" for name, value in lines).encode()

    async def run(self) -> None:
        """Answer until cancelled."""
        async with trio.open_nursery() as nursery:
            for one in self._sockets:
                nursery.start_soon(self._answer, trio.socket.from_stdlib_socket(one))

    async def _answer(self, opened: trio.socket.SocketType) -> None:
        while True:
            try:
                _, asker = await opened.recvfrom(_READ_BYTES)
                await opened.sendto(self.text(), asker)
            except OSError:  # the asker can't be reached: that is its loss
                await trio.sleep(0.01)
