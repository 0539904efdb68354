import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from jsync import config, daemon
from jsync.changes import Changes
from jsync.control import listening
from jsync.daemon import Daemon
from jsync.errors import Failure
from jsync.log import Log
from jsync.transport import TransportStats

if TYPE_CHECKING:
    from jsync._core import BibRow, JooldStatus, NodeStatus, PeerStatus, SessionRow

CONFIG = """\
[node]
name = "J"
id = 1
control = "{control}"
[nat64]
pool4 = [{{ prefix = "192.0.2.1", ports = "61001-65535" }}]
[sync]
cluster = "campus"
plaintext = true
interface = "priv"
"""
SLICES = (
    CONFIG.replace(
        'pool4 = [{{ prefix = "192.0.2.1", ports = "61001-65535" }}]',
        'pool4 = [{{ prefix = "192.0.2.1", node = 1 }}, {{ prefix = "192.0.2.2", node = 2 }}]',
    )
    + """\
[[keepalived.slice]]
node = 1
ipv4 = {{ interface = "to4", addresses = ["192.0.2.1/24"] }}
[[keepalived.slice]]
node = 2
ipv4 = {{ interface = "to4", addresses = ["192.0.2.2/24"] }}
"""
)


class FakeEngine:
    """An engine that notes what is asked of it, and is ready when told so."""

    def __init__(self, history: list[str]) -> None:
        self.history = history
        self.event = os.eventfd(0, os.EFD_NONBLOCK)
        self.frames: list[tuple[int, bytes]] = []
        self.events: list[str] = []
        self.ready = True
        self.catching_up: int | None = None
        self.worker = "running"
        self.refusal: OSError | None = None

    def give(self, *frames: tuple[int, bytes]) -> None:
        self.frames += frames
        os.eventfd_write(self.event, 1)

    def attach(self, device: str, *, persistent: bool) -> None:
        self.history.append(f"attach {device}")
        if self.refusal is not None:
            raise self.refusal

    def follow_marks(self, devices: Sequence[tuple[int, str]], *, persistent: bool) -> None:
        self.history += [f"attach {name} of mark {mark}" for mark, name in devices]

    def detach(self) -> None:
        self.history.append("detach")

    def fileno(self) -> int:
        return self.event

    def take_frames(self, limit: int = 64) -> list[tuple[int, bytes]]:
        taken, self.frames = self.frames[:limit], self.frames[limit:]
        if not taken:
            with suppress(BlockingIOError):
                os.eventfd_read(self.event)
        return taken

    def receive_frames(self, frames: Sequence[bytes]) -> list[int]:
        return [0] * len(frames)

    def take_datagrams(self, limit: int = 64, *, module: bool = False) -> list[bytes]:
        return []

    def receive_datagrams(
        self, datagrams: Sequence[tuple[str, bytes]], *, module: bool = False
    ) -> list[bool]:
        raise NotImplementedError

    def rekey(self, keys: list[bytes]) -> bool:
        raise NotImplementedError

    def advertise(self) -> None:
        raise NotImplementedError

    def joolds(self) -> "list[JooldStatus]":
        return []

    def take_events(self) -> list[str]:
        taken, self.events = self.events, []
        return taken

    def leave(self) -> None:
        self.history.append("leave")
        self.give((0, b"bye"))

    def status(self) -> "NodeStatus":
        return {
            "ready": self.ready,
            "reason": "told so",
            "catching_up": self.catching_up,
            "sessions": 0,
            "bib_entries": 0,
            "max_sessions": 1,
            "table_bytes": 0,
            "longest_pause_us": 0,
            "worker": self.worker,
            "held_packets": 0,
        }

    def peers(self) -> "list[PeerStatus]":
        return []

    def stats(self) -> list[tuple[str, str, int]]:
        return []

    def sessions(
        self, proto: str | None, cursor: int, limit: int
    ) -> "tuple[list[SessionRow], int | None]":
        return [], None

    def bib(self, proto: str | None, cursor: int, limit: int) -> "tuple[list[BibRow], int | None]":
        return [], None

    def config(self) -> bytes:
        return b"{}"

    def update_global(self, options: bytes) -> None:
        self.history.append(f"update_global {options.decode()}")

    def pool4_add(self, entry: bytes) -> None:
        raise NotImplementedError

    pool4_remove = pool4_exclude = pool4_replace = bib_add = pool4_add

    def bib_remove(self, proto: str, ipv6: str | None, ipv4: str | None) -> None:
        raise NotImplementedError


class FakeDataplane:
    """The host's side, which notes what is asked of it."""

    def __init__(self, history: list[str]) -> None:
        self.history = history
        self.refusal: Failure | None = None

    def prepare(self) -> None:
        self.history.append("prepare")
        if self.refusal is not None:
            raise self.refusal

    def connect(self) -> None:
        self.history.append("connect")

    def hold(self, held: frozenset[int]) -> None:
        self.history.append(f"hold {sorted(held)}")

    def announce(self) -> None:
        self.history.append("announce")

    def change(
        self, settings: config.Settings, follow_marks: Callable[[config.Settings], None]
    ) -> None:
        raise NotImplementedError

    def undo(self) -> None:
        self.history.append("undo")


class FakeTransport:
    """The private network, which notes what is sent."""

    def __init__(self, history: list[str]) -> None:
        self.history = history
        self.stats = TransportStats()
        self.broken = trio.Event()

    async def run(self) -> None:
        await self.broken.wait()
        raise RuntimeError("a bug")

    async def send(self, node: int, frame: bytes) -> None:
        self.history.append(f"send {node} {frame.decode()}")

    async def room(self) -> None:
        pass

    async def drain(self) -> None:
        self.history.append("drain")


class World:
    """A daemon with everything around it faked but the control socket."""

    def __init__(self, directory: Path, text: str = CONFIG) -> None:
        self.history: list[str] = []
        self.engine = FakeEngine(self.history)
        self.dataplane = FakeDataplane(self.history)
        self.transport = FakeTransport(self.history)
        self.log = StringIO()
        self.metrics: socket.socket | None = None
        self.metrics_port = 0
        self.control = str(directory / "control.sock")
        text = text.format(control=self.control)
        (directory / "jsync.toml").write_text(text)
        self.settings = config.load(str(directory / "jsync.toml"))

    def run(self, script: Callable[["World"], object]) -> None:
        """Run the daemon beside the script, which ends it."""

        async def main(listener: socket.socket) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._script, script)
                log = Log(stream=self.log)
                await Daemon(
                    self.settings,
                    log,
                    engine=self.engine,
                    dataplane=self.dataplane,
                    changes=Changes(self.settings, self.engine, self.dataplane, log),
                    transport=self.transport,
                    metrics=self.metrics,
                ).run(listener)

        with listening(self.control) as listener:
            trio.run(main, listener)

    async def _script(self, script: Callable[["World"], object]) -> None:
        await trio.to_thread.run_sync(script, self)

    def wait_for(self, what: str) -> None:
        for _ in range(500):
            if what in self.history or what in self.log.getvalue():
                return
            trio.from_thread.run(trio.sleep, 0.01)
        raise AssertionError(f"{what!r} did not come: {self.history} {self.log.getvalue()}")

    def ask(self, *verb: str, **arguments: object) -> dict[str, object]:
        from jsync.cli.client import Target, ask_one

        return ask_one(Target(self.control), *verb, **arguments)


def end(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_everything_is_done_in_the_order_that_keeps_the_host_quiet(
    world: World, number: int
) -> None:
    def script(world: World) -> None:
        world.wait_for("message=translating")
        world.engine.give((0, b"hello"), (3, b"ack"))
        world.wait_for("send 3 ack")
        end(number)

    world.run(script)
    assert world.history == [
        "prepare",
        "attach jsync0",
        "connect",
        "send 0 hello",
        "send 3 ack",
        "detach",
        "leave",
        "send 0 bye",
        "drain",
        "undo",
    ]


def test_each_mark_of_pool4_has_a_device_before_packets_are_led_there(tmp_path: Path) -> None:
    pool4 = '{{ prefix = "192.0.2.1" }}, {{ prefix = "192.0.2.2", mark = 42 }}'
    text = CONFIG.replace('{{ prefix = "192.0.2.1", ports = "61001-65535" }}', pool4)
    world = World(tmp_path, text)

    def script(world: World) -> None:
        world.wait_for("message=translating")
        end()

    world.run(script)
    start = ["prepare", "attach jsync0", "attach jsync0-2a of mark 42", "connect"]
    assert world.history[:4] == start


def test_the_way_to_the_translator_opens_when_the_node_is_ready(world: World) -> None:
    world.engine.ready = False

    def script(world: World) -> None:
        world.wait_for("attach jsync0")
        assert world.ask("check") == {"ready": False, "reason": "told so"}
        assert "connect" not in world.history
        world.engine.ready = True
        world.wait_for("message=translating")
        assert world.ask("check") == {"ready": True, "reason": "told so"}
        end()

    world.run(script)


def test_changes_wait_for_the_node_to_be_ready(world: World) -> None:
    world.engine.ready = False

    def script(world: World) -> None:
        world.wait_for("attach jsync0")
        with pytest.raises(Failure, match="joining"):
            world.ask("pool4", "flush")
        end(signal.SIGHUP)
        world.wait_for("not reloaded")
        end()

    world.run(script)


def test_a_host_that_refuses_to_answer_for_pool4_is_no_reason_to_end(world: World) -> None:
    def fail(held: frozenset[int]) -> None:
        world.history.append(f"refused {sorted(held)}")
        raise Failure("there is no interface to4")

    world.dataplane.hold = fail  # type: ignore[method-assign]

    def script(world: World) -> None:
        world.wait_for("message=translating")
        world.ask("notify", type="GROUP", name="jsync", state="MASTER", priority="1")
        world.wait_for("the host refused")
        world.ask("notify", type="GROUP", name="jsync", state="BACKUP", priority="1")
        world.wait_for("refused []")
        end()

    world.run(script)


def test_a_node_that_joins_for_ever_can_be_ended(world: World) -> None:
    world.engine.ready = False

    def script(world: World) -> None:
        world.wait_for("attach jsync0")
        end()

    world.run(script)
    assert world.history[-1] == "undo"


def failure_of(world: World, script: Callable[[World], object]) -> BaseException:
    with pytest.raises(BaseExceptionGroup) as caught:
        world.run(script)
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    return error


def test_a_set_up_that_fails_is_undone(world: World) -> None:
    world.dataplane.refusal = Failure("no nft")
    assert str(failure_of(world, lambda _: None)) == "no nft"
    assert world.history[0] == "prepare"
    assert world.history[-1] == "undo"
    assert "attach jsync0" not in world.history


def test_a_device_that_cannot_be_opened_is_undone(world: World) -> None:
    world.engine.refusal = OSError("jsync0: operation not permitted")
    assert "CAP_NET_ADMIN" in str(failure_of(world, lambda _: None))
    assert world.history[-1] == "undo"


def test_a_translator_that_ends_takes_the_daemon_with_it(world: World) -> None:
    def script(world: World) -> None:
        world.wait_for("message=translating")
        world.engine.worker = "the device was taken away"

    assert "the device was taken away" in str(failure_of(world, script))
    assert world.history[-4:] == ["leave", "send 0 bye", "drain", "undo"]


@pytest.mark.parametrize("where", ["send", "drain"])
def test_a_bug_at_the_end_leaves_nothing_behind(
    world: World, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    def script(world: World) -> None:
        world.wait_for("message=translating")
        monkeypatch.setattr(world.transport, where, fail)
        end()

    assert str(failure_of(world, script)) == "a bug"
    assert world.history[-1] == "undo"


def test_even_a_bug_leaves_nothing_behind(world: World) -> None:
    def script(world: World) -> None:
        world.wait_for("message=translating")
        trio.from_thread.run_sync(world.transport.broken.set)

    assert str(failure_of(world, script)) == "a bug"
    assert world.history[-1] == "undo"


def test_the_role_follows_keepalived(world: World) -> None:
    def tell(state: str) -> None:
        world.ask("notify", type="GROUP", name="jsync", state=state, priority="200")

    def script(world: World) -> None:
        world.wait_for("message=translating")
        tell("BACKUP")
        tell("MASTER")
        world.wait_for("hold [0]")
        tell("FAULT")
        world.wait_for("hold []")
        with pytest.raises(Failure, match="none of"):
            tell("KING")
        end()

    world.run(script)
    assert "state=MASTER priority=200 role=primary" in world.log.getvalue()


def test_who_was_cut_off_may_not_become_master_before_it_has_caught_up(world: World) -> None:
    answers: list[dict[str, object]] = []

    def script(world: World) -> None:
        world.wait_for("message=translating")
        answers.append(world.ask("check"))
        world.engine.catching_up = 2
        answers.append(world.ask("check"))
        # Who is MASTER goes on: nobody knows more of what it translates.
        world.ask("notify", type="GROUP", name="jsync", state="MASTER", priority=250)
        answers.append(world.ask("check"))
        end()

    world.run(script)
    assert [answer["ready"] for answer in answers] == [True, False, True]
    assert "node 2" in str(answers[1]["reason"])


def test_each_slice_has_a_role(tmp_path: Path) -> None:
    world = World(tmp_path, SLICES)

    def tell(slice: int, state: str) -> None:
        world.ask("notify", type="GROUP", name=f"jsync-{slice}", state=state, priority="200")

    def script(world: World) -> None:
        world.wait_for("message=translating")
        tell(1, "MASTER")
        world.wait_for("hold [1]")
        tell(2, "MASTER")
        world.wait_for("hold [1, 2]")
        status = world.ask("instance", "status")
        assert status["slices"] == [{"node": 1, "state": "MASTER"}, {"node": 2, "state": "MASTER"}]
        tell(1, "FAULT")
        world.wait_for("hold [2]")
        tell(2, "BACKUP")
        world.wait_for("hold []")
        end()

    world.run(script)


def test_a_master_waits_for_its_addresses_to_leave_but_not_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "ADDRESSES_LEAVE_SECONDS", 0.2)

    def script(world: World) -> None:
        world.wait_for("message=translating")
        world.ask("notify", type="GROUP", name="jsync", state="MASTER", priority="200")
        end()
        world.wait_for("drain")
        assert "undo" not in world.history

    world.run(script)
    assert world.history[-1] == "undo"
    assert "left this node MASTER" in world.log.getvalue()


def test_events_of_the_engine_are_logged(world: World) -> None:
    def script(world: World) -> None:
        world.engine.events.append("peer 2 is up")
        world.engine.give()
        world.wait_for("peer 2 is up")
        end()

    world.run(script)


def test_sighup_reads_the_file_again(world: World) -> None:
    path = Path(world.settings.path)

    def script(world: World) -> None:
        world.wait_for("message=translating")
        before = path.read_text()
        path.write_text(before.replace("[sync]", "[nat64.global]\nudp-timeout = 600\n[sync]"))
        end(signal.SIGHUP)
        world.wait_for('update_global {"udp-timeout": 600000}')
        path.write_text("[")
        end(signal.SIGHUP)
        world.wait_for("left as it was")
        end()

    world.run(script)
    assert world.history[-1] == "undo"


def test_another_name_is_refused(world: World) -> None:
    def script(world: World) -> None:
        world.wait_for("message=translating")
        assert world.ask("check", instance="J")["ready"] is True
        assert world.ask("check", instance="default")["ready"] is True
        with pytest.raises(Failure, match="'J', not 'K'"):
            world.ask("check", instance="K")
        end()

    world.run(script)


def test_frames_fit_the_private_network(tmp_path: Path) -> None:
    sync = World(tmp_path).settings.sync
    assert sync is not None
    assert daemon.max_frame(sync) == 1500 - 28
    sync.group = "ff08::1"
    assert daemon.max_frame(sync) == 1500 - 48
    sync.interface = "lo"
    assert daemon.max_frame(sync) == 16 << 10
    sync.transport = "tcp"
    assert daemon.max_frame(sync) == 16 << 10


def test_a_prometheus_server_reads_what_the_commands_say(world: World) -> None:
    import urllib.request

    from prometheus_client.parser import text_string_to_metric_families

    from jsync.http import open_listener

    def script(world: World) -> None:
        world.wait_for("message=translating")
        with urllib.request.urlopen(f"http://127.0.0.1:{world.metrics_port}/metrics") as answer:
            text = answer.read().decode()
        values = {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert values["jsync_ready"] == 1
        assert values["jsync_transport_frames_sent_total"] == 0
        end()

    with open_listener("127.0.0.1", 0) as world.metrics:
        world.metrics_port = world.metrics.getsockname()[1]
        world.run(script)
