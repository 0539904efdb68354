"""A flood on the private network: what it costs, and what it doesn't do."""

import json
import os
import signal
import struct
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from hosts import Host, Network, network, wait_until
from test_daemon import cluster, member, peer_states, running

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")

SECONDS = 3.0
FLOOD = """
import socket, sys, time
address, port, interface, payload = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
sender.connect((address, port))
payload, sent, until = bytes.fromhex(payload), 0, time.monotonic() + float(sys.argv[5])
while time.monotonic() < until:
    for _ in range(100):
        try:
            sender.send(payload)
            sent += 1
        except OSError:
            pass
print(sent)
"""


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Network]:
    with network(tmp_path) as made:
        yield made


def frame(kind: int, node: int, body: bytes) -> bytes:
    """A frame as docs/ss-protocol.md has it, sealed with a key that nobody has."""
    length = 36 + len(body) + 16
    return (
        b"jsyn\x01" + bytes([kind, 0, 0]) + sha256(b"campus").digest()[:4]
        + struct.pack(">HHQQHH", node, 0, 7, 1, 1, length)
        + body + bytes(16)
    )  # fmt: skip


GARBAGE = {
    "noise": bytes(range(256)) * 5,
    "a wrong key": frame(3, 2, bytes(1300)),
    "a node of no cluster": frame(1, 77, bytes(100)),
}


def cpu_seconds(host: Host) -> float:
    """What the daemon on a host has used."""
    pid = host.sh("pgrep -o -f 'jsync daemon' --ns $$ --nslist net").strip()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("transport", ["multicast 4", "unicast 4"])
@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_flood_of_garbage_costs_bounded_time_and_no_peer(
    net: Network, garbage: str, transport: str, capsys: pytest.CaptureFixture[str]
) -> None:
    j, k = cluster(net)
    daemon = running(j, member(j, 1, transport))
    running(k, member(k, 2, transport))
    wait_until(lambda: peer_states(j) == [(2, "up")] and peer_states(k) == [(1, "up")])
    target = "239.64.64.64" if transport.startswith("multicast") else "10.0.0.1"
    before = cpu_seconds(j)
    argv = [sys.executable, "-c", FLOOD, target, "6464", "priv", GARBAGE[garbage].hex()]
    sent = int(k.run(*argv, str(SECONDS)).stdout)
    share = (cpu_seconds(j) - before) / SECONDS
    stats = json.loads(j.jsync("instance", "status", "--json").stdout)["network"]
    with capsys.disabled():
        print(
            f"\n{transport}, {garbage}: {sent / SECONDS:,.0f} datagrams/s, {share:.0%} of a CPU,"
            f" {stats['frames_refused']} refused by the daemon"
        )
    assert sent > 1000
    if garbage == "noise":
        assert stats["frames_refused"] == 0
        assert share < 0.25
    else:
        assert stats["frames_refused"] > 0
        assert "refused" in daemon.log
    # The lines that strangers can cause have a bounded rate.
    assert daemon.log.count("refused") <= 3
    wait_until(lambda: peer_states(j) == [(2, "up")] and peer_states(k) == [(1, "up")])
    assert j.jsync("check").returncode == 0
    assert daemon.end(signal.SIGTERM) == 0
