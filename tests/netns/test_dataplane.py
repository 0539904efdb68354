"""Packets through kernel and daemon, on an address that the host shares with the translator."""

import json
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Host, Network, Process, network, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")

N4 = "64:ff9b::192.0.2.8"
STATIC = "".join(
    f'[[nat64.bib]]\nprotocol = "{protocol}"\nipv6 = "2001:db8::8#8001"\nipv4 = "192.0.2.1#61001"\n'
    for protocol in ("tcp", "udp")
)
SHARED = '[[nat64.pool4]]\nprefix = "192.0.2.1"\nports = "61001-65535"\n' + STATIC
ROUTED = '[[nat64.pool4]]\nprefix = "198.51.100.0/30"\n[dataplane]\npool4 = "routed"\n'


class Site:
    """n6 -- J -- n4."""

    def __init__(self, net: Network) -> None:
        self.n6, self.j, self.n4 = (net.host(name) for name in ("n6", "J", "n4"))
        net.wire((self.j, "to6"), (self.n6, "to6"))
        net.wire((self.j, "to4"), (self.n4, "to4"))
        self.j.sh(
            "ip addr add 2001:db8::1/96 dev to6; ip addr add 192.0.2.4/24 dev to4;"
            " ip addr add 192.0.2.1/24 dev to4"
        )
        self.n6.sh("ip addr add 2001:db8::8/96 dev to6; ip route add 64:ff9b::/96 via 2001:db8::1")
        self.n4.sh("ip addr add 192.0.2.8/24 dev to4; ip route add 198.51.100.0/24 via 192.0.2.4")

    def daemon(self, pool4: str) -> Process:
        daemon = self.j.daemon(
            f'[node]\nname = "J"\ncontrol = "{self.j.control}"\n[nat64]\n{pool4}'
        )
        daemon.wait_for("message=translating")
        return daemon

    def set_mtu(self, side: str, mtu: int) -> None:
        other = self.n6 if side == "to6" else self.n4
        for host in (self.j, other):
            host.sh(f"ip link set {side} mtu {mtu}")

    def counters(self) -> dict[str, int]:
        rows = self.j.jsync("stats", "display", "--json", "--all").stdout.splitlines()
        return {row["name"]: row["value"] for row in map(json.loads, rows)}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with network(tmp_path) as net:
        yield Site(net)


def start(host: Host, script: str) -> Process:
    """A Python program that says on stderr when it is "listening"."""
    process = host.start("python3", "-uc", "import socket, sys\n" + textwrap.dedent(script))
    process.wait_for("listening")
    return process


def python(host: Host, script: str) -> str:
    done = host.run("python3", "-c", "import socket\n" + textwrap.dedent(script))
    return done.stdout.strip()


def sink(host: Host, address: str, port: int) -> Process:
    """Takes a connection, and sends back how many bytes came, and from where."""
    return start(
        host,
        f"""
        family = socket.AF_INET6 if ":" in {address!r} else socket.AF_INET
        server = socket.create_server(({address!r}, {port}), family=family)
        print("listening", file=sys.stderr)
        client, peer = server.accept()
        count = 0
        while data := client.recv(65536):
            count += len(data)
        client.sendall(f"{{count}} {{peer[0]}}".encode())
        """,
    )


def send_bulk(host: Host, address: str, port: int, size: int) -> str:
    return python(
        host,
        f"""
        client = socket.create_connection(({address!r}, {port}), 10)
        client.sendall(bytes({size}))
        client.shutdown(socket.SHUT_WR)
        print(client.recv(100).decode())
        """,
    )


def udp_echo(host: Host, family: str, port: int, answer: int) -> Process:
    """Answers one datagram with one of `answer` bytes."""
    return start(
        host,
        f"""
        server = socket.socket(socket.{family}, socket.SOCK_DGRAM)
        server.bind(("", {port}))
        print("listening", file=sys.stderr)
        data, peer = server.recvfrom(65535)
        print(len(data), file=sys.stderr)
        server.sendto(bytes({answer}), peer)
        """,
    )


def exchange(host: Host, family: str, address: str, port: int, size: int) -> str:
    return python(
        host,
        f"""
        client = socket.socket(socket.{family}, socket.SOCK_DGRAM)
        client.settimeout(5)
        client.sendto(bytes({size}), ({address!r}, {port}))
        print(len(client.recv(65535)))
        """,
    )


@pytest.mark.parametrize("rp_filter", [0, 1, 2])
def test_a_shared_address_works_however_strict_the_host_is_about_sources(
    site: Site, rp_filter: int
) -> None:
    site.j.sh(
        f"sysctl -qw net.ipv4.conf.all.rp_filter={rp_filter}"
        f" net.ipv4.conf.default.rp_filter={rp_filter}"
    )
    site.daemon(SHARED)
    site.n6.run("ping", "-c2", "-i0.2", "-W2", N4)


@pytest.mark.parametrize("pool4", [SHARED, ROUTED])
def test_bulk_data_from_the_ipv6_side(site: Site, pool4: str) -> None:
    site.daemon(pool4)
    sink(site.n4, "0.0.0.0", 80)
    count, source = send_bulk(site.n6, N4, 80, 5_000_000).split()
    assert count == "5000000"
    assert source.startswith("192.0.2.1" if pool4 == SHARED else "198.51.100.")


def test_bulk_data_from_the_ipv4_side_by_a_static_entry(site: Site) -> None:
    site.daemon(SHARED)
    sink(site.n6, "::", 8001)
    assert send_bulk(site.n4, "192.0.2.1", 61001, 5_000_000) == "5000000 64:ff9b::c000:208"


def test_a_static_entry_that_is_added_while_it_runs_works(site: Site) -> None:
    site.daemon(SHARED)
    site.j.jsync("bib", "add", "--tcp", "2001:db8::8#8002", "192.0.2.1#61002")
    sink(site.n6, "::", 8002)
    assert send_bulk(site.n4, "192.0.2.1", 61002, 1000) == "1000 64:ff9b::c000:208"


def test_the_host_keeps_its_own_ports_of_the_shared_address(site: Site) -> None:
    site.daemon(SHARED)
    sink(site.j, "192.0.2.1", 22)
    assert send_bulk(site.n4, "192.0.2.1", 22, 1000) == "1000 192.0.2.8"


def test_fragments_reach_the_translator_of_a_shared_address(site: Site) -> None:
    site.daemon(SHARED)
    server = udp_echo(site.n4, "AF_INET", 53, answer=5000)
    assert exchange(site.n6, "AF_INET6", "64:ff9b::c000:208", 53, size=4000) == "5000"
    assert "4000" in server.log
    server = udp_echo(site.n6, "AF_INET6", 8001, answer=5000)
    assert exchange(site.n4, "AF_INET", "192.0.2.1", 61001, size=4000) == "5000"
    assert "4000" in server.log


def test_fragments_for_the_host_itself_still_reach_it(site: Site) -> None:
    site.daemon(SHARED)
    server = udp_echo(site.j, "AF_INET", 53, answer=5000)
    assert exchange(site.n4, "AF_INET", "192.0.2.1", 53, size=4000) == "5000"
    assert "4000" in server.log


def test_a_narrow_way_out_to_ipv4_is_told_to_the_ipv6_side(site: Site) -> None:
    """The kernel's own ICMP error is for the host's own address, and must reach the translator."""
    site.daemon(SHARED)
    site.set_mtu("to4", 1300)
    done = site.n6.run("ping", "-c2", "-i0.3", "-Mdo", "-s1400", N4, check=False)
    assert "mtu=1320" in done.stdout
    sink(site.n4, "0.0.0.0", 80)
    assert send_bulk(site.n6, N4, 80, 1_000_000) == "1000000 192.0.2.1"


def test_a_narrow_way_out_to_ipv6_is_told_to_the_ipv4_side(site: Site) -> None:
    site.daemon(SHARED)
    site.set_mtu("to6", 1400)
    sink(site.n6, "::", 8001)
    # A segment of 1500 bytes would be 1520: its sender has to hear of 1380.
    assert send_bulk(site.n4, "192.0.2.1", 61001, 1_000_000) == "1000000 64:ff9b::c000:208"


def test_errors_from_beyond_reach_the_ipv6_side(site: Site) -> None:
    """Nobody listens on n4: its error is about a packet from the shared address."""
    site.daemon(SHARED)
    text = python(
        site.n6,
        """
        client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        client.settimeout(3)
        client.connect(("64:ff9b::c000:208", 9))
        client.send(b"x")
        try:
            client.recv(1)
        except ConnectionRefusedError:
            print("refused")
        """,
    )
    assert text == "refused"


def test_a_way_through_the_host_to_the_address_elsewhere_is_left_alone(site: Site) -> None:
    """A backup that forwards to the primary's address doesn't take the packets for itself."""
    site.daemon(SHARED)
    site.j.sh("ip addr del 192.0.2.1/24 dev to4")
    site.n4.sh("ip addr add 192.0.2.1/32 dev lo; ip route add 203.0.113.0/24 via 192.0.2.4")
    site.n6.sh("ip addr add 203.0.113.2/24 dev to6; ip route add 192.0.2.0/24 via 203.0.113.1")
    site.j.sh("ip addr add 203.0.113.1/24 dev to6; ip route add 192.0.2.1 via 192.0.2.8")
    sink(site.n4, "192.0.2.1", 61001)
    assert send_bulk(site.n6, "192.0.2.1", 61001, 1000) == "1000 203.0.113.2"
    assert site.counters()["received_ipv4_packets"] == 0


def test_ports_of_the_translator_are_no_source_ports_of_the_host(site: Site) -> None:
    site.j.sh("sysctl -qw net.ipv4.ip_local_port_range='60900 61100'")
    with pytest.raises(AssertionError, match="fewer"):
        site.daemon(SHARED)
    site.j.sh("sysctl -qw net.ipv4.ip_local_port_range='50000 61100'")
    site.daemon(SHARED)
    script = """
        ports = set()
        for _ in range(300):
            with socket.socket() as probe:
                probe.bind(("192.0.2.1", 0))
                ports.add(probe.getsockname()[1])
        print(max(ports))
    """
    assert int(python(site.j, script)) <= 61000


def test_a_default_route_from_a_router_survives_start_and_end(site: Site) -> None:
    announce = """
        import struct
        index = socket.if_nametoindex("to6")
        sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
        sender.sendto(advertisement, ("ff02::1", 0, 0, index))
    """
    python(site.n6, announce)
    default = "default via"
    wait_until(lambda: default in site.j.sh("ip -6 route"))
    daemon = site.daemon(SHARED)
    assert default in site.j.sh("ip -6 route")
    assert daemon.end() == 0
    assert default in site.j.sh("ip -6 route")
    assert site.j.sh("sysctl -n net.ipv6.conf.to6.accept_ra").strip() == "1"


def test_sessions_are_displayed(site: Site) -> None:
    site.daemon(SHARED)
    site.n6.run("ping", "-c1", "-W2", N4)
    (row,) = map(json.loads, site.j.jsync("session", "display", "--json").stdout.splitlines())
    assert (row["proto"], row["src6"], row["dst4"]) == ("icmp", "2001:db8::8", "192.0.2.8")
    text = site.j.jsync("bib", "display", "--numeric").stdout
    assert "[Static TCP] 192.0.2.1#61001 - 2001:db8::8#8001 (0 sessions)" in text
    wait_until(lambda: site.counters()["translated_6to4_packets"] == 1)


def test_the_host_has_its_ports_back_when_an_entry_goes_or_is_refused(site: Site) -> None:
    def reserved() -> str:
        return site.j.sh("sysctl -n net.ipv4.ip_local_reserved_ports").strip()

    def bind(port: int) -> str:
        """What the host chooses as a source port when this is the whole of its range."""
        return python(
            site.j,
            f"""
            open("/proc/sys/net/ipv4/ip_local_port_range", "w").write("{port} {port}")
            probe = socket.socket()
            try:
                probe.bind(("192.0.2.1", 0))
                print(probe.getsockname()[1])
            except OSError as error:
                print(error.strerror)
            open("/proc/sys/net/ipv4/ip_local_port_range", "w").write("32768 60999")
            """,
        )

    site.j.sh("sysctl -qw net.ipv4.ip_local_reserved_ports=8080,55000")
    daemon = site.daemon(SHARED)
    before = site.j.state()
    assert reserved() == "8080,55000,61001-65535"
    assert bind(50001) == "50001"
    entry = ("192.0.2.1", "50000-61000")
    site.j.jsync("pool4", "add", *entry)
    assert reserved() == "8080,50000-65535"
    assert bind(50001) == "Address already in use"
    site.j.jsync("pool4", "remove", *entry)
    assert reserved() == "8080,55000,61001-65535"
    assert bind(50001) == "50001"
    # The device of a mark that can't be had, after the ports were reserved.
    site.j.sh("ip link add jsync0-7 type veth peer name other")
    done = site.j.jsync("pool4", "add", *entry, "--mark", "7", check=False)
    assert (done.returncode, "jsync0-7 exists" in done.stderr) == (1, True)
    assert reserved() == "8080,55000,61001-65535"
    site.j.sh("ip link del jsync0-7")
    assert site.j.state() == before
    assert daemon.end() == 0
    assert reserved() == "8080,55000"
