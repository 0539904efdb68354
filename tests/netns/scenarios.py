"""Scenes with real daemons and real keepalived: `python tests/netns/scenarios.py NAME`.

Each runs as the first process of a lab of its own, and has failed if it raises.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import trustme

from jsync.lab import isolation
from jsync.lab.cluster import Cluster, status
from jsync.lab.load import Load
from jsync.lab.network import MACHINES, NAT64S, Network

Scene = Callable[[Network, Cluster], None]


def cut_off(network: Network, name: str) -> None:
    """Let nothing of the private network reach a node, which doesn't notice."""
    drop = "add table netdev cut; add chain netdev cut off { type filter hook ingress device priv"
    done = network.run(name, "nft", drop + " priority 0; policy drop; }")
    assert done.returncode == 0, done.stderr


def reconnect(network: Network, name: str) -> None:
    done = network.run(name, "nft", "delete table netdev cut")
    assert done.returncode == 0, done.stderr


def be_patient(name: str) -> None:
    """Have a node wait for its peers rather than find itself alone."""
    path = MACHINES[name].run / "jsync.toml"
    path.write_text(path.read_text().replace("[sync]", '[sync]\njoin-timeout = "0:10:00"'))


def start_others(cluster: Cluster) -> None:
    began = time.monotonic()
    for name in ("K", "L"):
        cluster.start(name)
    cluster.wait_master("K", began)


def holds_addresses(network: Network, name: str) -> bool:
    return "192.0.2.1/" in network.run(name, "ip", "-4", "-o", "addr").stdout


def never_master(network: Network, name: str, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert not holds_addresses(network, name), f"{name} became MASTER"
        time.sleep(0.05)


def a_node_without_snapshot_is_never_master(network: Network, cluster: Cluster) -> None:
    start_others(cluster)
    be_patient("J")
    cut_off(network, "J")
    cluster.start("J")
    never_master(network, "J", 5.0)
    assert cluster.is_ready("J") is False
    since = time.monotonic()
    reconnect(network, "J")
    cluster.wait_master("J", since)
    ready = cluster.ready_since("J", since)
    assert ready is not None


def nor_after_a_quick_restart(network: Network, cluster: Cluster) -> None:
    """The check of a moment ago, which is all that keepalived has, was about the one before."""
    start_others(cluster)
    cluster.start("J")
    cluster.wait_primary("J")
    be_patient("J")
    for _ in range(3):
        cut_off(network, "J")
        since = cluster.kill_daemon("J")
        cluster.start_daemon("J")
        cluster.wait_master("K", since)
        never_master(network, "J", 2.0)
        since = time.monotonic()
        reconnect(network, "J")
        cluster.wait_master("J", since)


def death_is_noticed_at_once_while_links_flap(network: Network, cluster: Cluster) -> None:
    """The kernel holds back news of a lost carrier if there was some just before."""
    for name in NAT64S:
        cluster.start(name)
    cluster.wait_primary("J")
    flapping = "ip link add v0 up type veth peer name v1; ip link set v1 up"
    assert network.run("n4", "sh", "-c", flapping).returncode == 0
    for _ in range(3):
        for state in ("down", "up", "down", "up"):
            network.run("n4", "ip", "link", "set", "v1", state)
        since = cluster.kill_daemon("J")
        noticed = cluster.wait_master("K", since).time - since
        assert noticed < 0.25, f"noticed after {noticed:.3f} s"
        cluster.start_daemon("J")
        cluster.wait_master("J", since)


def who_was_cut_off_learns_before_it_takes_over(network: Network, cluster: Cluster) -> None:
    """J's links go down and up again, while its daemon runs on: its table is out of date."""
    for name in NAT64S:
        cluster.start(name)
    cluster.wait_primary("J")
    since = time.monotonic()
    network.set_links(MACHINES["J"], "down")
    cluster.wait_primary("K")
    # J has heard of none of these.
    load = Load(network)
    load.start()
    load.mark()
    since = time.monotonic()
    network.set_links(MACHINES["J"], "up")
    takeover = cluster.wait_master("J", since).time
    time.sleep(3.0)
    broken = [flow for flow in load.flows() if not flow.alive(takeover + 2.0)]
    assert broken == []
    sessions = cluster.sessions()
    assert sessions["J"] == sessions["K"] == sessions["L"]


def flows_survive(network: Network, cluster: Cluster) -> None:
    """J dies under load, returns and takes over, and every flow goes on."""
    for name in NAT64S:
        cluster.start(name)
    cluster.wait_primary("J")
    load = Load(network)
    load.start()
    time.sleep(1.0)
    for heir, act in (("K", cluster.kill_daemon), ("J", cluster.start_daemon)):
        since = act("J")
        takeover = cluster.wait_master(heir, since).time
        deadline = takeover + 10.0
        while broken := [flow for flow in load.flows() if not flow.alive(takeover)]:
            assert time.monotonic() < deadline, broken
            time.sleep(0.1)
    load.finish()
    assert [flow for flow in load.wait_complete(10.0) if not flow.complete] == []


PRIVATE = {
    "tcp 4": "10.0.0.{}",
    "tcp 6": "fd00:10::{}",
    "unicast 4": "10.0.0.{}",
    "unicast 6": "fd00:10::{}",
    "tls 6": "fd00:10::{}",
}
NUMBERS = {"J": 4, "K": 5, "L": 6}


@cache
def authority() -> trustme.CA:
    """Who signs the certificates of a cluster."""
    return trustme.CA()


def certified(name: str, address: str) -> str:
    """Put a certificate into a node's files; the lines about it."""
    issued = authority().issue_cert(address)
    run = MACHINES[name].run
    (run / "node.key").touch(mode=0o600)
    issued.private_key_pem.write_to_path(run / "node.key")
    issued.cert_chain_pems[0].write_to_path(run / "node.pem")
    authority().cert_pem.write_to_path(run / "ca.pem")
    return 'tls-certificate = "/run/node.pem"\ntls-key = "/run/node.key"\ntls-ca = "/run/ca.pem"'


def without_key(text: str) -> str:
    """A configuration that has certificates alone."""
    return "".join(line for line in text.splitlines(True) if not line.startswith("key-files"))


def transport_of(name: str, transport: str) -> str:
    """What a node's section [sync] says of the way to its peers."""
    if transport == "multicast 6":
        return 'group = "ff08::db8:64:64"\ninterface = "priv"'
    own = {node: PRIVATE[transport].format(number) for node, number in NUMBERS.items()}
    peers = [address for node, address in own.items() if node != name]
    kind = transport.partition(" ")[0]
    lines = f'listen = "{own[name]}"\npeers = {peers}'
    if kind != "tls":
        return f'transport = "{kind}"\n{lines}'
    return f'transport = "tcp"\n{lines}\n{certified(name, own[name])}'


def flows_survive_with_sessions_over(transport: str) -> Scene:
    """The same, but the sessions take another way."""

    def scene(network: Network, cluster: Cluster) -> None:
        for name in NAT64S:
            path = MACHINES[name].run / "jsync.toml"
            lines = transport_of(name, transport)
            text = path.read_text().replace('interface = "priv"', lines)
            path.write_text(without_key(text) if "tls" in transport else text)
        flows_survive(network, cluster)

    scene.__name__ = f"flows_survive_with_sessions_over_{transport.replace(' ', '')}"
    return scene


def split_brain_heals(network: Network, cluster: Cluster) -> None:
    """K hears no adverts: two nodes are MASTER and translate what reaches them, then one again."""
    for name in NAT64S:
        cluster.start(name)
    cluster.wait_primary("J")
    load = Load(network)
    load.start()
    deaf = "add table inet deaf; add chain inet deaf in { type filter hook input priority -300; };"
    deaf += " add rule inet deaf in meta l4proto 112 drop"
    assert network.run("K", "nft", deaf).returncode == 0
    cluster.wait_primary("K")
    time.sleep(3.0)
    assert holds_addresses(network, "J")
    assert holds_addresses(network, "K")
    since = time.monotonic()
    assert network.run("K", "nft", "delete table inet deaf").returncode == 0
    deadline = since + 10.0
    while holds_addresses(network, "K"):
        assert time.monotonic() < deadline, "K is still MASTER"
        time.sleep(0.1)
    assert holds_addresses(network, "J")
    healed = time.monotonic()
    while broken := [flow for flow in load.flows() if not flow.alive(healed)]:
        assert time.monotonic() < healed + 10.0, broken
        time.sleep(0.1)
    load.finish()
    assert [flow for flow in load.wait_complete(10.0) if not flow.complete] == []
    while len(set(cluster.sessions().values())) > 1:
        assert time.monotonic() < healed + 20.0, cluster.sessions()
        time.sleep(0.1)


def promotion_in_any_order(network: Network, cluster: Cluster) -> None:
    """Whoever is left takes over, and the highest that returns takes over from a lower one."""
    for name in NAT64S:
        cluster.start(name)
    cluster.wait_primary("J")
    load = Load(network)
    load.start()
    for act, who, heir in (
        (cluster.kill_daemon, "K", "J"),
        (cluster.kill_daemon, "J", "L"),
        (cluster.start_daemon, "K", "K"),
        (cluster.kill_daemon, "L", "K"),
        (cluster.start_daemon, "J", "J"),
        (cluster.start_daemon, "L", "J"),
        (cluster.kill_daemon, "J", "K"),
    ):
        at = act(who)
        if act == cluster.start_daemon:
            cluster.wait_ready(who)
        cluster.wait_primary(heir)
        deadline = at + 20.0
        while broken := [flow for flow in load.flows() if not flow.alive(at)]:
            assert time.monotonic() < deadline, (who, heir, broken)
            time.sleep(0.1)
        time.sleep(0.5)  # sessions that took a new turn are told of
    load.finish()
    assert [flow for flow in load.wait_complete(10.0) if not flow.complete] == []


def orderly_end_hands_over(network: Network, cluster: Cluster) -> None:
    """SIGTERM: the addresses go first, nothing of the daemon stays on the host."""
    for name in NAT64S:
        cluster.start(name)
    cluster.wait_primary("J")
    since = time.monotonic()
    cluster.stop_daemon("J")
    cluster.wait_master("K", since)
    assert not holds_addresses(network, "J")
    assert "jsync" not in network.run("J", "nft", "list", "ruleset").stdout
    assert "jsync0" not in network.run("J", "ip", "link").stdout
    assert status("J") is None


SCENARIOS = {
    scene.__name__: scene
    for scene in (
        a_node_without_snapshot_is_never_master,
        nor_after_a_quick_restart,
        death_is_noticed_at_once_while_links_flap,
        who_was_cut_off_learns_before_it_takes_over,
        orderly_end_hands_over,
        split_brain_heals,
        promotion_in_any_order,
        *map(
            flows_survive_with_sessions_over,
            ("multicast 6", "tcp 4", "tcp 6", "unicast 6", "tls 6"),
        ),
    )
}


@contextmanager
def told_in_full(cluster: Cluster) -> Iterator[None]:
    """Show the logs of a scene that fails."""
    try:
        yield
    except BaseException:
        for service in cluster.services():
            print(f"--- {service.name}\n{service.tail(40)}")
        raise


def main(name: str) -> None:
    isolation.require_programs()
    isolation.enter()
    network = Network()
    network.build()
    cluster = Cluster(network, synchronised=True)
    with told_in_full(cluster):
        SCENARIOS[name](network, cluster)


if __name__ == "__main__":
    main(sys.argv[1])
