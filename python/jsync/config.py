"""The configuration file: TOML, read into structures, every mistake with its line and remedy.

The section `[nat64]` is judged by the translator itself, `[keepalived]` by `jsync.keepalived`;
this module translates durations and finds the lines that complaints are about.
"""

import ipaddress
import json
import platform
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

import msgspec

from jsync.devices import MarkDevice, mark_devices
from jsync.durations import parse_duration
from jsync.errors import Failure
from jsync.keepalived import (
    KeepalivedError,
    KeepalivedSection,
    SliceSection,
    VirtualAddresses,
)
from jsync.keepalived import check as check_keepalived
from jsync.keys import read_key
from jsync.tls import Credentials
from jsync.toml_lines import Path, key_lines, nearest_line

Duration = int | float | str
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Section(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    """A table of the file."""


class NodeSection(Section):
    """`[node]`."""

    name: str = msgspec.field(default_factory=platform.node)
    id: int = 1
    backend: Literal["native", "jool"] = "native"
    control: str = "/run/jsync/control.sock"


class DataplaneSection(Section):
    """`[dataplane]`."""

    device: str = "jsync0"
    # A TUN that goes with its process tells keepalived at once. One that stays only loses its
    # carrier, and the kernel holds such news back for up to a second if another link of the
    # machine has changed shortly before (linkwatch).
    persistent: bool = False
    pool4: Literal["shared", "routed"] = "shared"
    proxy_arp: list[str] = []


class SyncSection(Section):
    """`[sync]`; durations without a unit are milliseconds."""

    cluster: str
    key_files: list[str] = []
    plaintext: bool = False
    transport: Literal["multicast", "unicast", "tcp"] = "multicast"
    port: int = 6464
    group: str = "239.64.64.64"
    interface: str | None = None
    ttl: int = 1
    listen: str | None = None
    peers: list[str] = []
    tls_certificate: str | None = None
    tls_key: str | None = None
    tls_ca: str | None = None
    hello_interval: Duration | None = None
    dead_interval: Duration | None = None
    join_timeout: Duration | None = None
    flush_deadline: Duration | None = None
    max_sessions_per_frame: int | None = None
    durability: Literal["async", "sent", "acked"] = "async"
    acked_timeout: Duration | None = None
    pull: bool | None = None
    pull_timeout: Duration | None = None
    allow_mismatch: list[Literal["pool6", "pool4", "bib", "timeouts", "filtering"]] = []


class JooldSection(Section):
    """`[joold]`; durations without a unit are milliseconds."""

    group: str
    # Each interface by its name, or by an address that it has.
    interface: str | None = None
    out_interface: str | None = None
    port: int = 6400
    ttl: int = 1
    format: Literal["auto", "4.1.9", "4.1.12", "4.1.13"] = "auto"
    flush_deadline: Duration = 5
    join_timeout: Duration = 2000


class MetricsSection(Section):
    """`[metrics]`."""

    listen: str

    def endpoint(self) -> tuple[str, int]:
        """Address and port. Raises ValueError."""
        match = re.fullmatch(r"(?:\[([^]]*:[^]]*)\]|([^:]*)):([0-9]{1,5})", self.listen)
        try:
            if match is None or not 1 <= int(match[3]) <= 65535:
                raise ValueError
            return str(ipaddress.ip_address(match[1] or match[2])), int(match[3])
        except ValueError:
            raise ValueError(
                f'{self.listen!r} is not ADDRESS:PORT; write "127.0.0.1:9464" or "[::1]:9464"'
            ) from None


class JoolSection(Section):
    """`[jool]`: the instance of the kernel module that translates, with `backend = "jool"`."""

    instance: str = "default"
    max_sessions: int = 4_000_000


class Document(Section, kw_only=True):
    """The whole file."""

    node: NodeSection = msgspec.field(default_factory=NodeSection)
    nat64: dict[str, Any] | None = None
    jool: JoolSection | None = None
    dataplane: DataplaneSection = msgspec.field(default_factory=DataplaneSection)
    sync: SyncSection | None = None
    joold: JooldSection | None = None
    metrics: MetricsSection | None = None
    keepalived: KeepalivedSection | None = None


MAX_SESSIONS = 1 << 26
"""The most sessions that a table can be sized for."""
TLS_KEYS = ("tls-certificate", "tls-key", "tls-ca")
SYNC_DURATIONS = (
    "hello-interval",
    "dead-interval",
    "join-timeout",
    "flush-deadline",
    "acked-timeout",
    "pull-timeout",
)


@dataclass(frozen=True)
class Pool4Range:
    """Transport addresses of pool4: the data plane sends packets to them to the translator."""

    network: ipaddress.IPv4Network
    protocols: tuple[str, ...]
    first: int
    last: int
    node: int | None = None
    """Whose slice it is; None: nobody's."""


@dataclass(frozen=True)
class Settings:
    """A configuration without mistakes. Durations are milliseconds."""

    # Empty if it stands in no file.
    path: str
    node: NodeSection
    # What the engine translates with; with the jool backend {} until the instance was read.
    nat64: dict[str, Any]
    dataplane: DataplaneSection
    sync: SyncSection | None
    keepalived: KeepalivedSection | None
    lines: dict[Path, int]
    joold: JooldSection | None = None
    # Not None with the jool backend.
    jool: JoolSection | None = None
    metrics: MetricsSection | None = None
    # Address and port of joold's statistics, which no file has: see `jsync.jool.proxy`.
    joold_stats: tuple[str, str] | None = None

    @property
    def pool6(self) -> ipaddress.IPv6Network:
        """The prefix that is routed to the translator."""
        return ipaddress.IPv6Network(self.nat64.get("pool6", "64:ff9b::/96"))

    @property
    def pool4(self) -> list[Pool4Range]:
        """What IPv4 nodes send to."""
        return pool4_ranges(self.nat64)

    @property
    def mark_devices(self) -> list[MarkDevice]:
        """The devices of the marks that pool4 distinguishes. Raises Failure."""
        marks = [entry.get("mark", 0) for entry in self.nat64.get("pool4", [])]
        return mark_devices(self.dataplane.device, marks)

    def nat64_json(self) -> bytes:
        """The translator's configuration as the engine takes it."""
        return json.dumps({**self.nat64, "node": cluster_node(self.node, self.sync)}).encode()

    def sync_json(self, epoch: int, max_frame: int) -> bytes | None:
        """Session synchronisation's configuration as the engine takes it; None without any."""
        if self.sync is None:
            return None
        values: dict[str, Any] = {
            "node": self.node.id,
            "cluster": self.sync.cluster,
            "epoch": epoch,
            "max-frame": max_frame,
            # Inside TLS frames needn't be sealed again.
            "plaintext": self.sync.plaintext or not self.sync.key_files,
            "durability": self.sync.durability,
            "pull": self.sync.pull,
            "max-sessions-per-frame": self.sync.max_sessions_per_frame,
            "allow-mismatch": self.sync.allow_mismatch,
        }
        for key in SYNC_DURATIONS:
            value = getattr(self.sync, key.replace("-", "_"))
            if value is not None:
                values[key] = parse_duration(value, bare_ms=1)
        return json.dumps(values).encode()

    def joold_json(self) -> bytes | None:
        """What the engine has to know of `[joold]`; None without joolds."""
        if self.joold is None:
            return None
        values: dict[str, object] = {"format": self.joold.format}
        values["flush-deadline"] = parse_duration(self.joold.flush_deadline, bare_ms=1)
        values["join-timeout"] = parse_duration(self.joold.join_timeout, bare_ms=1)
        return json.dumps(values).encode()

    def credentials(self) -> Credentials | None:
        """The certificates, read once to find mistakes; None without TLS. Raises Failure."""
        sync = self.sync
        if sync is None or sync.tls_certificate is None:
            return None
        found = Credentials(sync.tls_certificate, sync.tls_key or "", sync.tls_ca or "")
        try:
            found.contexts()
        except Failure as failure:
            message = str(failure)
            key = next(
                (k for k in TLS_KEYS if message.startswith(getattr(sync, _attribute(k)))),
                "tls-certificate",
            )
            raise mistake(self, ("sync", key), message) from None
        return found

    def keys(self) -> list[bytes]:
        """The pre-shared keys, read from their files. Raises Failure."""
        keys = []
        for index, path in enumerate(self.sync.key_files if self.sync else []):
            try:
                keys.append(read_key(path))
            except Failure as failure:
                raise mistake(self, ("sync", "key-files", index), str(failure)) from None
        return keys


def cluster_node(node: NodeSection, sync: SyncSection | None) -> int:
    """The number by which a node's own entries of pool4 are known; 0 outside of a cluster."""
    return node.id if sync is not None else 0


def pool4_ranges(nat64: dict[str, Any]) -> list[Pool4Range]:
    """The ranges of a translator's configuration that the engine has found good."""
    ranges = []
    for entry in nat64["pool4"]:
        first, _, last = str(entry.get("ports", "1024-65535")).partition("-")
        protocol = entry.get("protocol")
        ranges.append(
            Pool4Range(
                ipaddress.IPv4Network(entry["prefix"]),
                (protocol,) if protocol else ("tcp", "udp", "icmp"),
                int(first),
                int(last or first),
                entry.get("node"),
            )
        )
    return ranges


def mistake(source: "_Source | Settings", path: Path, message: str) -> Failure:
    """The Failure about the value at `path`."""
    line = nearest_line(source.lines, path)
    where = f"{source.path}:{line}" if line else source.path
    key = dotted(path)
    return Failure(f"{where}: {key}: {message}" if key else f"{where}: {message}")


def dotted(path: Path) -> str:
    """A path as people write it: nat64.pool4[0].prefix."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


@dataclass(frozen=True)
class _Source:
    path: str
    lines: dict[Path, int]


def engine_check(config: bytes) -> None:
    """The engine's own judgement of `[nat64]`. Raises ValueError."""
    from jsync import _core

    _core.check_nat64(config)


def load(path: str, *, check_nat64: Callable[[bytes], None] = engine_check) -> Settings:
    """Read and check the file `path`. Raises Failure."""
    try:
        with open(path, "rb") as file:
            text = file.read().decode()
    except FileNotFoundError:
        raise Failure(f"{path}: there is no such file (give it with -c FILE)") from None
    except UnicodeDecodeError:
        raise Failure(f"{path}: is not UTF-8 text") from None
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    return parse(text, path, check_nat64=check_nat64)


def parse(text: str, path: str, *, check_nat64: Callable[[bytes], None] = engine_check) -> Settings:
    """Check the text of a configuration; `path` is for messages. Raises Failure."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Failure(_syntax_message(path, str(error))) from None
    source = _Source(path, key_lines(text.replace("\r\n", "\n")))
    try:
        document = msgspec.convert(values, Document)
    except msgspec.ValidationError as error:
        raise _structure_mistake(source, str(error)) from None
    _check_node(source, document.node)
    jool = _check_backend(source, document)
    _check_dataplane(source, document.dataplane)
    if document.sync is not None:
        _check_sync(source, document.sync)
    if document.joold is not None:
        _check_joold(source, document.joold)
    if document.metrics is not None:
        _check_metrics(source, document.metrics)
    if document.keepalived is not None:
        _check_keepalived(source, document, document.keepalived)
    nat64 = engine_values(source, document.nat64 or {})
    if jool is None:
        node = cluster_node(document.node, document.sync)
        check_engine_values(source, nat64, node, check_nat64)
    settings = Settings(
        path=path,
        node=document.node,
        nat64=nat64,
        dataplane=document.dataplane,
        sync=document.sync,
        keepalived=document.keepalived,
        lines=source.lines,
        joold=document.joold,
        jool=jool,
        metrics=document.metrics,
    )
    _check_marks(settings)
    _check_proxy_arp(settings)
    _check_slices(settings)
    return settings


def _syntax_message(path: str, message: str) -> str:
    at = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if at is None:  # "at end of document"
        return f"{path}: not TOML: {message}"
    return f"{path}:{at[1]}: not TOML: {message[: at.start()]} (column {at[2]})"


def _structure_mistake(source: _Source, message: str) -> Failure:
    """What msgspec found, with the line, and for an unknown key the nearest known one."""
    message, _, where = message.partition(" - at `$")
    path: Path = tuple(
        int(index) if index else key
        for index, key in re.findall(r"\[(\d+)\]|\.([^.\[\]`]+)", where)
    )
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", message):
        known = _section_keys(path)
        return mistake(source, (*path, unknown[1]), unknown_key(unknown[1], known))
    if missing := re.fullmatch(r"Object missing required field `(.*)`", message):
        return mistake(source, path, f"the key {missing[1]!r} is missing")
    return mistake(source, path, message.replace("`", ""))


def _section_keys(path: Path) -> list[str]:
    sections: dict[Path, type[msgspec.Struct]] = {
        (): Document,
        ("node",): NodeSection,
        ("dataplane",): DataplaneSection,
        ("sync",): SyncSection,
        ("jool",): JoolSection,
        ("joold",): JooldSection,
        ("metrics",): MetricsSection,
        ("keepalived",): KeepalivedSection,
        ("keepalived", "ipv6"): VirtualAddresses,
        ("keepalived", "ipv4"): VirtualAddresses,
        ("keepalived", "slice"): SliceSection,
        ("keepalived", "slice", "ipv6"): VirtualAddresses,
        ("keepalived", "slice", "ipv4"): VirtualAddresses,
    }
    section = sections[tuple(part for part in path if isinstance(part, str))]
    return [field.encode_name for field in msgspec.structs.fields(section)]


def unknown_key(key: str, known: list[str]) -> str:
    """What to say about a key that isn't known."""
    near = get_close_matches(key, known, n=1)
    if near:
        return f"unknown key; did you mean {near[0]!r}?"
    return f"unknown key; known here: {', '.join(sorted(known))}"


def _check_node(source: _Source, node: NodeSection) -> None:
    if not node.name or not node.name.isprintable():
        raise mistake(source, ("node", "name"), "give the node a name, 'J' say")
    if not 1 <= node.id <= 65535:
        raise mistake(source, ("node", "id"), f"{node.id} is outside 1 to 65535")
    # sockaddr_un has 108 bytes, the last of them zero.
    if not node.control.startswith("/") or len(node.control.encode()) > 107:
        raise mistake(source, ("node", "control"), "must be an absolute path of at most 107 bytes")


def _check_backend(source: _Source, document: Document) -> JoolSection | None:
    """`[jool]` with the jool backend; sections that the backend doesn't read are mistakes."""
    if document.node.backend == "native":
        if document.jool is not None:
            raise mistake(
                source,
                ("jool",),
                'is read with [node] backend = "jool" only; add that, or remove this',
            )
        if document.nat64 is None:
            raise mistake(source, (), "the key 'nat64' is missing")
        return None
    for key, why in (
        ("nat64", "pool6, pool4, the BIB and the options are those of Jool's instance"),
        ("dataplane", "packets are Jool's business"),
    ):
        if any(path[0] == key for path in source.lines):
            raise mistake(
                source, (key,), f'has no meaning with backend = "jool" ({why}); remove it'
            )
    if document.sync is not None:
        for key in ("durability", "acked-timeout", "pull", "pull-timeout"):
            if ("sync", key) in source.lines:
                raise mistake(
                    source,
                    ("sync", key),
                    'has no meaning with backend = "jool" (the module holds no packets); remove it',
                )
    jool = document.jool or JoolSection()
    # INAME_MAX_SIZE of Jool's: 16 bytes, the last of them zero.
    if not 1 <= len(jool.instance.encode()) <= 15 or not jool.instance.isascii():
        raise mistake(
            source, ("jool", "instance"), "an instance's name has 1 to 15 ASCII characters"
        )
    if not 1 <= jool.max_sessions <= MAX_SESSIONS:
        raise mistake(
            source, ("jool", "max-sessions"), f"{jool.max_sessions} is outside 1 to {MAX_SESSIONS}"
        )
    return jool


def _check_interface(source: _Source, path: Path, name: str) -> None:
    if not 1 <= len(name.encode()) <= 15 or re.search(r"[\s/:]", name) or name in {".", ".."}:
        raise mistake(
            source, path, f"{name!r} can't name an interface: 1 to 15 bytes, no blank, / or :"
        )


def _check_dataplane(source: _Source, dataplane: DataplaneSection) -> None:
    _check_interface(source, ("dataplane", "device"), dataplane.device)
    for index, name in enumerate(dataplane.proxy_arp):
        _check_interface(source, ("dataplane", "proxy-arp", index), name)
    if dataplane.proxy_arp and dataplane.pool4 != "routed":
        raise mistake(
            source,
            ("dataplane", "proxy-arp"),
            'is for addresses that the host doesn\'t have; add pool4 = "routed", or remove it'
            " (the host itself answers ARP for a shared address)",
        )


def _check_marks(settings: Settings) -> None:
    try:
        _ = settings.mark_devices
    except Failure as failure:
        raise mistake(settings, ("nat64", "pool4"), str(failure)) from None


def _check_proxy_arp(settings: Settings) -> None:
    if not settings.dataplane.proxy_arp:
        return
    addresses = sum({r.network: r.network.num_addresses for r in settings.pool4}.values())
    if addresses > 256:
        raise mistake(
            settings,
            ("dataplane", "proxy-arp"),
            f"pool4 has {addresses} addresses; route more than 256 to this host instead",
        )


def _check_keepalived(source: _Source, document: Document, section: KeepalivedSection) -> None:
    try:
        check_keepalived(section)
    except KeepalivedError as error:
        raise mistake(source, ("keepalived", *error.path), str(error)) from None
    if not section.slices:
        return
    if document.node.backend == "jool":
        raise mistake(
            source,
            ("keepalived", "slice"),
            'has no meaning with backend = "jool" (each module gives away what it has in its'
            " pool4); name the addresses in [keepalived.ipv6] and [keepalived.ipv4]",
        )
    if document.sync is None:
        message = "needs [sync]: who takes a slice over has to have its sessions"
        raise mistake(source, ("keepalived", "slice"), message)


def _check_slices(settings: Settings) -> None:
    """The slices whose addresses move have to be the slices of pool4."""
    slices = settings.keepalived.slices if settings.keepalived else []
    if not slices:
        return
    where: Path = ("keepalived", "slice")
    for index, pool in enumerate(settings.pool4):
        if pool.node is None:
            raise mistake(
                settings,
                ("nat64", "pool4", index),
                "needs node = N: with [[keepalived.slice]] several nodes give ports away at once,"
                " and no two may give away the same",
            )
        if pool.node not in {entry.node for entry in slices}:
            raise mistake(
                settings,
                ("nat64", "pool4", index, "node"),
                f"there is no [[keepalived.slice]] of node {pool.node}: nobody has its addresses",
            )
    owners = {pool.node for pool in settings.pool4}
    for index, entry in enumerate(slices):
        if entry.node not in owners:
            raise mistake(
                settings,
                (*where, index, "node"),
                f"node {entry.node} has no slice: no [[nat64.pool4]] has node = {entry.node}",
            )
        for position, text in enumerate(entry.ipv4.addresses if entry.ipv4 else []):
            address = ipaddress.ip_interface(text).ip
            others = {pool.node for pool in settings.pool4 if address in pool.network}
            if others and entry.node not in others:
                raise mistake(
                    settings,
                    (*where, index, "ipv4", "addresses", position),
                    f"{address} is in the slice of node {others.pop()}",
                )


def _check_sync(source: _Source, sync: SyncSection) -> None:
    def wrong(key: str, message: str) -> Failure:
        return mistake(source, ("sync", key), message)

    if ("node", "id") not in source.lines:
        raise mistake(source, ("sync",), "every node of a cluster needs its own [node] id = 1, 2 …")
    if not sync.cluster:
        raise wrong("cluster", "give the cluster a name")
    if sync.plaintext and sync.key_files:
        raise wrong("plaintext", "contradicts key-files; remove one of them")
    _check_tls(source, sync)
    if not sync.plaintext and not sync.key_files and sync.tls_certificate is None:
        raise wrong(
            "key-files",
            "name a key that the nodes share (`jsync key generate FILE`), or write"
            " plaintext = true to send sessions unprotected",
        )
    if not 1 <= sync.port <= 65535:
        raise wrong("port", f"{sync.port} is outside 1 to 65535")
    for key in SYNC_DURATIONS:
        value = getattr(sync, key.replace("-", "_"))
        if value is not None:
            try:
                parse_duration(value, bare_ms=1)
            except ValueError as error:
                raise wrong(key, str(error)) from None
    if sync.interface is not None:
        _check_interface(source, ("sync", "interface"), sync.interface)
    other: tuple[str, ...] = (
        ("listen", "peers") if sync.transport == "multicast" else ("group", "ttl")
    )
    if sync.transport != "tcp":
        other = (*other, *TLS_KEYS)
    for key in other:
        if ("sync", key) in source.lines:
            raise wrong(key, f'has no meaning with transport = "{sync.transport}"; remove it')
    if sync.transport == "multicast":
        if not _address(source, ("sync", "group"), sync.group).is_multicast:
            raise wrong("group", "is no multicast address; 239.64.64.64 or ff08::db8:64:64, say")
        if sync.interface is None:
            raise wrong("interface", "name the private network's interface")
        if not 1 <= sync.ttl <= 255:
            raise wrong("ttl", f"{sync.ttl} is outside 1 to 255")
    else:
        _check_mesh(source, sync)


def _check_tls(source: _Source, sync: SyncSection) -> None:
    given = [key for key in TLS_KEYS if getattr(sync, _attribute(key)) is not None]
    missing = [key for key in TLS_KEYS if key not in given]
    if given and missing:
        raise mistake(source, ("sync", given[0]), f"needs {' and '.join(missing)} beside it")
    if given and sync.plaintext:
        raise mistake(
            source, ("sync", "plaintext"), "contradicts TLS, which protects frames; remove it"
        )


def _attribute(key: str) -> str:
    return key.replace("-", "_")


def _check_joold(source: _Source, joold: JooldSection) -> None:
    def wrong(key: str, message: str) -> Failure:
        return mistake(source, ("joold", key), message)

    if not _address(source, ("joold", "group"), joold.group).is_multicast:
        raise wrong("group", "is no multicast address; 239.64.64.64 or ff08::db8:64:64, say")
    for key, interface in (("interface", joold.interface), ("out-interface", joold.out_interface)):
        if interface is not None and not _is_address(interface):
            _check_interface(source, ("joold", key), interface)
    for key, value, most in (("port", joold.port, 65535), ("ttl", joold.ttl, 255)):
        if not 1 <= value <= most:
            raise wrong(key, f"{value} is outside 1 to {most}")
    for key, duration, most in (
        ("flush-deadline", joold.flush_deadline, 60_000),
        ("join-timeout", joold.join_timeout, 600_000),
    ):
        try:
            if not 0 <= parse_duration(duration, bare_ms=1) <= most:
                raise ValueError(f"is outside 0 to {most} ms")
        except ValueError as error:
            raise wrong(key, str(error)) from None


def _check_metrics(source: _Source, metrics: MetricsSection) -> None:
    try:
        metrics.endpoint()
    except ValueError as error:
        raise mistake(source, ("metrics", "listen"), str(error)) from None


def _check_mesh(source: _Source, sync: SyncSection) -> None:
    if sync.listen is None:
        raise mistake(source, ("sync", "listen"), "name this node's address on the private network")
    if not sync.peers:
        raise mistake(source, ("sync", "peers"), "list the addresses of the other nodes")
    listen = _address(source, ("sync", "listen"), sync.listen)
    for index, text in enumerate(sync.peers):
        peer = _address(source, ("sync", "peers", index), text)
        if peer.version != listen.version:
            raise mistake(
                source, ("sync", "peers", index), f"{text} and listen are of different IP versions"
            )
    for key, addresses in (("listen", [sync.listen]), ("peers", sync.peers)):
        for address in addresses:
            if ipaddress.ip_address(address).is_link_local and ":" in address:
                if sync.interface is None:
                    raise mistake(
                        source, ("sync", key), 'a link-local address needs interface = "…"'
                    )
            elif ipaddress.ip_address(address).is_unspecified:
                raise mistake(source, ("sync", key), "name one address, not all of them")
            elif ipaddress.ip_address(address).is_multicast:
                raise mistake(
                    source,
                    ("sync", key),
                    f'{address} is a multicast address: transport = "multicast"',
                )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _address(source: _Source, path: Path, text: str) -> Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise mistake(source, path, f"{text!r} is not an IP address") from None


def is_duration(key: str) -> bool:
    """Whether an option of `[nat64.global]` is a duration."""
    return key.endswith("-timeout")


def engine_values(source: _Source, nat64: dict[str, Any]) -> dict[str, Any]:
    """`[nat64]` with durations in milliseconds; without a unit they are seconds, as in Jool."""
    options = nat64.get("global")
    if not isinstance(options, dict):
        return nat64
    converted = {}
    for key, value in options.items():
        try:
            converted[key] = parse_duration(value, bare_ms=1_000) if is_duration(key) else value
        except ValueError as error:
            raise mistake(source, ("nat64", "global", key), str(error)) from None
    return {**nat64, "global": converted}


def check_engine_values(
    source: _Source, nat64: dict[str, Any], node: int, check_nat64: Callable[[bytes], None]
) -> None:
    """Let the engine judge `[nat64]`, and find the line that its complaint is about."""
    if "node" in nat64:
        message = "unknown key; the node's number is `id` in [node]"
        raise mistake(source, ("nat64", "node"), message)
    # TOML knows dates, which no option is: as text they meet the engine's own complaint.
    text = json.dumps({**nat64, "node": node}, default=str).encode()
    try:
        check_nat64(text)
    except ValueError as error:
        path, message = _located(nat64, str(error))
        raise mistake(source, ("nat64", *path), message) from None


# `pool4[1].prefix: …`, `udp-timeout: …`, `bib[0] ipv4 192.0.2.1#1: …`, `pool4 10.0.0.0/8: …`
_COMPLAINT = re.compile(
    r"([\w-]+(?:\.[\w-]+|\[\d+\])*)(?: (ipv[46]))?(?: ([^ :]+))?: (.*)", re.DOTALL
)


def _located(nat64: dict[str, Any], complaint: str) -> tuple[Path, str]:
    """The key that the engine's complaint is about, and the complaint without it."""
    match = _COMPLAINT.fullmatch(complaint)
    if match is None:
        return (), complaint
    dotted_path, inner, value, message = match.groups()
    parts = re.findall(r"\[(\d+)\]|([\w-]+)", dotted_path)
    path: Path = tuple(int(index) if index else key for index, key in parts)
    if inner:
        path = (*path, inner)
    elif path[0] in nat64.get("global", {}):
        path = ("global", *path)
    elif path == ("pool4",) and value:
        prefixes = [str(entry["prefix"]).removesuffix("/32") for entry in nat64["pool4"]]
        path = ("pool4", prefixes.index(value.removesuffix("/32")))
    if value:
        message = f"{value}: {message}"
    if unknown := re.match(r"unknown field `([^`]*)`(.*)", message):
        known = re.findall(r"`([^`]*)`", unknown[2])
        # The translator's own number is no key of [nat64].
        known = [key for key in known if key != "node" or len(path) > 1]
        message = unknown_key(unknown[1], known)
    return path, message
