"""Real packets through a node on a real TUN device: n6 -- nat -- n4, each in its namespace."""

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import pytest

from jsync._core import DeviceError, Node


def missing() -> str | None:
    if os.geteuid() != 0:
        return "namespaces and TUN devices need root"
    if not os.path.exists("/dev/net/tun"):
        return "/dev/net/tun is missing (modprobe tun)"
    for program in ("ip", "ping"):
        if shutil.which(program) is None:
            return f"the program {program} is missing"
    return None


T = TypeVar("T")
REASON = missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

DEVICE = "jsync0"
SERVER4 = "192.0.2.16"
SERVER4_IN_6 = "64:ff9b::c000:210"
HOST6 = "2001:db8::8"
POOL4 = "198.51.100.1"
NAT64 = {
    "pool4": [{"prefix": POOL4}],
    "bib": [
        {"protocol": protocol, "ipv6": f"{HOST6}#8001", "ipv4": f"{POOL4}#8001"}
        for protocol in ("tcp", "udp")
    ],
    "max-sessions": 10_000,
}
UDP_SEGMENT = 103
SOL_UDP = 17
CLONE_NEWNET = 0x40000000


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def make_node(sync: dict[str, object] | None = None) -> Node:
    secret = bytes(range(32))
    as_json = json.dumps(sync).encode() if sync else None
    return Node(json.dumps(NAT64).encode(), as_json, keys=[secret] if sync else [], secret=secret)


def eventually(condition: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@dataclass(frozen=True)
class Net:
    """The three namespaces."""

    prefix: str

    def name(self, host: str) -> str:
        return f"{self.prefix}-{host}"

    def ip(self, host: str, command: str) -> None:
        run("ip", "-n", self.name(host), *command.split())

    def exec(self, host: str, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.name(host), *command]

    def inside(self, host: str, function: Callable[[], T]) -> T:
        """Call `function` in a thread of that namespace: sockets and devices stay there."""
        libc = ctypes.CDLL(None, use_errno=True)

        def enter() -> T:
            with open(f"/run/netns/{self.name(host)}") as namespace:
                if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            return function()

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(enter).result()

    def socket(self, host: str, kind: socket.SocketKind) -> socket.socket:
        family = socket.AF_INET6 if host == "n6" else socket.AF_INET
        made = self.inside(host, lambda: socket.socket(family, kind))
        made.settimeout(10)
        return made

    def attach(self, node: Node, *, persistent: bool = False) -> None:
        self.inside("nat", lambda: node.attach(DEVICE, persistent=persistent))
        self.ip("nat", f"link set {DEVICE} up")
        self.ip("nat", f"route add 64:ff9b::/96 dev {DEVICE}")
        self.ip("nat", f"route add {POOL4} dev {DEVICE}")

    def has_device(self) -> bool:
        command = ["ip", "-n", self.name("nat"), "link", "show", DEVICE]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.fixture
def net() -> Iterator[Net]:
    net = Net(f"jstun{os.getpid()}")
    hosts = ("n6", "nat", "n4")
    try:
        for host in hosts:
            run("ip", "netns", "add", net.name(host))
            # No duplicate address detection, which would delay the first packet.
            for sysctl in (
                "net.ipv6.conf.default.accept_dad=0",
                "net.ipv4.conf.all.rp_filter=0",
                "net.ipv4.conf.default.rp_filter=0",
                "net.ipv4.ip_forward=1",
                "net.ipv6.conf.all.forwarding=1",
            ):
                run(*net.exec(host, "sysctl", "-qw", sysctl))
            net.ip(host, "link set lo up")
        for host, link, peer in (("n6", "eth6", "to6"), ("n4", "eth4", "to4")):
            net.ip(host, f"link add {link} type veth peer name {peer} netns {net.name('nat')}")
            net.ip(host, f"link set {link} up")
            net.ip("nat", f"link set {peer} up")
        net.ip("n6", f"addr add {HOST6}/64 dev eth6 nodad")
        net.ip("nat", "addr add 2001:db8::1/64 dev to6 nodad")
        net.ip("n6", "route add default via 2001:db8::1")
        net.ip("n4", f"addr add {SERVER4}/24 dev eth4")
        net.ip("nat", "addr add 192.0.2.1/24 dev to4")
        net.ip("n4", "route add default via 192.0.2.1")
        yield net
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "del", net.name(host)], check=False, capture_output=True)


@pytest.fixture
def node(net: Net) -> Iterator[Node]:
    node = make_node()
    net.attach(node)
    yield node
    assert node.status()["worker"] == "running"
    node.detach()
    assert node.status()["worker"] == "stopped"
    assert not net.has_device()


def counters(node: Node) -> dict[str, int]:
    return {name: value for name, _, value in node.stats()}


@pytest.mark.parametrize("size", [0, 56, 1400])
def test_ping(net: Net, node: Node, size: int) -> None:
    ping = ["ping", "-c", "5", "-i", "0.01", "-W", "5", "-s", str(size), SERVER4_IN_6]
    done = subprocess.run(
        net.exec("n6", *ping), check=False, capture_output=True, text=True, timeout=60
    )
    assert " 0% packet loss" in done.stdout, done.stdout + done.stderr
    sessions, _ = node.sessions("icmp", 0, 10)
    assert [(s["src6"], s["dst4"], s["dst6"]) for s in sessions] == [(HOST6, SERVER4, SERVER4_IN_6)]


def test_the_node_sends_errors_of_its_own(net: Net, node: Node) -> None:
    # The host forwards with hop limit 1, the node may not.
    ping = ["ping", "-c", "1", "-W", "5", "-t", "2", SERVER4_IN_6]
    done = subprocess.run(
        net.exec("n6", *ping), check=False, capture_output=True, text=True, timeout=60
    )
    assert "Time exceeded" in done.stdout, done.stdout + done.stderr
    assert counters(node)["drop_ttl_expired"] == 1


def exchange(one: socket.socket, other: socket.socket, megabytes: int) -> None:
    """Send different data both ways at once, compare what arrives."""

    def send(sock: socket.socket, seed: int) -> str:
        digest = hashlib.sha256()
        source = random.Random(seed)
        for _ in range(megabytes):
            block = source.randbytes(1 << 20)
            digest.update(block)
            sock.sendall(block)
        sock.shutdown(socket.SHUT_WR)
        return digest.hexdigest()

    def receive(sock: socket.socket) -> str:
        digest = hashlib.sha256()
        while block := sock.recv(1 << 20):
            digest.update(block)
        return digest.hexdigest()

    with ThreadPoolExecutor(4) as pool:
        sent = pool.submit(send, one, 1), pool.submit(send, other, 2)
        received = pool.submit(receive, other), pool.submit(receive, one)
        assert [r.result() for r in received] == [s.result() for s in sent]


def connect(net: Net, client: str, server: str, target: tuple[str, int]) -> list[socket.socket]:
    """A client on one host, connected through the NAT to a server on the other's port 8001."""
    with net.socket(server, socket.SOCK_STREAM) as listener:
        listener.bind(("", 8001))
        listener.listen()
        sock = net.socket(client, socket.SOCK_STREAM)
        sock.connect(target)
        accepted, _ = listener.accept()
        accepted.settimeout(10)
        return [sock, accepted]


def test_tcp_from_ipv6_in_super_packets(net: Net, node: Node) -> None:
    megabytes = 16
    client, server = connect(net, "n6", "n4", (SERVER4_IN_6, 8001))
    with client, server:
        assert server.getpeername()[0] == POOL4
        exchange(client, server, megabytes)
    stats = counters(node)
    # Most of the bytes must come in packets far larger than an MTU.
    packets = stats["received_ipv6_packets"] + stats["received_ipv4_packets"]
    assert packets < 2 * megabytes * (1 << 20) / 1440 / 2
    assert stats["device_refused_packets"] == stats["device_bad_offload_packets"] == 0


def test_tcp_from_ipv4_by_a_static_entry(net: Net, node: Node) -> None:
    client, server = connect(net, "n4", "n6", (POOL4, 8001))
    with client, server:
        assert server.getpeername()[0] == SERVER4_IN_6
        exchange(client, server, 4)
        sessions, _ = node.sessions("tcp", 0, 10)
        assert [(s["src6_port"], s["src4"], s["src4_port"]) for s in sessions] == [
            (8001, POOL4, 8001)
        ]
    entries, _ = node.bib("tcp", 0, 10)
    assert [(e["static"], e["src6"], e["src4_port"]) for e in entries] == [(True, HOST6, 8001)]


@pytest.mark.skipif(shutil.which("ethtool") is None, reason="the program ethtool is missing")
def test_tcp_without_offloads(net: Net, node: Node) -> None:
    for host, link in (("n6", "eth6"), ("n4", "eth4")):
        run(*net.exec(host, "ethtool", "-K", link, "tx", "off", "tso", "off", "gso", "off"))
    client, server = connect(net, "n6", "n4", (SERVER4_IN_6, 8001))
    with client, server:
        exchange(client, server, 2)
    stats = counters(node)
    packets = stats["received_ipv6_packets"] + stats["received_ipv4_packets"]
    assert packets > 2 * 2 * (1 << 20) / 1440


def test_udp_of_many_sizes_both_ways(net: Net, node: Node) -> None:
    with net.socket("n6", socket.SOCK_DGRAM) as n6, net.socket("n4", socket.SOCK_DGRAM) as n4:
        n4.bind((SERVER4, 5000))
        for size in (0, 1, 2, 63, 1000, 1451, 1452, 1473, 4000, 30000):
            payload = random.Random(size).randbytes(size)
            n6.sendto(payload, (SERVER4_IN_6, 5000))
            got, mapped = n4.recvfrom(65536)
            assert got == payload
            assert mapped[0] == POOL4
            n4.sendto(payload[::-1], mapped)
            back, source = n6.recvfrom(65536)
            assert back == payload[::-1]
            assert source[:2] == (SERVER4_IN_6, 5000)


def test_udp_from_ipv4_by_a_static_entry(net: Net, node: Node) -> None:
    with net.socket("n6", socket.SOCK_DGRAM) as n6, net.socket("n4", socket.SOCK_DGRAM) as n4:
        n6.bind((HOST6, 8001))
        n4.sendto(b"hello", (POOL4, 8001))
        got, source = n6.recvfrom(100)
        assert (got, source[0]) == (b"hello", SERVER4_IN_6)


def test_udp_segmentation(net: Net, node: Node) -> None:
    """One send call of many datagrams crosses the node as one packet (UDP_SEGMENT)."""
    payload = random.Random(7).randbytes(40 * 1200 + 100)
    datagrams = [payload[at : at + 1200] for at in range(0, len(payload), 1200)]
    with net.socket("n6", socket.SOCK_DGRAM) as n6, net.socket("n4", socket.SOCK_DGRAM) as n4:
        n4.bind((SERVER4, 5000))
        for sock in (n6, n4):
            sock.setsockopt(SOL_UDP, UDP_SEGMENT, 1200)
        n6.sendto(payload, (SERVER4_IN_6, 5000))
        received = [n4.recvfrom(65536) for _ in datagrams]
        assert [data for data, _ in received] == datagrams
        n4.sendto(payload, received[0][1])
        assert [n6.recv(65536) for _ in datagrams] == datagrams
    stats = counters(node)
    assert stats["received_ipv6_packets"] < len(datagrams)
    assert stats["received_ipv4_packets"] < len(datagrams)


def test_sessions_reach_a_second_node_and_come_in_pages(net: Net) -> None:
    flows = 300
    sync = {"cluster": "test", "hello-interval": 20, "dead-interval": 400, "join-timeout": 200}
    nodes = [make_node(sync | {"node": number, "epoch": 1}) for number in (1, 2)]

    def carry() -> None:
        for sender, receiver in (nodes, nodes[::-1]):
            while frames := sender.take_frames():
                receiver.receive_frames([frame for _, frame in frames])

    def carried(condition: Callable[[], bool]) -> None:
        def check() -> bool:
            carry()
            return condition()

        eventually(check)

    carried(lambda: all(node.status()["ready"] for node in nodes))
    net.attach(nodes[0])
    for port in range(20_000, 20_000 + flows):
        with net.socket("n6", socket.SOCK_DGRAM) as n6:
            n6.bind((HOST6, port))
            n6.sendto(b"hello", (SERVER4_IN_6, 5000))
    carried(lambda: nodes[1].status()["sessions"] == flows)

    def table(node: Node) -> set[tuple[object, ...]]:
        found: list[tuple[object, ...]] = []
        cursor: int | None = 0
        while cursor is not None:
            rows, cursor = node.sessions("udp", cursor, 64)
            assert len(rows) <= 64
            assert all(0 < row["expires_ms"] <= 300_000 * 1.25 for row in rows)
            found += [(row["src6_port"], row["src4"], row["src4_port"]) for row in rows]
        assert len(set(found)) == len(found) == flows
        return set(found)

    assert table(nodes[0]) == table(nodes[1])
    assert nodes[0].sessions("tcp", 0, 64) == ([], None)
    # What it has learnt, it translates.
    nodes[0].detach()
    net.attach(nodes[1])
    (row, *_), _ = nodes[1].sessions("udp", 0, 1)
    with net.socket("n6", socket.SOCK_DGRAM) as n6, net.socket("n4", socket.SOCK_DGRAM) as n4:
        n6.bind((HOST6, row["src6_port"]))
        n4.bind((SERVER4, 5000))
        n4.sendto(b"still there?", (row["src4"], row["src4_port"]))
        assert n6.recv(100) == b"still there?"
    nodes[1].detach()


def test_a_device_that_is_removed_is_told_and_can_be_attached_again(net: Net) -> None:
    node = make_node()
    net.attach(node)
    net.ip("nat", f"link del {DEVICE}")
    eventually(lambda: node.status()["worker"] == f"device lost: {DEVICE} was removed")
    assert node.take_events() == [f"device lost: {DEVICE} was removed"]
    net.attach(node)
    assert node.status()["worker"] == "running"
    test_udp_of_many_sizes_both_ways(net, node)
    with pytest.raises(DeviceError, match="has a device already") as caught:
        node.attach(DEVICE, persistent=False)
    assert caught.value.errno == errno.EBUSY
    node.detach()


def test_a_device_that_is_down_loses_packets_but_not_the_worker(net: Net, node: Node) -> None:
    test_udp_from_ipv4_by_a_static_entry(net, node)
    net.ip("nat", f"link set {DEVICE} down")
    net.ip("nat", f"link set {DEVICE} up")
    net.ip("nat", f"route add 64:ff9b::/96 dev {DEVICE}")
    net.ip("nat", f"route add {POOL4} dev {DEVICE}")
    test_udp_from_ipv4_by_a_static_entry(net, node)


SECOND = """
import sys
from jsync._core import DeviceError, Node
node = Node(sys.argv[1].encode(), None, keys=[], secret=bytes(32))
try:
    node.attach(sys.argv[2], persistent=True)
except DeviceError as error:
    print(error.errno, error.strerror)
else:
    print("attached", flush=True)
    sys.stdin.read()
    node.detach()
"""


def second(net: Net, *wrapper: str, device: str = DEVICE) -> subprocess.Popen[str]:
    """A process that attaches a persistent device, and detaches it when its input ends."""
    command = [*wrapper, sys.executable, "-c", SECOND, json.dumps(NAT64), device]
    return subprocess.Popen(
        net.exec("nat", *command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_device_that_another_process_holds(net: Net, node: Node) -> None:
    with second(net) as process:
        assert first_line(process).startswith(f"{errno.EBUSY} device {DEVICE} is in use")


def test_a_persistent_device_outlives_a_crash(net: Net) -> None:
    def carrier() -> str:
        path = f"/sys/class/net/{DEVICE}/carrier"
        return subprocess.check_output(net.exec("nat", "cat", path), text=True).strip()

    with second(net) as process:
        assert first_line(process) == "attached"
        net.ip("nat", f"link set {DEVICE} up")
        assert carrier() == "1"
        process.send_signal(signal.SIGKILL)
    assert carrier() == "0"
    with second(net) as process:
        assert first_line(process) == "attached"
        assert carrier() == "1"
    assert not net.has_device()


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="the program setpriv is missing")
def test_without_privilege_the_error_says_what_is_missing(net: Net) -> None:
    with second(net, "setpriv", "--bounding-set=-net_admin") as process:
        line = first_line(process)
    assert line.startswith(f"{errno.EPERM} ")
    assert "CAP_NET_ADMIN" in line


def test_a_name_that_another_kind_of_device_has(net: Net) -> None:
    with second(net, device="to6") as process:
        assert first_line(process).startswith(f"{errno.EINVAL} device to6 exists")


def test_detach_under_load_ends_soon(net: Net) -> None:
    node = make_node()
    net.attach(node)
    stop = threading.Event()
    with net.socket("n6", socket.SOCK_DGRAM) as n6, ThreadPoolExecutor(1) as pool:

        def flood() -> None:
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    n6.sendto(b"x" * 64, (SERVER4_IN_6, 5000))

        flooding = pool.submit(flood)
        eventually(lambda: counters(node)["received_ipv6_packets"] > 100)
        start = time.monotonic()
        node.detach()
        elapsed = time.monotonic() - start
        stop.set()
        flooding.result()
    assert elapsed < 2
