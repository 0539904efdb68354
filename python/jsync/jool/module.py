"""Questions to Jool's kernel module, and its answers.

The kernel handles a generic netlink request while it is being sent, so the answer is there when
`send` returns: asking doesn't keep the daemon from its other work for longer than the module takes
for one page.
"""

import errno
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jsync.errors import Failure
from jsync.jool import messages
from jsync.jool.messages import FLAG_ERROR, FLAG_MORE, Command, version_name

PROTOCOLS = {"tcp": 0, "udp": 1, "icmp": 2}
NAMES = {number: name for name, number in PROTOCOLS.items()}
NETLINK_GENERIC = 16
_CTRL = 16
"""The family of the controller (GENL_ID_CTRL), which knows the others."""
_CTRL_GETFAMILY = 3
_BUFFER = 65_536
_PATIENCE_SECONDS = 5.0
_VERSION_FILE = Path("/sys/module/jool_common/version")
_VERSION = re.compile(r"(?:^|kernel module is )(\d+)\.(\d+)\.(\d+)\.(\d+)")


class Absent(Failure):
    """The module isn't loaded, or has no such instance."""


class Refused(Failure):
    """The module has refused what was asked."""


class Channel(Protocol):
    """Where requests go: a netlink socket, or a test's stand-in."""

    def send(self, data: bytes, /) -> int: ...  # noqa: D102
    def recv(self, size: int, /) -> bytes: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


def open_channel() -> socket.socket:
    """A netlink socket for requests. Raises Failure."""
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
    channel.bind((0, 0))
    channel.settimeout(_PATIENCE_SECONDS)
    return channel


@dataclass(frozen=True)
class Family:
    """How the module is reached. It is another one each time that the module is loaded."""

    number: int
    group: int
    """The multicast group in which the module tells of its sessions."""


@dataclass(frozen=True)
class Instance:
    """An instance that is there: how it is reached, and what its version says."""

    family: Family
    version: int
    name: str

    @property
    def format(self) -> str:
        """The format of joold's in which it tells and is told. Raises Failure for unknown ones."""
        major, minor, revision, _ = self.version.to_bytes(4, "big")
        if (major, minor) == (4, 1) and revision >= 9:
            if revision < 12:
                return "4.1.9"
            return "4.1.12" if revision == 12 else "4.1.13"
        raise Failure(
            f"Jool {version_name(self.version)} is loaded, whose sessions jsync doesn't know to"
            " read; load a version from 4.1.9 on, of 4.1"
        )


class Module:
    """Asks the module about one instance."""

    def __init__(self, name: str, channel: Channel | None = None) -> None:
        self._name = name
        self._channel = channel if channel is not None else open_channel()
        self._sequence = 0
        self._versions: dict[int, int] = {}
        self._requests: dict[tuple[object, ...], bytes] = {}
        """Those that were made, to be sent once more."""
        self.instance: Instance | None = None
        """What `find` has found; None once the module has said that it isn't there any more."""

    def close(self) -> None:
        """Close the socket."""
        self._channel.close()

    def find(self) -> Instance:
        """Look for the instance. Raises Absent, and Failure."""
        self.instance = None
        self._requests.clear()
        family = self._family()
        if family.number not in self._versions:
            self._versions = {family.number: self._version(family)}
        version = self._versions[family.number]
        found = Instance(family, version, self._name)
        reply: Any = self._ask(found, Command.INSTANCE_HELLO, messages.Hello)
        if reply.get_attr("STATUS") != 0:
            raise Absent(
                f"Jool {version_name(version)} is loaded, but this network namespace has no"
                f" instance {self._name!r}; make it (jool instance add {self._name} …), or name"
                " another one: [jool] instance"
            )
        self.instance = found
        return found

    def _require(self) -> Instance:
        return self.instance or self.find()

    def _family(self) -> Family:
        request = struct.pack("=IHHII", 32, _CTRL, 1, 0, 0)
        name = messages.FAMILY.encode() + b"\0"
        request += struct.pack("=BBHHH", _CTRL_GETFAMILY, 1, 0, 4 + len(name), 2)
        self._channel.send(request + name.ljust(8, b"\0"))
        reply = self._channel.recv(_BUFFER)
        if struct.unpack_from("=H", reply, 4)[0] == 2:  # NLMSG_ERROR
            code = -struct.unpack_from("=i", reply, 16)[0]
            if code == errno.ENOENT:
                raise Absent("Jool's kernel module isn't loaded (modprobe jool)")
            raise Failure(f"generic netlink: {errno.errorcode.get(code, code)}")
        from pyroute2.netlink.generic import ctrlmsg  # type: ignore[import-untyped]

        message: Any = ctrlmsg(reply)
        message.decode()
        groups = message.get_attr("CTRL_ATTR_MCAST_GROUPS") or []
        for group in groups:
            if group.get_attr("CTRL_ATTR_MCAST_GRP_NAME") == messages.GROUP:
                return Family(
                    message.get_attr("CTRL_ATTR_FAMILY_ID"),
                    group.get_attr("CTRL_ATTR_MCAST_GRP_ID"),
                )
        raise Failure("Jool's kernel module has no group for sessions: it is older than 4.1.9")

    def _version(self, family: Family) -> int:
        """The module's version. It tells whoever comes with another one, and the kernel's log too,
        so the file system is asked first."""
        with suppress(OSError):
            if found := _VERSION.match(_VERSION_FILE.read_text(encoding="ascii")):
                return _number(found)
        try:
            self._ask(Instance(family, 0, self._name), Command.INSTANCE_HELLO, messages.Hello)
        except Refused as refusal:
            if found := _VERSION.search(str(refusal)):
                return _number(found)
            raise Absent(str(refusal)) from None
        raise Failure("Jool's kernel module doesn't say which version it is")

    def _ask(
        self,
        instance: Instance,
        command: Command,
        kind: type[messages.Message],
        *attributes: tuple[str, object],
    ) -> Any:
        reply: Any = kind(self.ask_raw(instance, command, *attributes))
        reply.decode()
        return reply

    def ask_raw(
        self,
        instance: Instance,
        command: Command,
        *attributes: tuple[str, object],
        offset: bytes = b"",
    ) -> bytes:
        """The reply to a request; `offset` is where a page begins.

        Raises Absent, Refused, and Failure if there is none.
        """
        self._sequence = (self._sequence + 1) & 0x7FFF_FFFF
        key = (instance, command, attributes, len(offset))
        if key not in self._requests:
            self._requests[key] = messages.request(
                instance.family.number,
                command,
                version=instance.version,
                instance=instance.name,
                attributes=[*attributes, ("OFFSET", offset)] if offset else list(attributes),
            )
        request = messages.once_more(self._requests[key], self._sequence, offset)
        try:
            self._channel.send(request)
            while True:
                reply = self._channel.recv(_BUFFER)
                if struct.unpack_from("=I", reply, 8)[0] == self._sequence:
                    break
        except OSError as error:
            raise Failure(f"Jool's kernel module doesn't answer: {error}") from None
        if struct.unpack_from("=H", reply, 4)[0] == 2:  # NLMSG_ERROR
            self.instance = None
            code = -struct.unpack_from("=i", reply, 16)[0]
            if code == errno.EPERM:
                raise Failure("Jool's kernel module refuses: the daemon needs CAP_NET_ADMIN")
            raise Absent("Jool's kernel module isn't loaded (modprobe jool)")
        try:
            *_, flags = messages.header(reply)
        except ValueError as error:
            raise Failure(f"Jool's kernel module answers what can't be read: {error}") from None
        if flags & FLAG_ERROR:
            raise self._refusal(command, reply)
        return reply

    def _refusal(self, command: Command, reply: bytes) -> Failure:
        code, text = refusal(reply)
        if code == errno.ESRCH:
            self.instance = None
            return Absent(f"Jool has no instance {self._name!r} any more")
        return Refused(f"Jool refuses {command.name}: {text or errno.errorcode.get(code, code)}")

    def options_raw(self) -> bytes:
        """The instance's global options, as `messages.options` reads them. Raises Failure."""
        return unnumbered(self.ask_raw(self._require(), Command.GLOBAL_FOREACH))

    def options(self) -> dict[str, Any]:
        """The instance's global options by their names. Raises Failure."""
        return messages.options(self.options_raw())

    def stats(self) -> dict[int, int]:
        """The instance's counters by their numbers. Raises Failure."""
        instance = self._require()
        found: dict[int, int] = {}
        more = True
        while more:
            offset = [("OFFSET_U8", max(found))] if found else []
            reply: Any = self._ask(instance, Command.STATS_FOREACH, messages.Stats, *offset)
            page = {int(slot[0]): slot[1] for slot in reply["attrs"] if slot[0].isdecimal()}
            more = bool(reply["jool_flags"] & FLAG_MORE and page)
            found |= page
        return found

    def pool4_raw(self) -> dict[str, list[bytes]]:
        """The pages of pool4 by protocol, as `messages.pool4_rows` reads them. Raises Failure."""
        return {
            protocol: [unnumbered(page) for page in self.pages(Command.POOL4_FOREACH, protocol)]
            for protocol in PROTOCOLS
        }

    def advertise(self) -> None:
        """Have the module tell its group every session. Raises Failure."""
        self.ask_raw(self._require(), Command.JOOLD_ADVERTISE)

    def page(
        self, command: Command, protocol: str, offset: bytes | None
    ) -> tuple[bytes, bytes | None]:
        """A reply to a FOREACH, and the offset of the next one if there is more.

        Raises Failure.
        """
        wanted = ("PROTO", PROTOCOLS[protocol])
        page = self.ask_raw(self._require(), command, wanted, offset=offset or b"")
        more = messages.header(page)[3] & FLAG_MORE
        return page, messages.last_entry(page) if more else None

    def pages(self, command: Command, protocol: str) -> Iterator[bytes]:
        """The replies to a FOREACH of a protocol. Raises Failure."""
        offset: bytes | None = None
        while True:
            page, offset = self.page(command, protocol, offset)
            yield page
            if offset is None:
                return


def _number(found: re.Match[str]) -> int:
    return int.from_bytes(bytes(int(part) for part in found.groups()), "big")


def unnumbered(reply: bytes) -> bytes:
    """A reply without its sequence number: equal to another one if both tell the same."""
    return reply[:8] + bytes(4) + reply[12:]


def refusal(reply: bytes) -> tuple[int, str]:
    """Error number and text of a reply with `FLAG_ERROR`."""
    message: Any = messages.Refusal(reply)
    message.decode()
    text = message.get_attr("TEXT") or ""
    return message.get_attr("CODE") or 0, str(text).replace("\n", " ").strip()
