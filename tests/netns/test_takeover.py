"""Real keepalived moves the addresses to a node that has the sessions, and to no other."""

import subprocess
import sys
from pathlib import Path

import pytest
import scenarios
import soak
from labs import JSYNC, needs_lab

REPOSITORY = Path(__file__).parents[2]
CONTRIB = REPOSITORY / "contrib"

pytestmark = needs_lab


@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_scene(name: str) -> None:
    done = subprocess.run(
        [sys.executable, scenarios.__file__, name],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("transport", ["multicast 4", "unicast 6", "tcp 4"])
def test_a_few_seconds_of_faults(transport: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`make soak` goes on for longer."""
    done = subprocess.run(
        [sys.executable, soak.__file__, "5", transport],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    with capsys.disabled():
        print("\n" + done.stdout.splitlines()[-1] if done.returncode == 0 else "")
    assert done.returncode == 0, done.stdout + done.stderr


def generated(config: Path) -> str:
    done = subprocess.run(
        [JSYNC, "keepalived", "conf", "-c", str(config)], capture_output=True, text=True, check=True
    )
    return done.stdout


def complaints(path: Path) -> str:
    """What `keepalived --config-test` says of a file on a machine that has its interfaces."""
    script = """
        ip link add to6 up type dummy
        ip link add to4 up type dummy
        keepalived --config-test -f "$1" 2>&1
        echo "exit status $?"
    """
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-c", script, "sh", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.fixture(params=["keepalived", "active-active"])
def example(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_keepalived_accepts_what_is_generated(tmp_path: Path, example: str) -> None:
    conf = tmp_path / "keepalived.conf"
    conf.write_text(generated(CONTRIB / example / "jsync.toml"))
    assert "exit status 0" in complaints(conf)


def test_keepalived_does_complain_where_it_should(tmp_path: Path) -> None:
    conf = tmp_path / "keepalived.conf"
    text = generated(CONTRIB / "keepalived" / "jsync.toml")
    conf.write_text(text.replace("advert_int 0.1", "advert_ind 0.1"))
    assert "exit status 0" not in complaints(conf)


def test_the_example_is_what_is_generated(example: str) -> None:
    text = generated(CONTRIB / example / "jsync.toml").replace(JSYNC, "/usr/local/bin/jsync")
    assert (CONTRIB / example / "keepalived.conf").read_text() == text
