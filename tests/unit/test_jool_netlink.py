"""The kernel module's messages, by captures of the real one, and the stream over a fake of it."""

import errno
import json
import socket
import struct
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import trio

from jsync import _core
from jsync.errors import Failure
from jsync.jool import counters, messages, table
from jsync.jool.messages import Command
from jsync.jool.module import Absent, Family, Instance, Module, Refused, refusal
from jsync.jool.stream import Gone, Stream, StreamStats
from jsync.log import Log

VECTORS = Path(__file__).parents[1] / "vectors" / "jool-netlink"
VERSIONS = {"4.1.9": 0x0401_0900, "4.1.15": 0x0401_0F00}
ERROR = 2  # NLMSG_ERROR


def captured(version: str, what: str) -> list[bytes]:
    rows = json.loads((VECTORS / f"jool-{version}.json").read_text())
    return [bytes.fromhex(row["hex"]) for row in rows if row["what"] == what]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("command", ["JOOLD_ADD", "JOOLD_ADVERTISE", "JOOLD_ACK"])
def test_requests_are_those_of_jools_own_programs(version: str, command: str) -> None:
    found = captured(version, f"Jool {command}")
    assert found
    for data in found:
        family, sequence, number, _ = messages.header(data)
        attributes: list[tuple[str, object]] = []
        if (batch := messages.batch_of(data)) is not None:
            attributes.append(("SESSION_ENTRIES", batch))
        ours = messages.request(
            family,
            Command[command],
            version=number,
            instance=messages.instance_of(data),
            sequence=sequence,
            attributes=attributes,
        )
        assert number == VERSIONS[version]
        assert ours[:12] + data[12:16] + ours[16:] == data, "all but the sender's port"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_modules_batches_are_joolds_datagrams(version: str) -> None:
    format = "4.1.9" if version == "4.1.9" else "4.1.13"
    batches = [messages.batch_of(data) for data in captured(version, "joold multicast")]
    protocols = [_core.decode_joold(batch or b"", format)[1][0]["proto"] for batch in batches]
    assert protocols == ["icmp", "icmp", "udp"]


@pytest.mark.parametrize("version", VERSIONS)
def test_its_refusals_have_a_reason(version: str) -> None:
    (reply,) = captured(version, "error reply")
    assert messages.header(reply)[3] & messages.FLAG_ERROR
    assert refusal(reply) == (errno.EINVAL, "Unknown protocol: 3")


@pytest.mark.parametrize("cut", range(0, 92, 3))
def test_what_is_cut_short_is_no_batch(cut: int) -> None:
    data = captured("4.1.15", "joold multicast")[0][:cut]
    with pytest.raises(ValueError, match="it "):
        messages.header(data)


class FakeModule:
    """The module, as requests see it: what it answers to each command."""

    def __init__(self, version: int = 0x0401_0D00, **answers: bytes) -> None:
        self.version = version
        self.answers = {"INSTANCE_HELLO": attribute(1, b"\0")} | answers
        self.more: dict[str, list[bytes]] = {}
        self.asked: list[tuple[str, bytes]] = []
        self.unloaded = False
        self._replies: list[bytes] = []

    def send(self, data: bytes) -> int:
        kind, sequence = struct.unpack_from("=H", data, 4)[0], data[8:12]
        if self.unloaded:
            error = struct.pack("=i", -errno.ENOENT)
            self._replies.append(struct.pack("=IHH4sI", 36, ERROR, 0, sequence, 0) + error * 5)
        elif kind == 16:
            self._replies.append(captured("4.1.15", "genl ctrl")[1])
        else:
            self._replies.append(self._answer(data))
        return len(data)

    def _answer(self, data: bytes) -> bytes:
        name = Command(data[16]).name
        self.asked.append((name, data[messages.HEADER_LEN :]))
        *_, version, _ = messages.header(data)
        if version >> 16 != self.version >> 16:
            text = f"but the kernel module is {messages.version_name(self.version)}."
            return reply(data, refuse(errno.EINVAL, text), flags=messages.FLAG_ERROR)
        pages = self.more.get(name)
        flags = messages.FLAG_MORE if pages and len(pages) > 1 else 0
        return reply(data, pages.pop(0) if pages else self.answers.get(name, b""), flags=flags)

    def recv(self, size: int) -> bytes:
        return self._replies.pop(0)

    def close(self) -> None: ...


def attribute(kind: int, content: bytes) -> bytes:
    size = 4 + len(content)
    return struct.pack("=HH", size, kind) + content + bytes(-size % 4)


def refuse(code: int, text: str) -> bytes:
    return attribute(1, struct.pack("=H", code)) + attribute(2, text.encode() + b"\0")


def reply(request: bytes, attributes: bytes, *, flags: int = 0) -> bytes:
    data = bytearray(request[: messages.HEADER_LEN] + attributes)
    struct.pack_into("=I", data, 0, len(data))
    data[messages.HEADER_LEN - 19] = flags
    return bytes(data)


def test_the_module_is_found_and_says_its_version() -> None:
    module = Module("default", FakeModule())
    found = module.find()
    assert (found.family, found.version) == (Family(32, 9), 0x0401_0D00)
    assert found.format == "4.1.13"


@pytest.mark.parametrize(
    ("revision", "format"), [(9, "4.1.9"), (11, "4.1.9"), (12, "4.1.12"), (13, "4.1.13")]
)
def test_the_version_says_the_format(revision: int, format: str) -> None:
    assert Instance(Family(32, 9), 0x0401_0000 | revision << 8, "default").format == format


@pytest.mark.parametrize("version", [0x0402_0000, 0x0401_0800, 0x0400_0A00])
def test_an_unknown_version_is_refused(version: int) -> None:
    with pytest.raises(Failure, match=r"load a version from 4\.1\.9 on"):
        _ = Instance(Family(32, 9), version, "default").format


def test_its_absence_is_named() -> None:
    fake = FakeModule()
    module = Module("default", fake)
    fake.unloaded = True
    with pytest.raises(Absent, match="modprobe jool"):
        module.find()
    fake.unloaded = False
    fake.answers["INSTANCE_HELLO"] = attribute(1, b"\1")
    with pytest.raises(Absent, match="no instance 'default'; make it"):
        module.find()
    fake.answers["INSTANCE_HELLO"] = attribute(1, b"\0")
    module.find()
    fake.unloaded = True
    with pytest.raises(Absent, match="modprobe jool"):
        module.stats()
    assert module.instance is None


def test_options_of_a_real_one() -> None:
    (answer,) = (d for d in captured("4.1.15", "reply with data") if len(d) == 372)
    fake = FakeModule(GLOBAL_FOREACH=answer[messages.HEADER_LEN :])
    options = Module("default", fake).options()
    assert options["pool6"] == "64:ff9b::/96"
    assert (options["ss-enabled"], options["tcp-est-timeout"]) == (True, 7_200_000)
    assert options["mtu-plateaus"][:2] == [65535, 32000]
    assert {name for name, _ in messages.OPTIONS.values()} == set(options)


def test_counters_come_in_pages_and_have_the_names_of_their_version() -> None:
    fake = FakeModule()
    page = b"".join(attribute(n, struct.pack("=Q", n * 10)) for n in range(1, 50))
    rest = b"".join(attribute(n, struct.pack("=Q", n * 10)) for n in range(50, 84))
    fake.more["STATS_FOREACH"] = [page, rest]
    module = Module("default", fake)
    values = module.stats()
    assert values == {n: n * 10 for n in range(1, 84)}
    assert fake.asked[-1] == ("STATS_FOREACH", attribute(9, b"\x31"))
    names = {name: (help, value) for name, help, value in counters.rows(0x0401_0D00, values)}
    assert names["jstat_bib_entries"][1] == 10 * counters.BIB_ENTRIES
    assert names["jstat_joold_sss_enospc"] == (
        "Sessions that it dropped since ss-capacity others waited"
        " (the module's JSTAT_JOOLD_SSS_ENOSPC)",
        780,
    )
    assert names["jstat_64_src"][0].startswith("The module's JSTAT64_SRC")
    assert [len(counters.names(0x0401_0000 | r << 8)) for r in (9, 12, 13, 15)] == [69, 84, 83, 83]


def pool4_row(prefix: str, first: int, last: int, mark: int = 0) -> dict[str, Any]:
    return {"prefix": prefix, "first": first, "last": last, "mark": mark}


def test_pool4_becomes_what_one_would_write() -> None:
    same = [pool4_row(f"192.0.2.{n}/32", 61001, 65535) for n in range(4)]
    assert table.merge_pool4({"tcp": same, "udp": same, "icmp": same}) == [
        {"prefix": "192.0.2.0/30", "ports": "61001-65535"}
    ]
    marked = [pool4_row("192.0.2.1/32", 1024, 2000), pool4_row("192.0.2.1/32", 1500, 3000, 7)]
    assert table.merge_pool4({"tcp": marked, "udp": [], "icmp": []}) == [
        {"protocol": "tcp", "prefix": "192.0.2.1/32", "ports": "1024-2000"},
        {"protocol": "tcp", "prefix": "192.0.2.1/32", "ports": "1500-3000", "mark": 7},
    ]


def bib_entry(n: int, *, static: bool) -> bytes:
    src6 = attribute(1, bytes(15) + bytes([n])) + attribute(2, struct.pack("=H", n))
    src4 = attribute(1, bytes([192, 0, 2, 1])) + attribute(2, struct.pack("=H", 61000 + n))
    content = attribute(1 | messages.NESTED, src6) + attribute(2 | messages.NESTED, src4)
    content += attribute(3, b"\0") + attribute(4, bytes([static]))
    return attribute(1 | messages.NESTED, content)


def test_static_bib_entries_are_found_page_by_page() -> None:
    fake = FakeModule()
    pages = [bib_entry(1, static=False) + bib_entry(2, static=True), bib_entry(3, static=False)]
    fake.more["BIB_FOREACH"] = list(pages)
    module = Module("default", fake)
    found = [
        row
        for page in module.pages(Command.BIB_FOREACH, "tcp")
        for row in table.static_bib(page, "tcp")
    ]
    assert found == [{"protocol": "tcp", "ipv6": "::2#2", "ipv4": "192.0.2.1#61002"}]
    last = bib_entry(2, static=True)[4:]
    assert fake.asked[-1] == (
        "BIB_FOREACH",
        attribute(11, b"\0") + attribute(8 | messages.NESTED, last),
    )


def test_a_refused_request_says_why() -> None:
    fake = FakeModule()
    module = Module("default", fake)
    found = module.find()
    fake.version = 0x0402_0000
    with pytest.raises(Refused, match="JOOLD_ADVERTISE: but the kernel module is"):
        module.ask_raw(found, Command.JOOLD_ADVERTISE)


class FakeSocket:
    """The daemon's end of a pair, with senders as netlink has them, and what the kernel refuses."""

    def __init__(self) -> None:
        self._ours, self.kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        self.kernel.settimeout(5.0)
        self.sender = 0
        self.overruns = 0

    def fileno(self) -> int:
        return self._ours.fileno()

    def recvfrom(self, size: int) -> tuple[bytes, tuple[int, int]]:
        if self.overruns:
            self.overruns -= 1
            raise OSError(errno.ENOBUFS, "No buffer space available")
        return self._ours.recv(size), (self.sender, 0)

    def send(self, data: bytes) -> int:
        return self._ours.send(data)

    def close(self) -> None:
        self._ours.close()
        self.kernel.close()


class Sink:
    def __init__(self) -> None:
        self.batches: list[bytes] = []

    def receive_datagrams(
        self, datagrams: Sequence[tuple[str, bytes]], *, module: bool = False
    ) -> list[bool]:
        assert module
        self.batches += [payload for _, payload in datagrams]
        return [True] * len(datagrams)


class Streamed:
    """A stream over a fake socket, while a script plays the kernel."""

    def __init__(self) -> None:
        self.socket, self.sink, self.stats = FakeSocket(), Sink(), StreamStats()
        self.text = StringIO()
        instance = Instance(Family(32, 9), VERSIONS["4.1.15"], "default")
        opened: Any = self.socket
        self.stream = Stream(opened, instance, self.sink, self.stats, Log(stream=self.text))

    def run(self, script: Callable[["Streamed"], None]) -> None:
        async def main() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.stream.receive)
                await trio.to_thread.run_sync(script, self)
                with trio.move_on_after(0.05):
                    await trio.sleep_forever()
                nursery.cancel_scope.cancel()

        try:
            trio.run(main)
        finally:
            self.socket.close()

    def command(self) -> Command:
        """What the daemon sends next."""
        return Command(self.socket.kernel.recv(65_536)[16])


MULTICAST = captured("4.1.15", "joold multicast")


def test_each_batch_is_acknowledged_and_handed_on() -> None:
    def script(world: Streamed) -> None:
        assert world.command() == Command.JOOLD_ACK, "a batch may have been lost before"
        for data in MULTICAST:
            world.socket.kernel.send(data)
            assert world.command() == Command.JOOLD_ACK

    streamed = Streamed()
    streamed.run(script)
    assert streamed.sink.batches == [messages.batch_of(data) for data in MULTICAST]
    assert streamed.stats.batches_received == 3


def test_an_overrun_is_survived_and_counted() -> None:
    def script(world: Streamed) -> None:
        world.command()
        world.socket.overruns = 1
        world.socket.kernel.send(MULTICAST[0])
        assert [world.command(), world.command()] == [Command.JOOLD_ACK] * 2

    streamed = Streamed()
    streamed.run(script)
    assert streamed.stream.overrun.is_set()
    assert streamed.stats.overruns == 1
    assert len(streamed.sink.batches) == 1


def test_what_is_not_the_modules_is_ignored() -> None:
    other = MULTICAST[0].replace(b"default\0", b"another\0")

    def script(world: Streamed) -> None:
        world.command()
        for data in (b"", b"x", bytes(100), other, MULTICAST[0][:40]):
            if data:
                world.socket.kernel.send(data)
        while world.stats.messages_ignored < 4:
            pass
        world.socket.sender = 4711
        world.socket.kernel.send(MULTICAST[0])

    streamed = Streamed()
    streamed.run(script)
    assert streamed.stats.messages_ignored == 5
    assert streamed.sink.batches == []


def test_a_batch_that_the_module_rejects_is_told_once() -> None:
    (error,) = captured("4.1.15", "error reply")

    def script(world: Streamed) -> None:
        world.command()
        for _ in range(3):
            world.socket.kernel.send(error)

    streamed = Streamed()
    streamed.run(script)
    assert streamed.stats.batches_rejected == 3
    assert streamed.text.getvalue().count("Unknown protocol: 3") == 1


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("=IHHIIi", 36, ERROR, 0, 0, 0, -errno.ENOENT) + bytes(16),
        reply(MULTICAST[0], refuse(errno.ESRCH, "no such instance"), flags=messages.FLAG_ERROR),
    ],
    ids=["module", "instance"],
)
def test_a_module_that_is_gone_ends_the_stream(data: bytes) -> None:
    def script(world: Streamed) -> None:
        world.socket.kernel.send(data)

    streamed = Streamed()
    with pytest.raises(ExceptionGroup) as caught:
        streamed.run(script)
    assert caught.group_contains(Gone)


def test_batches_are_given_to_the_module_as_few_messages() -> None:
    streamed = Streamed()
    batches = [bytes([n]) * 1440 for n in range(64)]
    trio.run(streamed.stream.write, batches)
    sent = [streamed.socket.kernel.recv(65_536) for _ in range(streamed.stats.batches_sent)]
    assert len(sent) == 2
    assert b"".join(messages.batch_of(data) or b"" for data in sent) == b"".join(batches)
    streamed.socket.close()
