"""Jool's files: what `jool file handle` reads, and the two that joold takes.

Tags are compared without regard to case, and twice the same one is a mistake, as Jool has it.
"""

import json
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jsync.errors import Failure

Kind = Literal["instance", "net", "module"]
Table = dict[str, Any]

DEFAULT_PORT = "6400"
DEFAULT_INSTANCE = "default"
_NET = {"multicast address", "multicast port", "in interface", "out interface", "ttl", "reuseaddr"}
_INSTANCE = {"framework", "global", "pool4", "bib", "eamt", "denylist4", "blacklist4"}


@dataclass(frozen=True)
class File:
    """A file of Jool's."""

    path: str
    kind: Kind
    tags: Table
    """Its tags in lower case, without comments."""

    def wrong(self, tag: str, message: str) -> Failure:
        """The Failure about a tag's value."""
        return Failure(f"{self.path}: {tag}: {message}")

    def text(self, tag: str) -> str | None:
        """The value of a tag that holds text; None without one. Raises Failure."""
        value = self.tags.get(tag)
        if value is not None and not isinstance(value, str):
            raise self.wrong(tag, f"{json.dumps(value)} is no text; put it between quotes")
        return value


@dataclass(frozen=True)
class Group:
    """joold's multicast group: the options of `jool session proxy`, by its words."""

    address: str
    port: int
    dev_in: str | None = None
    dev_out: str | None = None
    ttl: int = 1


def read(path: str, kind: Kind | None = None) -> File:
    """Read a file of Jool's, and see which it is unless that is known. Raises Failure."""
    try:
        with open(path, "rb") as file:
            text = file.read().decode()
        value = json.loads(text, object_pairs_hook=Pairs)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Failure(f"{path}: is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise Failure(f"{path}:{error.lineno}: is not JSON: {error.msg}") from None
    except RecursionError:
        raise Failure(f"{path}: is nested too deeply") from None
    if not isinstance(value, Pairs):
        raise Failure(f"{path}: is no JSON object, as each of Jool's files is")
    tags = table(path, value)
    if kind is not None:
        pass
    elif tags.keys() & _INSTANCE:
        kind = "instance"
    elif tags.keys() & _NET:
        kind = "net"
    elif "instance" in tags:
        kind = "module"
    else:
        raise Failure(
            f"{path}: is none of Jool's files: those have a framework (`jool file handle`),"
            " a multicast address (joold's network socket), or an instance (its module socket)"
        )
    return File(path, kind, tags)


class Pairs(list[tuple[str, Any]]):
    """A JSON object as it stands in the file: tags may come twice."""


def table(where: str, value: object) -> Table:
    """An object's tags. Raises Failure."""
    if not isinstance(value, Pairs):
        raise Failure(f"{where}: is no object")
    found: Table = {}
    for name, inner in value:
        tag = name.lower()
        if tag == "comment":
            continue
        if tag in found:
            raise Failure(f"{where}: {tag}: stands there twice; remove one")
        found[tag] = inner
    return found


def net_group(file: File) -> Group:
    """What joold's network file says. Raises Failure."""
    address = file.text("multicast address")
    if address is None:
        raise Failure(f"{file.path}: multicast address: is missing")
    port = file.tags.get("multicast port", DEFAULT_PORT)
    ttl = file.tags.get("ttl", 1)
    if isinstance(ttl, bool) or not isinstance(ttl, int):
        raise file.wrong("ttl", f"{json.dumps(ttl)} is no number")
    try:
        number = port_number(str(port))
    except ValueError as error:
        raise file.wrong("multicast port", str(error)) from None
    dev_in, dev_out = file.text("in interface"), file.text("out interface")
    return Group(address, number, dev_in, dev_out, ttl)


def unread_net_tags(file: File) -> Sequence[str]:
    """Tags of a network file that joold doesn't read."""
    return sorted(file.tags.keys() - _NET)


def instance_name(file: File) -> str:
    """The instance that the module file names. Raises Failure."""
    return file.text("instance") or DEFAULT_INSTANCE


def port_number(text: str) -> int:
    """A UDP port by its number or by its service's name. Raises ValueError."""
    if re.fullmatch(r"[0-9]{1,5}", text) and 1 <= int(text) <= 65535:
        return int(text)
    try:
        return socket.getservbyname(text, "udp")
    except (OSError, ValueError):
        raise ValueError(f"{text!r} is no UDP port: neither 1 to 65535 nor a service") from None


_CLOCK = re.compile(r"(?:(?:([0-9]+):)?([0-9]+):)?([0-9]+)(?:\.([0-9]{3,}))?")


def timeout_ms(text: str) -> int:
    """A duration as Jool writes it, `[HH:[MM:]]SS[.mmm]`, in milliseconds. Raises ValueError.

    Its parts may be as large as they like: "90:00" is an hour and a half.
    """
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration, [HH:[MM:]]SS[.mmm]")
    hours, minutes, seconds, milliseconds = (int(part or 0) for part in match.groups())
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + milliseconds
