"""The stream of sessions between the kernel module and the engine.

The module tells its sessions to a multicast group of generic netlink's, a batch at a time: it
sends the next one when the last was acknowledged. What it is given it takes at once.
"""

import errno
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from jsync.jool import messages
from jsync.jool.messages import FLAG_ERROR, Command
from jsync.jool.module import NETLINK_GENERIC, Instance, refusal
from jsync.log import Log

BATCH = 16
"""Batches that are handed to the engine at once."""
BUFFER_BYTES = 8 << 20
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_SO_RCVBUFFORCE = 33
_BUFFER = 65_536
_NLMSG_ERROR = 2
_FROM = "127.0.0.1"
"""The module's address, in messages about what it tells."""
_COMPLAINT_SECONDS = 10.0


class Sink(Protocol):
    """Where the module's batches go."""

    def receive_datagrams(
        self, datagrams: Sequence[tuple[str, bytes]], *, module: bool = False
    ) -> list[bool]:
        """See `jsync._core.Node`."""


@dataclass
class StreamStats:
    """Counters of the stream, since the daemon's start."""

    batches_received: int = 0
    """Batches of sessions that the module told."""
    batches_refused: int = 0
    """Of these, batches that can't be read."""
    batches_sent: int = 0
    """Batches that the module was given."""
    batches_rejected: int = 0
    """Of these, batches of which the module took not everything: a mapping of its own collides."""
    messages_ignored: int = 0
    """Messages that are none of the module's, or about other instances."""
    send_errors: int = 0
    """Batches that couldn't be given to the module."""
    overruns: int = 0
    """Times that the kernel dropped batches since the daemon was too slow to read them."""
    resynchronisations: int = 0
    """Times that the module's whole table was read."""
    reconnects: int = 0
    """Times that the module or its instance went away."""
    bytes_received: int = 0
    """Of sessions that the module told."""


def open_stream(instance: Instance) -> socket.socket:
    """A socket that hears the module's group. Raises OSError."""
    opened = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_GENERIC
    )
    try:
        try:
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
        except PermissionError:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        opened.bind((0, 0))
        opened.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, instance.family.group)
    except OSError:
        opened.close()
        raise
    return opened


class Gone(Exception):
    """The module or its instance is there no more."""


class Stream:
    """Carries sessions over an open socket, which stays its opener's to close."""

    def __init__(
        self, opened: socket.socket, instance: Instance, sink: Sink, stats: StreamStats, log: Log
    ) -> None:
        self.overrun = trio.Event()
        """Set when the kernel has dropped batches: the table is to be read."""
        self._socket = opened
        self._instance = instance
        self._sink = sink
        self._stats = stats
        self._log = log
        self._complained = -_COMPLAINT_SECONDS
        self._acknowledgement = self._request(Command.JOOLD_ACK)

    def _request(self, command: Command, payload: bytes = b"") -> bytes:
        return messages.request(
            self._instance.family.number,
            command,
            version=self._instance.version,
            instance=self._instance.name,
            attributes=[("SESSION_ENTRIES", payload)] if payload else [],
        )

    async def receive(self) -> None:
        """Hand the module's batches to the engine until cancelled. Raises Gone."""
        self._acknowledge()  # a batch may have been sent to nobody
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            batches: list[tuple[str, bytes]] = []
            while len(batches) < BATCH:
                try:
                    data, (sender, _) = self._socket.recvfrom(_BUFFER)
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    self._stats.overruns += 1
                    self.overrun.set()
                    self._acknowledge()
                    continue
                if sender != 0:  # any process may write to the socket
                    self._stats.messages_ignored += 1
                elif batch := self._handle(data):
                    batches.append((_FROM, batch))
            if batches:
                self._stats.batches_received += len(batches)
                self._stats.bytes_received += sum(len(batch) for _, batch in batches)
                taken = self._sink.receive_datagrams(batches, module=True)
                self._stats.batches_refused += taken.count(False)
            await trio.lowlevel.checkpoint()

    def _handle(self, data: bytes) -> bytes | None:
        """The batch that a message of the kernel's brings, if it brings one."""
        if len(data) >= 16 and struct.unpack_from("=H", data, 4)[0] == _NLMSG_ERROR:
            raise Gone
        try:
            kind, _, _, flags = messages.header(data)
        except ValueError:
            kind, flags = 0, 0
        if kind != self._instance.family.number or (
            messages.instance_of(data) != self._instance.name
        ):
            self._stats.messages_ignored += 1
            return None
        if flags & FLAG_ERROR:
            self._complain(*refusal(data))
            return None
        batch = messages.batch_of(data)
        if batch is not None:
            # It sends nothing more until then.
            self._acknowledge()
        return batch

    def _complain(self, code: int, text: str) -> None:
        if code == errno.ESRCH:
            raise Gone
        self._stats.batches_rejected += 1
        now = trio.current_time()
        if now - self._complained >= _COMPLAINT_SECONDS:
            self._complained = now
            self._log.warning(
                "Jool's kernel module doesn't take all of what it is given",
                error=text or errno.errorcode.get(code, code),
                batches=self._stats.batches_rejected,
            )

    def _acknowledge(self) -> None:
        try:
            self._socket.send(self._acknowledgement)
        except OSError:
            self._stats.send_errors += 1

    async def write(self, batches: Sequence[bytes]) -> None:
        """Give batches to the module."""
        payload = bytearray()
        for batch in batches:
            if len(payload) + len(batch) > messages.MAX_ATTRIBUTE:
                self._write(bytes(payload))
                payload.clear()
            payload += batch
        if payload:
            self._write(bytes(payload))
        await trio.lowlevel.checkpoint()

    def _write(self, payload: bytes) -> None:
        # Batches are runs of sessions, and so is what they make together.
        try:
            self._socket.send(self._request(Command.JOOLD_ADD, payload))
        except OSError:
            self._stats.send_errors += 1
        else:
            self._stats.batches_sent += 1
