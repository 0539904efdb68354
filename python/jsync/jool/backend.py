"""A node over an instance of Jool's: the engine holds a copy of its table and speaks to the peers.

The module, or its instance, may come late, go and come back; each time the node takes over what
the instance has and gives it what it lacks.
"""

import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from jsync.changes import Configuration
from jsync.config import JoolSection, Settings
from jsync.control import Action, Arguments
from jsync.errors import USAGE, Failure
from jsync.jool import counters, messages, table
from jsync.jool.messages import Command, version_name
from jsync.jool.module import NAMES, PROTOCOLS, Absent, Instance, Module, Refused
from jsync.jool.stream import Gone, Stream, StreamStats, open_stream
from jsync.log import Log

if TYPE_CHECKING:
    from jsync._core import JooldStatus, Node, NodeStatus, PeerStatus

WATCH_SECONDS = 1.0
BIB_SECONDS = 5.0
"""Pause between two looks for static entries of the BIB,"""
BIB_SHARE = 0.05
"""and how much of the time such looks may take."""
SLICE_SECONDS = 0.005
"""For how long pages are read before others get their turn."""
RESYNC_PAUSE_SECONDS = 10.0
"""Pause between two readings of the table because the module drops sessions."""
_MODULE = {"join-timeout": 0}
_GROWING = (counters.RECEIVED6, counters.RECEIVED4)
_COUNTED = (*_GROWING, counters.SESSIONS)


class JoolEngine:
    """The engine of a node whose packets the kernel module translates.

    The node itself is made when the instance's configuration is known: until then there is nobody
    to hear frames, and nothing to show.
    """

    def __init__(
        self, settings: Settings, module: Module, make: "Callable[[Settings], Node]"
    ) -> None:
        """`make` makes a node that has a bridge to a module."""
        assert settings.jool is not None
        self._settings = settings
        self._jool: JoolSection = settings.jool
        self._make = make
        self.module = module
        self.node: Node | None = None
        self.absence = "looking for Jool's kernel module"
        """Why there is no instance to synchronise; empty if there is one."""
        self.progress = ""
        """What is done about that; empty if nothing is."""
        self.stats_of_stream = StreamStats()
        self.resync_wanted = trio.Event()
        # Readable once the node is there, whose own descriptor takes its place then.
        self._made = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    @property
    def reason(self) -> str:
        """Why the node isn't ready; empty if that isn't the instance's fault."""
        return self.absence and (self.progress or self.absence)

    def configure(self, nat64: dict[str, Any], instance: Instance) -> list[str]:
        """Follow the instance's configuration; what has changed. Raises Failure."""
        node = self.node
        if node is None:
            node = self.node = self._make(replace(self._settings, nat64=nat64))
            os.eventfd_write(self._made, 1)
            changed = []
        else:
            changed = _follow(node, nat64)
        node.pin_format(instance.format, module=True)
        # As joold would: without a format of its own, the group gets the module's.
        node.tell_joolds_in(instance.format)
        return changed

    def attach(self, device: str, *, persistent: bool) -> None:
        """Nothing: the packets are the module's."""

    def follow_marks(self, devices: Sequence[tuple[int, str]], *, persistent: bool) -> None:
        """Nothing."""

    def detach(self) -> None:
        """Nothing."""

    def fileno(self) -> int:
        """See `jsync._core.Node`."""
        return self._made if self.node is None else self.node.fileno()

    def take_frames(self, limit: int = 64) -> list[tuple[int, bytes]]:
        """See `jsync._core.Node`."""
        return [] if self.node is None else self.node.take_frames(limit)

    def receive_frames(self, frames: Sequence[bytes]) -> list[int]:
        """See `jsync._core.Node`."""
        return [0] * len(frames) if self.node is None else self.node.receive_frames(frames)

    def take_datagrams(self, limit: int = 64, *, module: bool = False) -> list[bytes]:
        """See `jsync._core.Node`."""
        return [] if self.node is None else self.node.take_datagrams(limit, module=module)

    def receive_datagrams(
        self, datagrams: Sequence[tuple[str, bytes]], *, module: bool = False
    ) -> list[bool]:
        """See `jsync._core.Node`."""
        if self.node is None:
            return [False] * len(datagrams)
        return self.node.receive_datagrams(datagrams, module=module)

    def rekey(self, keys: list[bytes]) -> bool:
        """See `jsync._core.Node`."""
        return self.node is not None and self.node.rekey(keys)

    def advertise(self) -> None:
        """See `jsync._core.Node`; the module's table is read again, too."""
        self.resync_wanted.set()
        if self.node is not None:
            self.node.advertise()

    def joolds(self) -> "list[JooldStatus]":
        """See `jsync._core.Node`."""
        return [] if self.node is None else self.node.joolds()

    def take_events(self) -> list[str]:
        """See `jsync._core.Node`."""
        return [] if self.node is None else self.node.take_events()

    def leave(self) -> None:
        """See `jsync._core.Node`."""
        if self.node is not None:
            self.node.leave()

    def status(self) -> "NodeStatus":
        """See `jsync._core.Node`. Without its instance the node isn't ready."""
        if self.node is None:
            return {
                "ready": False,
                "reason": self.reason,
                "catching_up": None,
                "sessions": 0,
                "bib_entries": 0,
                "max_sessions": self._jool.max_sessions,
                "table_bytes": 0,
                "worker": "running",
                "held_packets": 0,
                "longest_pause_us": 0,
            }
        status = self.node.status()
        if status["worker"] == "stopped":  # it has no device, and needs none
            status["worker"] = "running"
        if self.absence:
            status["ready"], status["reason"] = False, self.reason
        elif status["ready"] and self._settings.sync is None and self._settings.joold is None:
            status["reason"] = "Jool translates; there is nobody to synchronise with"
        return status

    def peers(self) -> "list[PeerStatus]":
        """See `jsync._core.Node`."""
        return [] if self.node is None else self.node.peers()

    def stats(self) -> list[tuple[str, str, int]]:
        """The counters of the copy and of the stream; the module's own too while it is there."""
        rows = [] if self.node is None else self.node.stats()
        rows += [
            (f"module_{name}", _HELP[name], value)
            for name, value in asdict(self.stats_of_stream).items()
        ]
        with suppress(Failure):
            values = self.module.stats()
            if self.module.instance is not None:
                rows += counters.rows(self.module.instance.version, values)
        return rows

    def about(self) -> dict[str, object]:
        """What there is to say of the translator."""
        instance = self.module.instance
        nat64 = {} if self.node is None else json.loads(self.node.config())
        return {
            "backend": "jool",
            "instance": self._jool.instance,
            "jool_version": None if instance is None else version_name(instance.version),
            "pool6": nat64.get("pool6"),
            "device": None,
        }

    def sessions(self, proto: str | None, cursor: Any, limit: int) -> tuple[list[Any], Any]:
        """A page of the module's own table. Raises Failure."""
        from jsync import _core

        page, protocol, following = self._page("session", proto, cursor)
        rows: list[Any] = []
        for datagram in table.datagrams(page):
            rows += _core.decode_joold(datagram, "4.1.9", self._pool6())[1]
        for row in rows:
            del row["timer"]
        assert all(row["proto"] == protocol for row in rows)
        return rows, following

    def bib(self, proto: str | None, cursor: Any, limit: int) -> tuple[list[Any], Any]:
        """A page of the module's own BIB. Raises Failure."""
        page, protocol, following = self._page("bib", proto, cursor)
        return table.bib_rows(page, protocol), following

    def _page(self, what: str, proto: str | None, cursor: Any) -> tuple[bytes, str, Any]:
        """A page, its protocol, and the next cursor: protocol's number and last entry."""
        if proto is not None and proto not in PROTOCOLS:
            raise Failure(f"protocols are {', '.join(PROTOCOLS)}", USAGE)
        number, offset = cursor or (PROTOCOLS[proto or "tcp"], None)
        page, last = self.module.page(table.FOREACH[what], NAMES[number], offset)
        if last is not None:
            return page, NAMES[number], (number, last)
        following = (number + 1, None) if proto is None and number + 1 in NAMES else None
        return page, NAMES[number], following

    def _pool6(self) -> str:
        return str(self.module.options()["pool6"])

    def config(self) -> bytes:
        """The instance's global options and pool4 as they are now, as JSON. Raises Failure."""
        pool4 = [
            {
                "protocol": protocol,
                "prefix": row["prefix"],
                "ports": f"{row['first']}-{row['last']}",
                "node": None,
                "mark": row["mark"],
            }
            for protocol, pages in self.module.pool4_raw().items()
            for page in pages
            for row in messages.pool4_rows(page)
        ]
        return json.dumps({"global": self.module.options(), "pool4": pool4}).encode()


_HELP = {
    "batches_received": "Batches of sessions that the kernel module told",
    "batches_refused": "Of these, batches that can't be read",
    "batches_sent": "Batches of sessions that the kernel module was given",
    "batches_rejected": "Of these, batches that it didn't take whole: mappings of its own collide",
    "messages_ignored": "Messages that are none of the module's, or about other instances",
    "send_errors": "Batches that couldn't be given to the module",
    "overruns": "Times that the kernel dropped batches since the daemon was too slow to read them",
    "resynchronisations": "Times that the module's whole table was read",
    "reconnects": "Times that the module or its instance went away",
    "bytes_received": "Bytes of sessions that the kernel module told",
}


def _follow(node: "Node", nat64: dict[str, Any]) -> list[str]:
    """Make the node's configuration the instance's, which has changed. Raises Failure."""
    old = json.loads(node.config())
    if old["pool6"] != nat64["pool6"]:
        raise Failure(
            f"Jool's instance has the pool6 {nat64['pool6']} now; the copy of its table has"
            f" {old['pool6']}: restart the daemon"
        )
    changed: list[str] = []
    options = {k: v for k, v in nat64["global"].items() if old["global"].get(k) != v}
    if options:
        node.update_global(json.dumps(options).encode())
        changed += options
    before = [_as_written(entry) for entry in old["pool4"]]
    for entry in nat64["pool4"]:
        if entry not in before:
            node.pool4_add(json.dumps(entry).encode())
            changed.append("pool4")
    old_bib, new_bib = old["bib"], nat64.get("bib", old["bib"])
    for entry in old_bib:
        if entry not in new_bib:
            node.bib_remove(entry["protocol"], entry["ipv6"], entry["ipv4"])
            changed.append("bib")
    for entry in before:
        if entry not in nat64["pool4"]:
            node.pool4_remove(json.dumps(entry).encode())
            changed.append("pool4")
    for entry in new_bib:
        if entry not in old_bib:
            node.bib_add(json.dumps(entry).encode())
            changed.append("bib")
    return sorted(set(changed))


def _as_written(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of pool4 of the engine's as `table.merge_pool4` writes it."""
    prefix = entry["prefix"] if "/" in entry["prefix"] else entry["prefix"] + "/32"
    first, _, last = entry["ports"].partition("-")
    protocol = {"protocol": entry["protocol"]} if entry.get("protocol") else {}
    mark = {"mark": entry["mark"]} if entry.get("mark") else {}
    return {**protocol, "prefix": prefix, "ports": f"{first}-{last or first}", **mark}


class ModuleLink:
    """Keeps the engine and the instance together, for as long as it runs."""

    def __init__(self, engine: JoolEngine, jool: JoolSection, log: Log) -> None:
        self._engine = engine
        self._module = engine.module
        self._jool = jool
        self._log = log
        self._stream: Stream | None = None
        self._is_new = False
        """The instance isn't the one whose sessions we have: it lacks them."""
        self._counted = dict.fromkeys(_COUNTED, 0)
        """Packets that it had received, and sessions that it had, when we last looked."""
        self._reread_at = 0.0
        self._bib: list[dict[str, str]] = []
        """The instance's static entries,"""
        self._bib_at = 0.0
        """and when to look for them again."""

    async def run(self) -> None:
        """Follow the module until cancelled. Raises Failure if the daemon has to start anew."""
        while True:
            try:
                instance = self._module.find()
                options = self._module.options()
                self._require_synchronisation(options)
                format = instance.format
                pool4 = self._module.pool4_raw()
                nat64 = table.read(options, pool4, self._jool.max_sessions)
                await self._look_for_static_bib()
                nat64["bib"] = self._bib
                self._engine.configure(nat64, instance)
            except Absent as absence:
                self._is_new = True
                self._say_absent(str(absence))
            except ValueError as error:  # the engine's own judgement
                self._say_absent(f"Jool's instance can't be synchronised: {error}")
            except Failure as failure:
                self._say_absent(str(failure))
            else:
                self._log.info(
                    "Jool's instance is there",
                    instance=instance.name,
                    jool=version_name(instance.version),
                    format=format,
                )
                await self._carry(instance)
                self._engine.stats_of_stream.reconnects += 1
            self._engine.progress = ""
            await trio.sleep(WATCH_SECONDS)

    def _require_synchronisation(self, options: dict[str, Any]) -> None:
        if not options.get("ss-enabled"):
            raise Failure(
                f"Jool's instance {self._jool.instance} doesn't synchronise: jool -i"
                f" {self._jool.instance} global update ss-enabled true"
            )

    def _say_absent(self, reason: str) -> None:
        if self._engine.absence != reason:
            self._engine.absence = reason
            self._log.warning(reason)

    async def _look_for_static_bib(self) -> None:
        """Find the static entries. The module shows them among all others, so there is a price."""
        begun, found = trio.current_time(), []
        if self._engine.node is None:
            self._engine.progress = "reading the BIB of Jool's instance"
        async for protocol, page in self._pages(Command.BIB_FOREACH):
            found += table.static_bib(page, protocol)
        now = trio.current_time()
        self._bib, self._bib_at = found, now + max(BIB_SECONDS, (now - begun) / BIB_SHARE)

    async def _carry(self, instance: Instance) -> None:
        """Carry sessions until the instance goes away."""
        engine = self._engine
        with open_stream(instance) as opened:
            stream = Stream(opened, instance, engine, engine.stats_of_stream, self._log)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.receive)
                    self._stream = stream
                    self._count(self._module.stats())
                    # First its own: what it has learned since it came is the newer.
                    await self._read_table()
                    if engine.node is not None:
                        # Peers come to know the whole at once. Told as it is read, it would be news
                        # without end to them, and they would compare tables all the while.
                        engine.node.take_part()
                        engine.node.advertise_to_module(all=self._is_new)
                    self._is_new = False
                    engine.absence = ""
                    nursery.start_soon(self._follow_overruns, stream)
                    nursery.start_soon(self._follow_wishes)
                    await self._watch(instance)
                    nursery.cancel_scope.cancel()
            except* Gone:
                self._is_new = True
                self._say_absent("Jool's kernel module or its instance went away")
            except* Failure as failures:
                self._say_absent(str(failures.exceptions[0]))
            finally:
                self._stream = None

    async def _follow_overruns(self, stream: Stream) -> None:
        while True:
            await stream.overrun.wait()
            stream.overrun = trio.Event()
            self._log.warning("the kernel dropped sessions of Jool's: reading its table")
            await self._read_table()

    async def _follow_wishes(self) -> None:
        while True:
            await self._engine.resync_wanted.wait()
            self._engine.resync_wanted = trio.Event()
            await self._read_table()

    async def _read_table(self) -> None:
        """Tell the engine every session that the module has. Raises Failure."""
        engine, count = self._engine, 0
        assert engine.node is not None, "it is there since the instance was found"
        engine.stats_of_stream.resynchronisations += 1
        try:
            async for _, page in self._pages(Command.SESSION_FOREACH):
                count += engine.node.receive_page(page[messages.HEADER_LEN :])
                engine.progress = f"reading Jool's table, {count} sessions so far"
        finally:
            engine.progress = ""
        self._log.info("read the module's table", sessions=count)

    async def _pages(self, command: Command) -> AsyncIterator[tuple[str, bytes]]:
        """The pages of every protocol, and which it is; others get their turn. Raises Failure."""
        until = trio.current_time() + SLICE_SECONDS
        for protocol in PROTOCOLS:
            for page in self._module.pages(command, protocol):
                yield protocol, page
                if trio.current_time() >= until:
                    await trio.lowlevel.checkpoint()
                    until = trio.current_time() + SLICE_SECONDS
        await trio.lowlevel.checkpoint()

    async def _watch(self, instance: Instance) -> None:
        """Follow the instance's configuration and the peers until it is another. Raises Failure."""
        stats = self._module.stats()
        peers = self._up()
        known: tuple[object, ...] = ()
        while True:
            await trio.sleep(WATCH_SECONDS)
            before, stats = stats, self._module.stats()
            self._count(stats)
            if self._is_new:
                raise Gone
            options, pool4 = self._module.options_raw(), self._module.pool4_raw()
            if trio.current_time() >= self._bib_at:
                await self._look_for_static_bib()
            # As a rule nothing has changed, and to read it all would be most of the work.
            if (options, pool4, self._bib) != known:
                self._configure(instance, options, pool4)
                known = options, pool4, self._bib
            await self._catch_up(instance, before, stats)
            met, peers = self._up() - peers, self._up()
            if met:
                await self._have_advertised(instance)

    def _configure(self, instance: Instance, options: bytes, pool4: dict[str, list[bytes]]) -> None:
        """Have the engine follow the instance. Raises Failure."""
        told = messages.options(options)
        self._require_synchronisation(told)
        nat64 = table.read(told, pool4, self._jool.max_sessions) | {"bib": self._bib}
        try:
            changed = self._engine.configure(nat64, instance)
        except ValueError as error:
            raise Failure(f"Jool's instance can't be synchronised: {error}") from None
        if changed:
            self._log.info("Jool's instance has changed", options=", ".join(changed))

    def _count(self, stats: dict[int, int]) -> None:
        """An instance that has begun to count anew is another one by the same name.

        Where few packets come it may have caught up already, but it has no sessions then.
        """
        before, now = self._counted, {number: stats.get(number, 0) for number in _COUNTED}
        self._is_new |= any(now[number] < before[number] for number in _GROWING)
        self._is_new |= now[counters.SESSIONS] == 0 < before[counters.SESSIONS]
        self._counted = now

    def _up(self) -> set[object]:
        peers = {p["node"] for p in self._engine.peers() if p["state"] == "up"}
        return peers | {j["address"] for j in self._engine.joolds()}

    async def _catch_up(
        self, instance: Instance, before: dict[int, int], stats: dict[int, int]
    ) -> None:
        """Read the table if the module dropped sessions for want of room in its queue."""
        names = counters.names(instance.version)
        if "JOOLD_SSS_ENOSPC" not in names:
            return
        number = names.index("JOOLD_SSS_ENOSPC") + 1
        dropped = stats.get(number, 0) - before.get(number, 0)
        if dropped > 0 and trio.current_time() >= self._reread_at:
            self._reread_at = trio.current_time() + RESYNC_PAUSE_SECONDS
            self._log.warning("Jool's queue was full: reading its table", dropped=dropped)
            await self._read_table()

    async def _have_advertised(self, instance: Instance) -> None:
        """A peer has joined: have everything told that the module knows better than we do."""
        if instance.format == "4.1.9":  # whose advertisement sends nothing
            await self._read_table()
            return
        try:
            self._module.advertise()
        except Refused as refused:  # an advertisement is under way: it does as well
            self._log.info("the module advertises already", error=refused)

    async def write(self, batches: Sequence[bytes]) -> None:
        """Give the module what the engine has for it. Without a module it is lost, and told when
        there is one."""
        if self._stream is not None:
            await self._stream.write(batches)


class NoHost:
    """The host's side of a node whose packets the kernel translates: there is nothing to do."""

    def prepare(self) -> None: ...  # noqa: D102
    def connect(self) -> None: ...  # noqa: D102
    def hold(self, held: frozenset[int]) -> None: ...  # noqa: D102
    def announce(self) -> None: ...  # noqa: D102
    def change(  # noqa: D102
        self, settings: Settings, follow_marks: Callable[[Settings], None]
    ) -> None: ...
    def undo(self) -> None: ...  # noqa: D102


_COMMANDS = {
    ("global", "update"): "global update KEY VALUE",
    ("pool4", "add"): "pool4 add --tcp PREFIX PORTS",
    ("pool4", "remove"): "pool4 remove --tcp PREFIX PORTS",
    ("pool4", "flush"): "pool4 flush",
    ("bib", "add"): "bib add --tcp IPV6#PORT IPV4#PORT",
    ("bib", "remove"): "bib remove --tcp IPV6#PORT",
}


class JoolChanges(Configuration):
    """The configuration is the instance's, and is changed by Jool's own client."""

    def actions(self) -> dict[tuple[str, ...], Action]:
        """All are refused with the command to write instead."""
        return {verb: partial(self._refuse, command) for verb, command in _COMMANDS.items()}

    async def _refuse(self, command: str, arguments: Arguments) -> object:
        jool = self._settings.jool
        name = jool.instance if jool else "default"
        raise Failure(f"the instance is Jool's; write: jool -i {name} {command}", USAGE)

    async def reload(self, new: Settings) -> None:
        """Take other keys, and say which of the file's changes need a restart: all others do."""
        self._reload_keys(new)
        self._name_restarts(new)


def make_module_json() -> bytes:
    """What the engine has to know of the bridge to the module; its format follows."""
    return json.dumps(_MODULE).encode()


@contextmanager
def lock_instance(name: str) -> Iterator[None]:
    """Claim an instance in this network namespace: two daemons would tell it each other's news.

    Raises Failure if another daemon has it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
        try:
            lock.bind(f"\0jsync-jool/{name}")
        except OSError:
            raise Failure(
                f"another daemon synchronises Jool's instance {name}; stop it, or name another"
                " instance: [jool] instance"
            ) from None
        yield
