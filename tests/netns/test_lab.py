"""The lab comes up, works, and leaves nothing behind, as root and without."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs import JSYNC, jsync, needs_lab, traces

pytestmark = needs_lab

NAME = f"test-{os.getpid()}"


@pytest.fixture
def lab() -> Iterator[None]:
    before = traces()
    up = jsync("lab", "--name", NAME, "up")
    assert up.returncode == 0, up.stderr
    try:
        yield
    finally:
        jsync("lab", "--name", NAME, "down")
    assert traces() <= before


def on(machine: str, *command: str) -> subprocess.CompletedProcess[str]:
    return jsync("lab", "--name", NAME, "exec", machine, *command)


def processes_beside(pid: int) -> set[int]:
    """The processes that share a process's namespace of processes."""
    world = os.readlink(f"/proc/{pid}/ns/pid")
    found = set()
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            # It may have ended, or not be ours to look at.
            with contextlib.suppress(OSError):
                if os.readlink(path / "ns" / "pid") == world:
                    found.add(int(path.name))
    return found


@pytest.mark.usefixtures("lab")
def test_n6_reaches_n4_through_j() -> None:
    ping = on("n6", "ping", "-c", "3", "-i", "0.2", "-W", "2", "64:ff9b::192.0.2.8")
    assert ping.returncode == 0, ping.stdout + ping.stderr
    assert on("J", "hostname").stdout == "J\n"
    assert "192.0.2.1/24" in on("J", "ip", "-4", "-o", "addr").stdout
    sessions = on("K", "jsync", "session", "display", "--icmp", "--json")
    assert "64:ff9b::" in sessions.stdout, sessions.stderr
    status = jsync("lab", "--name", NAME, "status").stdout.splitlines()
    assert [line.split()[:2] for line in status] == [
        ["J", "primary"],
        ["K", "backup"],
        ["L", "backup"],
    ]


@pytest.mark.parametrize("spray", [[], ["--spray"]])
def test_two_nodes_translate_at_once(spray: list[str]) -> None:
    before = traces()
    up = jsync("lab", "--name", NAME, "up", "--active-active", *spray)
    assert up.returncode == 0, up.stderr
    try:
        ping = on("n6", "ping", "-c", "20", "-i", "0.1", "-W", "2", "64:ff9b::192.0.2.8")
        assert " 0% packet loss" in ping.stdout, ping.stdout + ping.stderr
        status = jsync("lab", "--name", NAME, "status").stdout.splitlines()
        assert [line.partition("slice of ")[2] for line in status] == ["J", "K", ""]
        assert "own MASTER" in on("K", "jsync", "instance", "status").stdout
    finally:
        jsync("lab", "--name", NAME, "down")
    assert traces() <= before


def test_one_node_alone_is_not_sprayed() -> None:
    up = jsync("lab", "--name", NAME, "up", "--spray")
    assert up.returncode == 2
    assert "--spray needs --active-active" in up.stderr


@pytest.mark.usefixtures("lab")
def test_says_what_is_wrong() -> None:
    again = jsync("lab", "--name", NAME, "up")
    assert again.returncode == 1
    assert "is up already" in again.stderr
    nowhere = on("M", "true")
    assert nowhere.returncode == 1
    assert "there are n6, n4, J, K, L" in nowhere.stderr
    assert on("J", "false").returncode == 1


def test_down_without_a_lab() -> None:
    down = jsync("lab", "--name", NAME, "down")
    assert down.returncode == 1
    assert "there is no lab" in down.stderr


def test_a_killed_lab_leaves_nothing() -> None:
    before = traces()
    assert jsync("lab", "--name", NAME, "up").returncode == 0
    first = first_process(NAME)
    inside = processes_beside(first)
    assert len(inside) > 10
    os.kill(first, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in inside):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert traces() <= before
    # It is forgotten, too: another one may come.
    assert "there is no lab" in on("J", "true").stderr


def first_process(name: str) -> int:
    """The lab's process that is number 1 of its namespace."""
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            with contextlib.suppress(OSError):
                if name.encode() in (path / "cmdline").read_bytes():
                    numbers = re.search(r"NSpid:(.*)", (path / "status").read_text())
                    if numbers and numbers[1].split()[1:] == ["1"]:
                        return int(path.name)
    raise AssertionError(f"no lab {name}")


AS_NOBODY = """
set -e
mount -t tmpfs tmpfs /mnt
mknod -m 666 /mnt/tun c 10 200
mount --bind /mnt/tun /dev/net/tun
keep() {
    # Let everybody reach $2 below the closed directory $1.
    mkdir -p /mnt/kept
    mount --bind "$2" /mnt/kept
    mount -t tmpfs -o mode=755 tmpfs "$1"
    mkdir -p "$2"
    mount --bind /mnt/kept "$2"
}
case "$1" in ?*) keep "$1" "$2" ;; esac
shift 2
exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
"""
"""Run a program as a user without any privilege, where /dev/net/tun is open to everybody as
Debian has it, and the interpreter can be reached although it may live in root's home."""


def as_nobody(*command: str) -> list[str]:
    """The command line that runs a command without privileges."""
    if os.geteuid() != 0:
        return list(command)
    prefix = Path(sys.base_prefix)
    closed = [path for path in prefix.parents if not path.stat().st_mode & 0o001]
    script = ["sh", "-c", AS_NOBODY, "sh"]
    script += [str(closed[-1]), str(prefix)] if closed else ["", ""]
    return ["unshare", "--mount", *script, "env", "-u", "XDG_RUNTIME_DIR", *command]


def test_without_root() -> None:
    commands = f"""
set -e
lab="{JSYNC} lab --name {NAME}-rootless"
$lab up >/dev/null
trap "$lab down" EXIT
$lab status
$lab exec n6 ping -c 3 -i 0.2 -W 2 64:ff9b::192.0.2.8
$lab exec K jsync session display --icmp --json
"""
    before = traces()
    done = subprocess.run(
        as_nobody("sh", "-c", commands), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0% packet loss" in done.stdout
    assert "64:ff9b::" in done.stdout
    assert traces() <= before
    with pytest.raises(AssertionError, match="no lab"):
        first_process(f"{NAME}-rootless")
