"""Another implementation of docs/ss-protocol.md: if the page is right, the two get along.

Nothing here comes from the Rust code but what the page says; ChaCha20-Poly1305 is RFC 8439's text.
"""

import hashlib
import hmac
import json
import struct
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

import pytest

from jsync._core import Node

KEY = bytes(range(32))
CLUSTER = "campus"
HEADER = struct.Struct(">4sBBBB4sHHQQHH")
GREETING = struct.Struct(">HQQQQ")
SESSION = struct.Struct(">B16sH4sH4sHII")
HELLO, BYE, UPDATE, NACK, SNAPSHOT_REQUEST, SNAPSHOT, DIGEST_REQUEST, DIGESTS = range(1, 9)
ACK, PULL, PULLED = range(9, 12)
URGENT = 2
END = 0xFFFFFFFF
ONES = 0xFFFFFFFFFFFFFFFF


def rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (32 - bits)) & 0xFFFFFFFF


def chacha20_block(key: bytes, counter: int, nonce: bytes) -> bytes:
    """RFC 8439 section 2.3."""
    words = list(struct.unpack("<4I", b"expand 32-byte k"))
    words += [*struct.unpack("<8I", key), counter, *struct.unpack("<3I", nonce)]
    state = words[:]
    columns = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)]
    diagonals = [(0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]
    for _ in range(10):
        for a, b, c, d in columns + diagonals:
            for x, y, z, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                state[x] = (state[x] + state[y]) & 0xFFFFFFFF
                state[z] = rotate(state[z] ^ state[x], bits)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(state, words, strict=True)))


def chacha20(key: bytes, nonce: bytes, text: bytes) -> bytes:
    """RFC 8439 section 2.4, from block 1."""
    blocks = (chacha20_block(key, 1 + i, nonce) for i in range((len(text) + 63) // 64))
    return bytes(a ^ b for a, b in zip(text, b"".join(blocks), strict=False))


def tag(key: bytes, nonce: bytes, associated: bytes, sealed: bytes) -> bytes:
    """RFC 8439 sections 2.5 and 2.8."""
    one_time = chacha20_block(key, 0, nonce)
    r = int.from_bytes(one_time[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    s = int.from_bytes(one_time[16:32], "little")
    padded = b"".join(part + bytes(-len(part) % 16) for part in (associated, sealed))
    padded += struct.pack("<QQ", len(associated), len(sealed))
    total = 0
    for at in range(0, len(padded), 16):
        total = (total + int.from_bytes(padded[at : at + 16] + b"\1", "little")) * r % (2**130 - 5)
    return (total + s).to_bytes(17, "little")[:16]


def test_the_cipher_is_rfc_8439s() -> None:
    """Section 2.8.2."""
    key = bytes(range(0x80, 0xA0))
    nonce = bytes.fromhex("070000004041424344454647")
    associated = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the"
        b" future, sunscreen would be it."
    )
    sealed = chacha20(key, nonce, text)
    assert sealed[:16] == bytes.fromhex("d31a8d34648e60db7b86afbc53ef7ec2")
    expected = bytes.fromhex("1ae10b594f09e26a7e902ecbd0600691")
    assert tag(key, nonce, associated, sealed) == expected


def cluster_id(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()[:4]


def derived(node: int, epoch: int) -> bytes:
    """HKDF-SHA256 (RFC 5869) for one block."""
    secret = hmac.digest(b"jsync frame 1", KEY, "sha256")
    info = cluster_id(CLUSTER) + struct.pack(">HQ", node, epoch)
    return hmac.digest(secret, info + b"\1", "sha256")


class Frame(NamedTuple):
    """An opened frame."""

    kind: int
    node: int
    to: int
    epoch: int
    seq: int
    entries: int
    body: bytes


def open_frame(frame: bytes) -> Frame:
    head = frame[: HEADER.size]
    magic, version, kind, flags, zero, cluster, node, to, epoch, seq, count, length = HEADER.unpack(
        head
    )
    assert (magic, version, flags, zero) == (b"jsyn", 1, 0, 0)
    assert (cluster, length) == (cluster_id(CLUSTER), len(frame))
    sealed, mac = frame[HEADER.size : -16], frame[-16:]
    key, nonce = derived(node, epoch), bytes(4) + struct.pack(">Q", seq)
    assert tag(key, nonce, head, sealed) == mac
    return Frame(kind, node, to, epoch, seq, count, chacha20(key, nonce, sealed))


class Hello(NamedTuple):
    """A HELLO's body."""

    ready: bool
    digests: dict[int, bytes]
    last: int
    oldest: int
    generation: int
    greetings: list[tuple[int, int, int, int, int]]


def read_hello(frame: Frame) -> Hello:
    body = frame.body
    fields = 2 + 5 * body[1]
    digests = {body[at]: body[at + 1 : at + 5] for at in range(2, fields, 5)}
    last, oldest, generation = struct.unpack_from(">QQI", body, fields)
    rest = body[fields + 20 :]
    assert len(rest) == frame.entries * GREETING.size
    return Hello(
        body[0] & 1 == 1, digests, last, oldest, generation, list(GREETING.iter_unpack(rest))
    )


def digest(*entries: str) -> bytes:
    text = "".join(f"{entry}\n" for entry in sorted(entries))
    return hashlib.sha256(text.encode()).digest()[:4]


class Peer:
    """Node 2, in Python."""

    NODE = 2

    def __init__(self, other: Node) -> None:
        self.other = other
        self.epoch = 0xABCDEF0123456789
        self.seq = 0
        self.updates = 0
        self.hello: Hello | None = None
        self.greets = b""
        self.heard: list[Frame] = []

    def send(self, kind: int, body: bytes, *, to: int = 0, count: int = 0, flags: int = 0) -> int:
        """The number that `receive_frames` gives: ours if the frame was taken."""
        self.seq += 1
        length = HEADER.size + len(body) + 16
        head = HEADER.pack(
            b"jsyn", 1, kind, flags, 0, cluster_id(CLUSTER), self.NODE, to, self.epoch, self.seq,
            count, length,
        )  # fmt: skip
        key, nonce = derived(self.NODE, self.epoch), bytes(4) + struct.pack(">Q", self.seq)
        sealed = chacha20(key, nonce, body)
        (sender,) = self.other.receive_frames([head + sealed + tag(key, nonce, head, sealed)])
        return sender

    def listen(self) -> None:
        for _, frame in self.other.take_frames(64):
            opened = open_frame(frame)
            self.heard.append(opened)
            if opened.kind == HELLO:
                self.hello = read_hello(opened)
                ours = [g for g in self.hello.greetings if g[:2] == (self.NODE, self.epoch)]
                challenge = ours[0][2] if ours else 0
                self.greets = GREETING.pack(1, opened.epoch, 77, challenge, 0)

    def say_hello(self, *, generation: int = 0) -> None:
        assert self.hello is not None
        body = bytes([0, len(self.hello.digests)])
        body += b"".join(bytes([field]) + value for field, value in self.hello.digests.items())
        body += struct.pack(">QQI", self.updates, self.updates + 1, generation) + self.greets
        assert self.send(HELLO, body, count=1) == self.NODE

    def until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not true():
            assert time.monotonic() < deadline, self.heard
            time.sleep(0.02)
            self.listen()

    def get(self, kind: int) -> Frame:
        """Wait for a frame of a kind."""
        self.heard = []
        self.until(lambda: any(frame.kind == kind for frame in self.heard))
        return next(frame for frame in self.heard if frame.kind == kind)


def session(port: int, *, version: int = 1) -> bytes:
    """An established TCP session of n6, masked by 192.0.2.1."""
    src6 = IPv6Address("2001:db8::8").packed
    src4, dst4 = IPv4Address("192.0.2.1").packed, IPv4Address("203.0.113.24").packed
    return SESSION.pack(0, src6, port, src4, port, dst4, 443, version, 7_000_000)


def removal(port: int, *, version: int) -> bytes:
    return bytes([0x40]) + session(port, version=version)[1:35]


def fold(a: int, b: int) -> int:
    product = (a ^ 0xA0761D6478BD642F) * (b ^ 0xE7037ED1A0B428DB)
    return (product ^ product >> 64) & ONES


def bucket_digest(seed: int, record: bytes) -> tuple[int, int]:
    """The bucket of a session as it stands in an update, and its digest."""
    tagged, src6, port6, src4, port4, dst4, port, version, _ = SESSION.unpack(record)
    h = seed ^ 0x9E3779B97F4A7C15
    for word in (
        *struct.unpack(">QQ", src6),
        int.from_bytes(src4) << 32 | int.from_bytes(dst4),
        port6 << 48 | port4 << 32 | port << 16 | tagged >> 4,
    ):
        h = fold(h, word)
    return h >> 54, fold(h, version << 8 | tagged & 15)


@pytest.fixture
def peer() -> Peer:
    """Node 2 in Python, and node 1, which believes that it is live."""
    nat64 = {"pool4": [{"prefix": "192.0.2.1", "ports": "61001-65535"}]}
    sync = {"node": 1, "cluster": CLUSTER, "epoch": 5, "join-timeout": 0, "flush-deadline": 1}
    peer = Peer(Node(json.dumps(nat64).encode(), json.dumps(sync).encode(), keys=[KEY], secret=KEY))
    peer.until(lambda: peer.hello is not None)
    assert peer.other.peers() == []
    peer.say_hello()
    assert [p["state"] for p in peer.other.peers()] == ["joining"]
    peer.until(lambda: peer.greets[18:26] != bytes(8))
    peer.say_hello()
    assert [p["state"] for p in peer.other.peers()] == ["up"]
    return peer


def test_a_hello_says_what_the_page_says(peer: Peer) -> None:
    assert peer.hello is not None
    assert peer.hello.digests == {
        1: digest("64:ff9b::/96"),
        2: digest("all 192.0.2.1/32 61001-65535"),
        3: digest(),
        4: digest("300000 60000 7200000 240000"),
        5: digest("false false"),
    }
    assert (peer.hello.last + 1, peer.hello.generation) == (peer.hello.oldest, 0)


def test_sessions_and_removals_are_understood(peer: Peer) -> None:
    body = struct.pack(">Q", 1) + b"".join(session(61_001 + i) for i in range(3))
    assert peer.send(UPDATE, body, count=3) == 2
    rows, _ = peer.other.sessions(None, 0, 100_000)
    assert {row["src6_port"] for row in rows} == {61_001, 61_002, 61_003}
    assert {(row["state"], row["dst4"], row["dst4_port"]) for row in rows} == {
        ("ESTABLISHED", "203.0.113.24", 443)
    }
    body = struct.pack(">Q", 2) + removal(61_002, version=2)
    assert peer.send(UPDATE, body, count=1) == 2
    rows, _ = peer.other.sessions(None, 0, 100_000)
    assert {row["src6_port"] for row in rows} == {61_001, 61_003}


def test_a_gap_is_asked_for(peer: Peer) -> None:
    for number in (1, 2, 6):
        peer.send(UPDATE, struct.pack(">Q", number) + session(61_000 + number), count=1)
    nack = peer.get(NACK)
    assert (nack.to, nack.entries, nack.body) == (2, 1, struct.pack(">QQ", 3, 5))


def test_a_table_is_served(peer: Peer) -> None:
    records = [session(61_001 + i) for i in range(100)]
    for number, record in enumerate(records):
        peer.send(UPDATE, struct.pack(">Q", number + 1) + record, count=1)
    got: set[bytes] = set()
    at = 0
    while at != END:
        body = struct.pack(">IHII", 9, 50, at, END)
        assert peer.send(SNAPSHOT_REQUEST, body, to=1, count=1) == 2
        last = False
        while not last:
            peer.get(SNAPSHOT)
            for frame in (f for f in peer.heard if f.kind == SNAPSHOT):
                number, first, at, flags = struct.unpack_from(">IIIB", frame.body)
                assert number == 9
                assert first < at
                chunk = frame.body[13:]
                assert len(chunk) == frame.entries * SESSION.size
                got |= {chunk[i : i + 35] for i in range(0, len(chunk), SESSION.size)}
                last = flags & 1 == 1
    assert got == {record[:35] for record in records}


def test_removals_are_served_behind_the_sessions(peer: Peer) -> None:
    body = struct.pack(">Q", 1) + b"".join(session(61_001 + i) for i in range(3))
    peer.send(UPDATE, body, count=3)
    gone = [removal(61_001, version=2), removal(61_003, version=5)]
    peer.send(UPDATE, struct.pack(">Q", 2) + b"".join(gone), count=2)
    # A session that has come back since, in the version behind its removal.
    peer.send(UPDATE, struct.pack(">Q", 3) + session(61_003, version=6), count=1)
    body = struct.pack(">IHII", 9, 50, 0, END)
    assert peer.send(SNAPSHOT_REQUEST, body, to=1, count=1) == 2
    frame = peer.get(SNAPSHOT)
    assert struct.unpack_from(">IIIB", frame.body) == (9, 0, END, 1)
    assert frame.entries == 3
    rest = frame.body[13:]
    sessions = {rest[at : at + 35] for at in (0, SESSION.size)}
    assert sessions == {session(61_002)[:35], session(61_003, version=6)[:35]}
    assert rest[2 * SESSION.size :] == gone[0]


def test_removals_in_a_snapshot_are_understood(peer: Peer) -> None:
    body = struct.pack(">Q", 1) + b"".join(session(61_001 + i) for i in range(3))
    peer.send(UPDATE, body, count=3)
    peer.updates = 1
    peer.heard = []
    peer.say_hello(generation=1)
    peer.until(lambda: any(frame.kind == DIGEST_REQUEST for frame in peer.heard))
    request = next(frame for frame in peer.heard if frame.kind == DIGEST_REQUEST)
    (number, _) = struct.unpack(">IQ", request.body)
    # An empty table differs in whatever bucket has a session.
    for first in range(0, 1024, 128):
        body = struct.pack(">IH", number, first) + bytes(128 * 8)
        assert peer.send(DIGESTS, body, to=1, count=128) == 2
    request = peer.get(SNAPSHOT_REQUEST)
    (number,) = struct.unpack_from(">I", request.body)
    body = struct.pack(">IIIB", number, 0, END, 1)
    body += removal(61_001, version=2) + session(61_004) + removal(61_002, version=1)
    assert peer.send(SNAPSHOT, body, to=1, count=3) == 2
    rows, _ = peer.other.sessions(None, 0, 100_000)
    # A removal ends only copies of versions before it.
    assert {row["src6_port"] for row in rows} == {61_002, 61_003, 61_004}


def test_digests_are_those_of_the_page(peer: Peer) -> None:
    seed = 0x0123456789ABCDEF
    expected = [0] * 1024
    for number in range(1, 51):
        record = session(61_000 + number, version=number)
        peer.send(UPDATE, struct.pack(">Q", number) + record, count=1)
        bucket, value = bucket_digest(seed, record)
        expected[bucket] = (expected[bucket] + value) & ONES
    peer.send(DIGEST_REQUEST, struct.pack(">IQ", 3, seed), to=1)
    peer.heard = []
    peer.until(lambda: sum(f.entries for f in peer.heard if f.kind == DIGESTS) == 1024)
    got: dict[int, int] = {}
    for frame in (f for f in peer.heard if f.kind == DIGESTS):
        number, first = struct.unpack_from(">IH", frame.body)
        assert number == 3
        got |= dict(enumerate(struct.unpack_from(f">{frame.entries}Q", frame.body, 6), first))
    assert [got[bucket] for bucket in range(1024)] == expected


def test_an_urgent_update_is_acknowledged(peer: Peer) -> None:
    assert peer.send(UPDATE, struct.pack(">Q", 1) + session(61_001), count=1, flags=URGENT) == 2
    ack = peer.get(ACK)
    assert (ack.to, ack.entries, ack.body) == (2, 0, struct.pack(">QQ", 1, 1))
    # An update that isn't urgent is not answered; one behind a gap is named by its bit.
    peer.send(UPDATE, struct.pack(">Q", 2) + session(61_002), count=1)
    peer.get(HELLO)
    assert ACK not in {frame.kind for frame in peer.heard}
    peer.send(UPDATE, struct.pack(">Q", 4) + session(61_004), count=1, flags=URGENT)
    ack = peer.get(ACK)
    assert (ack.entries, ack.body) == (1, struct.pack(">QQQ", 1, 2, 0b10))
    peer.send(UPDATE, struct.pack(">Q", 67) + session(61_067), count=1, flags=URGENT)
    ack = peer.get(ACK)
    assert (ack.entries, ack.body) == (2, struct.pack(">QQQQ", 1, 2, 0b10, 1))
    # One that was here before is answered too, with all that is here by now.
    peer.send(UPDATE, struct.pack(">Q", 3) + session(61_003), count=1)
    peer.send(UPDATE, struct.pack(">Q", 1) + session(61_001), count=1, flags=URGENT)
    ack = peer.get(ACK)
    assert (ack.entries, ack.body) == (1, struct.pack(">QQQ", 1, 4, 1 << 62))


def ask(number: int, src: tuple[str, int], dst4: tuple[str, int], *, protocol: int = 0) -> bytes:
    """A question by mask or by IPv6 node, after which `src` looks."""
    kind = 0x40 if ":" in src[0] else 0
    packed = [ip_address(addr).packed + struct.pack(">H", port) for addr, port in (src, dst4)]
    return struct.pack(">QB", number, kind | protocol << 4) + b"".join(packed)


def read_answers(frame: Frame) -> dict[int, bytes | None]:
    """By question, the session without its lifetime, or None."""
    answers: dict[int, bytes | None] = {}
    rest = frame.body
    while rest:
        number, found = struct.unpack_from(">QB", rest)
        assert found in {0, 1}
        rest = rest[9:]
        if found:
            assert 0 < int.from_bytes(rest[35:39]) <= 9_000_000
        answers[number] = rest[:35] if found else None
        rest = rest[39 * found :]
    assert len(answers) == frame.entries
    return answers


def test_questions_are_answered(peer: Peer) -> None:
    records = [session(61_001), session(61_002, version=5)]
    peer.send(UPDATE, struct.pack(">Q", 1) + b"".join(records), count=2)
    known, stranger = ("203.0.113.24", 443), ("203.0.113.99", 9)
    questions = [
        ask(1, ("192.0.2.1", 61_001), known),
        ask(2, ("2001:db8::8", 61_002), known),
        # Any session of the mapping, if it has none with this IPv4 node.
        ask(3, ("192.0.2.1", 61_002), stranger),
        ask(1 << 63, ("192.0.2.1", 61_003), known),
        ask(5, ("2001:db8::8", 61_001), known, protocol=1),
    ]
    assert peer.send(PULL, b"".join(questions), to=1, count=5) == 2
    pulled = peer.get(PULLED)
    assert pulled.to == 2
    assert read_answers(pulled) == {
        1: records[0][:35],
        2: records[1][:35],
        3: records[1][:35],
        1 << 63: None,
        5: None,
    }


def test_at_most_64_questions_are_answered(peer: Peer) -> None:
    mask, node = ("192.0.2.1", 61_001), ("203.0.113.24", 443)
    body = b"".join(ask(number, mask, node) for number in range(70))
    assert peer.send(PULL, body, count=70) == 2
    peer.get(HELLO)
    frames = [frame for frame in peer.heard if frame.kind == PULLED]
    assert sum(frame.entries for frame in frames) == 64
    answers = [number for frame in frames for number in read_answers(frame)]
    assert answers == list(range(64))


def test_an_answer_is_taken_like_an_update_that_comes_late(peer: Peer) -> None:
    peer.send(UPDATE, struct.pack(">Q", 1) + session(61_001), count=1)
    peer.send(UPDATE, struct.pack(">Q", 2) + removal(61_001, version=2), count=1)
    # The first was removed; nobody has asked for the others, which does no harm.
    body = struct.pack(">QB", 7, 1) + session(61_001) + struct.pack(">QB", 8, 0)
    body += struct.pack(">QB", 9, 1) + session(61_002)
    assert peer.send(PULLED, body, to=1, count=3) == 2
    rows, _ = peer.other.sessions(None, 0, 100_000)
    assert [row["src6_port"] for row in rows] == [61_002]


@pytest.mark.parametrize(("kind", "flags"), [(UPDATE, 4), (UPDATE, 0x82), (PULL, URGENT)])
def test_unknown_flags_are_refused(peer: Peer, kind: int, flags: int) -> None:
    body = struct.pack(">Q", 1) + session(61_001)
    assert peer.send(kind, body, count=1, flags=flags) == 0
    counters = {name: value for name, _, value in peer.other.stats()}
    assert counters["sync_frame_flags"] == 1
    (event,) = [text for text in peer.other.take_events() if "flags" in text]
    assert "newer" in event
    assert peer.other.sessions(None, 0, 100_000)[0] == []


def test_a_recording_of_another_epoch_is_not_believed(peer: Peer) -> None:
    peer.epoch += 1
    assert peer.send(UPDATE, struct.pack(">Q", 1) + session(61_001), count=1) == 0
    assert peer.other.sessions(None, 0, 100_000)[0] == []


def test_bye_ends_it(peer: Peer) -> None:
    assert peer.send(BYE, b"") == 2
    assert [p["state"] for p in peer.other.peers()] == ["down"]
