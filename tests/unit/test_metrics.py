import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

from jsync._core import Node
from jsync.jool import counters
from jsync.metrics import Metrics, NodeCollector

NAT64 = json.dumps({"pool4": [{"prefix": "192.0.2.1"}]}).encode()
STATUS: dict[str, Any] = {
    "name": 'J "one"\n',
    "node": 1,
    "cluster": "campus",
    "backend": "native",
    "pool6": "64:ff9b::/96",
    "role": "primary",
    "keepalived": [{"type": "INSTANCE", "name": "VI_6", "state": "MASTER", "priority": 200}],
    "ready": True,
    "worker": "running",
    "sessions": 81,
    "max_sessions": 4_000_000,
    "bib_entries": 80,
    "table_bytes": 108_000_000,
    "joolds": [
        {"address": "198.18.64.2", "format": "4.1.9", "heard_ms_ago": 5, "datagrams": 7}
        | {"sessions": 70, "refused": 1}
    ],
}
PEER = {
    "epoch": 7,
    "ready": True,
    "heard_ms_ago": 120,
    "frames_received": 9,
    "gaps": 2,
    "acknowledged": 40,
    "unacknowledged": 3,
}
PEERS = [
    {"node": 2, "state": "up", "mismatch": None, **PEER},
    {"node": 3, "state": "differs", "mismatch": "pool4", **PEER},
]


def metrics(status: dict[str, Any], rows: list[dict[str, Any]]) -> Metrics:
    return Metrics(NodeCollector(lambda _: status, lambda _: PEERS, lambda _: rows))


def engine_rows() -> list[dict[str, Any]]:
    node = Node(NAT64, None, keys=[], secret=bytes(32))
    return [{"name": n, "help": h, "value": v + 1} for n, h, v in node.stats()]


def families(page: bytes) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    for family in parse(page.decode()):
        assert family.name not in found
        assert family.documentation
        assert family.type in {"counter", "gauge"}
        found[family.name] = family
    return found


def sample(families: dict[str, Metric], name: str, **labels: str) -> float:
    (value,) = [
        s.value
        for family in families.values()
        for s in family.samples
        if s.name == name and s.labels == labels
    ]
    return value


@pytest.fixture
def page() -> dict[str, Metric]:
    content_type, text = metrics(STATUS, engine_rows()).page("")
    assert content_type.startswith("text/plain; version=")
    return families(text)


def test_every_counter_of_the_engine_is_there_with_its_help(page: dict[str, Metric]) -> None:
    rows = engine_rows()
    assert len(rows) > 50
    for row in rows:
        name = f"jsync_{row['name']}"
        assert page[name].type == "counter"
        assert page[name].documentation == row["help"]
        assert sample(page, f"{name}_total") == row["value"]


def test_the_state_of_the_node(page: dict[str, Metric]) -> None:
    assert sample(page, "jsync_ready") == 1
    assert sample(page, "jsync_primary") == 1
    assert sample(page, "jsync_sessions") == 81
    assert sample(page, "jsync_max_sessions") == 4_000_000
    assert sample(page, "jsync_table_bytes") == 108_000_000
    assert sample(page, "process_resident_memory_bytes") > 1_000_000
    (info,) = page["jsync_node_info"].samples
    assert info.labels["name"] == 'J "one"\n'
    states = {
        s.labels["state"]: s.value
        for s in page["jsync_keepalived_state"].samples
        if s.labels["name"] == "VI_6"
    }
    assert states == {"MASTER": 1, "BACKUP": 0, "FAULT": 0, "STOP": 0}


def test_the_state_of_the_peers(page: dict[str, Metric]) -> None:
    assert sample(page, "jsync_peer_state", peer="2", state="up") == 1
    assert sample(page, "jsync_peer_state", peer="3", state="up") == 0
    assert sample(page, "jsync_peer_state", peer="3", state="differs") == 1
    (mismatch,) = page["jsync_peer_mismatch"].samples
    assert mismatch.labels == {"peer": "3", "field": "pool4"}
    assert sample(page, "jsync_peer_silence_seconds", peer="2") == 0.12
    assert sample(page, "jsync_peer_unacknowledged_updates", peer="2") == 3
    assert sample(page, "jsync_peer_acknowledged_updates_total", peer="2") == 40
    assert sample(page, "jsync_peer_gaps_total", peer="2") == 2
    assert sample(page, "jsync_joold_refused_sessions_total", address="198.18.64.2") == 1


def test_a_node_that_stands_alone_has_no_peers_and_may_not_know_all() -> None:
    status = {**STATUS, "cluster": None, "node": None, "joolds": [], "keepalived": []}
    status |= {"role": "backup", "ready": False, "pool6": None}
    found = families(metrics(status, []).page("")[1])
    assert not [name for name in found if name.startswith(("jsync_peer", "jsync_joold"))]
    assert sample(found, "jsync_ready") == 0
    assert sample(found, "jsync_primary") == 0


def test_what_the_kernel_module_counts_of_what_is_there_may_fall() -> None:
    rows = [
        {"name": name, "help": "The module's", "value": 5}
        for name in ("jstat_sessions", "jstat_bib_entries", "jstat_64_ttl")
    ]
    found = families(metrics(STATUS, rows).page("")[1])
    assert found["jsync_jstat_sessions"].type == "gauge"
    assert found["jsync_jstat_bib_entries"].type == "gauge"
    assert sample(found, "jsync_jstat_64_ttl_total") == 5


def test_every_counter_of_joolds_stands_in_the_documents() -> None:
    page = (Path(__file__).parents[2] / "docs/joold.md").read_text()
    names = [name for name in counters.names(0x0401_0C00) if name.startswith("JOOLD_")]
    rows = [
        {"name": name, "help": help, "value": 7}
        for name, help, _ in counters.rows(0x0401_0C00, dict.fromkeys(range(256), 7))
    ]
    found = families(metrics(STATUS, rows).page("")[1])
    assert len(names) == 15
    for name in names:
        metric = f"jsync_jstat_{name.lower()}"
        assert sample(found, f"{metric}_total") == 7
        assert f"| `JSTAT_{name}` | `{metric}_total` | " in page


def test_names_follow_the_conventions(page: dict[str, Metric]) -> None:
    for name, family in page.items():
        assert re.fullmatch(r"(jsync|process)_[a-z0-9_]+", name)
        assert not re.search(r"_(ms|us|kb|mb)$|_milliseconds", name)
        for s in family.samples:
            assert s.name.endswith("_total") == (family.type == "counter")


def test_speaks_openmetrics_to_those_who_ask_for_it() -> None:
    content_type, text = metrics(STATUS, engine_rows()).page(
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    )
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
    assert len(list(parse_open(text.decode()))) > 50  # type: ignore[no-untyped-call]
