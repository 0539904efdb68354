"""What the daemon tells a Prometheus server of itself.

Names begin with `jsync_` and end with the unit, counters with `_total`. The engine's counter table
gives the counters and their help texts, so a new counter is a new metric by itself.
"""

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from jsync.failover import STATES

Row = dict[str, Any]
Rows = list[Row]
Answer = Callable[[Row], Any]

PEER_STATES = ("joining", "syncing", "up", "differs", "down")
_GAUGES = {"jstat_bib_entries", "jstat_sessions"}
"""Of the kernel module's counters those that count what is there, and not what has happened."""


class NodeCollector(Collector):
    """The node's state as metrics, read when it is asked for."""

    def __init__(self, status: Answer, peers: Answer, stats: Answer) -> None:
        """The daemon's answers to `instance status`, `peers` and `stats display`."""
        self._status = status
        self._peers = peers
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """Every metric of the node."""
        status = self._status({})
        yield from _node(status)
        if status["keepalived"]:
            yield from _keepalived(status["keepalived"])
        if status["cluster"] is not None:
            yield from _peers(self._peers({}))
        if status["joolds"]:
            yield from _joolds(status["joolds"])
        yield from _counters(self._stats({}))


def _node(status: Row) -> Iterator[Metric]:
    labels = {
        "name": status["name"],
        "node": status["node"],
        "cluster": status["cluster"],
        "backend": status["backend"],
        "pool6": status["pool6"],
    }
    info = {key: str(value) for key, value in labels.items() if value is not None}
    yield InfoMetricFamily("jsync_node", "The node, in the labels", info)
    for name, help, value in (
        ("ready", "1 if the node may become MASTER", status["ready"]),
        ("primary", "1 if the node is the one that translates", status["role"] == "primary"),
        ("translator_running", "1 if the translator works", status["worker"] == "running"),
        ("sessions", "Sessions in the table", status["sessions"]),
        ("max_sessions", "Sessions that the table can hold", status["max_sessions"]),
        ("bib_entries", "BIB entries in the table", status["bib_entries"]),
        ("table_bytes", "Memory that the table takes", status["table_bytes"]),
    ):
        yield GaugeMetricFamily(f"jsync_{name}", help, value=float(value))


def _keepalived(instances: Rows) -> Iterator[Metric]:
    labels = ["type", "name", "state"]
    states = GaugeMetricFamily(
        "jsync_keepalived_state", "1 for the state that keepalived told last", labels=labels
    )
    for told in instances:
        for state in STATES:
            states.add_metric([told["type"], told["name"], state], float(state == told["state"]))
    yield states


def _peers(peers: Rows) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "jsync_peer_state", "1 for the state that the peer is in", labels=["peer", "state"]
    )
    mismatches = GaugeMetricFamily(
        "jsync_peer_mismatch",
        "1 for the configuration field that differs from ours: nothing is exchanged meanwhile",
        labels=["peer", "field"],
    )
    for peer in peers:
        name = str(peer["node"])
        for state in PEER_STATES:
            states.add_metric([name, state], float(state == peer["state"]))
        if peer["mismatch"] is not None:
            mismatches.add_metric([name, peer["mismatch"]], 1)
    yield states
    yield mismatches
    yield _gauge("jsync_peer_ready", "1 if the peer may become MASTER", peers, lambda p: p["ready"])
    yield _gauge(
        "jsync_peer_silence_seconds",
        "Time since something was heard of the peer",
        peers,
        lambda p: p["heard_ms_ago"] / 1000,
    )
    yield _gauge(
        "jsync_peer_unacknowledged_updates",
        "Updates of this node that the peer has not acknowledged yet",
        peers,
        lambda p: p["unacknowledged"],
    )
    for name, help, key in (
        ("acknowledged_updates", "Updates of this node that the peer has", "acknowledged"),
        ("frames_received", "Frames accepted from this incarnation", "frames_received"),
        ("gaps", "Updates of the peer's that went missing, came they later or not", "gaps"),
    ):
        family = CounterMetricFamily(f"jsync_peer_{name}_total", help, labels=["peer"])
        for peer in peers:
            family.add_metric([str(peer["node"])], peer[key])
        yield family


def _gauge(name: str, help: str, peers: Rows, value: Callable[[Row], float]) -> Metric:
    family = GaugeMetricFamily(name, help, labels=["peer"])
    for peer in peers:
        family.add_metric([str(peer["node"])], float(value(peer)))
    return family


def _joolds(joolds: Rows) -> Iterator[Metric]:
    for name, help, key in (
        ("datagrams", "Datagrams heard of this joold", "datagrams"),
        ("sessions", "Sessions that this joold told and that were taken", "sessions"),
        ("refused_sessions", "Sessions of this joold that can't be, or collide", "refused"),
    ):
        family = CounterMetricFamily(f"jsync_joold_{name}_total", help, labels=["address"])
        for joold in joolds:
            family.add_metric([joold["address"]], joold[key])
        yield family


def _counters(rows: Rows) -> Iterator[Metric]:
    for row in rows:
        name = f"jsync_{row['name']}"
        if row["name"] in _GAUGES:
            yield GaugeMetricFamily(name, row["help"], value=row["value"])
        else:
            yield CounterMetricFamily(f"{name}_total", row["help"], value=row["value"])


class Metrics:
    """The page that a Prometheus server fetches."""

    def __init__(self, collector: Collector) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector)
        ProcessCollector(registry=self._registry)

    def page(self, accept: str) -> tuple[str, bytes]:
        """Content type and text, in the format that the Accept header `accept` prefers."""
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self._registry)
