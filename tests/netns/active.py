"""Scenes with two NAT64s that translate at once: `python tests/netns/active.py NAME`.

Each runs as the first process of a lab of its own, and has failed if it raises.
"""

import json
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import exchanges
from scenarios import told_in_full

from jsync.cli.client import ask, ask_list
from jsync.lab import isolation
from jsync.lab.cluster import Cluster, slices_held, status
from jsync.lab.load import Load
from jsync.lab.network import MACHINES, N4, N6, SLICES, Network, enter
from jsync.lab.spreading import by_flow, by_packet
from jsync.lab.traffic import N4_IN_POOL6, STATIC_PORTS

NODES = tuple(SLICES)
SERVER_PORT = 7100
STATIC4, STATIC6 = next(iter(STATIC_PORTS.items()))
COUNT = 200
LATER = 0.9
"""Seconds: who took longer had a packet sent again."""
PATIENT = 'acked-timeout = "1s"\npull-timeout = "1s"\n'
"""A busy machine that answers late is no reason to let a packet go without its session."""


def control(name: str) -> Namespace:
    return Namespace(control=str(MACHINES[name].run / "jsync" / "control.sock"), instance=None)


def counters(name: str) -> dict[str, int]:
    rows = ask_list(control(name), "stats", "display")
    return {row["name"]: row["value"] for row in rows}


def mappings(name: str) -> dict[tuple[str, str, int], str]:
    """A node's BIB: whose each transport address of pool4 is."""
    answers = ask(control(name), "bib", "display")
    rows = [row for answer in answers for row in answer.get("rows", [])]
    return {(r["proto"], r["src4"], r["src4_port"]): f"{r['src6']}#{r['src6_port']}" for r in rows}


def start(cluster: Cluster) -> None:
    for name in NODES:
        cluster.start(name)
    for name in NODES:
        cluster.wait_slices(name, name)


def wait_for_flows(load: Load, since: float) -> None:
    while broken := [flow for flow in load.flows() if not flow.alive(since)]:
        assert time.monotonic() < since + 20.0, broken
        time.sleep(0.1)


def close(load: Load) -> None:
    load.finish()
    assert [flow for flow in load.wait_complete(10.0) if not flow.complete] == []
    load.stop()


def longest_gap(load: Load) -> str:
    time.sleep(1.5)  # no late gap stays unseen
    flows = load.flows()
    worst = max(flows, key=lambda flow: flow.longest)
    ping = next(flow for flow in flows if flow.kind == "ping")
    return (
        f"longest gap {1000 * worst.longest:.0f} ms ({worst.kind}),"
        f" of pings {1000 * ping.longest:.0f} ms"
    )


def wait_for_equal_tables(cluster: Cluster) -> None:
    deadline = time.monotonic() + 20.0
    while (counts := set(cluster.sessions().values())) and len(counts) > 1:
        assert time.monotonic() < deadline, cluster.sessions()
        time.sleep(0.1)
    one, other = (mappings(name) for name in NODES)
    assert one == other


def collisions() -> int:
    return sum(counters(name).get("sync_collisions", 0) for name in NODES)


def slices_move(network: Network, cluster: Cluster) -> None:
    """Each node has its slice; K dies, J has both; K returns and has its own again."""
    by_flow(network)
    start(cluster)
    load = Load(network)
    load.start()
    load.mark()
    for name in NODES:
        told = counters(name)
        assert told["translated_6to4_packets"] > 0, f"{name} translates nothing: {told}"
        assert told["sessions_created"] > 0, f"{name} makes no session: {told}"
    for victim, heir in (("K", "J"), ("J", "K")):
        for act, name, holder in (
            (cluster.kill_daemon, "is killed", heir),
            (cluster.start_daemon, "returns", victim),
            (cluster.power_off, "is unplugged", heir),
            (cluster.power_on, "is plugged in", victim),
        ):
            load.mark()
            at = act(victim)
            took = cluster.wait_master(holder, at, owner=victim).time
            cluster.wait_slices(holder, *({victim} if holder == victim else NODES))
            wait_for_flows(load, took)
            print(
                f"{victim} {name}: {holder} has its slice after {1000 * (took - at):.0f} ms,"
                f" {longest_gap(load)}"
            )
        cluster.wait_slices(heir, heir)
        for name in NODES:
            found = status(name)
            assert found is not None
            assert slices_held(found) == {name}
    close(load)
    wait_for_equal_tables(cluster)
    assert collisions() == 0


def a_dead_nodes_slice_is_not_given_away(network: Network, cluster: Cluster) -> None:
    """What J opens while it holds K's addresses has ports of J's own slice."""
    by_flow(network)
    start(cluster)
    since = cluster.kill_daemon("K")
    cluster.wait_master("J", since, owner="K")
    cluster.wait_slices("J", "J", "K")
    with serving(network, "n4"):
        exchange_from6(network, 50).must_not_fail()
        made = {address for _, address, _ in mappings("J")}
        assert made == {SLICES["J"].ipv4}, made
        # K comes back to a slice of which nothing was taken, and to J's sessions.
        cluster.start_daemon("K")
        cluster.wait_slices("K", "K")
        cluster.wait_slices("J", "J")
        exchange_from6(network, 50).must_not_fail()
    assert {address for _, address, _ in mappings("J")} == {of.ipv4 for of in SLICES.values()}
    wait_for_equal_tables(cluster)
    assert collisions() == 0


def split_brain_heals(network: Network, cluster: Cluster) -> None:
    """K hears no adverts: both nodes hold both slices, and each gives ports of its own away."""
    by_flow(network)
    start(cluster)
    load = Load(network)
    load.start()
    load.mark()
    deaf = "add table inet deaf; add chain inet deaf in { type filter hook input priority -300; };"
    deaf += " add rule inet deaf in meta l4proto 112 drop"
    assert network.run("K", "nft", deaf).returncode == 0
    cluster.wait_slices("K", "J", "K")
    with serving(network, "n4"):
        exchange_from6(network, 100).must_not_fail()
        assert network.run("K", "nft", "delete table inet deaf").returncode == 0
        cluster.wait_slices("K", "K")
        cluster.wait_slices("J", "J")
        wait_for_flows(load, time.monotonic())
        exchange_from6(network, 50).must_not_fail()
    print(longest_gap(load))
    close(load)
    wait_for_equal_tables(cluster)
    assert collisions() == 0


@dataclass
class Results:
    """How a number of exchanges went, by kind."""

    kinds: dict[str, dict[str, Any]]

    def must_not_fail(self) -> None:
        assert all(not of["failed"] for of in self.kinds.values()), self.failures()

    def failures(self) -> dict[str, list[str]]:
        return {kind: of["failed"] for kind, of in self.kinds.items() if of["failed"]}

    def __str__(self) -> str:
        parts = []
        for kind, of in self.kinds.items():
            late = sum(ms >= 1000 * LATER for ms in of["ms"])
            median = statistics.median(of["ms"]) if of["ms"] else float("nan")
            again = f", {late} needed a packet again" if kind == "tcp" else ""
            failed = f"{kind} {len(of['failed'])} of {of['count']} failed"
            parts.append(f"{failed}{again} (median {median:.1f} ms)")
        return "; ".join(parts)


class serving:
    """Servers on some of n4 and n6."""

    def __init__(self, network: Network, *names: str) -> None:
        self._network = network
        self._names = names
        self._servers: list[subprocess.Popen[str]] = []

    def __enter__(self) -> None:
        for name in self._names:
            address, port = (N4, SERVER_PORT) if name == "n4" else (N6, STATIC6)
            argv = [sys.executable, exchanges.__file__, "serve", address, str(port)]
            server = subprocess.Popen(
                enter(self._network.holders[name], *argv), stdout=subprocess.PIPE, text=True
            )
            self._servers.append(server)
            assert server.stdout is not None
            assert server.stdout.readline() == "listening\n"

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.kill()
            server.wait()


def exchange_from6(network: Network, count: int) -> Results:
    return exchange(network, "n6", N4_IN_POOL6, SERVER_PORT, count, "tcp", "udp", "ping")


def exchange(
    network: Network, name: str, address: str, port: int, count: int, *kinds: str
) -> Results:
    argv = [sys.executable, exchanges.__file__, "open", address, str(port), str(count)]
    done = network.run(name, *argv, *kinds)
    assert done.returncode == 0, done.stderr
    return Results(json.loads(done.stdout))


def sprayed(network: Network, cluster: Cluster) -> list[Results]:
    """Exchanges of which every packet goes to J or K by chance."""
    by_packet(network)
    start(cluster)
    with serving(network, "n4", "n6"):
        from6 = exchange_from6(network, COUNT)
        static = SLICES["J"].routed
        from4 = exchange(network, "n4", static, STATIC4, COUNT // 10, "tcp")
    told = {name: counters(name) for name in NODES}
    for name, values in told.items():
        # Of each direction every node has had about half.
        both = [values["translated_6to4_packets"], values["translated_4to6_packets"]]
        assert min(both) > COUNT, f"{name} has translated {both}"
    print(f"from IPv6: {from6}")
    print(f"from IPv4: {from4}")
    for key in ("held_openers", "held_timeouts", "pulls_sent", "pulls_found", "pulls_suppressed"):
        print(f"{key} {sum(values.get(key, 0) for values in told.values())}", end="; ")
    sent = sum(values["sync_updates_sent"] for values in told.values())
    frames = sum(values["sync_frames_sent"] for values in told.values())
    flows = sum(of["count"] for results in (from6, from4) for of in results.kinds.values())
    print(f"{sent / flows:.1f} updates and {frames / flows:.1f} frames an exchange")
    return [from6, from4]


def no_packet_is_lost(network: Network, cluster: Cluster) -> None:
    for results in sprayed(network, cluster):
        results.must_not_fail()
    wait_for_equal_tables(cluster)
    assert collisions() == 0


def what_async_loses(network: Network, cluster: Cluster) -> None:
    sprayed(network, cluster)
    print(f"dropped {dropped('drop_no_bib')} of IPv4 for lack of a mapping here, ", end="")
    print(f"{dropped('drop_tcp_not_syn')} of IPv6 for lack of a session here")


def dropped(name: str) -> int:
    return sum(counters(node).get(name, 0) for node in NODES)


Scene = Callable[[Network, Cluster], None]
SCENES: dict[str, tuple[Scene, str | None]] = {
    "slices_move": (slices_move, None),
    "a_dead_nodes_slice_is_not_given_away": (a_dead_nodes_slice_is_not_given_away, None),
    "split_brain_heals": (split_brain_heals, None),
    "spray_acked": (no_packet_is_lost, f'durability = "acked"\n{PATIENT}'),
    "spray_acked_without_pull": (
        no_packet_is_lost,
        f'durability = "acked"\npull = false\n{PATIENT}',
    ),
    "spray_pull": (no_packet_is_lost, f"pull = true\n{PATIENT}"),
    "spray_async": (what_async_loses, "pull = false"),
}
"""Each with further lines of `[sync]`, if every packet goes its own way."""


def main(name: str) -> None:
    isolation.require_programs()
    isolation.enter()
    network = Network()
    network.build()
    scene, sync = SCENES[name]
    cluster = Cluster(
        network,
        synchronised=True,
        active="shared" if sync is None else "routed",
        sync=sync or "",
    )
    with told_in_full(cluster):
        scene(network, cluster)


if __name__ == "__main__":
    main(sys.argv[1])
