"""The stories on the lab: real daemons, real keepalived, real traffic."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from jsync.demo.report import Report, Step, WithoutSync, WithSync
from jsync.demo.timeline import Timeline
from jsync.lab.cluster import Cluster
from jsync.lab.load import Flow, Load
from jsync.lab.network import MACHINES, NAT64S, Network

VERDICT_PATIENCE = 10.0
"""A connection is broken when no byte gets through for this long after the takeover."""
SETTLE = 1.5
"""Observation goes on for this long after everything flows again: no late gap stays unseen."""

STREAMS = ("tcp", "static")


@dataclass(frozen=True)
class Event:
    """Something that happens to a node, and who takes over."""

    name: str
    story: str
    act: Callable[[], float]
    """Does it; the time at which it was done."""
    heir: str
    returns: bool = False
    """The heir isn't a backup that notices a death but a node that comes back."""


class Stage:
    """The sample network, on which the stories are played one after the other."""

    def __init__(self, timeline: Timeline) -> None:
        self._network = Network()
        self._timeline = timeline
        self._cluster: Cluster | None = None

    def build(self) -> None:
        """Build the network. Raises NetworkError."""
        self._network.build()

    def play(self) -> Report:
        """Play both stories."""
        self._timeline.story("The lab")
        say = self._timeline.say
        say("n6 speaks only IPv6, n4 only IPv4; between them are J, K and L, three NAT64s with a")
        say("private network of their own. All is in namespaces: this machine isn't touched")
        without = self._without_sync()
        for name in NAT64S:
            self._network.unplug(MACHINES[name])
            self._network.plug_in(MACHINES[name])
        synced = self._with_sync()
        return Report(simulated=False, without_sync=without, with_sync=synced)

    def last_words(self) -> str:
        """Give the ends of the logs of the story that was played last."""
        services = self._cluster.services() if self._cluster else []
        return "\n".join(f"--- {service.name}\n{service.tail()}" for service in services)

    def _without_sync(self) -> WithoutSync:
        say = self._timeline.say
        self._timeline.story("Without synchronisation")
        cluster, load = self._open(synchronised=False)
        load.mark()
        died = cluster.kill_daemon("J")
        say("J's daemon is killed (kill -9), and with it every session it knew", died)
        takeover = cluster.wait_master("K", died).time
        after = _ms(takeover - died)
        say(f"K is MASTER after {after}: it has the addresses, but no session", takeover)
        say("what now gets no byte through for 10 s, or is reset, is broken ...")
        flows = self._wait_for_flow(load, takeover)
        alive = [flow for flow in flows if flow.alive(takeover)]
        dynamic = _of(flows, "tcp")
        static = _of(flows, "static")
        result = WithoutSync(
            tcp_total=len(dynamic),
            tcp_survived=len(_of(alive, "tcp")),
            static_total=len(static),
            static_survived=len(_of(alive, "static")),
        )
        say(
            f"{result.tcp_survived} of the {result.tcp_total} connections that n6 opened are alive;"
            f" {result.static_survived} of {result.static_total} live on through static BIB entries"
        )
        load.stop()
        return result

    def _with_sync(self) -> WithSync:
        say = self._timeline.say
        self._timeline.story("With synchronisation")
        cluster, load = self._open(synchronised=True)
        flows = load.flows()
        result = WithSync(tcp_total=len(_of(flows, *STREAMS)), udp_total=len(_of(flows, "udp")))
        lost: set[tuple[str, int]] = set()
        for event in _events(cluster):
            alive = self._step(cluster, load, event, result)
            lost |= {_key(flow) for flow in flows} - {_key(flow) for flow in alive}
        say("n6 and n4 stop writing and close: what is under way has to arrive too")
        load.finish()
        streams = load.wait_complete(VERDICT_PATIENCE)
        whole = [flow for flow in streams if flow.complete and _key(flow) not in lost]
        result.tcp_survived = len(whole)
        result.udp_survived = sum(_key(flow) not in lost for flow in _of(flows, "udp"))
        result.complaints += [
            f"{flow.kind} {flow.index}: {flow.failure}" for flow in load.flows() if flow.failure
        ]
        say(f"{len(whole)} of {result.tcp_total} connections arrived whole, byte for byte")
        load.stop()
        return result

    def _open(self, *, synchronised: bool) -> tuple[Cluster, Load]:
        """Start the NAT64s and the load; J is MASTER, everything flows."""
        say = self._timeline.say
        self._cluster = cluster = Cluster(self._network, synchronised=synchronised)
        began = time.monotonic()
        for name in NAT64S:
            cluster.start(name)
        for name in NAT64S:
            cluster.wait_ready(name)
        cluster.wait_master("J", began)
        say("J is MASTER: keepalived has put 2001:db8::1 and 192.0.2.1 (pool4) on it; K, L wait")
        load = Load(self._network)
        load.start()
        flows = load.flows()
        say(
            f"{len(_of(flows, 'tcp'))} TCP connections of n6, {len(_of(flows, 'static'))} of n4"
            f" through static BIB entries, {len(_of(flows, 'udp'))} UDP flows and pings flow"
        )
        load.mark()
        time.sleep(SETTLE)
        flows = load.flows()
        say(
            f"at rest the longest gap of any flow is {_ms(max(flow.longest for flow in flows))};"
            f" sessions: {_counts(cluster.sessions())}"
        )
        return cluster, load

    def _step(self, cluster: Cluster, load: Load, event: Event, result: WithSync) -> list[Flow]:
        """Let something happen and note what it did; the flows that are still alive."""
        say = self._timeline.say
        load.mark()
        since = time.monotonic()
        done = event.act()
        say(event.story, done)
        takeover = cluster.wait_master(event.heir, since).time
        if event.returns:
            ready = cluster.ready_since(event.heir, since)
            if ready is not None:
                say(f"{event.heir} is ready: it has the sessions again", ready)
            if ready is None or ready > takeover:
                result.complaints.append(f"{event.heir} was MASTER before it had the sessions")
            say(f"{event.heir} takes over again", takeover)
        else:
            say(f"{event.heir} is MASTER after {_ms(takeover - done)}", takeover)
        flows = self._wait_for_flow(load, takeover)
        alive = [flow for flow in flows if flow.alive(takeover)]
        ping = _of(flows, "ping")[0]
        step = Step(
            name=event.name,
            gap_ms=1000 * max((flow.longest for flow in alive), default=0.0),
            ping_gap_ms=1000 * ping.longest,
            vrrp_ms=None if event.returns else 1000 * (takeover - done),
            tcp_survived=len(_of(alive, *STREAMS)),
            udp_survived=len(_of(alive, "udp")),
            sessions=cluster.sessions(),
        )
        say(
            f"{step.tcp_survived} of {len(_of(flows, *STREAMS))} connections are alive;"
            f" longest gap {step.gap_ms:.0f} ms; sessions: {_counts(step.sessions)}"
        )
        result.steps.append(step)
        return alive

    def _wait_for_flow(self, load: Load, takeover: float) -> list[Flow]:
        """Wait until every flow has got bytes through since the takeover, or has had its time."""
        while True:
            flows = load.flows()
            settled = all(flow.alive(takeover) or flow.failure for flow in flows)
            if settled or time.monotonic() > takeover + VERDICT_PATIENCE:
                break
            time.sleep(0.1)
        if settled:
            time.sleep(SETTLE)
            flows = load.flows()
        return flows


def _events(cluster: Cluster) -> list[Event]:
    """The synchronised story."""
    return [
        Event(
            "J's daemon is killed",
            "J's daemon is killed (kill -9)",
            lambda: cluster.kill_daemon("J"),
            "K",
        ),
        Event(
            "J's daemon returns",
            "J's daemon is started again, empty",
            lambda: cluster.start_daemon("J"),
            "J",
            returns=True,
        ),
        Event(
            "J's links go down",
            "J's links go down: the machine is gone, and nothing on it says good-bye",
            lambda: cluster.power_off("J"),
            "K",
        ),
        Event(
            "J comes back",
            "J is switched on again, empty",
            lambda: cluster.power_on("J"),
            "J",
            returns=True,
        ),
        Event("J dies again", "J's links go down again", lambda: cluster.power_off("J"), "K"),
        Event(
            "K dies too",
            "K's daemon is killed too (kill -9)",
            lambda: cluster.kill_daemon("K"),
            "L",
        ),
    ]


def _of(flows: list[Flow], *kinds: str) -> list[Flow]:
    return [flow for flow in flows if flow.kind in kinds]


def _key(flow: Flow) -> tuple[str, int]:
    return flow.kind, flow.index


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


def _counts(sessions: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sessions.items())
