"""Run the measurements, print them as a table and write target/bench.json.

Usage: python benches/run.py [PREFIX]
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

ROOT = Path(__file__).parents[1]


class Row(TypedDict):
    """A measurement; `ceiling` and `ratio` are None where there is nothing to compare with."""

    name: str
    value: float
    unit: str
    ceiling: float | None
    ratio: float | None


def core(prefix: str) -> list[Row]:
    """The measurements of the Rust core."""
    build = ["cargo", "build", "--release", "--quiet", "-p", "jsync-bench", "--message-format=json"]
    built = subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    artifacts = [json.loads(line) for line in built.stdout.splitlines()]
    program = next(a["executable"] for a in artifacts if a.get("executable"))
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


def show(row: Row) -> None:
    """Print a row of the table."""
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    print(f"{row['name']:<36} {row['value']:>16,.1f} {row['unit']:<12} {ratio:>8}", flush=True)


def main() -> None:
    """Measure what is asked for."""
    prefix = sys.argv[1] if len(sys.argv) > 1 else ""
    print(f"{'name':<36} {'value':>16} {'unit':<12} {'ratio':>8}", flush=True)
    rows = core(prefix)
    if not rows:
        sys.exit(f"no measurement's name begins with {prefix!r}")
    out = ROOT / "target" / "bench.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
