"""How frames travel between the nodes. The engine has sealed them; here they are bytes.

A transport loses, repeats and reorders as its network does: what that does to sessions is the
engine's business. None of them ends because the network is away: it says so and tries again.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass
class TransportStats:
    """Counters of a transport, since its start."""

    frames_sent: int = 0
    frames_received: int = 0
    frames_refused: int = 0
    """Received, and not taken by the engine: unauthenticated, replayed, of another cluster."""
    send_drops: int = 0
    """Given up because the network or a peer didn't take them."""
    reconnects: int = 0
    """Times that a socket or a connection was opened again."""


class Transport(Protocol):
    """A way to the other nodes."""

    stats: TransportStats

    async def run(self) -> None:
        """Receive frames, and keep sockets open, until cancelled."""

    async def send(self, node: int, frame: bytes) -> None:
        """Send to one node, or to all if it is 0. Waits only for the local network device."""

    async def drain(self) -> None:
        """Wait until what was given to `send` has left this process."""
