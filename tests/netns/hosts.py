"""Machines for tests: network namespaces with names that no other run has, and what runs in them.

Everything is gone at the end of the `with`, whatever happened in it.
"""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

JSYNC = [str(Path(sys.executable).parent / "jsync")]
_numbers = itertools.count()


def wait_until(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition; AssertionError if it doesn't come true."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


@dataclass
class Process:
    """A process on a host; its stderr goes to a file."""

    popen: subprocess.Popen[bytes]
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8")

    def wait_for(self, text: str, seconds: float = 10.0) -> None:
        wait_until(lambda: text in self.log or self.popen.poll() is not None, seconds)
        assert text in self.log, self.log

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 15.0) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(seconds)


@dataclass
class Host:
    """A machine."""

    name: str
    namespace: str
    directory: Path
    processes: list[Process] = field(default_factory=list)

    @property
    def control(self) -> str:
        return str(self.directory / "run" / "control.sock")

    def argv(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *command]

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.argv(*command), capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stderr or done.stdout}"
        return done

    def sh(self, script: str) -> str:
        return self.run("sh", "-ec", script).stdout

    def jsync(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(*JSYNC, *arguments, "--control", self.control, check=check)

    def start(self, *command: str) -> Process:
        path = self.directory / f"log{len(self.processes)}"
        with open(path, "wb") as log:
            popen = subprocess.Popen(
                self.argv(*command), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        process = Process(popen, path)
        self.processes.append(process)
        return process

    def daemon(self, config: str, *prefix: str) -> Process:
        path = self.directory / "jsync.toml"
        path.write_text(config, encoding="utf-8")
        return self.start(*prefix, *JSYNC, "daemon", "-c", str(path))

    def state(self) -> dict[str, str]:
        """All that a daemon changes on a host, each part as text."""
        parts = {
            "rules": "ip -d rule; ip -6 -d rule",
            "routes": "ip -d route show table all; ip -6 -d route show table all",
            "nftables": "nft list ruleset",
            "links": "ip -d -o link",
            "addresses": "ip -o addr",
            "proxies": "ip neigh show proxy",
            "sysctls": "sysctl -a 2>/dev/null | grep ^net | grep -vE 'conntrack_count|_key|random'",
            "sockets": "ss -xlH | grep jsync || true",
            "files": f"ls -A {self.directory / 'run'} 2>/dev/null || true",
        }
        state = {name: self.sh(script) for name, script in parts.items()}
        # Lifetimes run by themselves.
        return {
            k: re.sub(r"(valid|preferred)_lft \w+|expires \w+", "", v) for k, v in state.items()
        }


class Network:
    """The machines of a test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.hosts: list[Host] = []
        self._run = f"jt{os.getpid()}x{next(_numbers)}"

    def host(self, name: str) -> Host:
        directory = self.directory / name
        directory.mkdir()
        host = Host(name, f"{self._run}{name}", directory)
        subprocess.run(["ip", "netns", "add", host.namespace], check=True)
        self.hosts.append(host)
        host.sh(
            "ip link set lo up; sysctl -qw net.ipv6.conf.all.accept_dad=0"
            " net.ipv6.conf.default.accept_dad=0"
        )
        return host

    def wire(self, one: tuple[Host, str], other: tuple[Host, str]) -> None:
        """A cable from an interface of one host to one of another."""
        (a, if_a), (b, if_b) = one, other
        a.sh(f"ip link add {if_a} type veth peer name {if_b} netns {b.namespace}")
        a.sh(f"ip link set {if_a} up")
        b.sh(f"ip link set {if_b} up")

    def close(self) -> None:
        for host in self.hosts:
            for process in host.processes:
                if process.popen.poll() is None:
                    process.popen.kill()
                    process.popen.wait()
        for host in self.hosts:
            subprocess.run(["ip", "netns", "del", host.namespace], check=False)


@contextmanager
def network(directory: Path) -> Iterator[Network]:
    """Make machines; take them away at the end."""
    with ExitStack() as stack:
        net = Network(directory)
        stack.callback(net.close)
        yield net
