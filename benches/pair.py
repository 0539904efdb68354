"""Two nodes in processes of their own, connected by TCP: how long a table takes to the other one.

Usage: python benches/pair.py flowing N (as root or where user namespaces are open): prints as JSON
what a transfer of N sessions took while packets went through both nodes, and what became of those.
`serve`, `join`, `probe` and `sink` are the processes that this and `measure` start.
"""

import json
import os
import secrets
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import StringIO
from typing import IO, NamedTuple

import trio

from jsync._core import Node
from jsync.keys import node_secret
from jsync.lab import isolation
from jsync.log import Log
from jsync.transport.tcp import FRAME_BYTES, READ_BYTES, TcpTransport

KEY = bytes(range(32))
CLUSTER = "bench"
POOL4 = "198.18.0.0/17"
PORTS = 1024, 65535
PER_ADDRESS = PORTS[1] - PORTS[0] + 1
SERVER = bytes([203, 0, 113, 1])
PORT = 46464
ADDRESSES = {1: "127.0.0.1", 2: "127.0.0.2", 3: "127.0.0.3"}
BATCH = 36
"""Sessions in a datagram of joold's."""
UDP_ESTABLISHED = 1 << 5
HOUR_MS = 3_600_000
PATIENCE = 300.0
PROBE6 = "fd00::1"
PROBED = {1: "203.0.113.11", 2: "203.0.113.12"}
"""Where the packets go that pass a node's TUN: local addresses, so that they come back here."""
PROBE_PORT = 9
PROBE_PAUSE = 0.0002
SPINNERS = 2
NOT_HERE = 4
"""Exit status where there can be no network of one's own."""


def make_node(number: int, sessions: int, *, joold: bool = False) -> Node:
    """A node as the daemon makes it, without a device."""
    nat64 = {
        "pool4": [{"prefix": POOL4, "ports": f"{PORTS[0]}-{PORTS[1]}"}],
        "max-sessions": sessions + 1000,
        "global": {"udp-timeout": HOUR_MS},
    }
    sync = {
        "node": number,
        "cluster": CLUSTER,
        "epoch": secrets.randbits(63) + 1,
        "max-frame": FRAME_BYTES,
        "join-timeout": 100 if number == 3 else 60_000 if number == 2 else 2000,
    }
    return Node(
        json.dumps(nat64).encode(),
        json.dumps(sync).encode(),
        keys=[KEY],
        secret=node_secret([KEY], CLUSTER),
        joold=b'{"format": "4.1.13", "join-timeout": 0}' if joold else None,
    )


def datagrams(sessions: int) -> Iterator[bytes]:
    """UDP flows, each of an IPv6 node of its own, as a joold tells of them."""
    record = struct.Struct("=HH16s4s4s12s")
    base = int.from_bytes(bytes([198, 18, 0, 0]), "big")
    numbers = struct.Struct(">IHHHH")
    for first in range(0, sessions, BATCH):
        yield b"".join(
            record.pack(
                4 + 36,
                1,
                b"\x20\x01\x0d\xb8" + struct.pack(">QI", n * 0x9E3779B97F4A7C15 & (1 << 64) - 1, n),
                struct.pack(">I", base + n // PER_ADDRESS),
                SERVER,
                numbers.pack(
                    HOUR_MS,
                    1024 + n % 60_000,
                    PORTS[0] + n % PER_ADDRESS,
                    443,
                    UDP_ESTABLISHED,
                ),
            )
            for n in range(first, min(first + BATCH, sessions))
        )


def fill(node: Node, sessions: int) -> None:
    """Put sessions into a node: a third one, which a joold tells of them, passes them on."""
    feeder = make_node(3, sessions, joold=True)
    for datagram in datagrams(sessions):
        feeder.receive_datagrams([("192.0.2.1", datagram)])
    exchange(node, feeder, lambda: node.status()["sessions"] == sessions and node.status()["ready"])
    feeder.leave()
    exchange(node, feeder, lambda: not feeder.take_frames())


def exchange(one: Node, other: Node, done: Callable[[], object]) -> None:
    """Carry frames between two nodes of this process."""
    until = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > until:
            sys.exit(f"not filled: {one.status()} {one.peers()} {other.status()} {other.peers()}")
        moved = False
        for sender, receiver in ((one, other), (other, one)):
            while frames := sender.take_frames():
                receiver.receive_frames([frame for _, frame in frames])
                moved = True
            sender.take_events()
        if not moved:
            time.sleep(0.001)


async def run_node(node: Node, number: int, until: Callable[[], object]) -> TcpTransport:
    """Live as the daemon does, until something is so."""
    log = StringIO()
    transport = TcpTransport(
        node,
        Log(stream=log),
        listen=ADDRESSES[number],
        port=PORT,
        peers=[ADDRESSES[1], ADDRESSES[2]],
    )

    async def drain() -> None:
        while True:
            await trio.lowlevel.wait_readable(node.fileno())
            while frames := node.take_frames():
                for to, frame in frames:
                    await transport.send(to, frame)
                await transport.room()
            node.take_events()

    with trio.move_on_after(PATIENCE) as patience:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.run)
            nursery.start_soon(drain)
            while not until():
                await trio.sleep(0.002)
            nursery.cancel_scope.cancel()
    if patience.cancelled_caught:
        sys.exit(f"not done in time: {node.status()} {node.peers()}\n{log.getvalue()}")
    return transport


def serve(sessions: int) -> None:
    """Be the node that has the sessions, until somebody closes stdin."""
    node = make_node(1, sessions)
    fill(node, sessions)
    attach(node, 1)
    filled = node.status()["longest_pause_us"]
    say()
    closed = trio.Event()

    async def main() -> None:
        async def wait() -> None:
            await trio.lowlevel.wait_readable(sys.stdin.fileno())
            closed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await run_node(node, 1, closed.is_set)

    trio.run(main)
    # A pause that is no longer than one of filling may be that one.
    pause = node.status()["longest_pause_us"]
    say(pause=pause if pause > filled else 0)
    say(digest=digest(node))


def join(sessions: int) -> None:
    """Be the node that comes, empty; tell how long it took from the first connection."""
    node = make_node(2, sessions)
    attach(node, 2)
    say()
    sys.stdin.readline()
    met = 0.0

    def whole() -> bool:
        nonlocal met
        if not met and node.peers():
            met = time.monotonic()
        status = node.status()
        return status["ready"] and status["sessions"] >= sessions

    transport = trio.run(run_node, node, 2, whole)
    seconds = time.monotonic() - met
    pause = node.status()["longest_pause_us"]
    say(seconds=seconds, pause=pause, bytes=transport.stats.bytes_received)
    say(digest=digest(node))


def attach(node: Node, number: int) -> None:
    """Have packets go through the node, if this network is one for that."""
    if PROBED[number] not in ip("-4 -o addr show dev lo"):
        return
    node.attach(f"bench{number}", persistent=False)
    ip(f"link set bench{number} up")
    ip(f"-6 route add 64:ff9b::{PROBED[number]} dev bench{number} src {PROBE6}")


def ip(command: str) -> str:
    """Run iproute2's ip."""
    return subprocess.run(
        ["ip", *command.split()], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def probe(_: int) -> None:
    """Send packets through both nodes, one after the other; tell at each line of stdin of their
    latencies since the last one.
    """
    sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sender.bind((PROBE6, 0))
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("", PROBE_PORT))
    receiver.settimeout(2.0)
    number, latencies, lost = 0, list[float](), 0
    while True:
        for to in PROBED.values():
            number += 1
            begin = time.monotonic()
            sender.sendto(number.to_bytes(8, "big"), (f"64:ff9b::{to}", PROBE_PORT))
            try:
                while int.from_bytes(receiver.recv(64), "big") != number:
                    pass
            except TimeoutError:
                lost += 1
            latencies.append(time.monotonic() - begin)
        time.sleep(PROBE_PAUSE)
        if select.select([sys.stdin], [], [], 0)[0]:
            if not sys.stdin.readline():
                return
            latencies.sort()
            longest, late = latencies[-1] * 1000, latencies[len(latencies) * 999 // 1000] * 1000
            say(packets=len(latencies), lost=lost, longest=longest, late=late)
            latencies, lost = [], 0


def spin(seconds: int) -> None:
    """Use a CPU; tell the longest time on it that passed between two looks at its clock, in ms:
    what the machine's owner takes counts as the program's.
    """
    until, longest = time.monotonic() + seconds, 0.0
    before = time.thread_time()
    while time.monotonic() < until:
        now = time.thread_time()
        before, longest = now, max(longest, now - before)
    say(longest=longest * 1000)


def digest(node: Node) -> int:
    """The same for equal tables, in whatever order they hold their sessions."""
    total, cursor = 0, 0
    while True:
        rows, following = node.sessions(None, cursor, 1000)
        for row in rows:
            if row["src6"] != PROBE6:
                ends = row["src6"], row["src6_port"], row["src4"], row["src4_port"]
                total += hash((ends, row["dst4"], row["dst4_port"], row["state"]))
        if following is None:
            return total & (1 << 64) - 1
        cursor = following


def say(**values: object) -> None:
    """Tell run.py."""
    print(json.dumps(values), flush=True)


def move(size: int) -> float:
    """Seconds that loopback TCP takes for so many bytes between two trio processes."""
    command = [sys.executable, __file__, "sink", str(size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        told = _line(receiver.stdout)

        async def main() -> float:
            stream = await trio.open_tcp_stream("127.0.0.1", int(told["port"]))
            block = memoryview(bytes(FRAME_BYTES))
            begin = time.monotonic()
            async with stream:
                for sent in range(0, size, FRAME_BYTES):
                    await stream.send_all(block[: size - sent])
                await stream.receive_some(1)
            return time.monotonic() - begin

        return trio.run(main)


def sink(size: int) -> None:
    """The receiving end of `move`."""

    async def main() -> None:
        listener = trio.socket.socket()
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        say(port=listener.getsockname()[1])
        accepted, _ = await listener.accept()
        stream = trio.SocketStream(accepted)
        left = size
        while left:
            left -= len(await stream.receive_some(READ_BYTES))
        await stream.send_all(b"!")
        listener.close()

    trio.run(main)


def _line(out: IO[str] | None) -> dict[str, float]:
    assert out is not None
    text = out.readline()
    if not text:
        sys.exit("a node of the bench has ended")
    values: dict[str, float] = json.loads(text)
    return values


class Run(NamedTuple):
    """What a transfer took."""

    seconds: float
    """From the first frame heard to equal tables."""
    loopback: float
    """For as many bytes, and nothing else."""
    pause_ms: float
    """The longest that either end kept packets waiting, on a CPU."""


class Process:
    """One of the processes of a measurement."""

    def __init__(self, stack: ExitStack, kind: str, number: int) -> None:
        command = [sys.executable, __file__, kind, str(number)]
        pipe = subprocess.PIPE
        # Every process has the same hashes, for `digest`.
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        self.popen = stack.enter_context(
            subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        )
        stack.callback(self.popen.kill)

    def hear(self) -> dict[str, float]:
        """What it says next."""
        return _line(self.popen.stdout)

    def tell(self) -> None:
        """Have it go on."""
        assert self.popen.stdin is not None
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()

    def end(self) -> None:
        """Have it end."""
        assert self.popen.stdin is not None
        self.popen.stdin.close()


def finish(server: Process, joiner: Process, joined: dict[str, float]) -> Run:
    """What a transfer took, if the tables are equal."""
    server.end()
    served = server.hear()
    if joiner.hear() != server.hear():
        sys.exit("the tables differ")
    loopback = move(int(joined["bytes"]))
    return Run(joined["seconds"], loopback, max(joined["pause"], served["pause"]) / 1000)


def measure(sessions: int) -> Run:
    """A transfer, and nothing else meanwhile."""
    with ExitStack() as stack:
        server = Process(stack, "serve", sessions)
        server.hear()
        joiner = Process(stack, "join", sessions)
        joiner.hear()
        joiner.tell()
        return finish(server, joiner, joiner.hear())


def enter_lab() -> None:
    """Be where namespaces can be made, or tell run.py that there is no such place."""
    try:
        isolation.require_programs()
        isolation.enter()
    except isolation.LabUnavailable as error:
        print(error, file=sys.stderr)
        sys.exit(NOT_HERE)


def flowing(sessions: int) -> None:
    """A transfer while packets go through both nodes; before it, as long a time in which programs
    that have nothing to do with it use the CPUs.
    """
    enter_lab()
    ip("link set lo up")
    ip(f"addr add {PROBE6}/128 dev lo")
    for address in PROBED.values():
        ip(f"addr add {address}/32 dev lo")
    with ExitStack() as stack:
        server = Process(stack, "serve", sessions)
        server.hear()
        joiner = Process(stack, "join", sessions)
        joiner.hear()
        prober = Process(stack, "probe", 0)
        time.sleep(1.0)
        prober.tell()
        prober.hear()
        spinners = [Process(stack, "spin", 5) for _ in range(SPINNERS)]
        idle_pause = max(spinner.hear()["longest"] for spinner in spinners)
        prober.tell()
        control = prober.hear()
        joiner.tell()
        joined = joiner.hear()
        prober.tell()
        meanwhile = prober.hear()
        prober.end()
        run = finish(server, joiner, joined)
    if control["lost"] or meanwhile["lost"]:
        sys.exit(f"packets were lost: {control} {meanwhile}")
    phases = {"control": control, "meanwhile": meanwhile}
    told = {
        f"{name}_{key}": value for name, values in phases.items() for key, value in values.items()
    }
    say(**run._asdict(), idle_pause_ms=idle_pause, **told)


if __name__ == "__main__":
    main = {"serve": serve, "join": join, "sink": sink, "probe": probe, "spin": spin}
    (main | {"flowing": flowing})[sys.argv[1]](int(sys.argv[2]))
