"""The generic netlink messages of Jool 4.1, by pyroute2's classes.

A message is nlmsghdr, genlmsghdr, Jool's header of 28 bytes, and attributes. What an attribute's
number means depends on the command, in a reply on the command that is answered: each has a class.
Numbers are those of Jool's `config.h`.
"""

import enum
import struct
from collections import deque
from collections.abc import Iterator
from typing import Any

from pyroute2.netlink import genlmsg, nla  # type: ignore[import-untyped]

FAMILY = "Jool"
GROUP = "joold"
MAGIC = b"jool"
NAT64 = 2
"""`xt` of requests: the translator's kind."""
FLAG_ERROR = 1
FLAG_MORE = 8
"""The reply didn't hold everything: ask again with an offset."""
NESTED = 0x8000
HEADER_LEN = 16 + 4 + 28
"""Bytes before the first attribute."""
ATTRIBUTE_LEN = 4
MAX_ATTRIBUTE = 0xFFFF - ATTRIBUTE_LEN
SESSION_ENTRIES = 7
ENTRY = 1
"""In a page, the reply to a FOREACH: an entry."""
SESSION_LEN = 140
"""Bytes of a session in a page, with its header,"""
BIB_LEN = 72
"""and of an entry of the BIB."""
_HEADER = struct.Struct("=IHHIIBBH4s4sBBH16s")
_LENGTH = struct.Struct("=I")
_ATTRIBUTE = struct.Struct("=HH")


class Command(enum.IntEnum):
    """What is asked of the module."""

    INSTANCE_HELLO = 2
    STATS_FOREACH = 7
    GLOBAL_FOREACH = 8
    POOL4_FOREACH = 18
    BIB_FOREACH = 22
    SESSION_FOREACH = 25
    JOOLD_ADD = 27
    JOOLD_ADVERTISE = 28
    JOOLD_ACK = 29


class Message(genlmsg):  # type: ignore[misc]
    """A message with Jool's header."""

    fields = (
        *genlmsg.fields,
        ("magic", "4s"),
        ("jool_version", ">I"),
        ("xt", "B"),
        ("jool_flags", "B"),
        ("jool_reserved", "H"),
        ("iname", "16s"),
    )


class Prefix6(nla):  # type: ignore[misc]
    """An IPv6 prefix; without an address it is unset."""

    nla_map = ((1, "ADDR", "ip6addr"), (2, "LEN", "uint8"))


class Prefix4(nla):  # type: ignore[misc]
    """An IPv4 prefix."""

    nla_map = ((1, "ADDR", "ip4addr"), (2, "LEN", "uint8"))


class Endpoint6(nla):  # type: ignore[misc]
    """An IPv6 transport address; the port is in the host's byte order."""

    nla_map = ((1, "ADDR", "ip6addr"), (2, "PORT", "uint16"))


class Endpoint4(nla):  # type: ignore[misc]
    """An IPv4 transport address."""

    nla_map = ((1, "ADDR", "ip4addr"), (2, "PORT", "uint16"))


class Request(Message):
    """What is asked."""

    nla_map = (
        (SESSION_ENTRIES, "SESSION_ENTRIES", "cdata", NESTED),
        # The content of the last entry that is known.
        (8, "OFFSET", "cdata", NESTED),
        (9, "OFFSET_U8", "uint8"),
        (11, "PROTO", "uint8"),
    )


class Refusal(Message):
    """A reply with `FLAG_ERROR`."""

    nla_map = ((1, "CODE", "uint16"), (2, "TEXT", "asciiz"))


class Hello(Message):
    """The reply to INSTANCE_HELLO; status 0: the instance exists."""

    nla_map = ((1, "STATUS", "uint8"),)


class Stats(Message):
    """The reply to STATS_FOREACH: counters by number."""

    nla_map = tuple((number, str(number), "uint64") for number in range(1, 256))


class Pool4Reply(Message):
    """The reply to POOL4_FOREACH."""

    nla_map = ((1, "ENTRY", "entry"),)

    class entry(nla):  # type: ignore[misc] # noqa: D106
        nla_map = (
            (1, "MARK", "uint32"),
            (2, "ITERATIONS", "uint32"),
            (3, "FLAGS", "uint8"),
            (4, "PROTO", "uint8"),
            (5, "PREFIX", "prefix4"),
            (6, "PORT_MIN", "uint16"),
            (7, "PORT_MAX", "uint16"),
        )
        prefix4 = Prefix4


class BibReply(Message):
    """The reply to BIB_FOREACH."""

    nla_map = ((1, "ENTRY", "entry"),)

    class entry(nla):  # type: ignore[misc] # noqa: D106
        nla_map = (
            (1, "SRC6", "endpoint6"),
            (2, "SRC4", "endpoint4"),
            (3, "PROTO", "uint8"),
            (4, "STATIC", "uint8"),
        )
        endpoint6 = Endpoint6
        endpoint4 = Endpoint4


OPTIONS: dict[int, tuple[str, str]] = {
    1: ("manually-enabled", "bool"),
    2: ("pool6", "prefix"),
    3: ("lowest-ipv6-mtu", "uint32"),
    4: ("logging-debug", "bool"),
    5: ("zeroize-traffic-class", "bool"),
    6: ("override-tos", "bool"),
    7: ("tos", "uint8"),
    8: ("mtu-plateaus", "plateaus"),
    14: ("address-dependent-filtering", "bool"),
    15: ("drop-externally-initiated-tcp", "bool"),
    16: ("drop-icmpv6-info", "bool"),
    17: ("source-icmpv6-errors-better", "bool"),
    18: ("f-args", "uint8"),
    19: ("handle-rst-during-fin-rcv", "bool"),
    20: ("tcp-est-timeout", "uint32"),
    21: ("tcp-trans-timeout", "uint32"),
    22: ("udp-timeout", "uint32"),
    23: ("icmp-timeout", "uint32"),
    24: ("logging-bib", "bool"),
    25: ("logging-session", "bool"),
    26: ("maximum-simultaneous-opens", "uint32"),
    27: ("ss-enabled", "bool"),
    28: ("ss-flush-asap", "bool"),
    29: ("ss-flush-deadline", "uint32"),
    30: ("ss-capacity", "uint32"),
    31: ("ss-max-payload", "uint32"),
    32: ("ss-max-sessions-per-packet", "uint32"),
}
"""The global options of a NAT64: name and type. Timeouts and deadlines are milliseconds."""


_OPTION_TYPES = {"bool": "uint8", "prefix": "prefix6"}


class Globals(Message):
    """The reply to GLOBAL_FOREACH."""

    nla_map = tuple(
        (number, name, _OPTION_TYPES.get(kind, kind)) for number, (name, kind) in OPTIONS.items()
    )
    prefix6 = Prefix6

    class plateaus(nla):  # type: ignore[misc] # noqa: D106
        nla_map = ((1, "ENTRY", "uint16"),)


def request(
    family: int,
    command: Command,
    *,
    version: int,
    instance: str,
    sequence: int = 0,
    attributes: list[tuple[str, object]] | None = None,
) -> bytes:
    """A request; `version` is the module's own, as Jool's header has it."""
    message: Any = Request()
    message["header"].update(type=family, flags=1, sequence_number=sequence)  # NLM_F_REQUEST
    message.update(
        cmd=int(command),
        version=1,
        magic=MAGIC,
        jool_version=version,
        xt=NAT64,
        iname=instance.encode(),
    )
    message["attrs"] = attributes or []
    message.encode()
    return bytes(message.data)


def once_more(request: bytes, sequence: int, offset: bytes) -> bytes:
    """The same request under another number; `offset` takes the place of its offset if it has one.

    That is its last attribute and of the same length. A table is read by thousands of requests.
    """
    end = len(request) - len(offset)
    return request[:8] + _LENGTH.pack(sequence) + request[12:end] + offset


def options(reply: bytes) -> dict[str, Any]:
    """The options that a reply to GLOBAL_FOREACH tells, by their names."""
    message: Any = Globals(reply)
    message.decode()
    values: dict[str, Any] = {}
    kinds = dict(OPTIONS.values())
    for name, value in ((slot[0], slot[1]) for slot in message["attrs"]):
        match kinds.get(name):
            case "bool":
                values[name] = bool(value)
            case "prefix":
                address = value.get_attr("ADDR")
                values[name] = f"{address}/{value.get_attr('LEN')}" if address else None
            case "plateaus":
                values[name] = value.get_attrs("ENTRY")
            case None:
                pass  # of a later version
            case _:
                values[name] = value
    return values


def pool4_rows(page: bytes) -> Iterator[dict[str, Any]]:
    """The entries that a reply to POOL4_FOREACH tells."""
    message: Any = Pool4Reply(page)
    message.decode()
    for entry in message.get_attrs("ENTRY"):
        prefix = entry.get_attr("PREFIX")
        yield {
            "mark": entry.get_attr("MARK") or 0,
            "prefix": f"{prefix.get_attr('ADDR')}/{prefix.get_attr('LEN')}",
            "first": entry.get_attr("PORT_MIN"),
            "last": entry.get_attr("PORT_MAX"),
        }


def bib_rows(page: bytes) -> Iterator[dict[str, Any]]:
    """The entries of a page of BIB_FOREACH, less their protocol."""
    message: Any = BibReply(page)
    message.decode()
    for entry in message.get_attrs("ENTRY"):
        src6, src4 = entry.get_attr("SRC6"), entry.get_attr("SRC4")
        yield {
            "src6": src6.get_attr("ADDR"),
            "src6_port": src6.get_attr("PORT"),
            "src4": src4.get_attr("ADDR"),
            "src4_port": src4.get_attr("PORT"),
            "static": bool(entry.get_attr("STATIC")),
        }


def is_run_of(size: int, page: bytes) -> bool:
    """Whether a page has entries of `size` bytes, their headers included, and nothing else.

    There may be millions of entries, and to look at each would be most of the work with them.
    """
    body = page[HEADER_LEN:]
    count, rest = divmod(len(body), size)
    head = _ATTRIBUTE.pack(size, ENTRY | NESTED)
    return rest == 0 and all(body[n::size] == head[n : n + 1] * count for n in range(len(head)))


def last_entry(page: bytes) -> bytes | None:
    """The content of a page's last entry: what the next page begins behind."""
    for size in (SESSION_LEN, BIB_LEN):
        if len(page) >= HEADER_LEN + size and is_run_of(size, page):
            return page[ATTRIBUTE_LEN - size :]
    return next(iter(deque(_entries(page), maxlen=1)), None)


def _entries(page: bytes) -> Iterator[bytes]:
    at = HEADER_LEN
    while at + ATTRIBUTE_LEN <= len(page):
        length, kind = _ATTRIBUTE.unpack_from(page, at)
        if length < ATTRIBUTE_LEN or at + length > len(page):
            return
        if kind & ~NESTED == ENTRY:
            yield page[at + ATTRIBUTE_LEN : at + length]
        at += (length + 3) & ~3


def header(data: bytes) -> tuple[int, int, int, int]:
    """Type, sequence number, Jool's version and flags of a message of the family.

    Raises ValueError if it is none.
    """
    if len(data) < HEADER_LEN:
        raise ValueError("it is shorter than its headers")
    length, kind, _, sequence, _, _, _, _, magic, version, _, flags, _, _ = _HEADER.unpack_from(
        data
    )
    if magic != MAGIC or not HEADER_LEN <= length <= len(data):
        raise ValueError("it has not Jool's header")
    return kind, sequence, int.from_bytes(version, "big"), flags


def instance_of(data: bytes) -> str:
    """The name of the instance that a message, whose header is good, is about."""
    return data[HEADER_LEN - 16 : HEADER_LEN].partition(b"\0")[0].decode(errors="replace")


def batch_of(data: bytes) -> bytes | None:
    """The sessions that a message of the module's, whose header is good, tells of.

    They are a datagram of joold's. None if it tells of none.
    """
    (end,) = _LENGTH.unpack_from(data)
    if end < HEADER_LEN + ATTRIBUTE_LEN:
        return None
    length, kind = _ATTRIBUTE.unpack_from(data, HEADER_LEN)
    if kind & ~NESTED != SESSION_ENTRIES or not ATTRIBUTE_LEN < length <= end - HEADER_LEN:
        return None
    return data[HEADER_LEN + ATTRIBUTE_LEN : HEADER_LEN + length]


def version_name(version: int) -> str:
    """4.1.9.0 of 0x04010900, as Jool writes its versions."""
    return ".".join(str(part) for part in version.to_bytes(4, "big"))
