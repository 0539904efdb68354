import json
from pathlib import Path

import pytest

from jsync import _core, config
from jsync.config import Settings
from jsync.errors import Failure

MINIMAL = """\
[nat64]
[[nat64.pool4]]
prefix = "192.0.2.1"
ports = "61001-65535"
"""
CLUSTER = (
    MINIMAL
    + """\
[node]
name = "J"
id = 1
[sync]
cluster = "campus"
key-files = ["/nonexistent"]
interface = "priv"
"""
)


def parse(text: str) -> Settings:
    return config.parse(text, "jsync.toml")


def refusal(text: str) -> str:
    with pytest.raises(Failure) as caught:
        parse(text)
    return str(caught.value)


def test_what_is_not_said_has_defaults() -> None:
    settings = parse(MINIMAL)
    assert settings.node.control == "/run/jsync/control.sock"
    assert settings.dataplane.device == "jsync0"
    assert settings.dataplane.pool4 == "shared"
    assert str(settings.pool6) == "64:ff9b::/96"
    assert settings.sync is None
    assert settings.sync_json(1, 1472) is None
    (pool,) = settings.pool4
    assert (str(pool.network), pool.protocols) == ("192.0.2.1/32", ("tcp", "udp", "icmp"))
    assert (pool.first, pool.last) == (61001, 65535)


def test_the_engine_takes_both_parts() -> None:
    text = CLUSTER + 'hello-interval = "0.1s"\ndead-interval = 300\n'
    text += 'durability = "acked"\npull-timeout = "80ms"\nmax-sessions-per-frame = 8\n'
    text += 'allow-mismatch = ["timeouts"]\n[nat64.global]\n'
    settings = parse(text + 'tcp-est-timeout = "2:00:05"\nudp-timeout = 300\n')
    nat64 = json.loads(settings.nat64_json())
    assert nat64["global"] == {"tcp-est-timeout": 7_205_000, "udp-timeout": 300_000}
    sync = json.loads(settings.sync_json(7, 1472) or b"")
    assert sync == {
        "node": 1,
        "cluster": "campus",
        "epoch": 7,
        "max-frame": 1472,
        "plaintext": False,
        "durability": "acked",
        "pull": None,
        "max-sessions-per-frame": 8,
        "allow-mismatch": ["timeouts"],
        "pull-timeout": 80,
        "hello-interval": 100,
        "dead-interval": 300,
    }
    _core.Node(
        settings.nat64_json(), settings.sync_json(7, 1472), keys=[bytes(32)], secret=bytes(32)
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[node\n", ["jsync.toml:1:", "not TOML"]),
        ("", ["jsync.toml:", "'nat64' is missing"]),
        (MINIMAL + "[nod]\n", ["jsync.toml:5: nod:", "did you mean 'node'?"]),
        (MINIMAL + "[node]\n\nnmae = 'J'\n", ["jsync.toml:7: node.nmae:", "'name'"]),
        (
            MINIMAL + "[node]\nzzz = 1\n",
            ["jsync.toml:6:", "known here: backend, control, id, name"],
        ),
        (MINIMAL + "[node]\nid = 'x'\n", ["jsync.toml:6: node.id:", "Expected int"]),
        (MINIMAL + "[node]\nid = 70000\n", ["jsync.toml:6: node.id:", "1 to 65535"]),
        (MINIMAL + "[node]\nname = ''\n", [":6: node.name:"]),
        (MINIMAL + "[node]\ncontrol = 'x.sock'\n", [":6: node.control:", "absolute"]),
        (MINIMAL + "[dataplane]\ndevice = 'a/b'\n", [":6: dataplane.device:"]),
        (MINIMAL + "[dataplane]\npool4 = 'mine'\n", [":6: dataplane.pool4:"]),
        (
            MINIMAL + "[dataplane]\nproxy-arp = ['eth0']\n",
            [":6: dataplane.proxy-arp:", 'pool4 = "routed"'],
        ),
        (
            "[nat64]\n[[nat64.pool4]]\nprefix = '10.0.0.0/16'\n[dataplane]\npool4 = 'routed'\n"
            "proxy-arp = ['eth0']\n",
            [":6: dataplane.proxy-arp:", "65536 addresses"],
        ),
        (
            MINIMAL + "mark = 65540\n[dataplane]\ndevice = 'translator0'\n",
            [":2: nat64.pool4:", "'translator0-10004' is longer than 15 bytes"],
        ),
    ],
)
def test_a_mistake_names_line_key_and_remedy(text: str, words: list[str]) -> None:
    message = refusal(text)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[nat64]\n", [":1: nat64.pool4:", "name at least one address"]),
        ("[nat64]\npool4 = []\n", [":2: nat64.pool4:", "name at least one address"]),
        (
            MINIMAL + "[[nat64.pool4]]\nprefix = '192.0.2.300'\n",
            [":6: nat64.pool4[1].prefix:", "192.0.2.300"],
        ),
        (
            MINIMAL + "[[nat64.pool4]]\nprefix = '10.0.0.0/8'\n",
            [":5: nat64.pool4[1]", "at most a /16"],
        ),
        (MINIMAL + "node = 1\n", [":5: nat64.pool4[0].node:", "no [sync]"]),
        (MINIMAL + "mark = -1\n", [":5: nat64.pool4[0].mark:", "-1"]),
        (CLUSTER.replace("[nat64]", "[nat64]\nnode = 1"), [":2: nat64.node:", "[node]"]),
        (CLUSTER.replace("[node]", "node = 2\n[node]"), [":2: nat64.pool4:", "node 1 a slice"]),
        (
            CLUSTER.replace(
                "[node]", "node = 1\n[[nat64.pool4]]\nprefix = '192.0.2.0/24'\nnode = 2\n[node]"
            ),
            [":8: nat64.pool4[1].node:", "overlaps"],
        ),
        (MINIMAL.replace("prefix", "prefx"), [":3: nat64.pool4[0].prefx:", "'prefix'"]),
        (MINIMAL.replace("[nat64]", "[nat64]\npool7 = 'x'"), [":2: nat64.pool7:", "'pool6'"]),
        (MINIMAL.replace("[nat64]", "[nat64]\npool6 = 'x'"), [":2: nat64.pool6:"]),
        (MINIMAL.replace("[nat64]", "[nat64]\npool6 = 2024-01-01"), [":2: nat64.pool6:"]),
        (MINIMAL + "[nat64.global]\nudp-timeout = 'x'\n", [":6: nat64.global.udp-timeout:"]),
        (
            MINIMAL + "[nat64.global]\n\nudp-timeout = 1\n",
            [":7: nat64.global.udp-timeout:", "RFC 6146"],
        ),
        (
            MINIMAL + "[nat64.global]\nudp-timeot = 300\n",
            [":6: nat64.global.udp-timeot:", "'udp-timeout'"],
        ),
        (
            MINIMAL + "[nat64.global]\nzeroize-traffic-class = 1\n",
            [":6: nat64.global.zeroize-traffic-class:"],
        ),
        (
            MINIMAL + "[[nat64.bib]]\nprotocol = 'tcp'\nipv6 = '2001:db8::8#80'\n"
            "ipv4 = '192.0.2.1#80'\n",
            [":8: nat64.bib[0].ipv4", "not in pool4"],
        ),
    ],
)
def test_the_engines_complaints_get_lines(text: str, words: list[str]) -> None:
    message = refusal(text)
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("id = 1\n", ""), ["sync:", "id = 1"]),
        (("campus", ""), ["sync.cluster"]),
        (('key-files = ["/nonexistent"]\n', ""), ["sync.key-files", "jsync key generate"]),
        (('interface = "priv"\n', ""), ["sync.interface", "private network"]),
        (("interface =", "plaintext = true\ninterface ="), ["sync.plaintext", "contradicts"]),
        (("interface =", "group = '10.0.0.1'\ninterface ="), [":11: sync.group", "no multicast"]),
        (("interface =", "group = 'x'\ninterface ="), [":11: sync.group", "not an IP address"]),
        (("interface =", "port = 0\ninterface ="), [":11: sync.port"]),
        (
            ("interface =", "max-sessions-per-frame = '8'\ninterface ="),
            [":11: sync.max-sessions-per-frame", "Expected int"],
        ),
        (("interface =", "ttl = 0\ninterface ="), [":11: sync.ttl"]),
        (("interface =", "listen = '::1'\ninterface ="), [":11: sync.listen", "no meaning"]),
        (("interface =", "hello-interval = 'x'\ninterface ="), [":11: sync.hello-interval"]),
        (('interface = "priv"', "transport = 'tcp'"), ["sync.listen", "this node's address"]),
        (
            ('interface = "priv"', "transport = 'tcp'\nlisten = '10.0.0.1'"),
            ["sync.peers", "other nodes"],
        ),
        (
            ('interface = "priv"', "transport = 'tcp'\nlisten = '10.0.0.1'\npeers = ['::1']"),
            [":13: sync.peers[0]", "different IP versions"],
        ),
        (
            ('interface = "priv"', "transport = 'tcp'\nlisten = 'fe80::1'\npeers = ['fe80::2']"),
            ["sync.listen", "link-local"],
        ),
        (
            ('interface = "priv"', "transport = 'tcp'\nlisten = '0.0.0.0'\npeers = ['10.0.0.2']"),
            ["sync.listen", "not all"],
        ),
    ],
)
def test_mistakes_about_the_private_network(change: tuple[str, str], words: list[str]) -> None:
    assert change[0] in CLUSTER
    message = refusal(CLUSTER.replace(*change))
    for word in words:
        assert word in message, message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no such file"):
        config.load(str(tmp_path / "none"))
    with pytest.raises(Failure, match="directory"):
        config.load(str(tmp_path))
    (tmp_path / "latin").write_bytes(b"name = '\xe9'")
    with pytest.raises(Failure, match="UTF-8"):
        config.load(str(tmp_path / "latin"))


def test_a_bad_key_file_has_the_line_that_names_it() -> None:
    with pytest.raises(Failure, match=r"jsync\.toml:10: sync\.key-files\[0\]: /nonexistent"):
        parse(CLUSTER).keys()


JOOL = """\
[node]
backend = "jool"
[jool]
instance = "campus"
"""


def test_with_the_jool_backend_the_instance_is_the_configuration() -> None:
    settings = parse(JOOL)
    assert settings.jool is not None
    assert (settings.jool.instance, settings.jool.max_sessions) == ("campus", 4_000_000)
    assert settings.nat64 == {}
    settings = parse('[node]\nbackend = "jool"\n')
    assert settings.jool is not None
    assert settings.jool.instance == "default"
    assert parse(MINIMAL).jool is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (JOOL + MINIMAL, ["jsync.toml:5: nat64", "Jool's instance", "remove it"]),
        (JOOL + "[dataplane]\n", ["jsync.toml:5: dataplane", "remove it"]),
        (JOOL.replace("campus", "a-name-too-long-for-it"), ["jsync.toml:4: jool.instance", "15"]),
        (JOOL + "max-sessions = 0\n", ["jsync.toml:5: jool.max-sessions", "outside 1 to"]),
        (JOOL + 'instanse = "x"\n', ["did you mean 'instance'"]),
        (
            JOOL + CLUSTER[CLUSTER.index("[sync]") :] + "pull = true\n",
            ["sync.pull: has no meaning", "backend"],
        ),
        (MINIMAL + "[jool]\n", ["jool: is read with", 'backend = "jool"']),
        ('[node]\nbackend = "snort"\n', ["node.backend"]),
    ],
)
def test_a_section_of_the_other_backend_is_a_mistake(text: str, words: list[str]) -> None:
    message = refusal(text)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("listen", "endpoint"),
    [("127.0.0.1:9464", ("127.0.0.1", 9464)), ("[::1]:65535", ("::1", 65535))],
)
def test_metrics_are_served_where_the_file_says(listen: str, endpoint: tuple[str, int]) -> None:
    settings = parse(MINIMAL + f'[metrics]\nlisten = "{listen}"\n')
    assert settings.metrics is not None
    assert settings.metrics.endpoint() == endpoint
    assert parse(MINIMAL).metrics is None


@pytest.mark.parametrize(
    "listen",
    [
        "",
        "9464",
        ":9464",
        "127.0.0.1",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "::1:9464",
        "[::1]",
        "localhost:9464",
        "[127.0.0.1]:9464",
        "127.0.0.1:٣",
    ],
)
def test_metrics_need_an_address_and_a_port(listen: str) -> None:
    message = refusal(MINIMAL + f'[metrics]\nlisten = "{listen}"\n')
    assert message.startswith("jsync.toml:6: metrics.listen: ")
    assert "127.0.0.1:9464" in message
