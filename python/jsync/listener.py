"""Clients of a listening socket, so many at a time."""

import errno
import socket
from collections.abc import Awaitable, Callable

import trio

_LATER = {errno.EMFILE, errno.ENFILE, errno.ECONNABORTED}


async def serve_clients(
    listener: socket.socket, most: int, client: Callable[[trio.SocketStream], Awaitable[None]]
) -> None:
    """Serve up to `most` clients at once until cancelled; more are hung up on.

    The listener stays open. `client` gets a stream to close, and may end with
    trio.BrokenResourceError, trio.ClosedResourceError or trio.TooSlowError.
    """
    accepting = trio.socket.from_stdlib_socket(listener)
    clients = 0

    async def serve(connection: trio.socket.SocketType) -> None:
        nonlocal clients
        try:
            async with trio.SocketStream(connection) as stream:
                await client(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            pass
        finally:
            clients -= 1

    async with trio.open_nursery() as nursery:
        while True:
            try:
                connection, _ = await accepting.accept()
            except OSError as error:
                if error.errno not in _LATER:
                    raise
                await trio.sleep(0.1)
                continue
            if clients >= most:
                connection.close()
                continue
            clients += 1
            nursery.start_soon(serve, connection)
