"""Marks on IPv6 packets, set by the host's own rules, choose the IPv4 address that they get."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import network
from test_dataplane import N4, Site, python, sink

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")

PLAIN, MARKED = "2001:db8::8", "2001:db8::9"
SHARED = """\
[[nat64.pool4]]
prefix = "192.0.2.1"
ports = "61001-65535"
[[nat64.pool4]]
prefix = "192.0.2.5"
ports = "61001-65535"
mark = 5
[dataplane]
"""
ROUTED = """\
[[nat64.pool4]]
prefix = "198.51.100.1"
[[nat64.pool4]]
prefix = "198.51.100.5"
mark = 5
[dataplane]
pool4 = "routed"
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """The site of `test_dataplane`, with two clients of which the second one is marked."""
    with network(tmp_path) as net:
        site = Site(net)
        site.n6.sh(f"ip addr add {MARKED}/96 dev to6 preferred_lft 0")
        site.j.sh("ip addr add 192.0.2.5/24 dev to4")
        mark(site, 5)
        yield site


def mark(site: Site, number: int) -> None:
    """Have the host mark what the second client sends."""
    site.j.sh(
        f"""nft -f - <<END
        table ip6 classes
        delete table ip6 classes
        table ip6 classes {{
            chain arriving {{
                type filter hook prerouting priority mangle
                ip6 saddr {MARKED} meta mark set {number}
            }}
        }}
END"""
    )


def source_seen(site: Site, client: str) -> str:
    """Send bulk data and get the answer; the address that n4 was connected from."""
    server = sink(site.n4, "0.0.0.0", 80)
    answer = python(
        site.n6,
        f"""
        client = socket.create_connection(({N4!r}, 80), 10, ({client!r}, 0))
        client.sendall(bytes(1_000_000))
        client.shutdown(socket.SHUT_WR)
        print(client.recv(100).decode())
        """,
    )
    server.popen.wait(10)
    count, source = answer.split()
    assert count == "1000000"
    return source


@pytest.mark.parametrize("persistent", ["false", "true"])
@pytest.mark.parametrize("pool4", [SHARED, ROUTED])
def test_two_clients_have_different_addresses_and_nothing_is_left(
    site: Site, pool4: str, persistent: str
) -> None:
    before = site.j.state()
    daemon = site.daemon(pool4 + f"persistent = {persistent}\n")
    own = "192.0.2" if pool4 == SHARED else "198.51.100"
    assert source_seen(site, PLAIN) == f"{own}.1"
    assert source_seen(site, MARKED) == f"{own}.5"
    site.n6.run("ping", "-c2", "-i0.2", "-W2", "-I", MARKED, N4)
    assert daemon.end() == 0
    assert site.j.state() == before


def test_errors_reach_a_marked_client(site: Site) -> None:
    site.daemon(SHARED)
    site.set_mtu("to4", 1300)
    done = site.n6.run("ping", "-c2", "-i0.3", "-Mdo", "-s1400", "-I", MARKED, N4, check=False)
    assert "mtu=1320" in done.stdout
    assert source_seen(site, MARKED) == "192.0.2.5"


def test_a_mark_that_no_entry_has_counts_as_none(site: Site) -> None:
    site.daemon(SHARED)
    mark(site, 6)
    assert source_seen(site, MARKED) == "192.0.2.1"


def test_where_every_entry_has_a_mark_other_packets_are_refused(site: Site) -> None:
    site.daemon('[[nat64.pool4]]\nprefix = "192.0.2.5"\nports = "61001-65535"\nmark = 5\n')
    done = site.n6.run("ping", "-c1", "-W2", "-I", PLAIN, N4, check=False)
    assert "Address unreachable" in done.stdout
    assert site.counters()["drop_no_pool4_mark"] == 1
    assert source_seen(site, MARKED) == "192.0.2.5"


def test_marks_come_and_go_while_packets_flow(site: Site) -> None:
    def state() -> dict[str, str]:
        # The test's own rules are another table.
        return {**site.j.state(), "nftables": site.j.sh("nft list table ip jsync_jsync0")}

    site.daemon(SHARED)
    before = state()
    site.j.sh("ip addr add 192.0.2.7/24 dev to4")
    mark(site, 7)
    entry = ("192.0.2.7", "61001-65535", "--mark", "7")
    site.j.jsync("pool4", "add", *entry)
    rows = site.j.jsync("pool4", "display", "--json").stdout.splitlines()
    assert [json.loads(row)["mark"] for row in rows] == [0, 5, 7]
    assert source_seen(site, MARKED) == "192.0.2.7"
    site.j.jsync("pool4", "remove", *entry)
    assert source_seen(site, MARKED) == "192.0.2.1"
    mark(site, 5)
    assert source_seen(site, MARKED) == "192.0.2.5"
    site.j.sh("ip addr del 192.0.2.7/24 dev to4")
    assert state() == before


def test_a_mark_without_room_for_its_device_is_refused(site: Site) -> None:
    site.daemon(SHARED)
    site.j.sh("ip link add jsync0-7 type veth peer name other")
    done = site.j.jsync("pool4", "add", "192.0.2.7", "61001-65535", "--mark", "7", check=False)
    assert done.returncode == 1
    assert "jsync0-7 exists" in done.stderr
    assert len(site.j.jsync("pool4", "display", "--json").stdout.splitlines()) == 2
    assert "jsync0-7" in site.j.sh("ip link"), "it is the operator's"
    assert source_seen(site, MARKED) == "192.0.2.5"


def test_after_kill_9_a_marked_packet_falls_into_a_black_hole(site: Site) -> None:
    before = site.j.state()
    daemon = site.daemon(SHARED)
    rules = site.j.state()["rules"]
    daemon.end(signal.SIGKILL)
    assert site.j.state()["rules"] == rules
    table = 6464 << 16 | 5
    assert f"fwmark 0x5 lookup {table}" in rules
    left = site.j.sh(f"ip -6 route show table {table}")
    assert left.split()[:2] == ["blackhole", "64:ff9b::/96"]
    assert len(left.splitlines()) == 1
    daemon = site.daemon(SHARED)
    assert "cleaning up" in daemon.log
    assert source_seen(site, MARKED) == "192.0.2.5"
    assert daemon.end() == 0
    assert site.j.state() == before
