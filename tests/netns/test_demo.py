"""The first failover, whole: `jsync demo` on the lab."""

import json
import signal
import subprocess
import time

from labs import JSYNC, jsync, needs_lab, traces

EVERY_TCP = 64
EVERY_UDP = 16


@needs_lab
def test_connections_survive_their_nat64_only_with_synchronisation() -> None:
    before = traces()
    done = jsync("demo", "--json", timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert traces() <= before
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["simulated"] is False
    assert report["violations"] == []
    without, synced = report["without_sync"], report["with_sync"]
    assert (without["tcp_total"], without["tcp_survived"]) == (60, 0)
    assert (without["static_total"], without["static_survived"]) == (4, 4)
    assert (synced["tcp_total"], synced["tcp_survived"]) == (EVERY_TCP, EVERY_TCP)
    assert (synced["udp_total"], synced["udp_survived"]) == (EVERY_UDP, EVERY_UDP)
    assert [step["name"] for step in synced["steps"]] == [
        "J's daemon is killed",
        "J's daemon returns",
        "J's links go down",
        "J comes back",
        "J dies again",
        "K dies too",
    ]
    for step in synced["steps"]:
        assert step["tcp_survived"] == EVERY_TCP, step
        # Every node that runs has every flow's session.
        assert min(step["sessions"].values()) > EVERY_TCP + EVERY_UDP, step
    assert list(synced["steps"][-1]["sessions"]) == ["L"]


@needs_lab
def test_leaves_nothing_when_it_is_interrupted() -> None:
    before = traces()
    with subprocess.Popen(
        [JSYNC, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "J is MASTER" in line:
                break
        time.sleep(0.5)
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=20)
    assert demo.returncode == 130
    assert traces() <= before


def test_simulated_where_the_lab_cannot_be_had() -> None:
    done = jsync("demo", "--json", environment={"PATH": "/nonexistent"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The lab can't be built" in done.stdout
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["simulated"] is True
    assert report["without_sync"]["tcp_survived"] == 0
    assert report["with_sync"]["tcp_survived"] == report["with_sync"]["tcp_total"] == EVERY_TCP
