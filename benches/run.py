"""Run the measurements, print them as a table and write target/bench.json.

Usage: python benches/run.py [PREFIX]
"""

import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TypedDict

import pair

ROOT = Path(__file__).parents[1]


class Row(TypedDict):
    """A measurement; `ceiling` and `ratio` are None where there is nothing to compare with."""

    name: str
    value: float
    unit: str
    ceiling: float | None
    ratio: float | None


INSTRUCTIONS = {
    f"translate/{way}/{shape}/instructions": f"{way}/{shape}"
    for way in ("v6to4", "v4to6")
    for shape in ("udp64", "tcp64", "udp1500", "gso64k")
} | {"sync/apply/instructions": "apply"}
"""Measurements that callgrind makes, and what the program calls them."""
FLOWING_RUNS = 3
"""Transfers of 10 million sessions of which the figure in the middle counts: in about one of three
the machine's owner takes the CPU for milliseconds from whoever holds the lock.
"""


def build() -> str:
    """Build the measurements of the Rust core; the program's path."""
    command = [
        "cargo",
        "build",
        "--release",
        "--quiet",
        "-p",
        "jsync-bench",
        "--message-format=json",
    ]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    artifacts = [json.loads(line) for line in built.stdout.splitlines()]
    return next(str(a["executable"]) for a in artifacts if a.get("executable"))


def core(program: str, prefix: str) -> list[Row]:
    """The measurements of the Rust core."""
    rows: list[Row] = []
    with subprocess.Popen([program, prefix], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            row: Row = json.loads(line)
            rows.append(row)
            show(row)
    if running.returncode:
        sys.exit(f"{program} ended with status {running.returncode}")
    return rows


def instructions(program: str, prefix: str) -> list[Row]:
    """Instructions of a packet or a session: what doesn't depend on the machine's other users."""
    wanted = {name: kind for name, kind in INSTRUCTIONS.items() if name.startswith(prefix)}
    if wanted and shutil.which("valgrind") is None:
        print("instructions are not counted: that needs valgrind (apt-get install valgrind)")
        return []
    rows: list[Row] = []
    for name, kind in wanted.items():
        with tempfile.NamedTemporaryFile("r", encoding="ascii") as out:
            tool = ["valgrind", "--tool=callgrind", "--toggle-collect=*counted*"]
            command = [*tool, f"--callgrind-out-file={out.name}", program, "--count", kind]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            total = re.search(r"^(?:summary|totals): (\d+)", out.read(), re.MULTILINE)
        if run.returncode or total is None:
            sys.exit(f"{' '.join(command)}: status {run.returncode}\n{run.stderr}")
        each = int(total[1]) / int(run.stdout)
        rows.append(Row(name=name, value=each, unit="instructions", ceiling=None, ratio=None))
        show(rows[-1])
    return rows


def between_processes(prefix: str) -> list[Row]:
    """What the daemon's own ways cost: sessions over TCP, packets through a TUN."""
    rows: list[Row] = []

    def add(name: str, value: float, unit: str, ceiling: float | None) -> None:
        ratio = value / ceiling if ceiling else None
        rows.append(Row(name=name, value=value, unit=unit, ceiling=ceiling, ratio=ratio))
        show(rows[-1])

    def wants(*names: str) -> bool:
        return any(name.startswith(prefix) for name in names)

    if wants("sync/pair_1m"):
        runs = sorted((pair.measure(1_000_000) for _ in range(3)), key=lambda run: run.seconds)
        add("sync/pair_1m", runs[1].seconds, "s", runs[1].loopback)
    if wants("sync/pair_10m", "sync/pause_10m"):
        told = [in_namespace("pair.py", "flowing", "10000000") for _ in range(FLOWING_RUNS)]
        if all(told):
            middle = {key: statistics.median(run[key] for run in told) for key in told[0]}
            add("sync/pair_10m", middle["seconds"], "s", middle["loopback"])
            # On a CPU, the lock; what a program sees that does nothing is what it is compared with.
            add("sync/pause_10m", middle["pause_ms"], "ms", middle["idle_pause_ms"])
            # By the clock, a packet; the CPUs are busy with something else in the control run.
            for what in ("longest", "late"):
                name = {"longest": "packet_longest", "late": "packet_p99.9"}[what]
                control = middle[f"control_{what}"]
                add(f"sync/pause_10m/{name}", middle[f"meanwhile_{what}"], "ms", control)
    if wants("sync/throughput_on_off"):
        through = in_namespace("through.py", "throughput")
        if through:
            add("sync/throughput_on_off", through["on"], "bytes/s", through["off"])
            name = "sync/throughput_on_off/new_sessions"
            add(name, through["new_on"], "bytes/s", through["new_off"])
    if wants("sync/bytes_per_session"):
        for name, value in in_namespace("through.py", "bytes").items():
            add(f"sync/bytes_per_session{name}", value, "bytes", None)
    if wants("sync/first_packet"):
        for name, seconds in in_namespace("through.py", "first_packet").items():
            add(f"sync/first_packet/{name}", seconds * 1e6, "us", None)
    return rows


def in_namespace(program: str, *arguments: str) -> dict[str, float]:
    """What a program measures in a network of its own; nothing where there can be none."""
    command = [sys.executable, str(ROOT / "benches" / program), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == pair.NOT_HERE:
        return {}
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with status {done.returncode}")
    told: dict[str, float] = json.loads(done.stdout)
    return told


def show(row: Row) -> None:
    """Print a row of the table; of what takes nanoseconds, also how many a second that makes."""
    rate = f"{1e9 / row['value']:,.0f}" if row["unit"] == "ns" else ""
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}"
    value = f"{row['value']:,.1f}" if row["value"] >= 10 else f"{row['value']:.3g}"
    columns = f"{row['name']:<44} {value:>16} {row['unit']:<12} {ratio:>8} {rate:>12}"
    print(columns.rstrip(), flush=True)


def main() -> None:
    """Measure what is asked for."""
    prefix = sys.argv[1] if len(sys.argv) > 1 else ""
    columns = f"{'name':<44} {'value':>16} {'unit':<12} {'ratio':>8} {'a second':>12}"
    print(columns, flush=True)
    program = build()
    rows = core(program, prefix) + instructions(program, prefix)
    rows += between_processes(prefix)
    if not rows:
        sys.exit(f"no measurement's name begins with {prefix!r}")
    out = ROOT / "target" / "bench.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
