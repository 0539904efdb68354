"""Changes of the translator's configuration while packets flow: by a command, or by SIGHUP.

Each is made whole or refused with the reason. The file isn't written: what a command changes, a
restart forgets. Nodes whose configurations differ don't synchronise, so a change is made on all.
"""

import ipaddress
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import trio
from msgspec import structs

from jsync.config import Settings, is_duration, unknown_key
from jsync.control import Action, Arguments
from jsync.durations import parse_duration
from jsync.engine import Engine, Translator
from jsync.errors import USAGE, Failure
from jsync.jool.importing import ELSEWHERE, SIIT, WITHOUT
from jsync.log import Log
from jsync.netlink import HostSide

_TRUE = {"true", "on", "yes", "1"}
_FALSE = {"false", "off", "no", "0"}
_MANY = 24
"""An entry of a shorter prefix has to be forced, as in Jool: a /16 holds packets up for 40 ms."""


def parse_option(key: str, text: str, current: object) -> object:
    """The value of a global option from text, of the type that it has now. Raises ValueError."""
    if is_duration(key):
        return parse_duration(text, bare_ms=1_000)
    if isinstance(current, bool):
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise ValueError("write true or false")
    if isinstance(current, list):
        parts = list(filter(None, (part.strip() for part in text.split(","))))
        return parts if key == "denylist4" else [_whole(part) for part in parts]
    return _whole(text)


def _whole(text: str) -> int:
    # int() takes signs, underscores and other scripts' digits too.
    if not (text.isascii() and text.isdecimal()):
        raise ValueError("write a whole number")
    return int(text)


class Configuration(ABC):
    """What is configured, and the commands that change it."""

    def __init__(self, settings: Settings, engine: Engine, log: Log) -> None:
        self._settings = settings
        self._configured = engine
        self._log = log

    def config(self) -> dict[str, Any]:
        """The translator's configuration as it is now; durations in milliseconds."""
        config: dict[str, Any] = json.loads(self._configured.config())
        return config

    @abstractmethod
    def actions(self) -> dict[tuple[str, ...], Action]:
        """The verbs that change something. They raise Failure."""

    @abstractmethod
    async def reload(self, new: Settings) -> None:
        """Make of the file's changes those that can be made, and say which can't."""

    def _reload_keys(self, new: Settings) -> None:
        """Take the keys that the files have now. Raises Failure, and all is left as it was."""
        old = self._settings
        if not (old.sync and old.sync.key_files and new.sync and new.sync.key_files):
            return
        files = new.sync.key_files
        if self._configured.rekey(new.keys()):
            self._log.info("has other keys; seals with the first", files=", ".join(files))
        self._settings = replace(old, sync=structs.replace(old.sync, key_files=files))

    def _name_restarts(self, new: Settings) -> None:
        for section in ("node", "jool", "dataplane", "sync", "joold", "metrics", "keepalived"):
            if getattr(new, section) != getattr(self._settings, section):
                self._log.warning("restart the daemon for this change", section=section)


class Changes(Configuration):
    """Makes changes to our own translator, one at a time."""

    def __init__(self, settings: Settings, engine: Translator, host: HostSide, log: Log) -> None:
        super().__init__(settings, engine, log)
        self._engine = engine
        self._host = host
        self._lock = trio.Lock()

    def actions(self) -> dict[tuple[str, ...], Action]:
        """See `Configuration`."""
        return {
            ("global", "update"): self.update_global,
            ("pool4", "add"): self.pool4_add,
            ("pool4", "remove"): self.pool4_remove,
            ("pool4", "flush"): self.pool4_flush,
            ("bib", "add"): self.bib_add,
            ("bib", "remove"): self.bib_remove,
        }

    async def update_global(self, arguments: Arguments) -> object:
        """`global update`."""
        key, text = _words(arguments, "key", "value")
        options = self.config()["global"]
        if key not in options:
            why = (ELSEWHERE | WITHOUT | SIIT).get(key) or unknown_key(key, list(options))
            raise Failure(f"{key}: {why}")
        try:
            async with self._lock:
                await self._update_global({key: parse_option(key, text, options[key])})
        except (ValueError, Failure) as error:
            reason = str(error).removeprefix(f"{key}: ")
            value = "" if repr(text) in reason else f"{text!r}: "
            raise Failure(f"{key}: {value}{reason}") from None
        return {}

    async def _update_global(self, options: dict[str, object]) -> None:
        _engine(self._engine.update_global, options)
        self._log.info(
            "global options changed", **{k.replace("-", "_"): v for k, v in options.items()}
        )

    async def pool4_add(self, arguments: Arguments) -> object:
        """`pool4 add`."""
        entry = _pool4_entry(arguments)
        if not arguments.get("force"):
            _refuse_many(entry)
        async with self._lock:
            await self._pool4_add(entry)
        return {}

    async def _pool4_add(self, entry: dict[str, Any]) -> None:
        await self._change_pool4(self._engine.pool4_add, entry)
        self._log.info("pool4 has a new entry", **entry)

    async def pool4_remove(self, arguments: Arguments) -> object:
        """`pool4 remove`: of all entries, whatever their limits are."""
        gone = {"ports": "0-65535", **_pool4_entry(arguments)}
        async with self._lock:
            await self._change_pool4(self._engine.pool4_exclude, gone)
            self._log.info("pool4 has lost transport addresses", **gone)
        return {}

    async def _pool4_remove(self, entry: dict[str, Any]) -> None:
        await self._change_pool4(self._engine.pool4_remove, entry)
        self._log.info("pool4 has lost an entry", **entry)

    async def pool4_flush(self, arguments: Arguments) -> object:
        """`pool4 flush`."""
        async with self._lock:
            await self._change_pool4(self._engine.pool4_replace, [])
            self._log.info("pool4 is empty")
        return {}

    async def _change_pool4(self, change: Callable[[bytes], None], value: object) -> None:
        """Change the engine's pool4, then the host, or neither."""
        before = self.config()["pool4"]
        _engine(change, value)
        try:
            await self._follow()
        except Failure:
            # Mappings that the change has ended are lost all the same.
            _engine(self._engine.pool4_replace, before)
            raise

    async def _follow(self) -> None:
        """Have the host send to the translator what is in pool4 now."""
        now = replace(self._settings, nat64=self.config())
        follow = partial(follow_marks, self._engine)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._host.change, now, follow)

    async def bib_add(self, arguments: Arguments) -> object:
        """`bib add`."""
        protocol, ipv6, ipv4 = _words(arguments, "protocol", "ipv6", "ipv4")
        self._bib_add({"protocol": protocol, "ipv6": ipv6, "ipv4": ipv4})
        return {}

    def _bib_add(self, entry: dict[str, Any]) -> None:
        _engine(self._engine.bib_add, entry)
        self._log.info("the BIB has a new static entry", **entry)

    async def bib_remove(self, arguments: Arguments) -> object:
        """`bib remove`."""
        (protocol,) = _words(arguments, "protocol")
        self._bib_remove(protocol, arguments.get("ipv6"), arguments.get("ipv4"))
        return {}

    def _bib_remove(self, protocol: str, ipv6: str | None, ipv4: str | None) -> None:
        _refusals_as_failures(lambda: self._engine.bib_remove(protocol, ipv6, ipv4))
        self._log.info("the BIB has lost an entry", protocol=protocol, ipv6=ipv6, ipv4=ipv4)

    async def reload(self, new: Settings) -> None:
        """See `Configuration`."""
        self._reload_keys(new)
        self._name_restarts(new)
        old = self._settings
        for key in ("pool6", "max-sessions"):
            if new.nat64.get(key) != old.nat64.get(key):
                self._log.warning("restart the daemon for this change", key=f"nat64.{key}")
        async with self._lock:
            try:
                await self._reload_nat64(old.nat64, new.nat64)
            except Failure as failure:
                self._log.error("not all of the file's changes could be made", error=failure)
        self._settings = replace(old, nat64=new.nat64)

    async def _reload_nat64(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        """Old entries of the BIB go first and new ones come last: they need pool4."""
        gone, come = _difference(old.get("bib", []), new.get("bib", []))
        for entry in gone:
            self._bib_remove(entry["protocol"], entry["ipv6"], entry["ipv4"])
        more, less = reversed(_difference(old["pool4"], new["pool4"]))
        for entry in more:
            await self._pool4_add(entry)
        for entry in less:
            await self._pool4_remove(entry)
        for entry in come:
            self._bib_add(entry)
        before, now = old.get("global", {}), new.get("global", {})
        if changed := {k: v for k, v in now.items() if before.get(k) != v}:
            await self._update_global(changed)
        for key in before.keys() - now.keys():
            self._log.warning("restart the daemon for its default", key=f"nat64.global.{key}")


def follow_marks(engine: Engine, settings: Settings) -> None:
    """Have the engine read a device for each mark of pool4, and no other. Raises Failure."""
    devices = [(marked.mark, marked.name) for marked in settings.mark_devices]
    try:
        engine.follow_marks(devices, persistent=settings.dataplane.persistent)
    except OSError as error:
        raise Failure(f"{error}; pool4's marks need a device each") from None


def _difference(old: list[Any], new: list[Any]) -> tuple[list[Any], list[Any]]:
    """What is only in the old list, and what only in the new."""
    return [e for e in old if e not in new], [e for e in new if e not in old]


def _words(arguments: Arguments, *names: str) -> list[str]:
    for name in names:
        if not isinstance(arguments.get(name), str):
            raise Failure(f"{name} is missing", USAGE)
    return [arguments[name] for name in names]


def _pool4_entry(arguments: Arguments) -> dict[str, Any]:
    names = ("prefix", "ports", "protocol", "node", "mark")
    return {name: arguments[name] for name in names if arguments.get(name) is not None}


def _refuse_many(entry: dict[str, Any]) -> None:
    try:
        network = ipaddress.IPv4Network(entry.get("prefix", ""), strict=False)
    except ValueError:
        return  # the engine says what is wrong with it
    if network.prefixlen < _MANY:
        raise Failure(
            f"{entry['prefix']} has {network.num_addresses} addresses; write --force if that many"
            f" are meant, or a prefix of /{_MANY} or longer"
        )


def _engine(change: Callable[[bytes], None], value: object) -> None:
    _refusals_as_failures(lambda: change(json.dumps(value).encode()))


def _refusals_as_failures(change: Callable[[], None]) -> None:
    try:
        change()
    except ValueError as error:
        raise Failure(str(error)) from None
