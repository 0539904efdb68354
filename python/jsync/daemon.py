"""The daemon: one nursery that holds the data plane, the exchange of frames and the control socket.

Start: control socket, black holes, TUN, the peers' sessions, routes to the TUN. End: the TUN goes
first, so that keepalived moves the addresses; the peers get what is left to say; the black holes
go last, when the addresses have left.
"""

import pathlib
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

import trio

from jsync import config
from jsync.changes import Changes, Configuration, follow_marks
from jsync.config import Settings, SyncSection
from jsync.control import Control, listening
from jsync.engine import Engine
from jsync.errors import Failure
from jsync.failover import Failover, Instance
from jsync.fifo import read_fifo
from jsync.jool.backend import (
    JoolChanges,
    JoolEngine,
    ModuleLink,
    NoHost,
    lock_instance,
    make_module_json,
)
from jsync.jool.joold_stats import StatsServer, open_stats_sockets
from jsync.jool.module import Module
from jsync.keys import node_secret
from jsync.log import Log
from jsync.netlink import HostSide
from jsync.netlink.interfaces import interface_for
from jsync.toml_lines import Path
from jsync.transport import Transport
from jsync.transport.joold import JooldTransport
from jsync.transport.multicast import MulticastTransport
from jsync.transport.tcp import FRAME_BYTES, TcpTransport
from jsync.transport.unicast import UnicastTransport, path_mtu
from jsync.verbs import Verbs

if TYPE_CHECKING:
    from jsync._core import Node, NodeStatus

ADDRESSES_LEAVE_SECONDS = 5.0
"""How long an ending MASTER waits for keepalived to take its addresses away."""
FAREWELL_SECONDS = 2.0
WATCH_SECONDS = 0.1
ANNOUNCE_AGAIN_SECONDS = 1.0
JOIN_POLL_SECONDS = 0.02
MODULE_BATCHES = 16
"""Batches that a kernel module is given before frames get their turn."""
UDP_OVERHEAD = {4: 20 + 8, 6: 40 + 8}
"""Bytes of IP and UDP headers before a frame."""


def max_frame(sync: SyncSection) -> int:
    """The largest frame in bytes that the transport carries without fragments."""
    if sync.transport == "tcp":
        return FRAME_BYTES
    mtu = 1500  # the network may not be there yet: then take what every Ethernet carries
    if sync.transport == "unicast":
        address = sync.listen or ""
        mtu = path_mtu(address, sync.peers, sync.interface, mtu)
    else:
        address = sync.group
        with suppress(OSError):
            path = pathlib.Path(f"/sys/class/net/{sync.interface}/mtu")
            mtu = int(path.read_text(encoding="ascii"))
    return min(mtu - UDP_OVERHEAD[6 if ":" in address else 4], FRAME_BYTES)


def make_node(settings: Settings) -> "Node":
    """The engine for a configuration. Raises Failure."""
    from jsync import _core

    keys = settings.keys()
    cluster = settings.sync.cluster if settings.sync else ""
    # An incarnation's number is used once: frames of one (node, epoch) share a key.
    epoch = secrets.randbits(63) + 1
    size = max_frame(settings.sync) if settings.sync else FRAME_BYTES
    try:
        return _core.Node(
            settings.nat64_json(),
            settings.sync_json(epoch, size),
            keys=keys,
            secret=node_secret(keys, cluster),
            joold=settings.joold_json(),
            module=make_module_json() if settings.jool else None,
        )
    except _core.ConfigError as error:
        # [nat64] was checked when the file was read.
        key = str(error).partition(":")[0]
        path: Path = ("sync", key) if ("sync", key) in settings.lines else ("sync",)
        raise config.mistake(settings, path, str(error).removeprefix(f"{key}: ")) from None


def make_transport(settings: Settings, engine: Engine, log: Log) -> Transport | None:
    """The way to the peers; None if there is no cluster."""
    sync = settings.sync
    if sync is None:
        return None
    if sync.transport == "tcp":
        return TcpTransport(
            engine,
            log,
            listen=sync.listen or "",
            port=sync.port,
            peers=sync.peers,
            interface=sync.interface,
            credentials=settings.credentials(),
        )
    if sync.transport == "unicast":
        return UnicastTransport(
            engine,
            log,
            listen=sync.listen or "",
            port=sync.port,
            peers=sync.peers,
            interface=sync.interface,
        )
    return MulticastTransport(
        engine,
        log,
        group=sync.group,
        port=sync.port,
        interface=sync.interface or "",
        ttl=sync.ttl,
    )


def make_joold(settings: Settings, engine: Engine, log: Log) -> Transport | None:
    """The way to joolds; None if there are none."""
    joold = settings.joold
    if joold is None:
        return None
    interface = interface_for(joold.group, joold.interface)
    out_interface = joold.out_interface and interface_for(joold.group, joold.out_interface)
    return JooldTransport(
        engine,
        log,
        group=joold.group,
        port=joold.port,
        interface=interface,
        ttl=joold.ttl,
        out_interface=out_interface,
    )


class Daemon:
    """One node, from start to end."""

    def __init__(
        self,
        settings: Settings,
        log: Log,
        *,
        engine: Engine,
        dataplane: HostSide,
        transport: Transport | None,
        changes: Configuration,
        joold: Transport | None = None,
        module: ModuleLink | None = None,
        about: Callable[[], dict[str, object]] | None = None,
        metrics: socket.socket | None = None,
        joold_stats: StatsServer | None = None,
    ) -> None:
        """With a `module` that translates, `about` is about it.

        `metrics` listens for a Prometheus server, `joold_stats` answers as joold does.
        """
        self._settings = settings
        self._log = log
        self._engine = engine
        self._dataplane = dataplane
        self._transport = transport
        self._joold = joold
        self._module = module
        self._metrics = metrics
        self._joold_stats = joold_stats
        self._role_changed = trio.Event()
        slices = settings.keepalived.slices if settings.keepalived else []
        self._failover = Failover(
            alone=settings.sync is None and settings.joold is None,
            slices=[entry.node for entry in slices],
            changed=self._on_change,
        )
        self._changes = changes
        self._verbs = Verbs(
            settings, engine, self._failover, transport, self._changes, joold=joold, about=about
        )
        self._control = Control(self._verbs.values(), self._verbs.tables(), self._verbs.actions())

    async def run(self, listener: socket.socket) -> None:
        """Live until SIGTERM or SIGINT; nothing is left behind, whatever ends it.

        Raises an ExceptionGroup, of Failures unless there is a bug.
        """
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as services:
                services.start_soon(self._control.serve, listener)
                services.start_soon(self._drain_engine)
                if self._metrics is not None:
                    services.start_soon(self._serve_metrics, self._metrics)
                if self._joold_stats is not None:
                    services.start_soon(self._joold_stats.run)
                if self._transport is not None:
                    services.start_soon(self._transport.run)
                if self._joold is not None:
                    services.start_soon(self._joold.run)
                if self._module is not None:
                    services.start_soon(self._module.run)
                try:
                    async with trio.open_nursery() as work:
                        work.start_soon(self._handle_signals, signals, work.cancel_scope)
                        await self._start()
                        work.start_soon(self._watch)
                        work.start_soon(self._follow_role)
                        section = self._settings.keepalived
                        if section is not None and section.fifo is not None:
                            work.start_soon(read_fifo, section.fifo, self._failover, self._log)
                finally:
                    with trio.CancelScope(shield=True):
                        await self._end()
                services.cancel_scope.cancel()

    async def _start(self) -> None:
        device = self._settings.dataplane.device
        # A half-done set-up is undone by `_end`; it must not be cut off in a thread.
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._dataplane.prepare)
            try:
                self._engine.attach(device, persistent=self._settings.dataplane.persistent)
            except OSError as error:
                raise Failure(_device_message(device, error)) from None
            follow_marks(self._engine, self._settings)
        self._verbs.state = "joining"
        await self._wait_until_ready()
        # keepalived tracks the TUN: only now that the link goes up may this node become MASTER.
        # A script is polled, and its last answer may be one about the predecessor.
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._dataplane.connect)
        self._verbs.state = "running"
        if self._module is None:
            self._log.info("translating", device=device, pool6=self._settings.pool6)

    async def _wait_until_ready(self) -> None:
        """Wait until the node has the sessions of its peers, or has found itself alone."""
        while not (status := self._engine.status())["ready"]:
            _check_worker(status)
            await trio.sleep(JOIN_POLL_SECONDS)

    async def _end(self) -> None:
        self._verbs.state = "ending"
        self._log.info("ending")
        try:
            await trio.to_thread.run_sync(self._engine.detach)
            await self._say_goodbye()
            await self._wait_for_addresses_to_leave()
        finally:
            await trio.to_thread.run_sync(self._dataplane.undo)
        self._log.info("ended")

    async def _handle_signals(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                await self._reload()
            else:
                self._log.info("asked to end", signal=signal.Signals(number).name)
                scope.cancel()
                return

    async def _reload(self) -> None:
        if self._verbs.state != "running":
            self._log.warning("not reloaded: the daemon is " + self._verbs.state)
            return
        if not self._settings.path:
            self._log.warning("not reloaded: there is no file, only the command's options")
            return
        try:
            await self._changes.reload(config.load(self._settings.path))
        except Failure as failure:
            self._log.error("the configuration is left as it was", error=failure)
        else:
            self._log.info("reloaded", config=self._settings.path)

    async def _serve_metrics(self, listener: socket.socket) -> None:
        # They cost memory and start-up time that a node without them needn't spend.
        from jsync.http import PageServer
        from jsync.metrics import Metrics, NodeCollector

        verbs = self._verbs
        metrics = Metrics(NodeCollector(verbs.status, verbs.peers, verbs.stats))
        await PageServer(metrics.page).serve(listener)

    async def _drain_engine(self) -> None:
        """Send and log what the engine has to say, whenever it has."""
        while True:
            await trio.lowlevel.wait_readable(self._engine.fileno())
            await self._send_frames()
            for event in self._engine.take_events():
                self._log.info(event)

    async def _send_frames(self) -> None:
        busy = True
        while busy:
            busy = False
            if frames := self._engine.take_frames():
                busy = True
                if self._transport is not None:
                    for node, frame in frames:
                        await self._transport.send(node, frame)
                    # Meanwhile changes coalesce in the table: nothing is made that would only wait.
                    await self._transport.room()
            if datagrams := self._engine.take_datagrams():
                busy = True
                if self._joold is not None:
                    for datagram in datagrams:
                        await self._joold.send(0, datagram)
            # Who gives a module a whole table mustn't seem dead to the peers meanwhile.
            if batches := self._engine.take_datagrams(MODULE_BATCHES, module=True):
                busy = True
                if self._module is not None:
                    await self._module.write(batches)

    async def _say_goodbye(self) -> None:
        self._engine.leave()
        with trio.move_on_after(FAREWELL_SECONDS):
            await self._send_frames()
            if self._transport is not None:
                await self._transport.drain()

    async def _watch(self) -> None:
        """Say when readiness changes, and end the daemon when its translator has ended."""
        before: tuple[bool, str] | None = None
        while True:
            _check_worker(self._engine.status())
            now = self._verbs.readiness()
            if now != before:
                self._log.info("ready" if now[0] else "not ready", reason=now[1])
                before = now
            await trio.sleep(WATCH_SECONDS)

    def _on_change(self, instance: Instance) -> None:
        self._log.info(
            "keepalived",
            type=instance.type,
            name=instance.name,
            state=instance.state,
            priority=instance.priority,
            role=self._failover.role,
        )
        self._role_changed.set()

    async def _follow_role(self) -> None:
        """Answer for the addresses of pool4 that this node holds."""
        before: frozenset[int] = frozenset()
        while True:
            self._role_changed = trio.Event()
            held = self._failover.held
            if held != before:
                await self._host(partial(self._dataplane.hold, held))
            if held - before:
                # A neighbour may have missed it, as keepalived's own announcements may.
                with trio.move_on_after(ANNOUNCE_AGAIN_SECONDS):
                    await self._role_changed.wait()
                if held == self._failover.held:
                    await self._host(self._dataplane.announce)
            before = held
            if held == self._failover.held:
                await self._role_changed.wait()

    async def _host(self, act: Callable[[], None]) -> None:
        """Do something to the host that a node can go on without."""
        try:
            await trio.to_thread.run_sync(act)
        except Failure as failure:
            self._log.error("the host refused", error=failure)

    async def _wait_for_addresses_to_leave(self) -> None:
        """Stay while keepalived has pool4's addresses here: the host would answer for them."""
        with trio.move_on_after(ADDRESSES_LEAVE_SECONDS):
            while self._failover.is_master:
                await trio.sleep(0.02)
            return
        self._log.warning("keepalived has left this node MASTER; the host answers from now on")


def _check_worker(status: "NodeStatus") -> None:
    if status["worker"] != "running":
        raise Failure(f"the translator has ended: {status['worker']}")


def _device_message(device: str, error: OSError) -> str:
    message = str(error)
    if not pathlib.Path("/dev/net/tun").exists():
        return f"{message}; load the module `tun` (modprobe tun), or give the container its device"
    return f"{message}; the daemon needs /dev/net/tun and CAP_NET_ADMIN for {device}"


def run(path: str, log: Log) -> None:
    """Run the daemon for the configuration file `path`. Raises Failure."""
    run_settings(config.load(path), log)


def run_settings(settings: Settings, log: Log) -> None:
    """Run the daemon for a configuration that needn't stand in a file. Raises Failure."""
    with ExitStack() as stack:
        make = _make_native if settings.jool is None else _make_jool
        daemon = make(settings, log, stack)
        listener = stack.enter_context(listening(settings.node.control))
        log.info("starting", node=settings.node.name, config=settings.path or "options")
        try:
            trio.run(daemon.run, listener)
        except* Failure as failures:
            raise _first(failures) from None


def _make_native(settings: Settings, log: Log, stack: ExitStack) -> Daemon:
    # They bring pyroute2 along, which a node needn't load whose packets the kernel translates.
    from jsync.netlink.dataplane import Dataplane
    from jsync.netlink.kernel import lock_device

    engine = make_node(settings)
    stack.enter_context(lock_device(settings.dataplane.device))
    dataplane = Dataplane(settings, log)
    return Daemon(
        settings,
        log,
        engine=engine,
        dataplane=dataplane,
        changes=Changes(settings, engine, dataplane, log),
        transport=make_transport(settings, engine, log),
        joold=make_joold(settings, engine, log),
        metrics=_metrics_listener(settings, stack),
    )


def _make_jool(settings: Settings, log: Log, stack: ExitStack) -> Daemon:
    assert settings.jool is not None
    settings.keys()  # a mistake there is to be known now, not when the module comes
    stack.enter_context(lock_instance(settings.jool.instance))
    module = Module(settings.jool.instance)
    stack.callback(module.close)
    engine, host = JoolEngine(settings, module, make_node), NoHost()
    joold = make_joold(settings, engine, log)
    joold_stats = None
    if settings.joold_stats is not None and joold is not None:
        sockets = open_stats_sockets(*settings.joold_stats)
        for opened in sockets:
            stack.enter_context(opened)
        joold_stats = StatsServer(sockets, engine.stats_of_stream, joold.stats)
    return Daemon(
        settings,
        log,
        engine=engine,
        dataplane=host,
        transport=make_transport(settings, engine, log),
        joold=joold,
        metrics=_metrics_listener(settings, stack),
        joold_stats=joold_stats,
        module=ModuleLink(engine, settings.jool, log),
        changes=JoolChanges(settings, engine, log),
        about=engine.about,
    )


def _metrics_listener(settings: Settings, stack: ExitStack) -> socket.socket | None:
    if settings.metrics is None:
        return None
    from jsync.http import open_listener

    return stack.enter_context(open_listener(*settings.metrics.endpoint()))


def _first(failures: BaseExceptionGroup[Failure]) -> Failure:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
