"""What the control socket's verbs do: they read the daemon's parts and shape answers."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from jsync.changes import Configuration
from jsync.config import Settings
from jsync.control import Action, Arguments, Rows, Value
from jsync.engine import Engine
from jsync.errors import NOT_READY, USAGE, Failure
from jsync.failover import Failover
from jsync.transport import Transport

PAGE = 500
"""Rows that are read at once: the engine's lock is held that long."""
PROTOCOLS = ("tcp", "udp", "icmp")


class Verbs:
    """The verbs of one daemon."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        failover: Failover,
        transport: Transport | None,
        changes: Configuration,
        *,
        joold: Transport | None = None,
        about: Callable[[], dict[str, object]] | None = None,
    ) -> None:
        """`joold` leads to joolds; `about` tells of the translator if that isn't the engine."""
        self._settings = settings
        self._engine = engine
        self._failover = failover
        self._transport = transport
        self._joold = joold
        self._changes = changes
        self._about = about or self._about_engine
        self.state = "starting"
        """What the daemon is doing; it is ready only while it is "running"."""

    def values(self) -> dict[tuple[str, ...], Value]:
        """The verbs with one answer."""
        verbs: dict[tuple[str, ...], Value] = {
            ("check",): self.check,
            ("notify",): self.notify,
            ("instance", "status"): self.status,
            ("stats", "display"): self.stats,
            ("global", "display"): self.options,
            ("peers",): self.peers,
            ("pool4", "display"): self.pool4,
        }
        return {verb: self._for_us(act) for verb, act in verbs.items()}

    def tables(self) -> dict[tuple[str, ...], Rows]:
        """The verbs with many rows."""
        return {
            ("session", "display"): self._for_us_rows(self.sessions),
            ("bib", "display"): self._for_us_rows(self.bib),
        }

    def actions(self) -> dict[tuple[str, ...], Action]:
        """The verbs that change something."""
        verbs = {**self._changes.actions(), ("session", "advertise"): self.advertise}
        return {verb: self._for_us_action(act) for verb, act in verbs.items()}

    def _check_name(self, arguments: Arguments) -> None:
        wanted = arguments.get("instance")
        jool = self._settings.jool
        # "default" is what Jool calls an instance that nobody has named.
        names = {"default"} if jool is None else {jool.instance}
        if wanted not in {None, self._settings.node.name} | names:
            raise Failure(f"this is the node {self._settings.node.name!r}, not {wanted!r}", USAGE)

    def _for_us(self, act: Value) -> Value:
        def checked(arguments: Arguments) -> object:
            self._check_name(arguments)
            return act(arguments)

        return checked

    def _for_us_rows(self, rows: Rows) -> Rows:
        def checked(arguments: Arguments) -> Iterator[list[Any]]:
            self._check_name(arguments)
            return rows(arguments)

        return checked

    def _for_us_action(self, act: Action) -> Action:
        async def checked(arguments: Arguments) -> object:
            self._check_name(arguments)
            if self.state != "running":
                raise Failure(f"the daemon is {self.state}; nothing was changed", NOT_READY)
            return await act(arguments)

        return checked

    def readiness(self) -> tuple[bool, str]:
        """Whether the node may become MASTER, and why or why not."""
        status = self._engine.status()
        if self.state == "joining":
            return False, status["reason"]
        if self.state != "running":
            return False, f"the daemon is {self.state}"
        if status["worker"] != "running":
            return False, f"the translator is not running: {status['worker']}"
        node = status["catching_up"]
        if status["ready"] and node is not None and not self._failover.is_primary:
            # Who translates has to go on; nobody else should begin before it knows what it missed.
            return False, f"it was cut off; fetching what node {node} has"
        return status["ready"], status["reason"]

    def check(self, arguments: Arguments) -> object:
        """`check`."""
        ready, reason = self.readiness()
        return {"ready": ready, "reason": reason}

    def notify(self, arguments: Arguments) -> object:
        """`notify`."""
        try:
            self._failover.notify(
                str(arguments["type"]),
                str(arguments["name"]),
                str(arguments["state"]),
                int(arguments["priority"]),
                _started(arguments.get("started")),
            )
        except KeyError as error:
            raise Failure(f"notify: {error.args[0]} is missing", USAGE) from None
        except (ValueError, TypeError) as error:
            raise Failure(f"notify: {error}", USAGE) from None
        return {"role": self._failover.role}

    def status(self, arguments: Arguments) -> object:
        """`instance status`."""
        ready, reason = self.readiness()
        settings = self._settings
        return {
            "name": settings.node.name,
            "node": settings.node.id if settings.sync else None,
            "cluster": settings.sync.cluster if settings.sync else None,
            "state": self.state,
            "role": self._failover.role,
            "slices": [
                {"node": node, "state": state} for node, state in self._failover.slices.items()
            ],
            "keepalived": [asdict(instance) for instance in self._failover.instances],
            **self._engine.status(),
            "ready": ready,
            "reason": reason,
            **self._about(),
            "transport": settings.sync.transport if settings.sync else None,
            "joolds": self._engine.joolds(),
            "network": asdict(self._transport.stats) if self._transport else None,
        }

    def _about_engine(self) -> dict[str, object]:
        settings = self._settings
        return {
            "backend": "native",
            "durability": settings.sync.durability if settings.sync else None,
            "device": settings.dataplane.device,
            "pool6": str(settings.pool6),
        }

    def peers(self, arguments: Arguments) -> object:
        """`peers`."""
        return self._engine.peers()

    def stats(self, arguments: Arguments) -> object:
        """`stats display`."""
        rows = [{"name": n, "help": h, "value": v} for n, h, v in self._engine.stats()]
        for prefix, transport, helps in (
            ("transport", self._transport, _TRANSPORT_HELP),
            ("joold_group", self._joold, _GROUP_HELP),
        ):
            if transport is not None:
                values = asdict(transport.stats)
                rows += [
                    {"name": f"{prefix}_{name}", "help": help, "value": values[name]}
                    for name, help in helps.items()
                ]
        return rows

    async def advertise(self, arguments: Arguments) -> object:
        """`session advertise`."""
        settings = self._settings
        if settings.sync is None and settings.joold is None and settings.jool is None:
            message = "there is neither [sync] nor [joold] in the configuration: nobody to tell"
            raise Failure(message, USAGE)
        self._engine.advertise()
        return {}

    def options(self, arguments: Arguments) -> object:
        """`global display`."""
        return self._changes.config()["global"]

    def pool4(self, arguments: Arguments) -> object:
        """`pool4 display`."""
        return self._changes.config()["pool4"]

    def sessions(self, arguments: Arguments) -> Iterator[list[Any]]:
        """`session display`."""
        yield from _pages(self._engine.sessions, arguments)

    def bib(self, arguments: Arguments) -> Iterator[list[Any]]:
        """`bib display`."""
        yield from _pages(self._engine.bib, arguments)


_TRANSPORT_HELP = {
    "frames_sent": "Frames handed to the private network",
    "bytes_sent": "Bytes of frames handed to the private network",
    "frames_received": "Frames received from the private network",
    "bytes_received": "Bytes of frames received from the private network",
    "frames_refused": "Frames received and not taken: see the counters of frames",
    "send_drops": "Frames that the private network or a peer did not take",
    "receive_drops": "Datagrams dropped by the kernel: no frames, or too many at once",
    "connections_refused": "Connections cut off before an authentic frame came",
    "reconnects": "Times that a socket or a connection was lost",
}
_GROUP_HELP = {
    "frames_sent": "Datagrams handed to the network of the joolds",
    "bytes_sent": "Bytes of datagrams handed to the network of the joolds",
    "frames_received": "Datagrams received from the network of the joolds",
    "bytes_received": "Bytes of datagrams received from the network of the joolds",
    "send_drops": "Datagrams that the network of the joolds did not take",
    "receive_drops": "Datagrams of joolds dropped by the kernel: too many at once",
    "reconnects": "Times that the socket in the joolds' group was lost",
}


def _started(value: object) -> tuple[int, int] | None:
    """When a notify script began. Raises ValueError."""
    match value:
        case None:
            return None
        case [int(ticks), int(pid)]:
            return ticks, pid
    raise ValueError(f"started: {value!r} is no pair of numbers")


def _pages(read: Any, arguments: Arguments) -> Iterator[list[Any]]:
    wanted = arguments.get("protocols") or [None]
    if not set(wanted) <= {None, *PROTOCOLS}:
        raise Failure(f"protocols are {', '.join(PROTOCOLS)}", USAGE)
    for protocol in wanted:
        cursor: Any = 0
        while cursor is not None:
            rows, cursor = read(protocol, cursor, PAGE)
            if rows:
                yield rows
