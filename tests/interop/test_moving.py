"""From joold and `jool session proxy` to jsync, beside the real programs."""

import ipaddress
import json
import re
import socket
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from traffic import Server, jools, speak
from world import (
    JOOLD,
    POOL4,
    PORTS,
    STATS_PORT,
    SYNC,
    JoolNode,
    World,
    json_rows,
    wait_for,
)

from jsync import config
from jsync.durations import parse_duration
from jsync.jool.importing import import_files

pytestmark = pytest.mark.timeout(600)
Connection = tuple[socket.socket, socket.socket, tuple[str, int]]


def statistics(world: World, node: JoolNode) -> tuple[dict[str, int], str]:
    """What the statistics server of a node's program answers: as numbers, and how it looks."""
    with world.open("lan", socket.SOCK_DGRAM) as asking:
        asking.settimeout(1.0)

        def answer() -> str:
            asking.sendto(b"\n", (node.sync_address, STATS_PORT))
            with suppress(TimeoutError):
                return asking.recv(2000).decode()
            return ""

        text = wait_for(answer)
    return (
        {name: int(value) for name, value in (line.split(",") for line in text.splitlines())},
        re.sub(r"\d+", "N", text),
    )


def test_in_the_place_of_jools_programs(world: World, jool: JoolNode, server: Server) -> None:
    """joold of 4.1.9 and `jool session proxy` of 4.1.13, and jsync's commands of that name."""
    twin = world.twin(jool)
    jool.start_proxy(by_jsync=False)
    twin.start_proxy(by_jsync=True)
    for number, node in enumerate((jool, twin), 1):
        world.translate_by(node)
        with world.open("n6", socket.SOCK_DGRAM) as datagram:
            server.exchange(datagram, b"one")
        world.ping()
        wait_for(lambda: len(jools(jool)) == 2 * number and jools(jool) == jools(twin))  # noqa: B023
    ours, our_look = statistics(world, twin)
    assert min(ours.values()) > 0
    if jool is world.old:  # whose joold takes the argument and serves no statistics
        return
    theirs, their_look = statistics(world, jool)
    assert our_look == their_look
    for what in ("PKTS", "BYTES"):
        assert ours[f"NET_RCVD_{what}"] == theirs[f"NET_SENT_{what}"]
        assert theirs[f"NET_RCVD_{what}"] == ours[f"NET_SENT_{what}"]


def test_two_joolds_move_to_jsync_one_by_one(world: World, server: Server) -> None:
    """Each machine is changed while the other translates; every connection lives to the end."""
    one, two = world.new, world.twin(world.new)
    connections: list[Connection] = []

    def open_another() -> None:
        connections.append(server.connect(world))
        all_speak()

    def all_speak() -> None:
        for client, ours, _ in connections:
            speak(client, ours, b"still here")

    def hand_over(node: JoolNode) -> None:
        """That node translates, when it has all sessions."""
        ports = {mask[1] for _, _, mask in connections}
        wait_for(partial(lambda have: ports <= {k[4] for k in have()}, partial(jools, node)))
        world.translate_by(node)
        all_speak()

    one.start_proxy(by_jsync=False)
    two.start_proxy(by_jsync=False)
    world.translate_by(one)
    open_another()
    hand_over(two)
    # The first leaves `jool session proxy`, the second has it still.
    one.stop_joold()
    one.start_proxy(by_jsync=True)
    open_another()
    hand_over(one)
    two.stop_joold()
    two.start_proxy(by_jsync=True)
    open_another()
    hand_over(two)
    # A configuration file: jsync's own protocol, beside joold's until the last has it.
    one.stop_jsync()
    one.start_jsync(SYNC + JOOLD)
    open_another()
    hand_over(one)
    two.stop_jsync()
    two.start_jsync(SYNC)
    open_another()
    hand_over(two)
    # And without the kernel module.
    world.native.start_jsync(SYNC)
    ports = {mask[1] for _, _, mask in connections}
    shown = partial(json_rows, world.native, "session", "display")
    wait_for(lambda: ports <= {row["src4_port"] for row in shown()})
    world.translate_by(world.native)
    open_another()
    assert len(connections) == 6
    for client, ours, _ in connections:
        client.close()
        ours.close()


ATOMIC: dict[str, Any] = {
    "instance": "default",
    "framework": "netfilter",
    "global": {
        "pool6": "64:ff9b::/96",
        "lowest-ipv6-mtu": 1400,
        "tos": 8,
        "override-tos": True,
        "mtu-plateaus": [1500, 1280, 576],
        "address-dependent-filtering": True,
        "drop-externally-initiated-tcp": True,
        "f-args": 9,
        "udp-timeout": "0:07:00",
        "icmp-timeout": "0:02:00",
        "tcp-est-timeout": "3:00:00",
        "tcp-trans-timeout": "0:05:00",
        "maximum-simultaneous-opens": 12,
        "ss-enabled": True,
    },
    "pool4": [
        *(
            {"protocol": protocol, "prefix": f"{POOL4}/32", "port range": PORTS}
            for protocol in ("TCP", "UDP", "ICMP")
        ),
        {"protocol": "TCP", "prefix": "198.51.100.4/31", "port range": "1024-2047"},
    ],
    "bib": [
        {"protocol": "TCP", "ipv6 address": "2001:db8:6::9#80", "ipv4 address": f"{POOL4}#61001"},
        {"protocol": "UDP", "ipv6 address": "2001:db8:6::9#53", "ipv4 address": f"{POOL4}#61002"},
    ],
}


def test_an_imported_configuration_is_what_jool_makes_of_the_file(
    world: World, jool: JoolNode, tmp_path: Path
) -> None:
    path = tmp_path / "jool.conf"
    path.write_text(json.dumps(ATOMIC))
    jool.box.write("/tmp/jool.conf", json.dumps(ATOMIC))
    # Into an instance that exists the file brings no BIB.
    jool.box.run("jool instance remove default && jool file handle /tmp/jool.conf")
    imported = import_files([str(path)], "native")
    nat64 = config.parse(imported.toml("test"), "the import").nat64
    options = dict(
        line.split(",", 1)
        for line in jool.box.run("jool global display --csv --no-headers").splitlines()
    )
    assert nat64["pool6"] == options["pool6"]
    ours = nat64["global"]
    compared = set(ours) & set(options)
    assert compared >= {key for key in ATOMIC["global"] if key not in {"pool6", "ss-enabled"}}
    assert {key: ours[key] for key in compared} == {
        key: meaning(ours[key], options[key]) for key in compared
    }
    rows = [
        row.split(",")
        for protocol in ("tcp", "udp", "icmp")
        for row in jool.box.run(f"jool pool4 display --{protocol} --csv --no-headers").splitlines()
    ]
    assert {
        (protocol, str(address), f"{first}-{last}")
        for entry in nat64["pool4"]
        for protocol in (
            [entry["protocol"].upper()] if entry.get("protocol") else ["TCP", "UDP", "ICMP"]
        )
        for address in ipaddress.IPv4Network(entry["prefix"])
        for first, last in [entry["ports"].split("-")]
    } == {(row[1], row[2], f"{row[3]}-{row[4]}") for row in rows}
    bib = [
        row.split(",")
        for protocol in ("tcp", "udp")
        for row in jool.box.run(
            f"jool bib display --{protocol} --numeric --csv --no-headers"
        ).splitlines()
    ]
    assert {(e["protocol"], e["ipv6"], e["ipv4"]) for e in nat64["bib"]} == {
        (row[0].lower(), f"{row[1]}#{row[2]}", f"{row[3]}#{row[4]}") for row in bib
    }
    assert len(bib) == 2


def meaning(ours: object, text: str) -> object:
    """An option of Jool's, in the type of ours."""
    if isinstance(ours, bool):
        return text == "TRUE"
    if isinstance(ours, list):
        return [int(part) for part in text.strip('"').split(",")]
    return parse_duration(text, bare_ms=1) if ":" in text else int(text)
