"""The engine, its worker thread and the codec of session synchronisation, in Rust.

Every method may be called from any thread; those that may take long release the GIL. Arguments
of a wrong size or range raise ValueError.
"""

from collections.abc import Sequence
from typing import TypedDict, final, type_check_only

__all__ = [
    "ChangeError",
    "ConfigError",
    "DatagramError",
    "DeviceError",
    "Node",
    "__version__",
    "check_nat64",
    "decode_frame",
    "decode_joold",
    "encode_joold",
    "simulate_failover",
]

__version__: str

class ConfigError(ValueError):
    """A configuration that can't work; the message names the key."""

class ChangeError(ValueError):
    """A change that was refused for what is there already; the message says for what."""

class DatagramError(ValueError):
    """A datagram that is none, or not of the format asked for; it says why."""

class DeviceError(OSError):
    """The TUN device can't be opened; the message says why and what to do, `errno` which kind."""

@type_check_only
class PeerStatus(TypedDict):
    """A peer as this node sees it."""

    node: int
    epoch: int
    state: str
    """"joining", "syncing", "up", "differs" or "down"."""
    ready: bool
    """It may become MASTER."""
    heard_ms_ago: int
    frames_received: int
    """Of this incarnation."""
    gaps: int
    """Updates that went missing, whether they came later or not."""
    acknowledged: int
    """The number of our last update before which none is missing there."""
    unacknowledged: int
    """How many of our updates are behind that one."""
    mismatch: str | None
    """The configuration field that differs from ours, or None."""

@type_check_only
class NodeStatus(TypedDict):
    """A node's own state."""

    ready: bool
    """It has taken a snapshot, or found itself alone: it may become MASTER."""
    reason: str
    """Why it is ready or not, for people."""
    catching_up: int | None
    """The peer whose sessions are still missing after this node was cut off."""
    sessions: int
    bib_entries: int
    max_sessions: int
    table_bytes: int
    worker: str
    """"running"; "stopped": no device is attached; else "device lost: " or "worker panicked: "
    and why. Without a device timers and synchronisation go on; after a panic nothing does."""
    held_packets: int
    """Packets that wait for a peer: `durability` and `pull` of `[sync]`."""
    longest_pause_us: int
    """The longest that a call of this class has kept packets waiting, in µs on a CPU."""

@type_check_only
class SessionRow(TypedDict):
    """A session, as `session display` shows it."""

    proto: str
    src6: str
    src6_port: int
    dst6: str
    dst6_port: int
    src4: str
    src4_port: int
    dst4: str
    dst4_port: int
    state: str
    expires_ms: int

@type_check_only
class BibRow(TypedDict):
    """A BIB entry, as `bib display` shows it."""

    proto: str
    src6: str
    src6_port: int
    src4: str
    src4_port: int
    static: bool
    sessions: int

@type_check_only
class JooldSession(TypedDict):
    """A session as joold tells it."""

    proto: str
    src6: str
    src6_port: int
    dst6: str
    dst6_port: int
    src4: str
    src4_port: int
    dst4: str
    dst4_port: int
    state: str
    timer: str
    """"EST", "TRANS" or "SYN4"."""
    expires_ms: int

@type_check_only
class JooldStatus(TypedDict):
    """A joold that was heard, or the kernel module."""

    address: str
    format: str
    """"4.1.9", "4.1.12" or "4.1.13"."""
    heard_ms_ago: int
    datagrams: int
    sessions: int
    """Taken, those included that the table had already."""
    refused: int
    """Impossible, or in collision with a mapping of ours."""

@final
class Node:
    """One NAT64 node: table, translator, session synchronisation, and the worker on the TUN."""

    def __new__(
        cls,
        nat64: bytes,
        sync: bytes | None,
        *,
        keys: Sequence[bytes],
        secret: bytes,
        joold: bytes | None = None,
        module: bytes | None = None,
    ) -> Node:
        """Make a node.

        `nat64` is the translator's configuration and `sync` that of session synchronisation
        (None: there is none), as JSON. `keys` are pre-shared keys of 32 bytes: the first seals,
        all open. `secret` is 32 random bytes for hashing and for the choice of ports. With `joold`
        (JSON: "format", "flush-deadline", "join-timeout", each optional) the node also speaks to
        joolds, with `module` (the same) to Jool's kernel module, and tells each side what it hears
        from the others. What follows is about joolds, or the module with `module=True`.

        Its thread starts here, with timers and synchronisation. Raises ConfigError.
        """

    def attach(self, device: str, *, persistent: bool) -> None:
        """Open the TUN `device` of this network namespace, made now unless it exists.

        A `persistent` device outlives the process, without carrier. Setting it up, and its
        addresses and routes, are the caller's. A device that is removed by others later is told
        by `take_events` and `status`; another may be attached then. Raises DeviceError.
        """

    def follow_marks(self, devices: Sequence[tuple[int, str]], *, persistent: bool) -> None:
        """Read packets of these marks from a TUN device each, beside the one attached.

        Devices that are missing are made, those of other marks removed; packets go on flowing.
        Without an attached device only an empty list is taken. Raises DeviceError; new devices are
        gone then.
        """

    def detach(self) -> None:
        """Close the device and remove it, persistent or not. Does nothing without one."""

    def fileno(self) -> int:
        """An eventfd, readable while a `take_…` has something to give.

        Read `take_frames`, `take_datagrams` and `take_events` until they are empty; nobody but
        the node may read the eventfd itself.
        """

    def take_frames(self, limit: int = 64) -> list[tuple[int, bytes]]:
        """Sealed frames to send: (node they are for, or 0 for all, frame).

        An empty list means that there is nothing more. Frames are made when they are taken:
        while nobody does, changes coalesce and nothing is lost.
        """

    def receive_frames(self, frames: Sequence[bytes]) -> list[int]:
        """Hand over received frames; each one's sender's node number, or 0 if it was refused.

        Refused are frames that aren't authentic, repetitions, and frames of peers whose
        configuration differs.
        """

    def take_datagrams(self, limit: int = 64, *, module: bool = False) -> list[bytes]:
        """Datagrams for joolds, or batches for the kernel module; as with `take_frames`.

        Empty while the format isn't known: nothing is configured and nobody was heard.
        """

    def receive_datagrams(
        self, datagrams: Sequence[tuple[str, bytes]], *, module: bool = False
    ) -> list[bool]:
        """Hand over datagrams of joolds with the addresses they came from; False for refused ones.

        The content of a kernel module's JNLAR_SESSION_ENTRIES is such a datagram; any address
        stands for the module. A joold that is new, or was silent for a minute, is told the whole
        table.
        """

    def receive_page(self, page: bytes) -> int:
        """Hand over the attributes of a page of a kernel module's table; how many sessions it has.

        They are as Jool 4.1.9 tells them, whatever format is pinned.
        """

    def take_part(self) -> None:
        """Begin to listen for peers. A node with a module neither sends nor takes frames before."""

    def rekey(self, keys: list[bytes]) -> bool:
        """Seal with the first of these keys from now on, and open with all of them and no other.

        False if they are those that the node has. Raises ConfigError.
        """

    def advertise(self) -> None:
        """Have peers compare their tables with this one, and joolds hear all of it."""

    def advertise_to_module(self, *, all: bool) -> None:
        """Tell the kernel module the whole table; without `all`, less what it told itself last."""

    def pin_format(self, format: str, *, module: bool = False) -> None:
        """Take and tell datagrams of this format alone: "4.1.9", "4.1.12" or "4.1.13"."""

    def tell_joolds_in(self, format: str) -> None:
        """Tell joolds in this format, unless another one is configured; take every one."""

    def joolds(self) -> list[JooldStatus]:
        """Everybody heard on joold's side."""

    def take_events(self) -> list[str]:
        """Things worth a line in the log since the last call, oldest first."""

    def config(self) -> bytes:
        """The translator's configuration as it is now, whole, as JSON; durations in ms.

        The methods that follow change it while packets flow, each whole or not at all, and tell
        the peers: make the same change on every node, since nodes that differ don't synchronise.
        They raise ConfigError for what could never work, ChangeError for what can't work now.
        """

    def update_global(self, options: bytes) -> None:
        """Change global options: a JSON object of those that change, as in `nat64`'s "global".

        A session gets its new lifetime with its next packet.
        """

    def pool4_add(self, entry: bytes) -> None:
        """Add an entry to pool4, a JSON object as in `nat64`'s "pool4"."""

    def pool4_remove(self, entry: bytes) -> None:
        """Remove an entry from pool4, and the mappings and sessions that no other one covers.

        Refused while a static BIB entry needs it.
        """

    def pool4_exclude(self, gone: bytes) -> None:
        """Remove transport addresses, a JSON object as in `nat64`'s "pool4", from all entries.

        Those of that mark are meant, and of that "node" if it names one; what is left of an entry
        stays. Mappings that no entry covers any more end. Refused if no entry has any of them, or
        while a static BIB entry needs one.
        """

    def pool4_replace(self, entries: bytes) -> None:
        """Take a JSON list of entries for pool4; mappings that none of them covers end.

        Refused while a static BIB entry needs what isn't there.
        """

    def bib_add(self, entry: bytes) -> None:
        """Add a static BIB entry, a JSON object as in `nat64`'s "bib"."""

    def bib_remove(self, proto: str, ipv6: str | None, ipv4: str | None) -> None:
        """Remove a BIB entry, static or not, and its sessions; `addr#port`, either is enough."""

    def leave(self) -> None:
        """Queue a BYE to the peers."""

    def status(self) -> NodeStatus:
        """This node's own state."""

    def peers(self) -> list[PeerStatus]:
        """Every peer heard since the start."""

    def stats(self) -> list[tuple[str, str, int]]:
        """Name, help and value of every counter."""

    def sessions(
        self, proto: str | None, cursor: int, limit: int
    ) -> tuple[list[SessionRow], int | None]:
        """Up to `limit` sessions from `cursor` (0 at first), and the next cursor or None."""

    def bib(self, proto: str | None, cursor: int, limit: int) -> tuple[list[BibRow], int | None]:
        """Up to `limit` BIB entries from `cursor` (0 at first), and the next cursor or None."""

def check_nat64(config: bytes) -> None:
    """Raise ConfigError unless `config` (JSON) is a translator's configuration that can work."""

def decode_joold(
    datagram: bytes, format: str | None = None, pool6: str = "64:ff9b::/96"
) -> tuple[str, list[JooldSession], list[str]]:
    """The format of a datagram, its sessions, and what is wrong with those that are none.

    `format` is what it has to be, None for any. Raises DatagramError.
    """

def decode_frame(
    frame: bytes, keys: list[bytes], pool6: str = "64:ff9b::/96"
) -> tuple[int, list[tuple[JooldSession, int]]]:
    """The node that sent a frame, and what it tells: sessions and removals with their versions.

    Frames in clear need no key. A removal's `state` is "REMOVED", its `timer` "NONE". Raises
    DatagramError: it is no frame, or none of the keys opens it.
    """

def encode_joold(
    sessions: Sequence[JooldSession], format: str, pool6: str = "64:ff9b::/96"
) -> list[bytes]:
    """Datagrams with these sessions, as many in each as the format has. dst6 is not read."""

def simulate_failover(seed: int, synchronised: bool) -> bytes:
    """Play the demo's story in the simulator, in virtual time: its report as JSON.

    The same seed gives the same report on every machine. The object has `tcp_total`,
    `tcp_survived`, `static_total`, `static_survived` (the part of those that static BIB entries
    carry), `udp_total`, `udp_survived` and `steps`, a list of objects with `name`, `master`,
    `takeover_ms`, `gap_ms`, `tcp_survived`, `udp_survived`, `pings_lost` and `sessions` (by node).
    """
