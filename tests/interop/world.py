"""Two machines with Jool, a node of jsync's own, and who speaks through them.

Three links: `v6` (2001:db8:6::/64, the client n6), `v4` (203.0.113.0/24, the server n4) and `sync`
(198.18.64.0/24 and fd64:6464::/64). Who translates is decided by two routes: n6's to 64:ff9b::/96
and n4's to pool4, 198.51.100.1. Everything is in network namespaces whose names begin with jsi.
"""

import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from build import machine
from machine import Link, Machine

from jsync._core import encode_joold
from jsync.durations import parse_duration

if TYPE_CHECKING:
    from jsync._core import JooldSession

JSYNC = str(Path(sys.executable).with_name("jsync"))
POOL4 = "198.51.100.1"
PORTS = "61001-65535"
CLIENT6 = "2001:db8:6::8"
ABSENT6 = "2001:db8:6::9"
"""Packets to it reach the link, and nobody answers."""
SERVER4, SERVER6 = "203.0.113.8", "64:ff9b::cb00:7108"
ABSENT4, ABSENT6_MAPPED = "203.0.113.9", "64:ff9b::cb00:7109"
GROUP = "239.64.64.64"
GROUP6 = "ff08::db8:64:64"
JOOLD_PORT = 6400
STATS_PORT = 6401
SUITES = {"old": "bookworm", "new": "trixie", "old2": "bookworm", "new2": "trixie"}
"""The machines, and what they are made of; the second of a kind boots when it is wanted."""
PROXIES = {"bookworm": "joold", "trixie": "session proxy"}
"""What synchronises there: Jool's program, and jsync's command of that name."""
HOSTS = {"old": 11, "new": 12, "K": 13, "old2": 14, "new2": 15}
"""The last part of each translator's addresses."""
LINKS = {
    "v6": ["2001:db8:6::{}/64"],
    "v4": ["203.0.113.{}/24"],
    "sync": ["198.18.64.{}/24", "fd64:6464::{}/64"],
}
Row = Mapping[str, Any]
T = TypeVar("T")
_CLONE_NEWNET = 0x4000_0000
_libc = ctypes.CDLL(None, use_errno=True)


def wait_for(get: Callable[[], T], seconds: float = 20.0) -> T:
    """What `get` gives once that is true; its last answer is in the complaint."""
    end = time.monotonic() + seconds
    while True:
        if found := get():
            return found
        if time.monotonic() > end:
            raise AssertionError(f"it never came; the last was {found!r}")
        time.sleep(0.1)


def addresses(link: str, number: int) -> list[str]:
    """Addresses of a host on a link."""
    return [text.format(number) for text in LINKS[link]]


NEW_INSTANCE = (
    "jool instance remove default 2>/dev/null;"
    " jool instance add default --netfilter --pool6 64:ff9b::/96 &&"
    f" for p in tcp udp icmp; do jool pool4 add {POOL4} {PORTS} --$p || exit; done &&"
    " jool global update ss-enabled true"
)
"""A command that makes a new, empty instance."""


class Translator(Protocol):
    """A node of the cluster: in a machine, or a namespace."""

    name: str

    def jsync(self, *words: str) -> str:
        """What a command of jsync's prints."""

    def start_jsync(self, config: str) -> None:
        """Run a daemon."""

    def stop_jsync(self) -> None:
        """End it."""


def json_rows(node: Translator, *words: str) -> list[Row]:
    """The rows of a command of jsync's that knows --json."""
    return [json.loads(line) for line in node.jsync(*words, "--json").splitlines()]


def counters(node: Translator) -> dict[str, int]:
    """The counters of a daemon that aren't 0."""
    return {row["name"]: row["value"] for row in json_rows(node, "stats", "display")}


def is_ready(node: Translator) -> bool:
    """Whether its daemon is ready."""
    try:
        (status,) = json_rows(node, "instance", "status")
    except AssertionError:
        return False
    return bool(status["ready"])


class JoolNode:
    """A machine with Jool."""

    def __init__(self, name: str, box: Machine) -> None:
        self.name = name
        self.box = box
        self.synchroniser = 0
        """The process that synchronises: jsync's daemon, joold, or `jool session proxy`."""
        self.sync_address = f"198.18.64.{HOSTS[name]}"
        """On the private link."""
        box.run("modprobe jool; sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")

    def reset(self) -> None:
        """A new, empty instance, and nobody who synchronises it."""
        self.stop_jsync()
        self.box.run(NEW_INSTANCE)

    def jsync(self, *words: str) -> str:
        return self.box.run(f"JSYNC_CONTROL=/run/jsync.sock jsync {' '.join(words)}")

    def start_jsync(self, config: str, *, wait: bool = True, program: str = "jsync") -> None:
        """`config`: all but the section [node] and the key."""
        self.box.write("/tmp/key", KEY)
        self.box.run("chmod 600 /tmp/key")
        node = f'[node]\nname = "{self.name}"\nid = {HOSTS[self.name]}\nbackend = "jool"\n'
        node += 'control = "/run/jsync.sock"\n'
        self.box.write("/tmp/jsync.toml", node + config.replace("KEY", "/tmp/key"))
        self._start(f"{program} daemon -c /tmp/jsync.toml", "/tmp/jsync.log")
        if wait:
            wait_for(lambda: is_ready(self), 90)

    def start_joold(self, *, group: str = GROUP) -> None:
        """joold, with the files that operators give it."""
        self._start(f"joold {self._joold_files(group)}", "/tmp/joold.log")
        self._wait_for_group()

    def start_proxy(self, *, by_jsync: bool) -> None:
        """What synchronises this version, or jsync by the same words; with statistics."""
        kind = PROXIES[SUITES[self.name]]
        if kind == "joold":
            words = f"joold {self._joold_files(GROUP)} {STATS_PORT}"
        else:
            words = f"session proxy {GROUP} --net.mcast.port={JOOLD_PORT} --net.ttl=3"
            words += f" --net.dev.in={self.sync_address} --net.dev.out={self.sync_address}"
            words += f" --stats.port={STATS_PORT}"
        if by_jsync:
            self._start(f"jsync {words} --control /run/jsync.sock", "/tmp/jsync.log")
            wait_for(lambda: is_ready(self), 90)
        else:
            self._start(words if kind == "joold" else f"jool {words}", "/tmp/joold.log")
            self._wait_for_group()

    def _joold_files(self, group: str) -> str:
        interface = self.sync_address if "." in group else "eth0"
        network = {"multicast address": group, "multicast port": str(JOOLD_PORT), "ttl": 3}
        network |= {"in interface": interface, "out interface": interface, "reuseaddr": 1}
        self.box.write("/tmp/net.json", json.dumps(network))
        self.box.write("/tmp/mod.json", json.dumps({"instance": "default"}))
        return "/tmp/net.json /tmp/mod.json"

    def _wait_for_group(self) -> None:
        # Jool's programs don't say that they are there.
        self.box.wait(f"ss -lun | grep -q ':{JOOLD_PORT}'")

    def _start(self, command: str, log: str) -> None:
        assert not self.synchroniser
        self.synchroniser = self.box.start(f"exec {command}", log)

    def stop_jsync(self) -> None:
        if self.synchroniser:
            self.box.stop(self.synchroniser)
            self.synchroniser = 0

    stop_joold = stop_jsync

    def sessions(self) -> list[Row]:
        """What `jool session display` says, in jsync's words."""
        rows: list[Row] = []
        for protocol in ("tcp", "udp", "icmp"):
            text = self.box.run(f"jool session display --{protocol} --numeric --csv --no-headers")
            for line in text.splitlines():
                # The last one, the state, is TCP's alone.
                _, src6, port6, dst6, _, src4, port4, dst4, dport4, left, *state = line.split(",")
                rows.append(
                    {
                        "proto": protocol,
                        "src6": src6,
                        "src6_port": int(port6),
                        "src4": src4,
                        "src4_port": int(port4),
                        "dst4": dst4,
                        "dst4_port": int(dport4),
                        "dst6": dst6,
                        "state": state[0] if state else "",
                        "expires_ms": parse_duration(left, bare_ms=1000),
                    }
                )
        return rows

    def counters(self) -> dict[str, int]:
        """The counters of the kernel module."""
        text = self.box.run("jool stats display --all --csv --no-headers")
        return {name: int(value) for name, value in (line.split(",") for line in text.split())}


class NativeNode:
    """A node that translates by itself, in a namespace."""

    def __init__(self, name: str, namespace: str, directory: Path) -> None:
        self.name = name
        self._namespace = namespace
        self._directory = directory
        self._control = directory / f"{name}.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def jsync(self, *words: str) -> str:
        done = subprocess.run(
            [JSYNC, *words],
            env={**os.environ, "JSYNC_CONTROL": str(self._control)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start_jsync(self, config: str, *, wait: bool = True) -> None:
        """`config`: all but the sections [node], [nat64] and [dataplane], and the key."""
        key = self._directory / "key"
        key.write_text(KEY + "\n")
        key.chmod(0o600)
        path = self._directory / f"{self.name}.toml"
        path.write_text(
            f'[node]\nname = "{self.name}"\nid = {HOSTS[self.name]}\n'
            f'control = "{self._control}"\n'
            f'[nat64]\npool4 = [{{ prefix = "{POOL4}", ports = "{PORTS}" }}]\n'
            'max-sessions = 100000\n[dataplane]\npool4 = "routed"\n'
            + config.replace("KEY", str(key)).replace("eth0", "sync")
        )
        with open(self._directory / f"{self.name}.log", "ab") as log:
            self._process = subprocess.Popen(
                ["ip", "netns", "exec", self._namespace, JSYNC, "daemon", "-c", str(path)],
                stdout=log,
                stderr=log,
            )
        if wait:
            wait_for(lambda: is_ready(self), 20)

    def log(self) -> str:
        """What its daemons have said."""
        return (self._directory / f"{self.name}.log").read_text()

    def stop_jsync(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(20)
            self._process = None


KEY = "NDIgYnl0ZXMgb2YgYSBrZXkgZm9yIHRoZSB0ZXN0cyE="
SYNC = """
[sync]
cluster = "interop"
key-files = ["KEY"]
join-timeout = "1s"
interface = "eth0"
"""
JOOLD = f"""
[joold]
group = "{GROUP}"
port = {JOOLD_PORT}
interface = "eth0"
"""


class World:
    """Everything, from entering to leaving."""

    def __init__(self) -> None:
        self._prefix = f"jsi{os.getpid()}"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for name in ("lan", "n6", "n4", "K"):
                self._ip("netns", "add", self._namespace(name))
                stack.callback(self._ip, "netns", "del", self._namespace(name))
                self._ip("-n", self._namespace(name), "link", "set", "lo", "up")
                self._inside(
                    name,
                    "sysctl",
                    "-qw",
                    "net.ipv6.conf.all.accept_dad=0",
                    "net.ipv6.conf.default.accept_dad=0",
                )
            self._lay_links()
            with ThreadPoolExecutor() as pool:
                nodes = list(pool.map(lambda name: self._boot(stack, name), ("old", "new")))
            self.old, self.new = nodes
            self._booted = {node.name: node for node in nodes}
            self.native = NativeNode("K", self._namespace("K"), self._directory)
            stack.callback(self.native.stop_jsync)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _namespace(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    @staticmethod
    def _ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    def _inside(self, namespace: str, *argv: str) -> None:
        subprocess.run(["ip", "netns", "exec", self._namespace(namespace), *argv], check=True)

    def _lay_links(self) -> None:
        lan = self._namespace("lan")
        for link in LINKS:
            self._ip("-n", lan, "link", "add", link, "type", "bridge", "mcast_snooping", "0")
            self._ip("-n", lan, "link", "set", link, "up")
            for name in SUITES:
                self._ip("-n", lan, "tuntap", "add", f"{name}-{link}", "mode", "tap")
                self._ip("-n", lan, "link", "set", f"{name}-{link}", "master", link, "up")
        for name, link, number in (
            *(("n6", "v6", 8), ("n4", "v4", 8)),
            *(("K", link, HOSTS["K"]) for link in LINKS),
        ):
            there = self._namespace(name)
            self._ip(
                "-n",
                lan,
                "link",
                "add",
                f"{name}-{link}",
                "type",
                "veth",
                "peer",
                "name",
                link,
                "netns",
                there,
            )
            self._ip("-n", lan, "link", "set", f"{name}-{link}", "master", link, "up")
            for address in addresses(link, number):
                nodad = ["nodad"] if ":" in address else []
                self._ip("-n", there, "address", "add", address, "dev", link, *nodad)
            self._ip("-n", there, "link", "set", link, "up")
        # The tests themselves speak on the private link as this one.
        for address in addresses("sync", 1):
            nodad = ["nodad"] if ":" in address else []
            self._ip("-n", lan, "address", "add", address, "dev", "sync", *nodad)
        self._inside(
            "K", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"
        )
        self._silence(self._namespace("K"), lambda *argv: self._inside("K", *argv), "v6", "v4")

    @staticmethod
    def _silence(_: str, run: Callable[..., object], v6: str, v4: str) -> None:
        """Those who are absent seem to be there, so packets to them leave."""
        for address, device in ((ABSENT6, v6), (ABSENT4, v4)):
            run(
                "ip",
                "neighbour",
                "replace",
                address,
                "lladdr",
                "02:00:00:00:00:09",
                "nud",
                "permanent",
                "dev",
                device,
            )

    def _boot(self, stack: ExitStack, name: str) -> JoolNode:
        order = ("sync", "v6", "v4")
        links = [Link(f"{name}-{link}", addresses(link, HOSTS[name])) for link in order]
        box = Machine(name, machine(SUITES[name]), self._namespace("lan"), links)
        node = JoolNode(name, stack.enter_context(box))
        self._silence(name, lambda *argv: box.run(" ".join(argv)), "eth1", "eth2")
        return node

    def twin(self, node: JoolNode) -> JoolNode:
        """A second machine of that kind, with an instance that is new at the first time."""
        name = f"{node.name}2"
        if name not in self._booted:
            self._booted[name] = self._boot(self._stack, name)
            self._booted[name].reset()
        return self._booted[name]

    def reset(self) -> None:
        """New, empty instances; nobody synchronises."""
        self.native.stop_jsync()
        for node in self._booted.values():
            node.reset()

    def translate_by(self, node: Translator) -> None:
        """From now on all packets go through that node."""
        number = HOSTS[node.name]
        six, four = (addresses(link, number)[0].partition("/")[0] for link in ("v6", "v4"))
        self._ip("-n", self._namespace("n6"), "route", "replace", "64:ff9b::/96", "via", six)
        self._ip("-n", self._namespace("n4"), "route", "replace", POOL4, "via", four)

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """This thread is in a namespace: sockets that it makes stay there."""
        with open("/proc/thread-self/ns/net") as here:
            with open(f"/run/netns/{self._namespace(name)}") as there:
                _setns(there.fileno())
            try:
                yield
            finally:
                _setns(here.fileno())

    def open(self, name: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket of n6's (IPv6) or of another's (IPv4)."""
        with self.inside(name):
            family = socket.AF_INET6 if name == "n6" else socket.AF_INET
            made = socket.socket(family, kind)
            made.settimeout(10.0)
            return made

    def ping(self, target: str = SERVER6) -> None:
        """n6 pings."""
        self._inside("n6", "ping", "-q", "-c1", "-W5", target)

    def tell(self, datagrams: list[bytes], *, group: str = GROUP, port: int = JOOLD_PORT) -> None:
        """Send datagrams to a group of the private link."""
        with self.open("lan", socket.SOCK_DGRAM) as sender:
            sender.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("198.18.64.1")
            )
            for datagram in datagrams:
                sender.sendto(datagram, (group, port))

    @contextmanager
    def listen(self, group: str) -> Iterator[Callable[[], tuple[str, int]]]:
        """Join an IPv6 group of the private link: source and hop limit of its next datagram."""
        with self.inside("lan"):
            hearing = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            link = socket.if_nametoindex("sync")
        member = struct.pack("16sI", socket.inet_pton(socket.AF_INET6, group), link)
        with hearing:
            hearing.settimeout(20.0)
            hearing.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
            hearing.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
            hearing.bind((group, JOOLD_PORT))

            def next_one() -> tuple[str, int]:
                _, ((_, _, hops),), _, source = hearing.recvmsg(2048, 64)
                return source[0], struct.unpack("i", hops)[0]

            yield next_one


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def made_up(count: int, **values: Any) -> "list[JooldSession]":
    """Sessions that nobody has begun, each of an address of its own."""
    row: dict[str, Any] = {
        "proto": "udp",
        "src6_port": 4000,
        "dst6": SERVER6,
        "dst6_port": 53,
        "src4": POOL4,
        "dst4": SERVER4,
        "dst4_port": 53,
        "state": "ESTABLISHED",
        "timer": "EST",
        "expires_ms": 280_000,
    }
    rows = [
        row | {"src6": f"2001:db8:6:1::{n:x}", "src4_port": 61_100 + n} | values
        for n in range(count)
    ]
    return rows  # type: ignore[return-value]


def datagrams_of(rows: "list[JooldSession]", format: str) -> list[bytes]:
    """Datagrams with these sessions."""
    return encode_joold(rows, format)


def seed_source(pool4: str, port: int) -> str:
    """A program that puts sessions into the kernel module, past everybody else.

    Its arguments are the first one's number and how many; `port` is that of number 0.
    """
    return f"""
import sys
from jsync._core import encode_joold
from jsync.jool import messages
from jsync.jool.module import Module, open_channel
first, count = map(int, sys.argv[1:])
channel = open_channel()
found = Module("default").find()
rows = [
    dict(proto="udp", src6=f"2001:db8:6:1::{{n:x}}", src6_port=4000, dst6="::", dst6_port=53,
         src4="{pool4}", src4_port={port} + n, dst4="203.0.113.8", dst4_port=53,
         state="ESTABLISHED", timer="EST", expires_ms=280000)
    for n in range(first, first + count)
]
for batch in encode_joold(rows, found.format):
    channel.send(messages.request(
        found.family.number, messages.Command.JOOLD_ADD, version=found.version,
        instance="default", attributes=[("SESSION_ENTRIES", batch)]))
"""
