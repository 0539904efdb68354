"""The jool backend over a fake of the kernel module: what the daemon does about it, without one."""

import json
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import pytest
import trio
from test_jool_netlink import FakeModule, FakeSocket, attribute, captured

from jsync import _core, config
from jsync.daemon import make_node
from jsync.errors import Failure
from jsync.jool import backend, messages
from jsync.jool.backend import JoolEngine, ModuleLink
from jsync.jool.messages import Command
from jsync.jool.module import Module
from jsync.log import Log

TEXT = '[node]\nname = "J"\nid = 1\nbackend = "jool"\n[jool]\nmax-sessions = 1000\n'
TEXT += '[sync]\ncluster = "c"\nplaintext = true\ninterface = "lo"\njoin-timeout = "50ms"\n'


def pool4_entry(protocol: int) -> bytes:
    prefix = attribute(1, bytes([192, 0, 2, 1])) + attribute(2, bytes([32]))
    content = attribute(1, struct.pack("=I", 0)) + attribute(4, bytes([protocol]))
    content += attribute(5 | messages.NESTED, prefix)
    content += attribute(6, struct.pack("=H", 61001)) + attribute(7, struct.pack("=H", 65535))
    return attribute(1 | messages.NESTED, content)


class Instance(FakeModule):
    """An instance with the options and the two sessions of a real one."""

    def __init__(self) -> None:
        replies = captured("4.1.15", "reply with data")
        options = next(d for d in replies if len(d) == 372)[messages.HEADER_LEN :]
        self.sessions = next(d for d in replies if len(d) == 328)[messages.HEADER_LEN :]
        self.received = 100
        super().__init__(GLOBAL_FOREACH=options)

    def _answer(self, data: bytes) -> bytes:
        counts = {1: self.received, 5: len(self.sessions) // 140}
        stats = b"".join(attribute(n, struct.pack("=Q", v)) for n, v in counts.items())
        udp = data[messages.HEADER_LEN :].startswith(attribute(11, b"\1"))
        self.answers |= {
            "STATS_FOREACH": stats,
            "POOL4_FOREACH": pool4_entry(data[-4]),
            "SESSION_FOREACH": self.sessions if udp else b"",
        }
        return super()._answer(data)


class World:
    """The backend, while a script plays the kernel."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = config.parse(TEXT, "jsync.toml")
        assert settings.jool is not None
        self.module, self.text = Instance(), StringIO()
        self.sockets: list[FakeSocket] = []
        monkeypatch.setattr(backend, "open_stream", self.open)
        monkeypatch.setattr(backend, "WATCH_SECONDS", 0.05)
        self.engine = JoolEngine(settings, Module("default", self.module), make_node)
        self.link = ModuleLink(self.engine, settings.jool, Log(stream=self.text))

    @contextmanager
    def open(self, _: object) -> Iterator[FakeSocket]:
        self.sockets.append(FakeSocket())
        try:
            yield self.sockets[-1]
        finally:
            self.sockets[-1].close()

    def run(self, script: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.link.run)
                    await script()
                    nursery.cancel_scope.cancel()

        trio.run(main)

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await trio.sleep(0.01)

    def ready(self) -> bool:
        return self.engine.status()["ready"]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_the_instances_table_and_configuration_are_taken_over(world: World) -> None:
    async def script() -> None:
        assert not world.ready()
        await world.until(world.ready)

    world.run(script)
    assert world.engine.node is not None
    nat64 = json.loads(world.engine.node.config())
    assert [(e["prefix"], e["ports"], e["protocol"]) for e in nat64["pool4"]] == [
        ("192.0.2.1/32", "61001-65535", None)
    ]
    assert world.engine.status()["sessions"] == 2
    rows, _ = world.engine.sessions("udp", 0, 10)
    assert {row["src4"] for row in rows} == {"192.0.2.1"}


def test_a_node_takes_part_when_it_has_read_the_table(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then it says how far it is, and no peer hears of it."""
    monkeypatch.setattr(backend, "SLICE_SECONDS", 0.0)
    row = _core.decode_joold(world.module.sessions, "4.1.9")[1][0]
    pages = [
        [row | {"src6_port": n, "src4_port": 63_000 + n} for n in range(first, first + 10)]
        for first in range(0, 50, 10)
    ]
    world.module.more["SESSION_FOREACH"] = [
        b"".join(_core.encode_joold(page, "4.1.9")) for page in pages
    ]
    seen: list[str] = []

    async def script() -> None:
        while not world.ready():
            reason = world.engine.status()["reason"]
            if reason.startswith(("looking", "reading")):
                assert world.engine.take_frames() == []
            if reason not in seen[-1:]:
                seen.append(reason)
            await trio.lowlevel.checkpoint()
        await world.until(world.engine.take_frames)

    world.run(script)
    assert seen[0] == "looking for Jool's kernel module"
    reading = [reason for reason in seen if reason.startswith("reading Jool's table")]
    steps = [f"reading Jool's table, {count} sessions so far" for count in range(10, 53)]
    assert len(reading) >= 2
    assert reading == [step for step in steps if step in reading], "it goes on"
    assert world.engine.status()["sessions"] == 52


@pytest.mark.parametrize("version", [0x0401_0900, 0x0401_0D00])
def test_the_module_is_asked_for_its_table_when_somebody_joins(
    world: World, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    """4.1.9 is asked for an advertisement in vain, so its table is read."""
    world.module.version = version
    is_old = version == 0x0401_0900

    def asked() -> bool:
        return "JOOLD_ADVERTISE" in dict(world.module.asked)

    async def script() -> None:
        await world.until(world.ready)
        await trio.sleep(0.2)
        assert not asked()
        assert world.engine.stats_of_stream.resynchronisations == 1
        monkeypatch.setattr(world.engine, "joolds", lambda: [{"address": "192.0.2.7"}])
        await world.until(lambda: asked() or world.engine.stats_of_stream.resynchronisations == 2)

    world.run(script)
    assert asked() != is_old
    assert (world.engine.stats_of_stream.resynchronisations == 2) == is_old


def test_an_overrun_has_the_table_read_again(world: World) -> None:
    async def script() -> None:
        await world.until(world.ready)
        assert world.engine.stats_of_stream.resynchronisations == 1
        world.sockets[0].overruns = 1
        world.sockets[0].kernel.send(captured("4.1.15", "joold multicast")[0])
        await world.until(lambda: world.engine.stats_of_stream.resynchronisations == 2)

    world.run(script)
    assert "the kernel dropped sessions of Jool's: reading its table" in world.text.getvalue()
    stats = {name: value for name, _, value in world.engine.stats()}
    assert (stats["module_overruns"], stats["jstat_sessions"]) == (1, 2)


def given(world: World, number: int) -> list[Command]:
    """What a socket's kernel was sent."""
    kernel, found = world.sockets[number].kernel, []
    kernel.settimeout(0.05)
    try:
        while data := kernel.recv(65_536):
            found.append(Command(data[16]))
    except TimeoutError:
        return found
    return found


@pytest.mark.parametrize("anew", [True, False])
def test_who_was_away_is_given_all_only_if_it_is_another(world: World, anew: bool) -> None:
    async def script() -> None:
        await world.until(world.ready)
        assert Command.JOOLD_ADD not in given(world, 0), "it knows all that we know"
        enabled = world.module.answers["GLOBAL_FOREACH"]
        world.module.answers["GLOBAL_FOREACH"] = enabled.replace(
            attribute(27, b"\1"), attribute(27, b"\0")
        )
        await world.until(lambda: not world.ready())
        if anew:
            world.module.received, world.module.sessions = 5, b""
        world.module.answers["GLOBAL_FOREACH"] = enabled
        await world.until(world.ready)
        with trio.move_on_after(0.5):
            while True:
                await world.link.write(world.engine.take_datagrams(module=True))
                await trio.sleep(0.01)
        assert (Command.JOOLD_ADD in given(world, 1)) == anew

    world.run(script)
    assert "global update ss-enabled true" in world.text.getvalue()


def test_a_module_that_is_unloaded_is_told_and_waited_for(world: World) -> None:
    async def script() -> None:
        await world.until(world.ready)
        world.module.unloaded = True
        await world.until(lambda: not world.ready())
        await world.until(lambda: "modprobe jool" in world.engine.status()["reason"])
        with pytest.raises(Failure, match="modprobe jool"):
            world.engine.sessions(None, 0, 10)
        world.module.unloaded = False
        await world.until(world.ready)

    world.run(script)
    assert world.engine.stats_of_stream.reconnects == 1
    assert world.text.getvalue().count("modprobe jool") == 1


def test_its_configuration_is_followed(world: World) -> None:
    async def script() -> None:
        await world.until(world.ready)
        options = world.module.answers["GLOBAL_FOREACH"]
        world.module.answers["GLOBAL_FOREACH"] = options.replace(
            attribute(22, struct.pack("=I", 300_000)), attribute(22, struct.pack("=I", 400_000))
        )
        node = world.engine.node
        assert node is not None
        await world.until(lambda: json.loads(node.config())["global"]["udp-timeout"] == 400_000)

    world.run(script)
    assert "udp-timeout" in world.text.getvalue()


def test_changes_are_jools_own_client_to_make(world: World) -> None:
    settings = config.parse(TEXT, "jsync.toml")
    changes = backend.JoolChanges(settings, world.engine, Log(stream=StringIO()))
    arguments: dict[str, Any] = {"key": "tos", "value": "1"}

    async def main() -> None:
        for verb, act in changes.actions().items():
            with pytest.raises(Failure, match=f"jool -i default {' '.join(verb)}"):
                await act(arguments)

    trio.run(main)
