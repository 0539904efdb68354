"""Real daemons in a lab of their own, and what session synchronisation costs there.

Usage: python benches/through.py throughput|bytes|first_packet (as root or where user namespaces are
open): prints a JSON object. Its last line on stderr says how long that took.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from pair import enter_lab

from jsync.lab.cluster import Cluster
from jsync.lab.network import MACHINES, N4, POOL4_PORTS, Network, enter

ROUNDS = 5
SECONDS = 3.0
CONNECTIONS = 4
PORT = 9000
NEW_SESSIONS = 2000
"""New sessions a second, where there are some beside the bulk."""
RATES = {"": 5000, "/1000_per_second": 1000}
"""New sessions a second of which the bytes are counted, and what is added to the name."""
FLOWS = 300
N4_IN_POOL6 = "64:ff9b::192.0.2.8"
PORTS = "10000-65535"
"""Of pool4: the lab's own would be used up soon. The hosts' own source ports are lower here."""
PRIVATE = {"J": "10.0.0.4", "K": "10.0.0.5"}

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

OPEN = """
import socket, sys, time
to, first, count, rate = sys.argv[1], *map(int, sys.argv[2:])
begin = time.monotonic()
for n in range(count):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
        one.bind(("", first + n))
        one.sendto(b"x", (to, 9))
    if n % 10 == 9:
        time.sleep(max(0, begin + (n + 1) / rate - time.monotonic()))
print(time.monotonic() - begin)
"""

ECHO = """
import socket, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind((sys.argv[1], 7))
print("ready", flush=True)
while True:
    one.sendto(*one.recvfrom(2048))
"""

ASK = """
import json, socket, sys, time
def ask(one):
    begin = time.perf_counter()
    one.send(b"x")
    one.recv(10)
    return time.perf_counter() - begin
times, lost = [], 0
while len(times) < int(sys.argv[2]):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
        one.settimeout(1)
        one.connect((sys.argv[1], 7))
        try:
            first = ask(one)
            times.append((first, min(ask(one) for _ in range(3))))
        except TimeoutError:
            lost += 1  # the addresses have just arrived
            if lost > 3:
                sys.exit("packets are lost")
    time.sleep(0.005)
print(json.dumps(times))
"""


@contextmanager
def running(network: Network, *, synchronised: bool, sync: str = "") -> Iterator[Cluster]:
    """J, which translates, and K. `sync` is what their section [sync] says of the way, or more."""
    cluster = Cluster(network, synchronised=synchronised)
    for name, address in PRIVATE.items():
        own_ports = "echo 1024 9999 > /proc/sys/net/ipv4/ip_local_port_range"
        network.run(name, "sh", "-c", own_ports)
        path = MACHINES[name].run / "jsync.toml"
        text = path.read_text().replace(POOL4_PORTS, PORTS)
        if "plaintext" in sync:
            text = "".join(line for line in text.splitlines(True) if "key-files" not in line)
        own = sync.format(listen=address, peers=list(PRIVATE.values()))
        path.write_text(text.replace('interface = "priv"', own or 'interface = "priv"'))
    for name in PRIVATE:
        cluster.start(name)
    try:
        cluster.wait_primary("J")
        cluster.wait_ready("K")
        yield cluster
    finally:
        for service in reversed(cluster.services()):
            service.stop()


@contextmanager
def program(network: Network, where: str, text: str, *arguments: object) -> Iterator[IO[str]]:
    """A Python program on a machine, which ends with the block; yields what it prints."""
    argv = [sys.executable, "-c", text, *map(str, arguments)]
    with subprocess.Popen(
        enter(network.holders[where], *argv), stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        try:
            yield running.stdout
        finally:
            running.kill()


def bytes_through(network: Network, port: int) -> int:
    """What arrives at n4 in the time of a round."""
    with program(network, "n4", SINK, N4, port, CONNECTIONS, SECONDS) as sink:
        sink.readline()
        with program(network, "n6", SOURCE, N4_IN_POOL6, port, CONNECTIONS):
            return int(sink.readline())


def throughput(network: Network) -> dict[str, float]:
    """Bytes a second, alternating so that the machine's other users bother both alike."""
    found: dict[str, list[int]] = {name: [] for name in ("on", "off", "new_on", "new_off")}
    rounds = [on for n in range(ROUNDS) for on in ((True, False) if n % 2 else (False, True))]
    for n, on in enumerate(rounds):
        with running(network, synchronised=on) as cluster:
            which = "on" if on else "off"
            found[which].append(bytes_through(network, PORT + 2 * n))
            with program(network, "n6", OPEN, N4_IN_POOL6, 1024, 30_000, NEW_SESSIONS):
                found[f"new_{which}"].append(bytes_through(network, PORT + 2 * n + 1))
            least = int(NEW_SESSIONS * SECONDS * 0.8)
            sessions = cluster.sessions()
            if min(sessions["J"], sessions["K"] if on else least) < least:
                sys.exit(f"too few sessions: {sessions}")
    return {name: statistics.median(values) / SECONDS for name, values in found.items()}


def bytes_per_session(network: Network) -> dict[str, float]:
    """Everything on the private network, TCP's and lower headers included, for a new session."""
    tcp = 'transport = "tcp"\nlisten = "{listen}"\npeers = {peers}\nplaintext = true'
    found = {}
    with running(network, synchronised=True, sync=tcp) as cluster:
        for name in PRIVATE:
            # Else a packet of many segments counts as one, with one header.
            done = network.run(name, "ip", "link", "set", "dev", "priv", "gso_max_segs", "1")
            if done.returncode:
                sys.exit(f"ip link set: {done.stderr}")
        first = 1024
        for name, rate in RATES.items():
            count = rate * 4
            before, told = private_bytes(network), cluster.sessions()["K"]
            with program(network, "n6", OPEN, N4_IN_POOL6, first, count, rate) as opener:
                opener.readline()
            wait_for_sessions(cluster, told + count)
            found[name] = (private_bytes(network) - before) / count
            first += count
    return found


def wait_for_sessions(cluster: Cluster, count: int) -> None:
    """Wait until K has so many."""
    until = time.monotonic() + 10
    while (sessions := cluster.sessions())["K"] != count:
        if time.monotonic() > until:
            sys.exit(f"not all arrived: {sessions}, not {count}")
        time.sleep(0.01)


def private_bytes(network: Network) -> int:
    """Bytes that J has sent and heard on the private network."""
    told = network.run("J", "ip", "-json", "-stats", "link", "show", "dev", "priv")
    stats = json.loads(told.stdout)[0]["stats64"]
    return int(stats["rx"]["bytes"]) + int(stats["tx"]["bytes"])


def first_packet(network: Network) -> dict[str, float]:
    """Seconds that a flow's first packet takes longer than the next, and what those take."""
    found = {}
    with program(network, "n4", ECHO, N4) as echo:
        echo.readline()
        for durability in ("alone", "async", "sent", "acked"):
            sync = f'interface = "priv"\ndurability = "{durability}"'
            on = durability != "alone"
            with running(network, synchronised=on, sync=sync if on else ""):
                done = network.run("n6", sys.executable, "-c", ASK, N4_IN_POOL6, str(FLOWS))
                if done.returncode:
                    sys.exit(f"{durability}: {done.stderr}")
            times = json.loads(done.stdout)
            found[durability] = statistics.median(first - later for first, later in times)
            found[f"{durability}/later"] = statistics.median(later for _, later in times)
    return found


def main(kind: str) -> None:
    """Measure, and tell run.py."""
    enter_lab()
    begin = time.monotonic()
    network = Network()
    network.build()
    kinds = {"throughput": throughput, "bytes": bytes_per_session, "first_packet": first_packet}
    print(json.dumps(kinds[kind](network)))
    print(f"{kind}: {time.monotonic() - begin:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1])
