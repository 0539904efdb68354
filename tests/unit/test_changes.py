import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
import trio

from jsync import _core, config
from jsync.changes import Changes, parse_option
from jsync.cli.globals import option_text
from jsync.config import Settings
from jsync.errors import Failure
from jsync.log import Log

BASE = """\
[nat64]
[[nat64.pool4]]
prefix = "192.0.2.1"
ports = "61001-65535"
[[nat64.bib]]
protocol = "tcp"
ipv6 = "2001:db8::8#80"
ipv4 = "192.0.2.1#61001"
[nat64.global]
udp-timeout = 300
"""


class Host:
    """The host's side, which follows or refuses."""

    def __init__(self) -> None:
        self.settings: list[Settings] = []
        self.refusal: Failure | None = None

    def change(self, settings: Settings, follow_marks: Callable[[Settings], None]) -> None:
        follow_marks(settings)
        if self.refusal is not None:
            raise self.refusal
        self.settings.append(settings)

    def prepare(self) -> None:
        raise NotImplementedError

    def hold(self, held: frozenset[int]) -> None:
        raise NotImplementedError

    connect = announce = undo = prepare


class World:
    def __init__(self) -> None:
        self.host = Host()
        self.log = StringIO()
        settings = parse(BASE)
        self.node = _core.Node(settings.nat64_json(), None, keys=[], secret=bytes(32))
        self.changes = Changes(settings, self.node, self.host, Log(stream=self.log))

    def do(self, verb: str, **arguments: Any) -> None:
        trio.run(getattr(self.changes, verb), arguments)

    def reload(self, text: str) -> None:
        trio.run(self.changes.reload, parse(text))

    @property
    def config(self) -> dict[str, Any]:
        return self.changes.config()


def parse(text: str) -> Settings:
    return config.parse(text, "jsync.toml")


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("udp-timeout", "0:10:00", 600_000),
        ("tcp-est-timeout", "7300", 7_300_000),
        ("zeroize-traffic-class", "on", True),
        ("source-icmpv6-errors-better", "FALSE", False),
        ("tos", "16", 16),
        ("mtu-plateaus", "1500,1280", [1500, 1280]),
        ("mtu-plateaus", "6000, 5000, 4000", [6000, 5000, 4000]),
        ("denylist4", "10.0.0.0/8, 192.0.2.0/24", ["10.0.0.0/8", "192.0.2.0/24"]),
    ],
)
def test_options_are_written_as_they_are_shown(
    world: World, key: str, text: str, value: object
) -> None:
    world.do("update_global", key=key, value=text)
    assert world.config["global"][key] == value


@pytest.mark.parametrize(
    ("text", "value"), [("", []), ("10.0.0.0/8,192.168.0.1", ["10.0.0.0/8", "192.168.0.1"])]
)
def test_lists_may_be_of_prefixes_or_empty(text: str, value: list[str]) -> None:
    assert parse_option("denylist4", text, []) == value


ON = ["true", "TRUE", "on", "yes", "1"]
OFF = ["false", "off", "No", "0"]
U32 = "a whole number from 0 to 4294967295"
COUNT = (["0", "1", "4294967295"], {"-1": "whole number", "4294967296": U32, "1.5": "whole number"})
DENIED = ",".join(f"10.{n}.0.0/16" for n in range(65))
OPTIONS: dict[str, tuple[list[str], dict[str, str]]] = {
    **{
        key: (ON + OFF, {"": "true or false", "2": "true or false", "maybe": "true or false"})
        for key in (
            "address-dependent-filtering",
            "allow-non-global",
            "drop-externally-initiated-tcp",
            "drop-icmpv6-info",
            "handle-rst-during-fin-rcv",
            "logging-bib",
            "logging-session",
            "override-tos",
            "source-icmpv6-errors-better",
            "zeroize-traffic-class",
        )
    },
    **{
        key: ([least, "480:00:00", "8000"], dict.fromkeys(
            (*bad, "480:00:00.001", "4294967296"),
            "RFC 6146",
        ) | {"": "not a duration", "soon": "not a duration", "-1": "not a duration"})
        for key, least, bad in (
            ("udp-timeout", "0:02:00", ["0:01:59.999", "0"]),
            ("icmp-timeout", "1ms", ["0:00:00"]),
            ("tcp-est-timeout", "2:00:00", ["1:59:59.999", "1.5"]),
            ("tcp-trans-timeout", "0:04:00", ["0:03:59.999"]),
            ("fragment-arrival-timeout", "0:00:02", ["0:00:01.999"]),
        )
    },
    "denylist4": (
        ["", "0.0.0.0/0", "10.0.0.0/8,192.168.0.1/32", DENIED.rpartition(",")[0]],
        {"10.0.0.1/8": "bits are set", "7": "not an IPv4 address", DENIED: "at most 64"},
    ),
    "f-args": (["0", "15"], {"16": "0 to 15", "256": "0 to 255", "0b1010": "whole number"}),
    "lowest-ipv6-mtu": (["1280", "65535"], {"1279": "at least 1280", "65536": "0 to 65535"}),
    "max-ports-per-subscriber": COUNT,
    "max-session-rate-per-subscriber": COUNT,
    "max-sessions-per-subscriber": COUNT,
    "maximum-simultaneous-opens": COUNT,
    "mtu-plateaus": (
        ["", "1280", "65535, 68,1500"],
        {"65536": "0 to 65535", "1500,x": "whole number", "1500;1280": "whole number"},
    ),
    "port-block-size": (
        ["0", "64", "16384"],
        {"32": "power of two", "96": "power of two", "32768": "power of two", "x": "whole number"},
    ),
    "subscriber-prefix-length": (["1", "128"], {"0": "1 to 128", "129": "1 to 128", "256": "255"}),
    "tos": (["0", "255"], {"256": "0 to 255", "-1": "whole", "1_0": "whole", "٣": "whole"}),
}  # fmt: skip


def test_every_option_is_tried(world: World) -> None:
    assert world.config["global"].keys() == OPTIONS.keys()


@pytest.mark.parametrize("key", OPTIONS)
def test_a_good_value_of_an_option_is_taken_as_it_is_shown_then(world: World, key: str) -> None:
    for text in OPTIONS[key][0]:
        world.do("update_global", key=key, value=text)
        now = world.config["global"]
        world.do("update_global", key=key, value=option_text(key, now[key]))
        assert world.config["global"] == now


@pytest.mark.parametrize("key", OPTIONS)
def test_a_bad_value_of_an_option_is_refused_with_the_reason(world: World, key: str) -> None:
    before = world.config
    for text, words in OPTIONS[key][1].items():
        with pytest.raises(Failure) as refused:
            world.do("update_global", key=key, value=text)
        message = str(refused.value)
        assert message.startswith(f"{key}: ")
        assert repr(text) in message
        assert words in message
        assert world.config == before


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("udp-timeot", "did you mean 'udp-timeout'?"),
        ("manually-enabled", "stop the daemon"),
        ("pool6", "restart the daemon"),
        ("ss-enabled", "[sync]"),
        ("ss-flush-deadline", "flush-deadline"),
        ("ss-capacity", "none is dropped"),
        ("eam-hairpin-mode", "SIIT"),
    ],
)
def test_what_is_no_option_is_refused_with_the_reason(world: World, key: str, words: str) -> None:
    before = world.config
    with pytest.raises(Failure) as refused:
        world.do("update_global", key=key, value="1")
    assert str(refused.value).startswith(f"{key}: ")
    assert words in str(refused.value)
    assert world.config == before


@pytest.mark.parametrize("prefix", ["198.51.100.0/23", "198.51.0.0/16"])
def test_many_addresses_have_to_be_forced(world: World, prefix: str) -> None:
    before = world.config
    with pytest.raises(Failure, match="addresses; write --force"):
        world.do("pool4_add", prefix=prefix.replace("100", "0"))
    assert world.config == before
    world.do("pool4_add", prefix=prefix.replace("100", "0"), force=True)
    world.do("pool4_add", prefix="198.18.0.0/24")
    assert len(world.config["pool4"]) == 3
    with pytest.raises(Failure, match="at most a /16"):
        world.do("pool4_add", prefix="198.18.0.0/15", force=True)


def test_transport_addresses_are_removed_from_whatever_entry_has_them(world: World) -> None:
    world.do("pool4_add", prefix="192.0.2.8/31", ports="5000-5999")
    world.do("pool4_remove", prefix="192.0.2.9", protocol="udp", ports="5500-65535")
    shown = [(e["protocol"], e["prefix"], e["ports"]) for e in world.config["pool4"][1:]]
    assert shown == [
        ("tcp", "192.0.2.8/31", "5000-5999"),
        ("icmp", "192.0.2.8/31", "5000-5999"),
        ("udp", "192.0.2.8/32", "5000-5999"),
        ("udp", "192.0.2.9/32", "5000-5499"),
    ]
    assert len(world.host.settings[-1].pool4) == 5
    world.do("pool4_remove", prefix="192.0.2.8/31")
    assert len(world.config["pool4"]) == 1


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("pool4_add", {"prefix": "198.51.100.1"}),
        ("pool4_remove", {"prefix": "192.0.2.8", "ports": "61500"}),
        ("pool4_flush", {}),
    ],
)
def test_what_the_host_refuses_pool4_does_not_keep(
    world: World, verb: str, arguments: dict[str, object]
) -> None:
    world.do("bib_remove", protocol="tcp", ipv4="192.0.2.1#61001")
    world.do("pool4_add", prefix="192.0.2.8", ports="61001-65535")
    world.host.refusal = Failure("there is no `nft`")
    before = world.config
    with pytest.raises(Failure, match="nft"):
        world.do(verb, **arguments)
    assert world.config == before


def test_the_host_follows_pool4(world: World) -> None:
    world.do("pool4_add", prefix="198.51.100.0/30", ports="7-9", protocol="udp")
    (now,) = world.host.settings
    assert [str(pool.network) for pool in now.pool4] == ["192.0.2.1/32", "198.51.100.0/30"]
    assert (now.pool4[1].protocols, now.pool4[1].first, now.pool4[1].last) == (("udp",), 7, 9)
    world.do("pool4_remove", prefix="198.51.100.0/30", ports="7-9", protocol="udp")
    assert len(world.host.settings[-1].pool4) == 1
    world.do("bib_remove", protocol="tcp", ipv4="192.0.2.1#61001")
    world.do("pool4_flush")
    assert world.host.settings[-1].pool4 == []


def test_a_mark_needs_a_device(world: World) -> None:
    before = world.config
    with pytest.raises(Failure, match="need a device each"):
        world.do("pool4_add", prefix="192.0.2.1", ports="61001-65535", mark=5)
    assert world.config == before


@pytest.mark.parametrize(
    ("verb", "arguments", "words"),
    [
        ("pool4_add", {"prefix": "192.0.2.1", "ports": "61001-65535"}, "already"),
        ("pool4_add", {"prefix": "192.0.2.1", "mark": -1}, "mark: invalid value"),
        ("pool4_remove", {"prefix": "192.0.2.1", "ports": "61001-65535", "mark": 5}, "no such"),
        ("pool4_add", {"prefix": "x"}, "not an IPv4 address"),
        ("pool4_add", {}, "prefix"),
        ("pool4_remove", {"prefix": "192.0.2.1", "ports": "61001-65535"}, "not in pool4"),
        ("pool4_remove", {"prefix": "192.0.2.2"}, "no such entry"),
        ("pool4_flush", {}, "not in pool4"),
        ("bib_add", {"protocol": "tcp", "ipv6": "::1#1"}, "ipv4 is missing"),
        ("bib_remove", {"protocol": "tcp", "ipv6": "::1#1"}, "no such entry"),
        ("bib_remove", {"protocol": "x", "ipv6": "::1#1"}, "must be tcp"),
    ],
)
def test_a_refused_change_changes_nothing(
    world: World, verb: str, arguments: dict[str, object], words: str
) -> None:
    before = world.config
    with pytest.raises(Failure, match=words):
        world.do(verb, **arguments)
    assert world.config == before
    assert world.host.settings == []


def test_static_entries_come_and_go(world: World) -> None:
    world.do("bib_add", protocol="udp", ipv6="2001:db8::9#53", ipv4="192.0.2.1#61053")
    assert len(world.config["bib"]) == 2
    world.do("bib_remove", protocol="udp", ipv6="2001:db8::9#53")
    assert len(world.config["bib"]) == 1


def test_a_reload_makes_what_can_be_made(world: World) -> None:
    text = BASE.replace("udp-timeout = 300", "udp-timeout = 600\ntos = 3")
    text = text.replace("61001-65535", "62000-65535").replace("#61001", "#62001")
    text += '[dataplane]\ndevice = "jsync1"\n'
    text = text.replace("[nat64]\n", "[nat64]\nmax-sessions = 5\n", 1)
    world.reload(text)
    now = world.config
    (entry,) = now["pool4"]
    assert (entry["prefix"], entry["ports"]) == ("192.0.2.1/32", "62000-65535")
    assert [entry["ipv4"] for entry in now["bib"]] == ["192.0.2.1#62001"]
    assert (now["global"]["udp-timeout"], now["global"]["tos"]) == (600_000, 3)
    log = world.log.getvalue()
    assert "restart the daemon for this change" in log
    assert "section=dataplane" in log
    assert "key=nat64.max-sessions" in log
    # … and back.
    world.reload(BASE)
    assert [entry["ipv4"] for entry in world.config["bib"]] == ["192.0.2.1#61001"]
    assert "key=nat64.global.tos" in world.log.getvalue()


def test_a_reload_that_is_refused_says_so(world: World) -> None:
    world.host.refusal = Failure("pool4 leaves the host no ports")
    world.reload(BASE.replace("61001-65535", "60000-65535"))
    assert "no ports" in world.log.getvalue()
    assert world.config["pool4"][0]["ports"] == "61001-65535"


def test_the_engine_shows_its_defaults(world: World) -> None:
    current: Callable[[], bytes] = world.node.config
    assert json.loads(current())["global"]["icmp-timeout"] == 60_000
