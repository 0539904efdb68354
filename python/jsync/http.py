"""A server of one page over HTTP: small, and bounded in everything that a client decides.

A connection carries one request. What is slow, large, late or many costs what is written here.
"""

import ipaddress
import socket
from collections.abc import Callable

import h11
import trio

from jsync.errors import Failure
from jsync.listener import serve_clients

MAX_CLIENTS = 16
MAX_REQUEST = 8_192
"""Bytes of a request's line and headers."""
PATIENCE = 10.0
"""Seconds that a client has from its connection to the end of the answer."""
MAX_LATE_READS = 16
"""Reads of what a client sends behind its request."""
PAGE = "/metrics"

Page = Callable[[str], tuple[str, bytes]]


def open_listener(address: str, port: int) -> socket.socket:
    """A listening socket. Raises Failure."""
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(MAX_CLIENTS)
    except OSError as error:
        listener.close()
        raise Failure(
            f"[metrics] listen: {address}, port {port}: {error.strerror}; choose another"
        ) from None
    return listener


class PageServer:
    """Serves `/metrics`."""

    def __init__(self, page: Page) -> None:
        """`page` gives content type and content for the value of an Accept header.

        It may raise Failure.
        """
        self._page = page

    async def serve(self, listener: socket.socket) -> None:
        """Serve all clients until cancelled. The listener stays open."""
        await serve_clients(listener, MAX_CLIENTS, self._client)

    async def _client(self, stream: trio.SocketStream) -> None:
        with trio.move_on_after(PATIENCE):
            await self._converse(stream)

    async def _converse(self, stream: trio.SocketStream) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST)
        is_head = False
        try:
            while (event := http.next_event()) is h11.NEED_DATA:
                http.receive_data(await stream.receive_some(MAX_REQUEST))
        except h11.RemoteProtocolError as error:
            status, headers, body = _plain(error.error_status_hint, "this is no request")
        else:
            if not isinstance(event, h11.Request):
                return
            status, headers, body = self._answer(event)
            is_head = event.method == b"HEAD"
        headers += [("Content-Length", str(len(body))), ("Connection", "close")]
        answer = http.send(h11.Response(status_code=status, headers=headers)) or b""
        if not is_head:
            answer += http.send(h11.Data(data=body)) or b""
        await stream.send_all(answer)
        await stream.send_eof()
        # A socket that is closed with bytes unread resets the connection, and the answer with it.
        for _ in range(MAX_LATE_READS):
            if not await stream.receive_some(MAX_REQUEST):
                return

    def _answer(self, request: h11.Request) -> tuple[int, list[tuple[str, str]], bytes]:
        path = request.target.partition(b"?")[0].decode()
        if path != PAGE:
            return _plain(404, f"the page is {PAGE}")
        if request.method not in {b"GET", b"HEAD"}:
            status, headers, body = _plain(405, "the page can be read: GET, HEAD")
            return status, [*headers, ("Allow", "GET, HEAD")], body
        accept = b",".join(value for name, value in request.headers if name == b"accept")
        try:
            content_type, body = self._page(accept.decode("latin-1"))
        except Failure as failure:
            return _plain(503, str(failure))
        return 200, [("Content-Type", content_type)], body


def _plain(status: int, text: str) -> tuple[int, list[tuple[str, str]], bytes]:
    return status, [("Content-Type", "text/plain; charset=utf-8")], f"{text}\n".encode()
