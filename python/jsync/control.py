"""The control socket: requests and answers as lines of JSON.

A request is `{"verb": ["session", "display"], "args": {…}}`. Its answer is any number of
`{"rows": […]}`, then `{"ok": true, "value": …}` or `{"ok": false, "error": …, "code": …}`; tables
come in pages, so that a million rows are never in memory at once. A client may ask again after
an answer. Only the daemon's user can open the socket (mode 0600).
"""

import fcntl
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import msgspec
import trio

from jsync.errors import USAGE, Failure
from jsync.listener import serve_clients

MAX_LINE = 65_536
MAX_CLIENTS = 64
PATIENCE = 30.0
"""Seconds that a client may take to read an answer."""

Arguments = dict[str, Any]
Value = Callable[[Arguments], object]
Action = Callable[[Arguments], Awaitable[object]]
Rows = Callable[[Arguments], Iterator[list[Any]]]


class Request(msgspec.Struct):
    """What a client asks for."""

    verb: list[str]
    args: Arguments = {}


class Control:
    """Answers requests."""

    def __init__(
        self,
        values: Mapping[tuple[str, ...], Value],
        tables: Mapping[tuple[str, ...], Rows],
        actions: Mapping[tuple[str, ...], Action],
    ) -> None:
        """`values` give one answer, `tables` pages of rows, `actions` take their time.

        All may raise Failure.
        """
        self._values = values
        self._actions = actions
        self._tables = tables

    async def serve(self, listener: socket.socket) -> None:
        """Serve all clients until cancelled. The listener stays open."""
        await serve_clients(listener, MAX_CLIENTS, self._client)

    async def _client(self, stream: trio.SocketStream) -> None:
        buffer = bytearray()
        while True:
            while (end := buffer.find(b"\n")) < 0:
                if len(buffer) > MAX_LINE:
                    message = f"a request has at most {MAX_LINE} bytes"
                    await _send(stream, _refusal(message, USAGE))
                    return
                data = await stream.receive_some(MAX_LINE)
                if not data:
                    return
                buffer += data
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            await self.answer(line, partial(_send, stream))

    async def answer(self, line: bytes, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Answer a request: `send` gets one line after the other."""
        try:
            request = msgspec.json.decode(line, type=Request)
        except msgspec.MsgspecError as error:
            await send(_refusal(f"not a request: {error}", USAGE))
            return
        verb = tuple(request.verb)
        value: object = None
        try:
            if rows := self._tables.get(verb):
                for page in rows(request.args):
                    await send(_line({"rows": page}))
            elif act := self._actions.get(verb):
                value = await act(request.args)
            elif read := self._values.get(verb):
                value = read(request.args)
            else:
                raise Failure(f"the daemon doesn't know {' '.join(verb)!r}", USAGE)
        except Failure as failure:
            await send(_refusal(str(failure), failure.code))
        else:
            await send(_line({"ok": True, "value": value}))


async def _send(stream: trio.SocketStream, line: bytes) -> None:
    with trio.fail_after(PATIENCE):
        await stream.send_all(line)


def _line(answer: object) -> bytes:
    return msgspec.json.encode(answer) + b"\n"


def _refusal(message: str, code: int) -> bytes:
    return _line({"ok": False, "error": message, "code": code})


@contextmanager
def listening(path: str) -> Iterator[socket.socket]:
    """The control socket at `path`, removed at the end with the directory made for it.

    Takes the place of a socket that a crashed daemon has left. Raises Failure if a daemon that
    lives listens there.
    """
    directory = os.path.dirname(path)
    made = False
    try:
        if not os.path.isdir(directory):
            os.makedirs(directory, 0o755)
            made = True
        listener = _bind(path, directory)
    except OSError as error:
        raise Failure(
            f"{path}: {error.strerror}; be root, or give [node] control a path you may write to"
        ) from None
    try:
        yield listener
    finally:
        listener.close()
        with suppress(FileNotFoundError):
            os.unlink(path)
        if made:
            with suppress(OSError):  # something else lives there by now
                os.rmdir(directory)


def _bind(path: str, directory: str) -> socket.socket:
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Two daemons that start at once must not both find the socket stale.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_alive(path):
            raise Failure(
                f"a daemon listens on {path} already; stop it, or give this one another path"
            )
        with suppress(FileNotFoundError):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # The mode is on the file before anybody can connect.
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(path)
            os.chmod(path, 0o600)
            listener.listen(MAX_CLIENTS)
        except OSError:
            listener.close()
            raise
        return listener
    finally:
        os.close(lock)


def _is_alive(path: str) -> bool:
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Failure(f"{path}: exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except TimeoutError:
            return True  # it has more clients waiting than it accepts
        return True
