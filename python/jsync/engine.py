"""What the daemon asks of the engine: `jsync._core.Node`, or a test's stand-in."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from jsync._core import BibRow, JooldStatus, NodeStatus, PeerStatus, SessionRow


class FrameSink(Protocol):
    """Where transports put what they receive; the rest of `Engine` is none of their business."""

    def receive_frames(self, frames: Sequence[bytes]) -> list[int]:
        """See `jsync._core.Node`."""


class Engine(FrameSink, Protocol):
    """See `jsync._core.Node` for every method."""

    def attach(self, device: str, *, persistent: bool) -> None: ...  # noqa: D102
    def follow_marks(  # noqa: D102
        self, devices: Sequence[tuple[int, str]], *, persistent: bool
    ) -> None: ...
    def detach(self) -> None: ...  # noqa: D102
    def fileno(self) -> int: ...  # noqa: D102
    def take_frames(self, limit: int = 64) -> list[tuple[int, bytes]]: ...  # noqa: D102
    def take_datagrams(  # noqa: D102
        self, limit: int = 64, *, module: bool = False
    ) -> list[bytes]: ...
    def receive_datagrams(  # noqa: D102
        self, datagrams: Sequence[tuple[str, bytes]], *, module: bool = False
    ) -> list[bool]: ...
    def advertise(self, *, module: bool = False, all: bool = True) -> None: ...  # noqa: D102
    def joolds(self) -> "list[JooldStatus]": ...  # noqa: D102
    def take_events(self) -> list[str]: ...  # noqa: D102
    def leave(self) -> None: ...  # noqa: D102
    def status(self) -> "NodeStatus": ...  # noqa: D102
    def peers(self) -> "list[PeerStatus]": ...  # noqa: D102
    def stats(self) -> list[tuple[str, str, int]]: ...  # noqa: D102
    # Cursors are the engine's own: 0 at first, None at the end.
    def sessions(  # noqa: D102
        self, proto: str | None, cursor: Any, limit: int
    ) -> "tuple[list[SessionRow], Any]": ...
    def bib(  # noqa: D102
        self, proto: str | None, cursor: Any, limit: int
    ) -> "tuple[list[BibRow], Any]": ...
    def config(self) -> bytes: ...  # noqa: D102


class Translator(Engine, Protocol):
    """An engine whose configuration can be changed while it runs."""

    def update_global(self, options: bytes) -> None: ...  # noqa: D102
    def pool4_add(self, entry: bytes) -> None: ...  # noqa: D102
    def pool4_remove(self, entry: bytes) -> None: ...  # noqa: D102
    def pool4_flush(self) -> None: ...  # noqa: D102
    def bib_add(self, entry: bytes) -> None: ...  # noqa: D102
    def bib_remove(  # noqa: D102
        self, proto: str, ipv6: str | None, ipv4: str | None
    ) -> None: ...
