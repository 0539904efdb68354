"""Who speaks through the translators, and what is compared of their tables."""

import socket
from typing import Any, Self

from world import POOL4, SERVER4, SERVER6, JoolNode, Row, Translator, World, json_rows, seed_source

Key = tuple[Any, ...]
SERVER_PORT = 5000


def key(row: Row) -> Key:
    """What tells sessions apart."""
    names = ("proto", "src6", "src6_port", "src4", "src4_port", "dst4", "dst4_port")
    return tuple(row[name] for name in names)


def state(row: Row) -> str:
    """Its TCP state; others have none that matters."""
    return str(row["state"]) if row["proto"] == "tcp" else ""


def sessions(node: Translator) -> dict[Key, str]:
    """The sessions and states that a daemon shows."""
    return {key(row): state(row) for row in json_rows(node, "session", "display")}


def jools(node: JoolNode) -> dict[Key, str]:
    """The sessions and states that Jool's own client shows."""
    return {key(row): state(row) for row in node.sessions()}


def holds(node: Translator, ports: set[int]) -> bool:
    """Whether a daemon shows sessions of these ports of pool4."""
    return ports <= {row["src4_port"] for row in json_rows(node, "session", "display")}


class Server:
    """n4's side: UDP and TCP, each answers with what it was sent."""

    def __init__(self, world: World) -> None:
        self.udp = world.open("n4", socket.SOCK_DGRAM)
        self.udp.bind((SERVER4, SERVER_PORT))
        self.tcp = world.open("n4")
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.tcp.bind((SERVER4, SERVER_PORT))
        self.tcp.listen(16)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.udp.close()
        self.tcp.close()

    def connect(self, world: World) -> tuple[socket.socket, socket.socket, tuple[str, int]]:
        """A connection of n6's: its end, ours, and its mask."""
        client = world.open("n6")
        client.connect((SERVER6, SERVER_PORT))
        ours, mask = self.tcp.accept()
        ours.settimeout(10.0)
        return client, ours, mask

    def exchange(self, client: socket.socket, payload: bytes) -> tuple[str, int]:
        """A datagram to here and back; the mask it came with."""
        client.sendto(payload, (SERVER6, SERVER_PORT))
        got, mask = self.udp.recvfrom(100)
        assert got == payload
        self.udp.sendto(payload, mask)
        assert client.recv(100) == payload
        return str(mask[0]), int(mask[1])


def speak(client: socket.socket, server: socket.socket, text: bytes) -> None:
    """Text over a connection, both ways."""
    for sender, receiver in ((client, server), (server, client)):
        sender.sendall(text)
        got = b""
        while len(got) < len(text):
            got += receiver.recv(100)
        assert got == text


def seed(node: JoolNode, first: int, count: int) -> None:
    """Put sessions into the kernel module, past everybody else."""
    node.box.write("/tmp/seed.py", seed_source(POOL4, 61_100))
    node.box.run(f"python3 /tmp/seed.py {first} {count}")


def ports_of(rows: list[Row]) -> set[int]:
    return {row["src4_port"] for row in rows}


def why_not_ready(node: Translator) -> str:
    """What a node that isn't ready says of it."""
    (status,) = json_rows(node, "instance", "status")
    assert not status["ready"]
    return str(status["reason"])
