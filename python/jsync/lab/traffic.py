"""The load: `python -m jsync.lab.traffic n6|n4`, run on each end host of the sample network.

n6 opens most TCP connections, n4 those that go through static BIB entries. Both ends of each
write without pause and check every byte that arrives against a pattern that depends on its
position, so a byte that is lost, repeated or of another connection doesn't pass unseen. UDP flows
and pings are requests of n6 that n4 answers.

The program reads commands from its standard input, one word a line, and answers each with a line
of JSON. Times are seconds of the monotonic clock, which both ends share.

    start    open what this end opens         {} once everything flows, or {"error": ...}
    mark     begin a new observation          {}
    report   tell about each flow             {"streams": [...], "udp": [...], "ping": ...}
    finish   write no more, close the streams {}; then `report` tells which are complete
"""

import contextlib
import gc
import ipaddress
import json
import os
import random
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

from jsync.lab.network import N4, N6, POOL4, POOL6

DYNAMIC_STREAMS = 60
"""TCP connections that n6 opens."""
STATIC_PORTS = {61001: 8001, 61002: 8002, 61003: 8003, 61004: 8004}
"""Static BIB entries: port of pool4 -> port of n6. n4 opens a TCP connection through each."""
UDP_FLOWS = 16

STREAM_PORT = 7001
UDP_PORT = 7000
STREAM_INTERVAL = 0.025
UDP_INTERVAL = 0.05
PING_INTERVAL = 0.01
TICK = 0.005
CONNECT_PATIENCE = 3.0
START_PATIENCE = 20.0

PERIOD = 65_521
"""Of the pattern, in bytes: a prime, so that no common size of a segment divides it."""
READ_SIZE = 65_536
PING_IDENTIFIER = 0x6464
ICMPV6_ECHO_REQUEST = 128
ICMPV6_ECHO_REPLY = 129
ICMPV6_FILTER = 1

N4_IN_POOL6 = str(ipaddress.ip_network(POOL6)[int(ipaddress.ip_address(N4))])


class Observation:
    """When a flow's bytes arrived at this end, and the longest time without any."""

    def __init__(self) -> None:
        self.last: float | None = None
        self._longest = 0.0

    def mark(self) -> None:
        """Forget earlier gaps; a gap that is going on counts from its beginning."""
        self._longest = 0.0

    def arrived(self, now: float) -> None:
        """Something arrived."""
        if self.last is not None:
            self._longest = max(self._longest, now - self.last)
        self.last = now

    def longest(self, now: float) -> float:
        """Give the longest gap since the mark, the one that is going on included."""
        return self._longest if self.last is None else max(self._longest, now - self.last)


class Stream:
    """One end of a TCP connection: writes its pattern, checks the other's."""

    def __init__(self, index: int, role: str) -> None:
        self.index = index
        self.socket: socket.socket | None = None
        self.observed = Observation()
        self.failure: str | None = None
        self.complete = False
        self.sent = 0
        self.received = 0
        other = "n4" if role == "n6" else "n6"
        self._writes = _pattern(f"{index} {role}")
        self._expects = _pattern(f"{index} {other}")

    def write(self) -> None:
        """Send the next message, as much of it as the socket takes."""
        if self.socket is None or self.failure is not None:
            return
        start = self.sent % PERIOD
        length = 100 + self.sent * 7919 % 1301
        try:
            self.sent += self.socket.send(self._writes[start : start + length])
        except BlockingIOError:
            pass
        except OSError as error:
            self.fail(os.strerror(error.errno or 0))

    def read(self, now: float) -> None:
        """Take what arrived and check it."""
        if self.socket is None or self.failure is not None:
            return
        try:
            data = self.socket.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(os.strerror(error.errno or 0))
            return
        if not data:
            self.complete = True
            return
        start = self.received % PERIOD
        if data != self._expects[start : start + len(data)]:
            self.fail(f"wrong data within {len(data)} bytes from {self.received}")
            return
        self.received += len(data)
        self.observed.arrived(now)

    def finish(self) -> None:
        """Tell the other end that nothing more comes."""
        if self.socket is not None and self.failure is None:
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError as error:
                self.fail(os.strerror(error.errno or 0))

    def fail(self, why: str) -> None:
        """Note why this connection is over."""
        self.failure = why

    def report(self, now: float) -> dict[str, Any]:
        """Tell what is known of it."""
        return {
            "index": self.index,
            "failure": self.failure,
            "complete": self.complete,
            "sent": self.sent,
            "received": self.received,
            "last": self.observed.last,
            "longest": self.observed.longest(now),
        }


class UdpFlow:
    """A UDP flow of n6: numbered requests, each to be answered with the same bytes."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.observed = Observation()
        self.failure: str | None = None
        self._number = 0
        self._filling = random.Random(f"udp {index}").randbytes(120)
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.connect((N4_IN_POOL6, UDP_PORT))

    def write(self) -> None:
        """Send the next request."""
        with contextlib.suppress(OSError):  # an ICMP error of an earlier one; the next may arrive
            self.socket.send(struct.pack("!II", self.index, self._number) + self._filling)
            self._number += 1

    def read(self, now: float) -> None:
        """Take an answer and check it."""
        try:
            data = self.socket.recv(READ_SIZE)
        except OSError:
            return
        index, number = struct.unpack_from("!II", data.ljust(8, b"\0"))
        if index != self.index or number >= self._number or data[8:] != self._filling:
            self.failure = "wrong data"
        self.observed.arrived(now)

    def report(self, now: float) -> dict[str, Any]:
        """Tell what is known of it."""
        return {
            "index": self.index,
            "failure": self.failure,
            "last": self.observed.last,
            "longest": self.observed.longest(now),
        }


class Ping:
    """An ICMP echo session of n6: one identifier, requests in a row."""

    def __init__(self) -> None:
        self.observed = Observation()
        self._number = 0
        self.socket = socket.socket(
            socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6
        )
        # A bit that is set keeps messages of that type away.
        allowed = [0xFFFF_FFFF] * 8
        allowed[ICMPV6_ECHO_REPLY >> 5] &= ~(1 << (ICMPV6_ECHO_REPLY & 31))
        self.socket.setsockopt(socket.IPPROTO_ICMPV6, ICMPV6_FILTER, struct.pack("=8I", *allowed))
        self.socket.connect((N4_IN_POOL6, 0))

    def write(self) -> None:
        """Send the next request; the kernel fills in the checksum."""
        self._number = (self._number + 1) & 0xFFFF
        header = struct.pack("!BBHHH", ICMPV6_ECHO_REQUEST, 0, 0, PING_IDENTIFIER, self._number)
        with contextlib.suppress(OSError):
            self.socket.send(header + bytes(56))

    def read(self, now: float) -> None:
        """Take an answer."""
        try:
            data = self.socket.recv(READ_SIZE)
        except OSError:
            return
        if struct.unpack_from("!4xH", data)[0] == PING_IDENTIFIER:
            self.observed.arrived(now)

    def report(self, now: float) -> dict[str, Any]:
        """Tell what is known of it."""
        return {"last": self.observed.last, "longest": self.observed.longest(now)}


class Echo:
    """n4's side of the UDP flows: answers, and remembers where each flow came from."""

    def __init__(self) -> None:
        self.sources: dict[int, list[tuple[str, int]]] = {}
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind((N4, UDP_PORT))

    def read(self, _now: float) -> None:
        """Answer a request."""
        try:
            data, source = self.socket.recvfrom(READ_SIZE)
            self.socket.sendto(data, source)
        except OSError:
            return
        index = struct.unpack_from("!I", data)[0]
        known = self.sources.setdefault(index, [])
        if source not in known:
            known.append(source)

    def report(self) -> list[dict[str, Any]]:
        """Tell from how many addresses and ports each flow came: one, unless its mapping broke."""
        return [
            {"index": index, "sources": len(sources)}
            for index, sources in sorted(self.sources.items())
        ]


class Host:
    """One end host: its flows, its clockwork, its commands."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.selector = selectors.DefaultSelector()
        self.streams = {i: Stream(i, role) for i in range(DYNAMIC_STREAMS + len(STATIC_PORTS))}
        self.udp: list[UdpFlow] = []
        self.ping: Ping | None = None
        self.echo: Echo | None = None
        self._connecting: dict[int, float] = {}
        self._start_until: float | None = None
        self._writing = False
        self._commands = b""
        self._running = True
        self._watch(sys.stdin, self._command)
        if role == "n6":
            for index, port in enumerate(STATIC_PORTS.values(), DYNAMIC_STREAMS):
                self._listen(socket.AF_INET6, N6, port, index)
        else:
            for index in range(DYNAMIC_STREAMS):
                self._listen(socket.AF_INET, N4, STREAM_PORT + index, index)
            self.echo = Echo()
            self._watch(self.echo.socket, self.echo.read)

    def run(self) -> None:
        """Work until the commands end."""
        tick = 0
        due = time.monotonic()
        while self._running:
            now = time.monotonic()
            if now >= due:
                self._write(tick)
                self._look_after_start(now)
                tick += 1
                due = max(due + TICK, now)  # what is late isn't made up for
            for key, _ in self.selector.select(max(0.0, due - time.monotonic())):
                key.data(time.monotonic())

    def _write(self, tick: int) -> None:
        """Write on the flows whose turn it is: they are spread evenly over the interval."""
        if not self._writing:
            return
        every = _ticks(STREAM_INTERVAL)
        for index in range(tick % every, len(self.streams), every):
            self.streams[index].write()
        every = _ticks(UDP_INTERVAL)
        for flow in self.udp[tick % every :: every]:
            flow.write()
        if self.ping is not None and tick % _ticks(PING_INTERVAL) == 0:
            self.ping.write()

    def _command(self, _now: float) -> None:
        data = os.read(sys.stdin.fileno(), READ_SIZE)
        if not data:
            self._running = False
        *lines, self._commands = (self._commands + data).split(b"\n")
        for line in lines:
            self._obey(line.decode())

    def _obey(self, command: str) -> None:
        now = time.monotonic()
        match command:
            case "start":
                self._start(now)
                return
            case "mark":
                for observed in self._observations():
                    observed.mark()
                _answer({})
            case "report":
                _answer(self._report(now))
            case "finish":
                self._writing = False
                for stream in self.streams.values():
                    stream.finish()
                _answer({})
            case _:
                _answer({"error": f"unknown command {command!r}"})

    def _start(self, now: float) -> None:
        self._start_until = now + START_PATIENCE
        self._writing = True
        for index in self._own():
            self._connect(index, now)
        if self.role == "n6":
            self.udp = [UdpFlow(index) for index in range(UDP_FLOWS)]
            for flow in self.udp:
                self._watch(flow.socket, flow.read)
            self.ping = Ping()
            self._watch(self.ping.socket, self.ping.read)

    def _look_after_start(self, now: float) -> None:
        """Answer `start` when everything flows; try again the connections that didn't open."""
        if self._start_until is None:
            return
        for index, since in list(self._connecting.items()):
            stream = self.streams[index]
            if stream.received:
                del self._connecting[index]
            elif stream.failure is not None or now - since > CONNECT_PATIENCE:
                self._connect(index, now)
        silent = [observed for observed in self._observations() if observed.last is None]
        if not silent:
            self._start_until = None
            _answer({})
        elif now > self._start_until:
            self._start_until = None
            _answer({"error": f"{len(silent)} flows of {self.role} don't come up"})

    def _connect(self, index: int, now: float) -> None:
        self._release(self.streams[index])
        stream = self.streams[index] = Stream(index, self.role)
        self._connecting[index] = now
        if self.role == "n6":
            family, target = socket.AF_INET6, (N4_IN_POOL6, STREAM_PORT + index)
        else:
            family, target = socket.AF_INET, (POOL4, list(STATIC_PORTS)[index - DYNAMIC_STREAMS])
        opened = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        opened.connect_ex(target)
        self._adopt(stream, opened)

    def _listen(self, family: socket.AddressFamily, address: str, port: int, index: int) -> None:
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()

        def accept(_now: float) -> None:
            with contextlib.suppress(OSError):
                accepted, _ = listener.accept()
                accepted.setblocking(False)
                self._release(self.streams[index])
                self.streams[index] = Stream(index, self.role)
                self._adopt(self.streams[index], accepted)

        self._watch(listener, accept)

    def _adopt(self, stream: Stream, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.socket = connection

        def read(now: float) -> None:
            stream.read(now)
            if stream.failure is not None:
                self._release(stream)
            elif stream.complete:
                self.selector.unregister(connection)

        self._watch(connection, read)

    def _release(self, stream: Stream) -> None:
        """Close a stream's socket, if it has one."""
        if stream.socket is not None:
            with contextlib.suppress(KeyError):  # it isn't watched any more if it is complete
                self.selector.unregister(stream.socket)
            stream.socket.close()
            stream.socket = None

    def _watch(self, source: Any, react: Callable[[float], None]) -> None:
        self.selector.register(source, selectors.EVENT_READ, react)

    def _own(self) -> range:
        """Give the numbers of the connections that this end opens."""
        if self.role == "n6":
            return range(DYNAMIC_STREAMS)
        return range(DYNAMIC_STREAMS, DYNAMIC_STREAMS + len(STATIC_PORTS))

    def _observations(self) -> list[Observation]:
        observations = [stream.observed for stream in self.streams.values()]
        observations += [flow.observed for flow in self.udp]
        if self.ping is not None:
            observations.append(self.ping.observed)
        return observations

    def _report(self, now: float) -> dict[str, Any]:
        udp = self.echo.report() if self.echo else [flow.report(now) for flow in self.udp]
        return {
            "streams": [stream.report(now) for stream in self.streams.values()],
            "udp": udp,
            "ping": self.ping.report(now) if self.ping else None,
        }


def _ticks(interval: float) -> int:
    return round(interval / TICK)


def _pattern(seed: str) -> bytes:
    """Give a pattern that may be sliced from any position within its period."""
    once = random.Random(seed).randbytes(PERIOD)
    return once + once + once[:1024]


def _answer(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    gc.disable()  # no pauses that would look like the network's
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # nobody is left to answer to
    Host(sys.argv[1]).run()
