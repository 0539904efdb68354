"""Two NAT64s translate at once, each with a slice of pool4, and no connection notices."""

import subprocess
import sys

import active
import pytest
from labs import needs_lab

pytestmark = needs_lab


@pytest.mark.parametrize("name", active.SCENES)
def test_scene(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, active.__file__, name],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if done.stdout:
        with capsys.disabled():
            print(f"\n{name}\n{done.stdout.rstrip()}")
