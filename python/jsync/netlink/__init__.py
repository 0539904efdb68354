"""The host's side of the data plane: routes, rules, nftables and sysctls, and their undoing.

`plan` says what is wanted, `steps` how each part is done and undone, `journal` remembers what was
done, so that the next start can finish the work of a daemon that was killed, `dataplane` puts
them together. Everything here blocks: the daemon calls it in a thread.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from jsync.config import Settings


class HostSide(Protocol):
    """What the daemon asks of `jsync.netlink.dataplane.Dataplane`, or of a test's stand-in."""

    def prepare(self) -> None:
        """Do what comes before the TUN."""

    def connect(self) -> None:
        """Lead packets to the TUN."""

    def hold(self, held: frozenset[int]) -> None:
        """This node is MASTER of these slices of pool4 now (see `jsync.failover`), and no other."""

    def announce(self) -> None:
        """Tell the neighbours once more what it holds."""

    def change(self, settings: "Settings", follow_marks: Callable[["Settings"], None]) -> None:
        """Follow a changed pool4.

        `follow_marks` makes the devices of its marks, and takes those of others away. It raises
        Failure.
        """

    def undo(self) -> None:
        """Take everything back."""
