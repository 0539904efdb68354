"""jsync and real Jools: 4.1.9 and 4.1.13, in two machines, beside a node of jsync's own."""

import socket
import time
from functools import partial

import pytest
from traffic import (
    SERVER_PORT,
    Server,
    holds,
    jools,
    key,
    ports_of,
    seed,
    sessions,
    speak,
    why_not_ready,
)
from world import (
    ABSENT6,
    ABSENT6_MAPPED,
    GROUP,
    GROUP6,
    JOOLD,
    NEW_INSTANCE,
    POOL4,
    SYNC,
    JoolNode,
    World,
    counters,
    datagrams_of,
    is_ready,
    json_rows,
    made_up,
    seed_source,
    wait_for,
)

# The first test waits for the machines to be built.
pytestmark = pytest.mark.timeout(600)
STATES = ["ESTABLISHED", "V6_INIT", "V4_INIT", "V6_FIN_RCV", "V4_FIN_RCV", "V4_FIN_V6_FIN_RCV"]
STATES += ["TRANS", "", ""]


def test_sessions_of_every_protocol_and_state_arrive(
    world: World, jool: JoolNode, server: Server
) -> None:
    """What traffic through Jool makes, a peer has, as Jool's own client shows it."""
    world.translate_by(jool)
    jool.start_jsync(SYNC)
    world.native.start_jsync(SYNC)
    held: list[socket.socket] = []
    for ending in ("none", "client", "server", "both", "reset"):
        client, ours, _ = server.connect(world)
        held += [client, ours]
        if ending in {"client", "both"}:
            client.shutdown(socket.SHUT_WR)
            assert ours.recv(1) == b""
        if ending in {"server", "both"}:
            ours.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
        if ending == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
    waiting = world.open("n6")
    waiting.setblocking(False)
    waiting.connect_ex((ABSENT6_MAPPED, SERVER_PORT))
    jool.box.run(f"jool bib add --tcp {ABSENT6}#80 {POOL4}#61001")
    world.native.jsync("bib", "add", "--tcp", f"{ABSENT6}#80", f"{POOL4}#61001")
    knocking = world.open("n4")
    knocking.setblocking(False)
    knocking.connect_ex((POOL4, 61001))
    held += [waiting, knocking]
    datagram = world.open("n6", socket.SOCK_DGRAM)
    server.exchange(datagram, b"hello")
    world.ping()
    expected = wait_for(lambda: jools(jool) if len(jools(jool)) == 9 else {})
    assert sorted(expected.values()) == sorted(STATES)
    try:
        wait_for(lambda: sessions(world.native) == jools(jool), 10)
    except AssertionError:
        assert sessions(world.native) == jools(jool)
    assert sessions(jool) == jools(jool), "the daemon shows what Jool's client shows"
    left = {key(row): row["expires_ms"] for row in jool.sessions()}
    for row in json_rows(world.native, "session", "display"):
        # The copy may live longer by a quarter of the timeout, and was read a moment later.
        assert -1_500 < row["expires_ms"] - left[key(row)] < left[key(row)] / 3 + 1_500, row
    for one in [*held, datagram]:
        one.close()


def test_connections_go_over_to_jsync_and_back(
    world: World, jool: JoolNode, server: Server
) -> None:
    """From a kernel Jool to the native engine in mid-connection, back, and over to it again."""
    world.translate_by(jool)
    jool.start_jsync(SYNC)
    world.native.start_jsync(SYNC)
    client, ours, mask = server.connect(world)
    datagram = world.open("n6", socket.SOCK_DGRAM)
    udp_mask = server.exchange(datagram, b"one")
    ports = {mask[1], udp_mask[1]}
    for number, node in enumerate([jool, world.native, jool, world.native]):
        speak(client, ours, b"%d" % number)
        assert server.exchange(datagram, b"%d" % number) == udp_mask
        following = world.native if node is jool else jool
        wait_for(partial(holds, following, ports))
        world.translate_by(following)
    client.close()
    ours.close()
    datagram.close()


def test_sessions_made_in_jsync_carry_traffic_in_jool(world: World, server: Server) -> None:
    jool = world.old
    world.translate_by(world.native)
    world.native.start_jsync(SYNC)
    jool.start_jsync(SYNC)
    client, ours, mask = server.connect(world)
    datagram = world.open("n6", socket.SOCK_DGRAM)
    udp_mask = server.exchange(datagram, b"one")
    wait_for(lambda: {mask[1], udp_mask[1]} <= {k[4] for k in jools(jool)})
    world.native.stop_jsync()
    world.translate_by(jool)
    speak(client, ours, b"two")
    assert server.exchange(datagram, b"two") == udp_mask
    client.close()
    ours.close()
    datagram.close()


def test_a_thousand_sessions_reach_who_joins(world: World) -> None:
    """4.1.9 to jsync to 4.1.13 and back: two Jools that couldn't talk to each other."""
    everybody = set(range(61_100, 63_100))
    seed(world.old, 0, 1000)
    seed(world.new, 1000, 1000)
    world.old.start_jsync(SYNC)
    world.native.start_jsync(SYNC)
    assert ports_of(json_rows(world.native, "session", "display")) == set(range(61_100, 62_100))
    world.new.start_jsync(SYNC)
    wait_for(lambda: ports_of(world.new.sessions()) == everybody)
    wait_for(lambda: ports_of(world.old.sessions()) == everybody)
    wait_for(lambda: ports_of(json_rows(world.native, "session", "display")) == everybody)
    assert counters(world.old).get("module_batches_rejected", 0) == 0
    assert counters(world.new).get("module_batches_rejected", 0) == 0
    assert counters(world.new)["jstat_joold_sss_rcvd"] >= 1000


def test_two_large_tables_become_one(world: World) -> None:
    """Two modules that are busy with what they are given, and nobody seems dead meanwhile."""
    count, nodes = 5_000, (world.old, world.new)
    for number, node in enumerate(nodes):
        node.box.run("jool pool4 add 198.51.100.2 1024-65535 --udp")
        node.box.write("/tmp/large.py", seed_source("198.51.100.2", 1024))
        node.box.run(f"python3 /tmp/large.py {number * count} {count}")
        node.start_jsync(SYNC, wait=False)
    for node in nodes:
        wait_for(partial(is_ready, node), 90)
    for node in nodes:
        wait_for(lambda: node.counters()["JSTAT_SESSIONS"] == 2 * count, 60)  # noqa: B023
        log = node.box.run("cat /tmp/jsync.log")
        assert f'"read the module\'s table" sessions={count}' in log
        assert " is down" not in log
        assert log.count("comparing sessions") <= 3


def test_garbage_does_not_reach_the_module(world: World, jool: JoolNode) -> None:
    other = "4.1.13" if jool is world.old else "4.1.9"
    own = "4.1.9" if jool is world.old else "4.1.13"
    jool.start_jsync(SYNC + JOOLD + f'format = "{own}"\n')
    (good,) = datagrams_of(made_up(1), own)
    (foreign,) = datagrams_of(made_up(2), other)
    garbage = [b"", b"\0", b"\xff" * 1400, good[:-1], good + good[:7], foreign, good + foreign]
    impossible = [
        *datagrams_of(made_up(1, src4="192.0.2.77"), own),  # not in pool4
        *datagrams_of(made_up(1, src4_port=80), own),
        *datagrams_of(made_up(1, expires_ms=2**32 - 1), own),
        *datagrams_of(made_up(1, expires_ms=0), own),
    ]
    world.tell([*garbage, *impossible])
    world.tell([b"", b"jsync", good, b"\xff" * 900], port=6464)
    world.tell(datagrams_of(made_up(3, src6_port=7777), own))
    wait_for(lambda: len(jool.sessions()) == 3)
    assert {row["src6_port"] for row in jool.sessions()} == {7777}
    (status,) = json_rows(jool, "instance", "status")
    (talker,) = status["joolds"]
    assert (talker["refused"], talker["sessions"]) == (len(impossible), 3)
    assert counters(jool)["transport_frames_refused"] > 0
    if jool is world.new:
        assert jool.counters()["JSTAT_JOOLD_SSS_RCVD"] == 3


def test_beside_joold(world: World, jool: JoolNode, server: Server) -> None:
    """A native node in a group of joolds: each side's connections go on at the other."""
    own = "4.1.9" if jool is world.old else "4.1.13"
    world.translate_by(jool)
    jool.start_joold()
    world.native.start_jsync(JOOLD + f'format = "{own}"\n')
    client, ours, mask = server.connect(world)
    speak(client, ours, b"joold")
    wait_for(lambda: mask[1] in {k[4] for k in sessions(world.native)})
    world.translate_by(world.native)
    speak(client, ours, b"jsync")
    second, theirs, second_mask = server.connect(world)
    wait_for(lambda: second_mask[1] in {k[4] for k in jools(jool)})
    world.translate_by(jool)
    speak(client, ours, b"again")
    speak(second, theirs, b"first")
    for one in (client, ours, second, theirs):
        one.close()


def test_jools_of_two_formats_corrupt_each_other_unless_jsync_joins_them(world: World) -> None:
    world.old.start_joold()
    world.new.start_joold()
    world.translate_by(world.old)
    world.ping()
    true = wait_for(lambda: jools(world.old))
    wrong = wait_for(lambda: jools(world.new), 10)
    assert not set(wrong) & set(true), "4.1.13 reads a session of 4.1.9's as others"
    world.reset()
    world.new.start_joold()
    world.old.start_jsync(JOOLD + 'format = "4.1.13"\n')
    world.ping()
    true = wait_for(lambda: jools(world.old))
    wait_for(lambda: jools(world.new) == true)
    world.translate_by(world.new)
    world.ping()
    wait_for(lambda: len(jools(world.old)) == 2)
    assert jools(world.old) == jools(world.new)


@pytest.mark.parametrize("group", [GROUP, GROUP6])
def test_joold_beside_jsync_on_the_same_group(world: World, server: Server, group: str) -> None:
    """jsync bridges one Jool and is itself a node; joold does the other: all three agree."""
    ours = JOOLD.replace(GROUP, group) + 'format = "4.1.13"\nttl = 3\n'
    world.new.start_joold(group=group)
    world.old.start_jsync(ours)
    world.native.start_jsync(ours)
    masks = set()
    for node in (world.old, world.new, world.native):
        world.translate_by(node)
        with world.listen(GROUP6) as next_one, world.open("n6", socket.SOCK_DGRAM) as datagram:
            masks.add(server.exchange(datagram, node.name.encode()))
            # A joold has the same option in its file.
            assert group == GROUP or next_one()[1] == 3
    ports = {mask[1] for mask in masks}
    for rows in (
        world.old.sessions,
        world.new.sessions,
        lambda: json_rows(world.native, "session", "display"),
    ):
        wait_for(partial(lambda get: ports_of(get()) == ports, rows))


def test_a_module_that_goes_and_comes_back_gets_its_sessions_again(
    world: World, jool: JoolNode
) -> None:
    world.translate_by(jool)
    jool.start_jsync(SYNC)
    world.ping()
    before = jools(jool)
    assert len(before) == 1

    jool.box.run("jool global update ss-enabled false")
    wait_for(lambda: not is_ready(jool))
    assert "global update ss-enabled true" in why_not_ready(jool)
    jool.box.run("jool global update ss-enabled true")
    wait_for(lambda: is_ready(jool))
    jool.box.run("jool instance remove default")
    wait_for(lambda: not is_ready(jool))
    wait_for(lambda: "no instance 'default'" in why_not_ready(jool))
    jool.box.run("rmmod jool jool_common")
    wait_for(lambda: "modprobe jool" in why_not_ready(jool))
    jool.box.run(f"modprobe jool && {{ {NEW_INSTANCE}; }}")
    wait_for(lambda: is_ready(jool))
    wait_for(lambda: jools(jool) == before)
    time.sleep(1.5)  # the daemon has seen this one's sessions
    jool.box.run(NEW_INSTANCE)  # faster than anybody looks
    wait_for(lambda: jools(jool) == before)
    assert counters(jool)["module_reconnects"] >= 3
    assert jool.box.run("cat /tmp/jsync.log").count("level=warning") >= 3


def test_another_pool4_is_followed(world: World) -> None:
    jool = world.new
    jool.start_jsync(SYNC)
    world.native.start_jsync(SYNC)
    wait_for(lambda: [p["mismatch"] for p in json_rows(world.native, "peers")] == [None])
    for protocol in ("tcp", "udp", "icmp"):
        jool.box.run(f"jool pool4 add 198.51.100.2 61001-65535 --{protocol}")
    wait_for(lambda: [p["mismatch"] for p in json_rows(world.native, "peers")] == ["pool4"])
    world.native.jsync("pool4", "add", "198.51.100.2", "61001-65535")
    wait_for(lambda: [p["mismatch"] for p in json_rows(world.native, "peers")] == [None])
    shown = {(row["protocol"], row["prefix"]) for row in json_rows(jool, "pool4", "display")}
    assert len(shown) == 6


def test_another_pool6_needs_a_restart_and_the_node_says_so(world: World) -> None:
    jool = world.new
    jool.start_jsync(SYNC)
    jool.box.run(NEW_INSTANCE.replace("64:ff9b::/96", "64:ff9c::/96"))
    wait_for(lambda: not is_ready(jool))
    wait_for(lambda: "64:ff9c::/96 now" in why_not_ready(jool))
    assert "restart the daemon" in why_not_ready(jool)
    assert "restart the daemon" in jool.box.run("cat /tmp/jsync.log")
    jool.stop_jsync()
    jool.start_jsync(SYNC)
    (status,) = json_rows(jool, "instance", "status")
    assert (status["ready"], status["pool6"]) == (True, "64:ff9c::/96")


def test_what_the_kernel_drops_is_read_from_the_table(world: World, server: Server) -> None:
    """A daemon that stands still, whose socket has room for one message."""
    jool = world.new
    world.translate_by(jool)
    jool.box.run("jool global update ss-flush-deadline 100")
    jool.box.write("/tmp/small.py", SMALL_BUFFER)
    jool.start_jsync(SYNC, program="python3 /tmp/small.py")
    world.native.start_jsync(SYNC)
    before = counters(jool)
    jool.box.run(f"kill -STOP {jool.synchroniser}")
    for number in range(20):
        with world.open("n6", socket.SOCK_DGRAM) as datagram:
            server.exchange(datagram, b"%d" % number)
        time.sleep(0.1)
    jool.box.run(f"kill -CONT {jool.synchroniser}")
    wait_for(lambda: counters(jool).get("module_overruns", 0) >= 1)
    wait_for(lambda: len(jools(jool)) == 20 and sessions(world.native) == jools(jool))
    after = counters(jool)
    assert after["module_resynchronisations"] > before["module_resynchronisations"]
    assert "the kernel dropped sessions" in jool.box.run("cat /tmp/jsync.log")


SMALL_BUFFER = """
import sys
from jsync.jool import stream
stream.BUFFER_BYTES = 1
from jsync.cli import main
sys.exit(main())
"""
