"""The sample network: machines, wires and addresses, and the commands that lay them out.

    n6 ---+--- 2001:db8::/96 ---+        +--- 192.0.2.0/24 ---+--- n4
          |      J   K   L      |        |      J   K   L      |
          +--- 2001:db8::1 (virtual)     +--- 192.0.2.1 (virtual)

    J, K, L --- 10.0.0.0/24, fd00:10::/64 (private: the sessions)

Each wire is a bridge in a namespace of its own. A machine is a process that does nothing but hold
namespaces (network, mounts, host name), so that it has interfaces, a /run and a name of its own.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

LAB = Path("/run/lab")
WIRES = "wires"
"""The namespace that holds the bridges."""

POOL6 = "64:ff9b::/96"
POOL4 = "192.0.2.1"
POOL4_PORTS = "61001-65535"
N6 = "2001:db8::8"
N4 = "192.0.2.8"
VIRTUAL_LINK_LOCAL = "fe80::64"
VIRTUAL6 = "2001:db8::1"
NAT64S = ("J", "K", "L")


@dataclass(frozen=True)
class Slice:
    """A slice of pool4 in an active/active cluster: what moves with it, and its only address."""

    link_local: str
    ipv6: str
    ipv4: str
    """The slice's address too where the hosts own pool4's addresses ("shared")."""
    routed: str
    """The slice's address where it is the NAT64s' alone ("routed")."""


SLICES = {
    "J": Slice(VIRTUAL_LINK_LOCAL, VIRTUAL6, POOL4, "198.51.100.1"),
    "K": Slice("fe80::65", "2001:db8::2", "192.0.2.2", "198.51.100.2"),
}
"""By the name of the node that gives its ports away."""
ROUTED_POOL4 = "198.51.100.0/30"


class NetworkError(Exception):
    """A command that lays out the network failed; the message is its complaint."""


@dataclass(frozen=True)
class Link:
    """A machine's interface on a wire."""

    interface: str
    wire: str
    mac: str
    """Constant, so that a machine that comes back is the same to its neighbours."""
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Machine:
    """A machine of the sample network."""

    name: str
    links: tuple[Link, ...]
    routes: tuple[str, ...] = ()
    """As `ip route add` takes them."""
    forwards: bool = False

    @property
    def run(self) -> Path:
        """Its own /run, as seen from outside of it."""
        return LAB / self.name


def _nat64(name: str, number: int) -> Machine:
    return Machine(
        name,
        (
            Link("to6", "lan6", f"02:00:00:00:06:{number:02x}", (f"2001:db8::{number}/96",)),
            Link("to4", "lan4", f"02:00:00:00:04:{number:02x}", (f"192.0.2.{number}/24",)),
            Link(
                "priv",
                "private",
                f"02:00:00:00:10:{number:02x}",
                (f"10.0.0.{number}/24", f"fd00:10::{number}/64"),
            ),
        ),
        forwards=True,
    )


MACHINES: dict[str, Machine] = {
    machine.name: machine
    for machine in (
        Machine(
            "n6",
            (Link("to6", "lan6", "02:00:00:00:06:08", (f"{N6}/96",)),),
            (f"{POOL6} via {VIRTUAL6}",),
        ),
        Machine("n4", (Link("to4", "lan4", "02:00:00:00:04:08", (f"{N4}/24",)),)),
        _nat64("J", 4),
        _nat64("K", 5),
        _nat64("L", 6),
    )
}


def enter(holder: int, *argv: str) -> list[str]:
    """Give the command line that runs `argv` on the machine that the process `holder` holds.

    The command keeps the process number.
    """
    return ["nsenter", f"--target={holder}", "--net", "--mount", "--uts", "--", *argv]


class Network:
    """The wires and the machines on them."""

    def __init__(self) -> None:
        self._holders: dict[str, subprocess.Popen[str]] = {}

    @property
    def holders(self) -> dict[str, int]:
        """For `enter`: the process that holds a machine, by name."""
        return {name: process.pid for name, process in self._holders.items() if name != WIRES}

    def build(self) -> None:
        """Lay the wires and start every machine.

        Raises NetworkError, also if the kernel lacks what the NAT64s will need.
        """
        LAB.mkdir()
        wires = sorted({link.wire for machine in MACHINES.values() for link in machine.links})
        self._hold(WIRES, "true")
        self._ip(WIRES, "tuntap add probe mode tun", "link del probe")
        probe = self.run(WIRES, "nft", "add table ip probe; delete table ip probe")
        if probe.returncode != 0:
            raise NetworkError(f"nft: {probe.stderr.strip()}")
        self._ip(
            WIRES,
            *(
                f"link add {wire} up type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
                for wire in wires
            ),
        )
        for machine in MACHINES.values():
            self.plug_in(machine)

    def plug_in(self, machine: Machine) -> None:
        """Switch a machine on and connect it to its wires. Raises NetworkError."""
        machine.run.mkdir()
        self._hold(machine.name, _first_steps(machine))
        self._ip(
            WIRES,
            *(
                f"link add {_port(machine, link)} master {link.wire} up"
                f" type veth peer name {link.interface} address {link.mac}"
                f" netns {self._holders[machine.name].pid}"
                for link in machine.links
            ),
        )
        self._ip(
            machine.name,
            "link set lo up",
            *(f"link set {link.interface} up" for link in machine.links),
            *(
                f"addr add {address} dev {link.interface}"
                for link in machine.links
                for address in link.addresses
            ),
            *(f"route add {route}" for route in machine.routes),
        )

    def set_links(self, machine: Machine, state: str) -> None:
        """Pull all cables of a machine ("down") or plug them in again ("up")."""
        self._ip(WIRES, *(f"link set {_port(machine, link)} {state}" for link in machine.links))

    def unplug(self, machine: Machine) -> None:
        """Take a machine away: nothing runs on it any more, its links go down."""
        holder = self._holders.pop(machine.name)
        world = _network_of(holder.pid)
        processes = [pid for pid in _processes() if _network_of(pid) == world]
        # All stop before any dies: keepalived would see a part of itself die and say good-bye.
        _signal(processes, signal.SIGSTOP)
        self._ip(
            WIRES,
            *(f"link set {_port(machine, link)} down" for link in machine.links),
            *(f"link del {_port(machine, link)}" for link in machine.links),
        )
        _signal(processes, signal.SIGKILL)
        holder.wait()
        shutil.rmtree(machine.run)

    def run(self, name: str, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command on a machine to its end, whatever that is, and capture its output."""
        return subprocess.run(
            enter(self._holders[name].pid, *argv), capture_output=True, text=True, check=False
        )

    def _hold(self, name: str, script: str) -> None:
        """Make namespaces, run a shell script in them, and keep them."""
        script = f"hostname {name}; {script}; echo; exec sleep infinity"
        holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "sh", "-ec", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert holder.stdout is not None
        assert holder.stderr is not None
        if not holder.stdout.readline():
            raise NetworkError(f"namespaces for {name}: {holder.stderr.read().strip()}")
        self._holders[name] = holder

    def _ip(self, name: str, *lines: str) -> None:
        """Run iproute2's commands in a machine's network namespace, in one go."""
        command = ["nsenter", f"--target={self._holders[name].pid}", "--net", "--", "ip", "-batch"]
        done = subprocess.run(
            [*command, "-"],
            input="\n".join(lines) + "\n",
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise NetworkError(f"{name}: ip -batch: {done.stderr.strip()}")


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _network_of(pid: int) -> str | None:
    """Name the network namespace of a process, or None if the process is gone."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except (FileNotFoundError, PermissionError):
        return None


def _signal(processes: list[int], number: signal.Signals) -> None:
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _first_steps(machine: Machine) -> str:
    """What a machine does first: get its own /run and /sys, and set the kernel's switches."""
    # Addresses that are known to be unique needn't be probed for.
    settings = {"ipv6/conf/all/accept_dad": 0, "ipv6/conf/default/accept_dad": 0}
    if machine.forwards:
        settings |= {"ipv6/conf/all/forwarding": 1, "ipv4/conf/all/forwarding": 1}
    # A container may forbid the second, and little is lost.
    steps = [f"mount --bind {machine.run} /run", "mount -t sysfs none /sys 2>&- || true"]
    steps += [f"echo {value} >/proc/sys/net/{key}" for key, value in settings.items()]
    return "; ".join(steps)


def _port(machine: Machine, link: Link) -> str:
    """Name the bridge's end of a machine's cable."""
    return f"{machine.name}-{link.interface}"
