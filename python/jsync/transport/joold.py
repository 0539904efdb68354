"""joold's multicast group: datagrams without frames, keys or node numbers."""

import socket
from collections.abc import Sequence
from typing import Protocol

from jsync.engine import FrameSink
from jsync.log import Log
from jsync.transport.multicast import MulticastTransport


class DatagramSink(FrameSink, Protocol):
    """Where joold's datagrams go."""

    def receive_datagrams(self, datagrams: Sequence[tuple[str, bytes]]) -> list[bool]:
        """See `jsync._core.Node`."""


class JooldTransport(MulticastTransport):
    """Sends to joold's group, and hears it."""

    def __init__(
        self,
        sink: DatagramSink,
        log: Log,
        *,
        group: str,
        port: int,
        interface: str,
        ttl: int,
        out_interface: str | None = None,
    ) -> None:
        super().__init__(
            sink,
            log,
            group=group,
            port=port,
            interface=interface,
            ttl=ttl,
            out_interface=out_interface,
        )
        self._datagrams = sink

    def _filter(self, opened: socket.socket) -> None:
        """Nothing tells a datagram of joold's from any other before it is read."""

    def _deliver(self, datagrams: list[tuple[str, bytes]]) -> int:
        return self._datagrams.receive_datagrams(datagrams).count(False)
