import base64
import os
from pathlib import Path

import pytest

from jsync.errors import Failure
from jsync.keys import generate_key, node_secret, read_key

KEY = bytes(range(32))


def write(path: Path, text: bytes, mode: int = 0o600) -> str:
    path.write_bytes(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    "text", [KEY.hex().encode() + b"\n", base64.b64encode(KEY), KEY.hex().upper().encode()]
)
def test_reads_hexadecimal_and_base64(tmp_path: Path, text: bytes) -> None:
    assert read_key(write(tmp_path / "key", text)) == KEY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_refuses_a_key_that_others_may_read_and_says_what_to_type(
    tmp_path: Path, mode: int
) -> None:
    path = write(tmp_path / "my key", KEY.hex().encode(), mode)
    with pytest.raises(Failure, match=r"chmod 0600 '.*my key'"):
        read_key(path)


@pytest.mark.parametrize("text", [b"", KEY, KEY.hex().encode()[2:], b"x" * 64, b"\xff" * 44])
def test_refuses_what_is_no_key(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(Failure, match="jsync key generate"):
        read_key(write(tmp_path / "key", text))


def test_a_missing_key_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="jsync key generate"):
        read_key(str(tmp_path / "none"))


def test_generates_a_key_that_it_reads_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "key"
    before = os.umask(0)
    try:
        generate_key(str(path))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(read_key(str(path))) == 32


def test_never_overwrites_a_key(tmp_path: Path) -> None:
    path = write(tmp_path / "key", b"precious")
    with pytest.raises(Failure, match="exists"):
        generate_key(path)
    assert Path(path).read_bytes() == b"precious"


def test_nodes_of_a_cluster_share_the_secret_and_others_do_not() -> None:
    assert node_secret([KEY], "campus") == node_secret([KEY, bytes(32)], "campus")
    assert node_secret([KEY], "campus") != node_secret([KEY], "lab")
    assert node_secret([KEY], "campus") != KEY
    assert node_secret([], "") != node_secret([], "")
