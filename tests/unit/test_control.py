import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from jsync import control
from jsync.control import MAX_CLIENTS, MAX_LINE, Control, listening
from jsync.errors import Failure


def refuse(arguments: dict[str, Any]) -> object:
    raise Failure("no such thing", 4)


def count(arguments: dict[str, Any]) -> Iterator[list[Any]]:
    for page in range(arguments["pages"]):
        yield [{"n": page * 500 + n, "pad": "x" * 50} for n in range(500)]


def half(arguments: dict[str, Any]) -> Iterator[list[Any]]:
    yield [1]
    raise Failure("the rest is missing")


async def act(arguments: dict[str, Any]) -> object:
    await trio.sleep(0)
    return {"done": arguments}


CONTROL = Control(
    {("echo",): lambda arguments: arguments, ("refuse",): refuse},
    {("count",): count, ("half",): half},
    {("act",): act},
)


def answers(line: bytes) -> list[Any]:
    lines: list[bytes] = []

    async def send(answer: bytes) -> None:
        lines.append(answer)

    trio.run(CONTROL.answer, line, send)
    return [json.loads(answer) for answer in lines]


def request(*verb: str, **arguments: object) -> bytes:
    return json.dumps({"verb": verb, "args": arguments}).encode()


def test_a_value_comes_in_one_answer() -> None:
    assert answers(request("echo", a=1)) == [{"ok": True, "value": {"a": 1}}]
    assert answers(request("act", a=1)) == [{"ok": True, "value": {"done": {"a": 1}}}]
    assert answers(b'{"verb": ["echo"]}') == [{"ok": True, "value": {}}]


def test_a_refusal_has_the_reason_and_the_exit_status() -> None:
    assert answers(request("refuse")) == [{"ok": False, "error": "no such thing", "code": 4}]


def test_a_table_that_fails_half_way_says_so() -> None:
    *_, rows, last = answers(request("half"))
    assert rows == {"rows": [1]}
    assert last["ok"] is False


@pytest.mark.parametrize(
    "line", [b"", b"x", b"[]", b'{"verb": "echo"}', b'{"verb": ["echo"], "args": []}', b"\xff"]
)
def test_what_is_no_request_is_refused(line: bytes) -> None:
    (answer,) = answers(line)
    assert answer["ok"] is False
    assert answer["code"] == 2


def test_an_unknown_verb_is_named() -> None:
    (answer,) = answers(request("make", "coffee"))
    assert "make coffee" in answer["error"]


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[str]:
    with listening(str(path)) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(CONTROL.serve, listener)
            yield str(path)
            nursery.cancel_scope.cancel()


async def read_lines(stream: trio.SocketStream, number: int) -> list[Any]:
    data = b""
    while data.count(b"\n") < number:
        chunk = await stream.receive_some()
        assert chunk, data
        data += chunk
    return [json.loads(line) for line in data.splitlines()]


def test_serves_several_clients_that_ask_more_than_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path / "s") as path:
            one, two = [await trio.open_unix_socket(path) for _ in range(2)]
            for client in (one, two, one):
                line = request("echo", a=1)
                await client.send_all(line[:5])  # a line may come in pieces
                await client.send_all(line[5:] + b"\n")
                assert await read_lines(client, 1) == [{"ok": True, "value": {"a": 1}}]
            # … and two lines in one
            await two.send_all(request("echo", n=1) + b"\n" + request("refuse") + b"\n")
            assert [a["ok"] for a in await read_lines(two, 2)] == [True, False]
            await one.aclose()
            await two.aclose()

    trio.run(test)


def test_a_large_table_comes_in_pages_while_others_are_served(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path / "s") as path:
            slow, quick = [await trio.open_unix_socket(path) for _ in range(2)]
            await slow.send_all(request("count", pages=1_000) + b"\n")
            await slow.receive_some(1)
            await quick.send_all(request("echo") + b"\n")
            with trio.fail_after(5):
                assert (await read_lines(quick, 1))[0]["ok"] is True
            await slow.aclose()
            await quick.aclose()

    trio.run(test)


def test_a_client_that_reads_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "PATIENCE", 0.05)

    async def test() -> None:
        async with served(tmp_path / "s") as path:
            lazy = await trio.open_unix_socket(path)
            await lazy.send_all(request("count", pages=1_000) + b"\n")
            await trio.sleep(0.3)
            data = b""
            with trio.fail_after(5):
                while chunk := await lazy.receive_some():
                    data += chunk
            assert b'"ok":true' not in data
            await lazy.aclose()

    trio.run(test)


def test_an_endless_line_is_cut_off(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path / "s") as path:
            client = await trio.open_unix_socket(path)
            await client.send_all(b"x" * (2 * MAX_LINE))
            (answer,) = await read_lines(client, 1)
            assert str(MAX_LINE) in answer["error"]
            with pytest.raises(trio.BrokenResourceError):
                await client.send_all(b"x" * (64 * MAX_LINE))
            await client.aclose()

    trio.run(test)


def test_clients_are_bounded(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path / "s") as path:
            clients = [await trio.open_unix_socket(path) for _ in range(MAX_CLIENTS)]
            for client in clients:
                await client.send_all(request("echo") + b"\n")
                await read_lines(client, 1)
            extra = await trio.open_unix_socket(path)
            with trio.fail_after(5):
                assert await extra.receive_some() == b""
            for client in [*clients, extra]:
                await client.aclose()

    trio.run(test)


def test_the_socket_is_the_owners_alone_and_goes_with_its_directory(tmp_path: Path) -> None:
    path = tmp_path / "run" / "jsync" / "control.sock"
    with listening(str(path)):
        mode = path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
    assert not path.parent.exists()


def test_a_directory_in_which_others_live_stays(tmp_path: Path) -> None:
    path = tmp_path / "run" / "control.sock"
    with listening(str(path)):
        (path.parent / "other").touch()
    assert path.parent.exists()
    assert not path.exists()


def test_a_socket_that_a_crash_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(path))
    with listening(str(path)) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        listener.accept()[0].close()


def test_a_daemon_that_lives_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    with listening(path), pytest.raises(Failure, match=r"listens on .* already"), listening(path):
        pass
    assert not os.path.exists(path)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")
    with pytest.raises(Failure, match="no socket"), listening(str(path)):
        pass
    assert path.read_text() == "precious"
