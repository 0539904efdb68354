"""`jsync lab`: the sample network, to try things on."""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Literal, NoReturn

from jsync.errors import Failure
from jsync.lab import isolation

DEFAULT = "lab"
END_PATIENCE = 10.0
EXAMPLES = """\
examples:
  jsync lab up
  jsync lab exec n6 ping 64:ff9b::192.0.2.8
  jsync lab exec J jsync session display
  jsync lab status
  jsync lab down
"""


def run(arguments: list[str]) -> int:
    """Build a lab, take it down, tell about it, or run a command on one of its machines."""
    parser = argparse.ArgumentParser(
        prog="jsync lab",
        description="The sample network in namespaces: n6, n4, the NAT64s J, K and L with"
        " keepalived, and a private network. Needs root, or a kernel that gives user namespaces"
        " to everybody. The host's own network isn't touched.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", default=DEFAULT, help="of the lab, where there are many")
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="build it, start the daemons and keepalived")
    up.add_argument(
        "--active-active",
        action="store_true",
        help="J and K translate at once, each with a slice of pool4; n6 spreads flows over both",
    )
    up.add_argument(
        "--spray",
        action="store_true",
        help="with --active-active: n6 and n4 send every packet to J or K by chance;"
        ' pool4 is "routed", durability "acked"',
    )
    verbs.add_parser("down", help="take it down: nothing of it stays")
    verbs.add_parser("status", help="show what its NAT64s do")
    execute = verbs.add_parser("exec", help="run a command on a machine: jsync lab exec n6 ping …")
    execute.add_argument("machine", help="n6, n4, J, K or L")
    execute.add_argument("command", nargs=argparse.REMAINDER, help="a shell if there is none")
    options = parser.parse_args(arguments)
    match options.verb:
        case "up":
            if options.spray and not options.active_active:
                up.error("--spray needs --active-active: else only one node translates")
            return _up(options.name, active=options.active_active, spray=options.spray)
        case "down":
            return _down(options.name)
        case "status":
            return _status(options.name)
        case _:
            _exec(options.name, options.machine, options.command or ["sh"])


def _up(name: str, *, active: bool, spray: bool) -> int:
    """Start the process that keeps the lab, and wait until the lab works."""
    if _find(name) is not None:
        raise Failure(f"the lab {name!r} is up already; jsync lab down takes it down")
    try:
        isolation.require_programs()
    except isolation.LabUnavailable as error:
        raise Failure(f"the lab can't be built: {error}") from None
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        _keep(name, writer, active=active, spray=spray)
    os.close(writer)
    complaint = os.read(reader, 1 << 16).decode()
    if complaint != "up":
        raise Failure(f"the lab can't be built: {complaint or 'its keeper died'}")
    print(
        f"{'J and K' if active else 'J, K and L'} run, with keepalived. Try:\n"
        "  jsync lab exec n6 ping 64:ff9b::192.0.2.8\n"
        "  jsync lab exec J jsync session display\n"
        "  jsync lab status\n"
        "  jsync lab down"
    )
    return 0


def _keep(name: str, writer: int, *, active: bool, spray: bool) -> NoReturn:
    """Be the lab's first process: build it, then wait for the signal that ends it."""
    status = 1
    try:
        os.setsid()
        directory = os.open(_directory(), os.O_DIRECTORY)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        pid = isolation.enter()
        from jsync.lab.cluster import Cluster
        from jsync.lab.network import Network
        from jsync.lab.spreading import by_flow, by_packet

        network = Network()
        network.build()
        kind: Literal["shared", "routed"] = "routed" if spray else "shared"
        sync = 'durability = "acked"' if spray else ""
        cluster = Cluster(network, synchronised=True, active=kind if active else None, sync=sync)
        for node in cluster.nodes:
            cluster.start(node)
        for node in cluster.nodes:
            cluster.wait_ready(node)
        if active:
            for node in cluster.nodes:
                cluster.wait_slices(node, node)
            (by_packet if spray else by_flow)(network)
        else:
            cluster.wait_primary(cluster.nodes[0])
        state = {"pid": pid, "holders": network.holders}
        file = os.open(
            f"{name}.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory
        )
        os.write(file, json.dumps(state).encode())
        os.close(file)
        os.write(writer, b"up")
        os.close(writer)
        writer = -1
        try:
            while True:
                signal.pause()
        finally:
            os.unlink(f"{name}.json", dir_fd=directory)
    except SystemExit:
        status = 0
    except Exception as error:
        if writer >= 0:
            os.write(writer, str(error).encode())
    os._exit(status)


def _down(name: str) -> int:
    lab = _need(name)
    # The first process ends after all others of its namespace.
    process = Path(f"/proc/{lab['pid']}")
    for number in (signal.SIGTERM, signal.SIGKILL):
        os.kill(lab["pid"], number)
        deadline = time.monotonic() + END_PATIENCE
        while time.monotonic() < deadline:
            if not process.exists():
                return 0
            time.sleep(0.02)
    raise Failure(f"process {lab['pid']} of the lab {name!r} doesn't end")


def _status(name: str) -> int:
    """Show each NAT64 in a line."""
    from jsync.lab.cluster import slices_held, status
    from jsync.lab.network import NAT64S

    lab = _need(name)
    for node in NAT64S:
        told = status(node, Path(f"/proc/{lab['pid']}/root"))
        if told is None:
            print(f"{node}  no daemon")
        else:
            ready = "ready" if told["ready"] else f"not ready ({told['reason']})"
            held = sorted(slices_held(told)) if told["slices"] else []
            of = f", slice of {' and '.join(held)}" if held else ""
            print(f"{node}  {told['role']:<8} {told['sessions']} sessions, {ready}{of}")
    return 0


def _exec(name: str, machine: str, command: list[str]) -> NoReturn:
    """Become a command on a machine of the lab."""
    from jsync.lab.network import enter

    lab = _need(name)
    holders: dict[str, int] = lab["holders"]
    if machine not in holders:
        raise Failure(f"there is no machine {machine!r}; there are {', '.join(holders)}")
    outer = ["nsenter", f"--target={lab['pid']}", "--mount", "--pid"]
    if os.readlink(f"/proc/{lab['pid']}/ns/user") != os.readlink("/proc/self/ns/user"):
        outer += ["--user", "--preserve-credentials"]
    # So that `jsync` on the machine is this one.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"
    argv = [*outer, "--", *enter(holders[machine], *command)]
    os.execvp(argv[0], argv)


def _directory() -> Path:
    """Give the directory of the files that tell of running labs; only this user can write it."""
    if os.geteuid() == 0:
        path = Path("/run/jsync-lab")
    elif runtime := os.environ.get("XDG_RUNTIME_DIR"):
        path = Path(runtime) / "jsync-lab"
    else:
        path = Path(f"/tmp/jsync-lab-{os.geteuid()}")
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid != os.geteuid():
        raise Failure(f"{path} belongs to somebody else")
    return path


def _need(name: str) -> dict[str, Any]:
    lab = _find(name)
    if lab is None:
        raise Failure(f"there is no lab {name!r}; jsync lab up builds it")
    return lab


def _find(name: str) -> dict[str, Any] | None:
    """Give a lab's state, or None; forget a lab that was killed."""
    path = _directory() / f"{name}.json"
    try:
        lab: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    holders = lab["holders"]
    # Another process may have got the number since: only a lab has children that hold machines.
    alive = Path(f"/proc/{lab['pid']}/root/proc/{holders['n6']}").exists()
    if alive:
        return lab
    path.unlink(missing_ok=True)
    return None
