"""What was done to the host, in a file, so that a daemon that was killed can be cleaned up after.

An entry is written before the deed. The file belongs to one boot and one network namespace; a
journal of another is void, since what it tells of is gone.
"""

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from jsync.errors import Failure
from jsync.netlink.steps import AnyStep

_SO_NETNS_COOKIE = 71


class Entry(msgspec.Struct):
    """A step that was, or was about to be, done."""

    step: AnyStep
    before: Any


class _Content(msgspec.Struct):
    world: str
    entries: list[Entry]


def world() -> str:
    """This boot and this network namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        cookie = probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    return f"{boot}/{int.from_bytes(cookie, 'little')}"


class Journal:
    """The entries, in the order in which the steps were done, mirrored in a file."""

    def __init__(self, path: Path, here: str | None = None) -> None:
        """Read what a predecessor has left. `here` stands for `world()` in tests."""
        self._path = path
        self._world = here if here is not None else world()
        self.entries: list[Entry] = []
        try:
            content = msgspec.json.decode(path.read_bytes(), type=_Content)
        except FileNotFoundError:
            return
        except msgspec.MsgspecError as error:
            raise Failure(
                f"{path}: can't be read ({error}); undo by hand what it tells of, and remove it"
            ) from None
        if content.world == self._world:
            self.entries = content.entries

    def save(self) -> None:
        """Write the file, or remove it when nothing is left to undo."""
        if not self.entries:
            with suppress(FileNotFoundError):
                self._path.unlink()
            return
        new = self._path.with_suffix(".new")
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(msgspec.json.encode(_Content(self._world, self.entries)))
            os.replace(new, self._path)
        except OSError as error:
            raise Failure(f"{self._path}: {error.strerror}") from None
