"""Faults at random under load: `python tests/netns/soak.py SECONDS TRANSPORT [SEED]`.

With "cut" in place of SECONDS the nodes don't hear each other, and J is killed: that sessions are
lost and connections break has to be seen then, or this has failed.

J, K and L with real keepalived carry TCP, UDP and pings while sessions come at 20 a second and a
fifth of what the private network carries is lost. Daemons are killed, and half of those stand still
while they start again; daemons are stopped for up to ten seconds, and nodes hear nothing for a
while though they are heard. After each fault every node has to have every session again. Prints
what was lost, and has failed if a connection is broken.
"""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import scenarios

from jsync.lab import isolation
from jsync.lab.cluster import Cluster, status
from jsync.lab.load import Flow, Load
from jsync.lab.network import MACHINES, NAT64S, Network, enter
from jsync.lab.service import ServiceError
from jsync.lab.traffic import N4_IN_POOL6

JSYNC = str(Path(sys.executable).with_name("jsync"))
LOST_PERCENT = 20
FROZEN = 3.0
"""Longer than a node that starts waits for others."""
PATIENCE = 60.0
RETRANSMISSION = 15.0
"""A TCP that has tried in vain for ten seconds waits about as long for its next attempt."""
SETTLED = {"multicast": 0.25, "unicast": 0.25, "tcp": 3.0, "tls": 3.0}
"""Sessions that are younger, in seconds, may still be on their way. What the kernel's TCP has lost
it sends again after 0.2, 0.6, 1.4 and 3 seconds, and all that follows waits for it."""

CHURN = """
import socket, sys, time
sockets = []
while True:
    one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    one.connect((sys.argv[1], 7))
    try:
        one.send(b"x")
    except OSError:
        pass
    one.close()
    time.sleep(0.05)
"""

Keys = frozenset[str]


class Soak:
    """The nodes, what happens to them, and what is seen."""

    def __init__(
        self, network: Network, cluster: Cluster, dice: random.Random, settled: float
    ) -> None:
        self.network = network
        self.cluster = cluster
        self.dice = dice
        self.settled = settled
        self.lost = 0
        self.faults: dict[str, int] = {}
        self.convergence: list[float] = []

    def keys(self, name: str) -> Keys:
        """The sessions of a node. Lifetimes and states may differ: what exists may not."""
        done = self.network.run(name, JSYNC, "session", "display", "--json", "--numeric")
        rows = map(json.loads, done.stdout.splitlines())
        return frozenset(
            " ".join(str(row[key]) for key in ("proto", "src6", "src6_port", "src4", "src4_port"))
            + f" {row['dst4']} {row['dst4_port']}"
            for row in rows
        )

    def master(self) -> str:
        """The node that has the addresses."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            for name in NAT64S:
                told = status(name)
                if told is not None and told["role"] == "primary" and told["ready"]:
                    return name
            time.sleep(0.05)
        raise AssertionError("nobody is MASTER")

    def converge(self) -> float:
        """Seconds until every node is ready and has what the MASTER has now."""
        begin = time.monotonic()
        wanted = self.keys(self.master())
        missing: dict[str, int] = {}
        while time.monotonic() - begin < PATIENCE:
            # What has ended meanwhile is missed by nobody.
            missing = {}
            for name in NAT64S:
                if not self.cluster.is_ready(name):
                    missing[name] = -1
                elif left := len((wanted - self.keys(name)) & self.keys(self.master())):
                    missing[name] = left
            if not missing:
                return time.monotonic() - begin
            time.sleep(0.1)
        raise AssertionError(f"no convergence after {PATIENCE:g} s: {missing}")

    def kill(self) -> Keys:
        """`kill -9`: what the dead node told of must be where its addresses go, at once."""
        victim = self.dice.choice(NAT64S)
        was_master = victim == self.master()
        before = self.keys(victim)
        time.sleep(self.settled)
        self.cluster.kill_daemon(victim)
        if was_master:
            heir = self.master()
            gone = before - self.keys(heir)
            self.lost += len(gone)
        self.cluster.start_daemon(victim)
        if self.dice.random() < 0.5:
            time.sleep(self.dice.uniform(0.0, 1.0))
            self.cluster.signal_daemon(victim, signal.SIGSTOP)
            time.sleep(FROZEN)
            self.cluster.signal_daemon(victim, signal.SIGCONT)
        self.cluster.wait_ready(victim)
        # Who is ready may become MASTER at once.
        self.lost += len((before - self.keys(victim)) & self.keys(self.master()))
        return frozenset()

    def stop(self) -> Keys:
        """`kill -STOP` for a while, the MASTER included."""
        victim = self.dice.choice(NAT64S)
        before = self.keys(self.master())
        self.cluster.signal_daemon(victim, signal.SIGSTOP)
        time.sleep(self.dice.choice((1.0, 3.0, 10.0)))
        self.cluster.signal_daemon(victim, signal.SIGCONT)
        self.cluster.wait_ready(victim)
        return before

    def cut(self) -> Keys:
        """A node hears nothing, and is heard."""
        victim = self.dice.choice(NAT64S)
        before = self.keys(self.master())
        scenarios.cut_off(self.network, victim)
        time.sleep(self.dice.uniform(0.5, 4.0))
        scenarios.reconnect(self.network, victim)
        return before

    def run(self, seconds: float, load: Load) -> None:
        """Faults one after the other, each healed before the next.

        A fault gives the sessions that must be everywhere once it is healed.
        """
        acts: list[Callable[[], Keys]] = [self.kill, self.stop, self.cut]
        until = time.monotonic() + seconds
        n = 0
        while n < len(acts) or time.monotonic() < until:
            act = acts[n] if n < len(acts) else self.dice.choice(acts)
            n += 1
            time.sleep(self.dice.uniform(0.2, 1.0))
            wanted = act()
            self.convergence.append(self.converge())
            self.lost += len(wanted - self.keys(self.master()))
            self.faults[act.__name__] = self.faults.get(act.__name__, 0) + 1
            failed = sum(flow.failure is not None for flow in load.flows())
            if self.lost or failed:
                print(f"after {act.__name__}: {self.lost} sessions lost, {failed} flows failed")
                return


def lose(network: Network, name: str) -> None:
    """Lose a part of what a node hears of the others."""
    rule = f"numgen random mod 100 < {LOST_PERCENT} drop"
    script = (
        "add table netdev loss; add chain netdev loss ingress"
        " { type filter hook ingress device priv priority 10; };"
        f" add rule netdev loss ingress {rule}"
    )
    done = network.run(name, "nft", script)
    assert done.returncode == 0, done.stderr


@contextmanager
def under_load(transport: str, seed: int, *, deaf: bool = False) -> Iterator[tuple[Soak, Load]]:
    """The nodes with their losses, and traffic through them; `deaf` ones are told nothing of it."""
    network = Network()
    network.build()
    cluster = Cluster(network, synchronised=True)
    for name in NAT64S:
        path = MACHINES[name].run / "jsync.toml"
        if transport != "multicast 4":
            lines = scenarios.transport_of(name, transport)
            text = path.read_text().replace('interface = "priv"', lines)
            path.write_text(scenarios.without_key(text) if "tls" in transport else text)
        lose(network, name)
    with scenarios.told_in_full(cluster):
        for name in NAT64S:
            cluster.start(name)
        cluster.wait_primary("J")
        for name in NAT64S if deaf else ():
            scenarios.cut_off(network, name)
        load = Load(network)
        load.start()
        argv = enter(network.holders["n6"], sys.executable, "-c", CHURN, N4_IN_POOL6)
        with subprocess.Popen(argv) as churn:
            try:
                settled = SETTLED[transport.split(maxsplit=1)[0]]
                yield Soak(network, cluster, random.Random(seed), settled), load
            except ServiceError as error:
                raise AssertionError(str(error)) from error
            finally:
                churn.kill()


def broken_flows(load: Load) -> tuple[int, list[Flow]]:
    """How many flows there are, and those of them through which nothing comes any more."""
    since = time.monotonic()
    while True:
        time.sleep(1.0)
        flows = load.flows()
        broken = [flow for flow in flows if not flow.alive(since)]
        if not broken or time.monotonic() - since > RETRANSMISSION:
            return len(flows), broken


def faults(seconds: float, transport: str, seed: int) -> None:
    """Nothing may be lost."""
    with under_load(transport, seed) as (soak, load):
        soak.run(seconds, load)
        flows, broken = broken_flows(load)
        load.finish()
        tcp = load.wait_complete(20.0)
        broken += [flow for flow in tcp if not flow.complete and flow not in broken]
        times = sorted(soak.convergence)
        print(
            f"faults={sum(soak.faults.values())}"
            f" ({', '.join(f'{n} {name}' for name, n in soak.faults.items())})"
            f" sessions={len(soak.keys(soak.master()))} sessions_lost={soak.lost}"
            f" connections={flows} connections_broken={len(broken)}"
            f" convergence_median={times[len(times) // 2]:.2f}s"
            f" convergence_longest={times[-1]:.2f}s",
            flush=True,
        )
        assert soak.lost == 0
        assert broken == []


def cut(transport: str, seed: int) -> None:
    """What is lost has to be seen."""
    with under_load(transport, seed, deaf=True) as (soak, load):
        time.sleep(1.0)
        before = soak.keys("J")
        soak.cluster.kill_daemon("J")
        lost = len(before - soak.keys(soak.master()))
        flows, broken = broken_flows(load)
        print(
            f"sessions={len(before)} sessions_lost={lost}"
            f" connections={flows} connections_broken={len(broken)}",
            flush=True,
        )
        assert lost > 0
        assert broken


def main(what: str, transport: str, seed: int) -> None:
    isolation.require_programs()
    isolation.enter()
    print(f"transport={transport!r} seconds={what} seed={seed}", flush=True)
    if what == "cut":
        cut(transport, seed)
    else:
        faults(float(what), transport, seed)


if __name__ == "__main__":
    main(
        sys.argv[1],
        sys.argv[2],
        int(sys.argv[3]) if len(sys.argv) > 3 else random.SystemRandom().randrange(1 << 32),
    )
