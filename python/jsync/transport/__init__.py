"""How frames travel between the nodes. The engine has sealed them; here they are bytes.

A transport loses, repeats and reorders as its network does: what that does to sessions is the
engine's business. None of them ends because the network is away: it says so and tries again.
"""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol

FRAMES_BEGIN = b"jsyn"
"""Every frame does; a datagram of joold's begins with a length of at most 1500."""
COMPLAINT_SECONDS = 10.0
"""The least time between two lines in the log that the network can cause at will."""


@dataclass
class TransportStats:
    """Counters of a transport, since its start."""

    frames_sent: int = 0
    bytes_sent: int = 0
    """Of frames, without the headers of the network."""
    frames_received: int = 0
    bytes_received: int = 0
    frames_refused: int = 0
    """Received, and not taken by the engine: unauthenticated, replayed, of another cluster."""
    send_drops: int = 0
    """Given up because the network or a peer didn't take them."""
    receive_drops: int = 0
    """UDP: datagrams that the kernel dropped, since they are no frames or came too fast."""
    reconnects: int = 0
    """Times that a socket or a connection was opened again."""
    connections_refused: int = 0
    """Connections that ended before an authentic frame came: strangers, garbage, certificates."""


class Complaints:
    """Bounds the rate of lines in the log. Subjects must be few: each is remembered."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[Hashable, float] = {}

    def may(self, subject: Hashable) -> bool:
        """Whether it is time again for a line about `subject`; it counts as written then."""
        now = self._clock()
        if now - self._last.get(subject, -COMPLAINT_SECONDS) < COMPLAINT_SECONDS:
            return False
        self._last[subject] = now
        return True

    def forget(self, subject: Hashable) -> None:
        """Let the next line about `subject` through: it went well meanwhile."""
        self._last.pop(subject, None)


class Transport(Protocol):
    """A way to the other nodes."""

    stats: TransportStats

    async def run(self) -> None:
        """Receive frames, and keep sockets open, until cancelled."""

    async def send(self, node: int, frame: bytes) -> None:
        """Send to one node, or to all if it is 0. Waits only for the local network device."""

    async def room(self) -> None:
        """Wait, not for long, until the peer that takes frames fastest wants more of them."""

    async def drain(self) -> None:
        """Wait until what was given to `send` has left this process."""
