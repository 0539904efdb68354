"""Bulk TCP through a node's TUN, with session synchronisation and without.

Usage: python benches/through.py (as root or where user namespaces are open): prints a JSON object.
"""

import json
import subprocess
import sys
import time

from jsync.lab import isolation
from jsync.lab.cluster import Cluster
from jsync.lab.network import N4, Network, enter

ROUNDS = 4
SECONDS = 3.0
CONNECTIONS = 4
PORT = 9000
N4_IN_POOL6 = "64:ff9b::192.0.2.8"
NOT_HERE = 4
"""Exit status where there can be no network to measure in."""

SINK = """
import selectors, socket, sys, time
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
wanted, until, total = int(sys.argv[3]), None, 0
selector, buffer = selectors.DefaultSelector(), bytearray(1 << 20)
for _ in range(wanted):
    selector.register(listener.accept()[0], selectors.EVENT_READ)
time.sleep(0.3)
until = time.monotonic() + float(sys.argv[4])
while time.monotonic() < until:
    for key, _ in selector.select(0.1):
        total += key.fileobj.recv_into(buffer)
print(total, flush=True)
"""

SOURCE = """
import socket, sys, threading
def run():
    with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as sender:
        block = bytes(1 << 20)
        try:
            while True:
                sender.sendall(block)
        except OSError:
            pass
for _ in range(int(sys.argv[3])):
    threading.Thread(target=run).start()
"""


def bytes_through(network: Network, port: int) -> int:
    """What arrives at n4 in the time of a round."""
    arguments = [str(port), str(CONNECTIONS)]
    argv = [sys.executable, "-c", SINK, N4, *arguments, str(SECONDS)]
    with subprocess.Popen(
        enter(network.holders["n4"], *argv), stdout=subprocess.PIPE, text=True
    ) as sink:
        assert sink.stdout is not None
        sink.stdout.readline()
        argv = [sys.executable, "-c", SOURCE, N4_IN_POOL6, *arguments]
        with subprocess.Popen(enter(network.holders["n6"], *argv)) as source:
            total = int(sink.stdout.readline())
            source.kill()
    return total


def measure() -> dict[str, float]:
    """Bytes a second, alternating so that the machine's other users bother both alike."""
    network = Network()
    network.build()
    total = {True: 0, False: 0}
    rounds = [on for n in range(ROUNDS) for on in ((True, False) if n % 2 else (False, True))]
    for n, on in enumerate(rounds):
        cluster = Cluster(network, synchronised=on)
        for name in ("J", "K"):
            cluster.start(name)
        cluster.wait_primary("J")
        total[on] += bytes_through(network, PORT + n)
        for service in reversed(cluster.services()):
            service.stop()
    seconds = ROUNDS * SECONDS
    return {"on": total[True] / seconds, "off": total[False] / seconds}


if __name__ == "__main__":
    try:
        isolation.require_programs()
        isolation.enter()
    except isolation.LabUnavailable as error:
        print(error, file=sys.stderr)
        sys.exit(NOT_HERE)
    begin = time.monotonic()
    print(json.dumps(measure()))
    print(f"{time.monotonic() - begin:.0f} s", file=sys.stderr)
