"""The three NAT64s of the sample network: daemon and keepalived on J, K and L."""

import base64
import os
import re
import secrets
import signal
import time
from argparse import Namespace
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from jsync import keepalived
from jsync.cli.client import ask_one
from jsync.cli.keepalived import jsync_command
from jsync.config import parse
from jsync.errors import Failure
from jsync.lab.network import (
    MACHINES,
    N6,
    NAT64S,
    POOL4,
    POOL4_PORTS,
    POOL6,
    SLICES,
    VIRTUAL6,
    VIRTUAL_LINK_LOCAL,
    Machine,
    Network,
    enter,
)
from jsync.lab.service import Line, Service, ServiceError
from jsync.lab.traffic import STATIC_PORTS

PRIORITIES = {"J": 250, "K": 225, "L": 200}
DEVICE = "jsync0"
CONFIG = "/run/jsync.toml"
KEY = "/run/cluster.key"
KEEPALIVED_CONFIG = "/run/keepalived.conf"
FIFO = "/run/keepalived.fifo"

STATUS_PATIENCE = 40.0

_MASTER = re.compile(r"\(jsync[46](?:-(\d+))?\) Entering MASTER STATE")


class Cluster:
    """The NAT64s. Methods raise ServiceError where a program doesn't do its part."""

    def __init__(
        self,
        network: Network,
        *,
        synchronised: bool,
        active: Literal["shared", "routed"] | None = None,
        sync: str = "",
        command: str | None = None,
    ) -> None:
        """Prepare the configuration of every node.

        `active`: J and K translate at once, each with a slice of pool4 whose address is the hosts'
        or is routed to them, and L isn't there. `sync` are further lines of `[sync]`, `command` is
        the path of `jsync`.
        """
        self.network = network
        self.nodes = tuple(SLICES) if active else NAT64S
        self._active = active
        self._sync = f"{_SYNC}{sync}\n" if synchronised else ""
        self._command = command or jsync_command()
        self._key = base64.b64encode(secrets.token_bytes(32)).decode()
        self._daemons: dict[str, Service] = {}
        self._keepaliveds: dict[str, Service] = {}
        for name in self.nodes:
            self._configure(MACHINES[name])

    def start(self, name: str) -> None:
        """Start daemon and keepalived of a node, as its init system would when it boots."""
        self.start_daemon(name)
        self.start_keepalived(name)

    def start_daemon(self, name: str) -> float:
        """Start a node's daemon, which isn't ready yet; when that was."""
        at = time.monotonic()
        argv = [self._command, "daemon", "-c", CONFIG]
        self._daemons[name] = Service(f"{name}: jsync daemon", self._on(name, *argv))
        return at

    def start_keepalived(self, name: str) -> None:
        """Start a node's keepalived."""
        argv = ["keepalived", "--dont-fork", "--log-console", "--log-detail", "--vrrp"]
        argv += ["--pid=/run/keepalived.pid", "--vrrp_pid=/run/vrrp.pid"]
        argv += [f"--use-file={KEEPALIVED_CONFIG}"]
        self._keepaliveds[name] = Service(f"{name}: keepalived", self._on(name, *argv))

    def kill_daemon(self, name: str) -> float:
        """`kill -9` of a node's daemon; when it was done."""
        return self._daemons[name].kill()

    def signal_daemon(self, name: str, number: signal.Signals) -> None:
        """Send a node's daemon a signal."""
        self._daemons[name].signal(number)

    def stop_daemon(self, name: str) -> None:
        """Stop a node's daemon in good order (SIGTERM)."""
        self._daemons.pop(name).stop()

    def power_off(self, name: str) -> float:
        """Take a machine away: nothing on it runs any more, its links are down; when it was done.

        keepalived can't say good-bye, so its peers have to notice the silence.
        """
        at = time.monotonic()
        self.network.unplug(MACHINES[name])
        del self._daemons[name], self._keepaliveds[name]
        return at

    def power_on(self, name: str) -> float:
        """Give the machine back, freshly booted: empty, daemon and keepalived starting; when."""
        self.network.plug_in(MACHINES[name])
        self._configure(MACHINES[name])
        at = time.monotonic()
        self.start(name)
        return at

    def sessions(self) -> dict[str, int]:
        """Count the sessions of each node that runs."""
        found = {name: status(name) for name in self.nodes}
        return {name: told["sessions"] for name, told in found.items() if told is not None}

    def is_ready(self, name: str) -> bool:
        """Whether a node is ready, as `jsync check` finds it."""
        told = status(name)
        return told is not None and bool(told["ready"])

    def wait_ready(self, name: str) -> None:
        """Wait until a node is ready."""
        self._wait_until(name, "ready", True)

    def wait_primary(self, name: str) -> None:
        """Wait until a node's daemon knows that the node is MASTER."""
        self._wait_until(name, "role", "primary")

    def wait_slices(self, name: str, *owners: str) -> None:
        """Wait until a node's daemon knows that the node is MASTER of these slices, and no other.

        A slice has the name of the node whose it is.
        """
        self._wait_until(name, "slices", set(owners), slices_held)

    def _wait_until(
        self,
        name: str,
        key: str,
        value: object,
        read: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        read = read or itemgetter(key)
        deadline = time.monotonic() + STATUS_PATIENCE
        while (told := status(name)) is None or read(told) != value:
            daemon = self._daemons[name]
            if not daemon.running or time.monotonic() > deadline:
                found = "doesn't answer" if told is None else f"has {key}={read(told)}"
                text = f"{daemon.name} {found}, not {value}; its last words:\n{daemon.tail()}"
                raise ServiceError(text)
            time.sleep(0.05)

    def ready_since(self, name: str, since: float) -> float | None:
        """When a node's daemon said after a time that it is ready, or None."""
        line = self._daemons[name].find(lambda text: "message=ready" in text, since)
        return line.time if line else None

    def wait_master(
        self, name: str, since: float, timeout: float = 30.0, owner: str | None = None
    ) -> Line:
        """Wait for a node's keepalived to become MASTER after a time; of that node's slice."""
        wanted = str(_number(owner)) if owner is not None else None

        def is_master(text: str) -> bool:
            match = _MASTER.search(text)
            return match is not None and match[1] == wanted

        return self._keepaliveds[name].wait_for(is_master, since, timeout)

    def services(self) -> list[Service]:
        """Everything that was started and not taken away."""
        return [*self._daemons.values(), *self._keepaliveds.values()]

    def _on(self, name: str, *argv: str) -> list[str]:
        return enter(self.network.holders[name], *argv)

    def _configure(self, machine: Machine) -> None:
        """Write a node's files into its /run."""
        config = self._config_text(machine.name)
        (machine.run / Path(CONFIG).name).write_text(config)
        key = machine.run / Path(KEY).name
        key.touch(mode=0o600)
        key.write_text(self._key + "\n")
        settings = parse(config, CONFIG)
        assert settings.keepalived is not None
        text = keepalived.generate(
            settings.keepalived,
            node=settings.node.id,
            router_id=settings.node.name,
            device=settings.dataplane.device,
            command=self._command,
            script_security=not _is_rootless(),
        )
        (machine.run / Path(KEEPALIVED_CONFIG).name).write_text(text)

    def _config_text(self, name: str) -> str:
        """Give a node's configuration."""
        static = "".join(
            f"""
[[nat64.bib]]
protocol = "tcp"
ipv6 = "{N6}#{port6}"
ipv4 = "{SLICES["J"].routed if self._active == "routed" else POOL4}#{port4}"
"""
            for port4, port6 in STATIC_PORTS.items()
        )
        return f"""\
[node]
name = "{name}"
id = {_number(name)}

[nat64]
pool6 = "{POOL6}"
{_slices_of_pool4(self._active) if self._active else _pool4(POOL4)}{static}
[dataplane]
device = "{DEVICE}"
pool4 = "{self._active or "shared"}"
{self._sync}
[keepalived]
{f'fifo = "{FIFO}"' if _is_rootless() else ""}
{_slices() if self._active else _one_group(name)}"""


def status(name: str, root: Path = Path("/")) -> dict[str, Any] | None:
    """Give `jsync instance status` of a node, or None if no daemon answers there.

    `root` is the lab's root directory, for a process that isn't in the lab.
    """
    control = root / MACHINES[name].run.relative_to("/") / "jsync" / "control.sock"
    try:
        return ask_one(Namespace(control=str(control), instance=None), "instance", "status")
    except Failure:
        return None


def _is_rootless() -> bool:
    """Whether this is a user namespace of one user.

    There nothing on the way to a script belongs to root, and keepalived can't run scripts at all:
    it insists on setgroups(2), which such a namespace forbids. So states go through the FIFO, and
    readiness shows in the TUN's link alone.
    """
    return os.stat("/").st_uid != 0


def _number(name: str) -> int:
    return NAT64S.index(name) + 1


def slices_held(told: dict[str, Any]) -> set[str]:
    """The slices, by the names of their nodes, that a status says a node is MASTER of."""
    return {NAT64S[e["node"] - 1] for e in told["slices"] if e["state"] == "MASTER"}


_SYNC = f"""
[sync]
cluster = "sample"
key-files = ["{KEY}"]
interface = "priv"
"""


def _pool4(address: str) -> str:
    return f"""\
[[nat64.pool4]]
prefix = "{address}"
ports = "{POOL4_PORTS}"
"""


def _slices_of_pool4(kind: Literal["shared", "routed"]) -> str:
    return "".join(
        f"{_pool4(of.routed if kind == 'routed' else of.ipv4)}node = {_number(name)}\n"
        for name, of in SLICES.items()
    )


def _addresses(link_local: str, ipv6: str, ipv4: str) -> str:
    return f"""\
ipv6 = {{ interface = "to6", addresses = ["{link_local}/64", "{ipv6}/96"] }}
ipv4 = {{ interface = "to4", addresses = ["{ipv4}/24"] }}
"""


def _one_group(name: str) -> str:
    addresses = _addresses(VIRTUAL_LINK_LOCAL, VIRTUAL6, POOL4)
    return f"priority = {PRIORITIES[name]}\n{addresses}"


def _slices() -> str:
    return "".join(
        f"[[keepalived.slice]]\nnode = {_number(name)}\n"
        f"{_addresses(of.link_local, of.ipv6, of.ipv4)}"
        for name, of in SLICES.items()
    )
