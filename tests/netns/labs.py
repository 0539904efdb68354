"""What the tests in namespaces share."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

JSYNC = str(Path(sys.executable).with_name("jsync"))
LOOKS_LIKE_LAB = re.compile(r"jsync|[JKL46]-(to6|to4|priv)|/lab")
PROBE = """
from jsync.lab import isolation
try:
    isolation.require_programs()
    isolation.enter()
except isolation.LabUnavailable as error:
    print(error)
"""


@cache
def why_not() -> str:
    """Why there can be no lab here; empty if there can."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=False
    )
    return (done.stdout + done.stderr).strip()


needs_lab = pytest.mark.skipif(why_not() != "", reason=f"no lab: {why_not()}")


def jsync(
    *arguments: str, timeout: float = 60.0, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command `jsync`."""
    return subprocess.run(
        [JSYNC, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=environment,
    )


def traces() -> set[str]:
    """What there is on this machine that looks like a part of a lab."""
    found = []
    for argv in (["ip", "-o", "link"], ["ip", "netns", "list"], ["nft", "list", "tables"]):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        found += done.stdout.splitlines()
    found += Path("/proc/self/mounts").read_text().splitlines()
    return {line for line in found if LOOKS_LIKE_LAB.search(line)}
