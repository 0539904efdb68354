"""From Jool's files to jsync's configuration: what has a counterpart, and a word on what has none.

Every option of Jool's NAT64 stands in `COUNTERPARTS` or in `WITHOUT`.
"""

import ipaddress
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jsync.durations import format_duration
from jsync.errors import USAGE, Failure
from jsync.jool.files import (
    File,
    Group,
    Pairs,
    instance_name,
    net_group,
    read,
    table,
    timeout_ms,
    unread_net_tags,
)

Backend = Literal["native", "jool"]

PROTOCOLS = ("tcp", "udp", "icmp")
_MAX_U32 = (1 << 32) - 1


@dataclass(frozen=True)
class Note:
    """Something that the configuration can't say."""

    where: str
    text: str
    undecided: bool = False
    """It is for the operator to decide."""

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


Section = tuple[str, dict[str, object]]


@dataclass
class Imported:
    """A configuration, and what it doesn't say."""

    sections: list[Section] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def say(self, where: str, text: str, *, undecided: bool = False) -> None:
        """Take note."""
        self.notes.append(Note(where, text, undecided))

    def toml(self, title: str) -> str:
        """The configuration file, with the notes as comments."""
        lines = [f"# {title}"]
        for header, values in self.sections:
            lines += ["", header, *(f"{key} = {toml_value(v)}" for key, v in values.items())]
        for undecided, heading in ((False, "Without a counterpart:"), (True, "To be decided:")):
            notes = [note for note in self.notes if note.undecided == undecided]
            if notes:
                lines += ["", f"# {heading}", *(f"# - {_printable(str(note))}" for note in notes)]
        return "\n".join(lines) + "\n"


def toml_value(value: object) -> str:
    """A value as TOML: JSON's text, once DEL is escaped.

    Half a surrogate pair, which JSON can write and TOML can't, is left for the check to refuse.
    """
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, value))}]"
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return text.encode(errors="backslashreplace").decode()


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("is neither true nor false")
    return value


def _integer(value: object, most: int = _MAX_U32) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"is no number from 0 to {most}")
    return value


def _byte(value: object) -> int:
    return _integer(value, 255)


def _mtu(value: object) -> int:
    # No packet is larger, so none is cut with either.
    return min(_integer(value), 65_535)


def _timeout(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is no text")
    return format_duration(timeout_ms(value))


def _plateaus(value: object) -> list[int]:
    if isinstance(value, Pairs) or not isinstance(value, list):
        raise ValueError("is no list")
    return [_integer(size, 65_535) for size in value]


COUNTERPARTS: dict[str, Callable[[object], object]] = {
    "zeroize-traffic-class": _bool,
    "override-tos": _bool,
    "tos": _byte,
    "lowest-ipv6-mtu": _mtu,
    "mtu-plateaus": _plateaus,
    "address-dependent-filtering": _bool,
    "drop-externally-initiated-tcp": _bool,
    "drop-icmpv6-info": _bool,
    "source-icmpv6-errors-better": _bool,
    "f-args": _byte,
    "handle-rst-during-fin-rcv": _bool,
    "tcp-est-timeout": _timeout,
    "tcp-trans-timeout": _timeout,
    "udp-timeout": _timeout,
    "icmp-timeout": _timeout,
    "logging-bib": _bool,
    "logging-session": _bool,
    "maximum-simultaneous-opens": _integer,
}
"""Options that are [nat64.global]'s by the same names."""
ELSEWHERE = {
    "pool6": "is [nat64] pool6, in the file; restart the daemon for another",
    "ss-enabled": "whether sessions are synchronised [sync] and [joold] say, in the file",
    "ss-flush-deadline": "is the flush-deadline of [sync] and of [joold], in the file",
}
"""Options whose counterparts have another place, and which."""
WITHOUT = {
    "manually-enabled": "a node whose daemon runs translates; stop the daemon instead",
    "logging-debug": "packets aren't logged one by one; `jsync stats display` counts them",
    "ss-flush-asap": "does nothing in Jool since 4.1.13; [joold] flush-deadline is 5 ms here",
    "ss-capacity": "changes wait in the table, so none is dropped for want of room",
    "ss-max-payload": "does nothing in Jool since 4.1.11",
    "ss-max-sessions-per-packet": "a datagram has as many as fit: 10, 27 or 36, by its format",
}
SIIT = dict.fromkeys(
    (
        "amend-udp-checksum-zero",
        "eam-hairpin-mode",
        "randomize-rfc6791-addresses",
        "rfc6791v6-prefix",
        "rfc6791v4-prefix",
    ),
    "belongs to SIIT; a stateful NAT64 has no use for it",
)
_HARMLESS: dict[str, object] = {"manually-enabled": True, "logging-debug": False}
"""Values that ask for what a daemon does anyway."""


def import_files(paths: Sequence[str], backend: Backend | None) -> Imported:
    """The configuration that Jool's files make. Raises Failure."""
    files: dict[str, File] = {}
    for path in paths:
        file = read(path)
        if other := files.get(file.kind):
            raise Failure(f"{path} and {other.path} are of the same kind; give one of them", USAGE)
        files[file.kind] = file
    instance, net, module = (files.get(kind) for kind in ("instance", "net", "module"))
    backend = backend or ("jool" if instance is None else "native")
    if backend == "native" and instance is None:
        raise Failure(
            "the native backend needs the file that `jool file handle` reads (pool6, pool4, …);"
            " give it too, or take --backend jool",
            USAGE,
        )
    result = Imported()
    name = _name(instance, module)
    if backend == "jool":
        result.sections += [("[node]", {"backend": "jool"}), ("[jool]", {"instance": name})]
        if instance is not None:
            _keep_instance(result, instance)
    else:
        assert instance is not None
        _translate_instance(result, instance, with_joold=net is not None)
        result.say(
            "[dataplane] pool4",
            '"shared", the default, is for addresses that the machine has, as Jool\'s usually are;'
            ' "routed" for those of the NAT64 alone',
            undecided=True,
        )
        result.say(
            "instance",
            f"{name!r} is a name of the kernel module's; -i takes [node] name, or 'default'",
        )
    if net is not None:
        _translate_net(result, net, backend, _deadline(instance, backend))
    result.say(
        "[sync]",
        "a cluster of jsync alone needs it, and no [joold]: cluster, key-files, interface, and"
        " [node] id on each node",
        undecided=True,
    )
    return result


def _name(instance: File | None, module: File | None) -> str:
    names = {
        instance_name(file)
        for file in (instance, module)
        if file is not None and "instance" in file.tags
    }
    if len(names) > 1:
        assert instance is not None
        assert module is not None
        raise Failure(
            f"{instance.path} is about the instance {instance_name(instance)!r},"
            f" {module.path} about {instance_name(module)!r}; give files of one instance"
        )
    return names.pop() if names else "default"


def _globals(file: File) -> dict[str, Any]:
    value = file.tags.get("global")
    return {} if value is None else table(f"{file.path}: global", value)


def _keep_instance(result: Imported, file: File) -> None:
    """With the jool backend the instance stays as it is."""
    for tag in ("global", "pool4", "bib"):
        if tag in file.tags:
            result.say(f"{file.path}: {tag}", "stays with the instance, which `jool` configures")
    if _globals(file).get("ss-enabled") is not True:
        result.say(
            f"{file.path}: global.ss-enabled",
            "must be true for the module to tell its sessions:"
            f" jool -i {instance_name(file)} global update ss-enabled true",
            undecided=True,
        )


def _translate_instance(result: Imported, file: File, *, with_joold: bool) -> None:
    known = {"instance", "framework", "global", "pool4", "bib"}
    for tag in file.tags:
        if tag in {"eamt", "denylist4", "blacklist4"}:
            raise file.wrong(tag, "belongs to SIIT; jsync is a stateful NAT64")
        if tag not in known:
            raise file.wrong(tag, f"is no tag of Jool's: those are {', '.join(sorted(known))}")
    if "framework" in file.tags:
        result.say(
            f"{file.path}: framework",
            f"{file.text('framework')}: packets come by routes to the TUN device instead; remove"
            " Jool's iptables rules, if there are any, and its instance",
        )
    options, nat64 = _global_options(result, file, with_joold=with_joold)
    result.sections.append(("[nat64]", nat64))
    if options:
        result.sections.append(("[nat64.global]", options))
    result.sections += _pool4(result, file)
    result.sections += [("[[nat64.bib]]", entry) for entry in _bib(file)]


def _global_options(
    result: Imported, file: File, *, with_joold: bool
) -> tuple[dict[str, object], dict[str, object]]:
    options: dict[str, object] = {}
    values = _globals(file)
    pool6 = values.pop("pool6", None)
    if pool6 is None:
        pool6 = "64:ff9b::/96"
        result.say(
            f"{file.path}: global.pool6",
            "is missing; [nat64] pool6 has the well-known prefix",
            undecided=True,
        )
    for key, value in values.items():
        where = f"{file.path}: global.{key}"
        shown = f"{json.dumps(value)}: "
        if convert := COUNTERPARTS.get(key):
            try:
                options[key] = convert(value)
            except ValueError as error:
                raise file.wrong(f"global.{key}", f"{json.dumps(value)} {error}") from None
        elif why := WITHOUT.get(key) or SIIT.get(key):
            if _HARMLESS.get(key) is not value:
                result.say(where, shown + why)
        elif key == "ss-enabled":
            if value is True and not with_joold:
                result.say(
                    where,
                    "synchronised with joolds; import joold's files too, or write [sync]",
                    undecided=True,
                )
        elif key == "ss-flush-deadline":
            if not with_joold:
                result.say(where, shown + "flush-deadline, of [joold] or [sync], is 5 ms")
        else:
            raise file.wrong(f"global.{key}", "is no option of Jool's")
    return options, {"pool6": pool6}


def _deadline(file: File | None, backend: Backend) -> int | None:
    """ss-flush-deadline in milliseconds, if the file has it and it isn't the module's business."""
    if file is None or backend == "jool":
        return None
    values = _globals(file)
    if "ss-flush-deadline" not in values:
        return None
    try:
        return _integer(values["ss-flush-deadline"])
    except ValueError as error:
        raise file.wrong("global.ss-flush-deadline", str(error)) from None


def _entries(file: File, tag: str, known: set[str], needed: set[str]) -> Iterator[dict[str, Any]]:
    values = file.tags.get(tag, [])
    if isinstance(values, Pairs) or not isinstance(values, list):
        raise file.wrong(tag, "is no list")
    for index, value in enumerate(values):
        where = f"{file.path}: {tag}[{index}]"
        entry = table(where, value)
        if unknown := entry.keys() - known:
            raise Failure(f"{where}: {min(unknown)}: is no tag of Jool's")
        if missing := needed - entry.keys():
            raise Failure(f"{where}: {min(missing)}: is missing")
        protocol = entry["protocol"]
        if not isinstance(protocol, str) or protocol.lower() not in PROTOCOLS:
            raise Failure(f"{where}: protocol: {json.dumps(protocol)} is none of TCP, UDP, ICMP")
        yield {**entry, "protocol": protocol.lower(), "where": where}


def _pool4(result: Imported, file: File) -> list[Section]:
    """Entries that all three protocols share become one; larger ones than a /16 become several."""
    found: dict[tuple[ipaddress.IPv4Network, str, int], list[str]] = {}
    known = {"mark", "protocol", "prefix", "port range", "max-iterations"}
    for entry in _entries(file, "pool4", known, {"protocol", "prefix"}):
        where = entry["where"]
        mark = entry.get("mark", 0)
        if type(mark) is not int or not 0 <= mark < 1 << 32:
            raise Failure(f"{where}: mark: {json.dumps(mark)} is no number from 0 to 4294967295")
        if "max-iterations" in entry:
            iterations = json.dumps(entry["max-iterations"])
            result.say(
                where, f"max-iterations {iterations}: no limit is set to the search for a port"
            )
        try:
            network = ipaddress.IPv4Network(str(entry["prefix"]))
            ports = _port_range(entry.get("port range", "61001-65535"))
        except ValueError as error:
            raise Failure(f"{where}: {error}") from None
        for part in network.subnets(new_prefix=max(16, network.prefixlen)):
            protocols = found.setdefault((part, ports, mark), [])
            if entry["protocol"] not in protocols:
                protocols.append(entry["protocol"])
    if not found:
        result.say(
            f"{file.path}: pool4",
            "is empty: Jool masks with ports 61001 to 65535 of the machine's own addresses; write"
            " [[nat64.pool4]] with those that the nodes share",
            undecided=True,
        )
    sections: list[Section] = []
    for (network, ports, mark), protocols in found.items():
        values: dict[str, object] = {"prefix": str(network), "ports": ports}
        if mark:
            values["mark"] = mark
        sections += (
            [("[[nat64.pool4]]", values)]
            if len(protocols) == len(PROTOCOLS)
            else [("[[nat64.pool4]]", {**values, "protocol": protocol}) for protocol in protocols]
        )
    return sections


def _port_range(value: object) -> str:
    first, dash, last = str(value).partition("-")
    try:
        ends = sorted(int(end) for end in ((first, last) if dash else (first,)))
    except ValueError:
        raise ValueError(f"port range: {value!r} is no range of ports") from None
    return "-".join(map(str, ends))


def _bib(file: File) -> Iterator[dict[str, object]]:
    known = {"protocol", "ipv6 address", "ipv4 address"}
    for entry in _entries(file, "bib", known, known):
        yield {
            "protocol": entry["protocol"],
            "ipv6": entry["ipv6 address"],
            "ipv4": entry["ipv4 address"],
        }


def _translate_net(result: Imported, file: File, backend: Backend, deadline: int | None) -> None:
    group = net_group(file)
    result.sections.append(joold_section(group))
    if group.dev_in is None:
        result.say(
            f"{file.path}: in interface",
            "is missing: [joold] interface should name the private network's; else the routing"
            f" table says which leads to {group.address}",
            undecided=True,
        )
    elif group.dev_out is None:
        result.say(
            f"{file.path}: out interface",
            "is missing: joold lets the routing table choose it; here datagrams leave where they"
            " are heard, unless [joold] out-interface says otherwise",
            undecided=True,
        )
    for tag in unread_net_tags(file):
        result.say(f"{file.path}: {tag}", "joold doesn't read it")
    if "reuseaddr" in file.tags:
        result.say(f"{file.path}: reuseaddr", "the group's port is always shared")
    if backend == "native":
        result.say(
            "[joold] format",
            'the Jools\' version, "4.1.9", "4.1.12" or "4.1.13"; without it nothing is told before'
            " one of them was heard",
            undecided=True,
        )
    if deadline is not None:
        result.sections[-1][1]["flush-deadline"] = f"{deadline}ms"


def joold_section(group: Group) -> Section:
    """`[joold]` for a group."""
    values: dict[str, object] = {"group": group.address, "port": group.port}
    if group.dev_in is not None:
        values["interface"] = group.dev_in
    if group.dev_out is not None:
        values["out-interface"] = group.dev_out
    values["ttl"] = group.ttl
    return "[joold]", values
