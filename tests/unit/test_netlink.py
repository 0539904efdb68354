import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import pytest

from jsync import config
from jsync.devices import mark_devices, routing_table
from jsync.errors import Failure
from jsync.failover import WHOLE
from jsync.log import Log
from jsync.netlink import arp
from jsync.netlink.dataplane import Dataplane
from jsync.netlink.journal import Journal
from jsync.netlink.kernel import Family, Kernel
from jsync.netlink.nftables import ruleset, table_name
from jsync.netlink.steps import MARK_SPACE, Forwarding, LocalRule, ReservedPorts, Sysctl

ALL = frozenset({WHOLE})
"""What a primary holds where pool4 moves as a whole."""

SHARED = """\
[nat64]
[[nat64.pool4]]
prefix = "192.0.2.1"
ports = "61001-65535"
[dataplane]
device = "jsync7"
"""
ROUTED = """\
[nat64]
[[nat64.pool4]]
prefix = "198.51.100.0/30"
[dataplane]
device = "jsync7"
pool4 = "routed"
proxy-arp = ["to4"]
"""
MARKED = (
    SHARED
    + """\
[[nat64.pool4]]
prefix = "192.0.2.1"
ports = "60001-61000"
mark = 5
[[nat64.pool4]]
prefix = "192.0.2.5"
ports = "61001-65535"
mark = 0x2a
"""
)
PLAIN_SYSCTLS = {
    "net/ipv4/conf/all/forwarding": "0",
    "net/ipv4/conf/all/accept_redirects": "1",
    "net/ipv4/conf/eth0/forwarding": "0",
    "net/ipv6/conf/all/forwarding": "0",
    "net/ipv6/conf/eth0/forwarding": "0",
    "net/ipv6/conf/eth0/accept_ra": "1",
    "net/ipv4/ip_local_reserved_ports": "",
    "net/ipv4/ip_local_port_range": "32768 60999",
    "net/ipv4/neigh/to4/proxy_delay": "80",
}


class FakeKernel(Kernel):
    """A kernel in a dictionary; `crash_at` makes its nth change fail."""

    def __init__(self) -> None:
        self.sysctls = dict(PLAIN_SYSCTLS)
        self.things: set[tuple[object, ...]] = set()
        self.local: list[tuple[int, int] | None] = [None]
        self.devices = {"eth0", "to4"}
        self.history: list[str] = []
        self.changes = 0
        self.crash_at: int | None = None
        self.others = False

    def __enter__(self) -> "FakeKernel":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def state(self) -> object:
        return (self.sysctls, self.things, self.local, self.devices)

    def _change(self, what: str) -> None:
        self.changes += 1
        if self.changes == self.crash_at:
            raise Crash
        self.history.append(what)

    def _thing(self, action: str, *thing: object) -> None:
        self._change(f"{action} {thing[0]}")
        if action == "add":
            self.things.add(thing)
        else:
            self.things.discard(thing)

    def index(self, device: str) -> int | None:
        return 1 if device in self.devices else None

    def change_route(
        self,
        action: Literal["add", "del"],
        destination: str,
        table: int,
        metric: int,
        device: str | None,
    ) -> None:
        self._thing(action, "route" if device else "blackhole", destination, table, metric, device)

    def change_mark_rule(
        self, action: Literal["add", "del"], family: Family, priority: int, mark: int, table: int
    ) -> None:
        self._thing(action, "mark rule", family, priority, mark, table)

    def change_local_rule(
        self, action: Literal["add", "del"], excepting: tuple[int, int] | None
    ) -> None:
        self._change(f"{action} local rule {excepting}")
        if action == "add":
            self.local.append(excepting)
        else:
            # The kernel takes what is asked for, or without a mark the first of all.
            self.local.remove(excepting if excepting else self.local[0])
        assert self.local, "the host is deaf"

    def local_rules(self) -> list[tuple[int, int] | None]:
        return list(self.local)

    def change_proxy_neighbour(
        self, action: Literal["add", "del"], address: str, device: str
    ) -> None:
        self._thing(action, "neighbour", address, device)

    def change_address(self, action: Literal["add", "del"], address: str, device: str) -> None:
        self._thing(action, "address", address, device)

    def bring_up(self, device: str) -> None:
        self._change("up")

    def take_down(self, device: str) -> None:
        if device in self.devices:
            self._change("down")

    def delete_device(self, device: str) -> None:
        self._change("del device")
        self.devices.discard(device)
        self.things = {thing for thing in self.things if thing[-1] != device}
        self.sysctls = {path: v for path, v in self.sysctls.items() if f"/{device}/" not in path}

    def read_sysctl(self, path: str) -> str | None:
        return self.sysctls.get(path)

    def write_sysctl(self, path: str, value: str) -> None:
        self._change(f"sysctl {path}")
        self.sysctls[path] = value
        if path.endswith("conf/all/forwarding"):
            family = path[: len("net/ipv4")]
            for other in self.sysctls:
                if other.startswith(family) and other.endswith("/forwarding"):
                    self.sysctls[other] = value
            if family == "net/ipv4":
                self.sysctls["net/ipv4/conf/all/accept_redirects"] = str(1 - int(value))

    def forwarding_sysctls(self, family: Family) -> list[str]:
        start = f"net/ipv{family}/conf/"
        return [p for p in self.sysctls if p.startswith(start) and p.endswith("/forwarding")]

    def learned_default_routes(self) -> list[str]:
        return ["eth0"]

    def run_nft(self, commands: list[dict[str, Any]]) -> None:
        name = commands[0]["add"]["table"]["name"]
        removing = len(commands) == 2
        self._thing("del" if removing else "add", "nftables", name)

    def other_daemons(self, device: str) -> bool:
        return self.others


class Crash(BaseException):
    """The daemon is killed: nothing of it runs any more."""


class Host:
    """A machine with a fake kernel and a directory for journals."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.kernel = FakeKernel()
        self.journal = directory / "jsync7.json"
        self.log = StringIO()

    def dataplane(self, text: str, world: str = "here") -> Dataplane:
        return Dataplane(
            config.parse(text, "jsync.toml", check_nat64=lambda _: None),
            Log(stream=self.log),
            make_kernel=lambda: self.kernel,
            journal=Journal(self.journal, world),
        )

    def up(self, text: str) -> Dataplane:
        dataplane = self.dataplane(text)
        dataplane.prepare()
        self.make_device("jsync7")
        self.follow_marks(parsed(text))
        dataplane.connect()
        return dataplane

    def make_device(self, device: str) -> None:
        self.kernel.devices.add(device)
        for family, names in (
            (4, ("ignore_routes_with_linkdown", "accept_local", "rp_filter", "forwarding")),
            (6, ("disable_ipv6", "ignore_routes_with_linkdown", "addr_gen_mode", "accept_ra")),
        ):
            for name in names:
                self.kernel.sysctls.setdefault(f"net/ipv{family}/conf/{device}/{name}", "0")

    def follow_marks(self, settings: config.Settings) -> None:
        """As the engine does: it makes devices, and lets go of others."""
        wanted = {marked.name for marked in settings.mark_devices}
        for gone in {d for d in self.kernel.devices if d.startswith("jsync7-")} - wanted:
            self.kernel.delete_device(gone)
        for name in wanted:
            self.make_device(name)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture(autouse=True)
def _silent_arp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jsync.netlink.dataplane.announce", lambda *_: None)


@contextmanager
def untouched(host: Host) -> Iterator[None]:
    before = json.dumps(host.kernel.state(), default=sorted)
    yield
    assert json.dumps(host.kernel.state(), default=sorted) == before
    assert not host.journal.exists()


@pytest.mark.parametrize("text", [SHARED, ROUTED, MARKED])
def test_everything_is_undone(host: Host, text: str) -> None:
    with untouched(host):
        dataplane = host.up(text)
        dataplane.hold(ALL)
        dataplane.undo()


@pytest.mark.parametrize("text", [SHARED, ROUTED, MARKED])
def test_black_holes_are_first_and_last(host: Host, text: str) -> None:
    dataplane = host.up(text)
    kinds = [what for what in host.kernel.history if not what.startswith("sysctl")]
    holes = kinds.count("add blackhole")
    assert holes == (4 if text == MARKED else 2)
    assert kinds[:holes] == ["add blackhole"] * holes
    host.kernel.history.clear()
    dataplane.undo()
    assert host.kernel.history[-holes:] == ["del blackhole"] * holes


def test_packets_are_marked_only_when_all_that_follows_is_there(host: Host) -> None:
    host.up(SHARED)
    history = host.kernel.history
    nftables = history.index("add nftables")
    assert history.index("add mark rule") < nftables
    assert history.index(f"add local rule {MARK_SPACE}") < nftables
    assert history.index("sysctl net/ipv4/ip_local_reserved_ports") < nftables


@pytest.mark.parametrize("text", [SHARED, ROUTED, MARKED])
def test_a_start_that_dies_anywhere_is_cleaned_up_after_by_the_next(
    tmp_path: Path, text: str
) -> None:
    number = 0
    while True:
        number += 1
        host = Host(tmp_path / str(number))
        with untouched(host):
            host.kernel.crash_at = number
            try:
                host.up(text).hold(ALL)
            except Crash:
                crashed = True
            else:
                crashed = False
            host.kernel.crash_at = None
            host.up(text).undo()
        if not crashed:
            break
    assert number > 10


def test_an_end_that_dies_anywhere_is_finished_by_the_next(tmp_path: Path) -> None:
    number = 0
    while True:
        number += 1
        host = Host(tmp_path / str(number))
        with untouched(host):
            dataplane = host.up(SHARED)
            host.kernel.crash_at = host.kernel.changes + number
            try:
                dataplane.undo()
            except Crash:
                host.kernel.crash_at = None
                host.up(SHARED).undo()
            else:
                break
    assert number > 10


def test_a_host_that_begins_to_forward_goes_on_listening_to_its_router(host: Host) -> None:
    host.up(SHARED)
    history = host.kernel.history
    listening = history.index("sysctl net/ipv6/conf/eth0/accept_ra")
    assert listening < history.index("sysctl net/ipv6/conf/all/forwarding")


def test_after_a_crash_the_host_is_never_without_black_holes_and_marks(host: Host) -> None:
    host.up(SHARED)
    host.kernel.history.clear()
    host.up(SHARED)
    assert [what for what in host.kernel.history if what.startswith("del")] == []


def test_another_configuration_after_a_crash_undoes_what_it_does_not_want(host: Host) -> None:
    with untouched(host):
        host.up(SHARED)
        dataplane = host.up(ROUTED)
        kinds = {thing[0] for thing in host.kernel.things}
        assert kinds == {"blackhole", "route"}
        assert host.kernel.local == [None]
        dataplane.undo()


def test_a_crashed_primary_answers_arp_no_more(host: Host) -> None:
    host.up(ROUTED).hold(ALL)
    assert ("neighbour", "198.51.100.2", "to4") in host.kernel.things
    host.up(ROUTED)
    assert not [thing for thing in host.kernel.things if thing[0] == "neighbour"]


def test_a_former_primary_answers_arp_no_more(host: Host) -> None:
    with untouched(host):
        dataplane = host.up(ROUTED)
        dataplane.hold(ALL)
        dataplane.hold(frozenset())
        assert not [thing for thing in host.kernel.things if thing[0] == "neighbour"]
        dataplane.undo()


def test_arp_follows_each_slice(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("jsync.netlink.dataplane.announce", lambda _, a: told.extend(a))

    def answers() -> list[str]:
        return sorted(str(thing[1]) for thing in host.kernel.things if thing[0] == "neighbour")

    with untouched(host):
        dataplane = host.up(SLICES)
        dataplane.hold(frozenset({2}))
        assert answers() == told == ["198.51.100.2", "198.51.100.3"]
        told.clear()
        dataplane.hold(frozenset({1, 2}))
        assert len(answers()) == 4
        assert told == ["198.51.100.0", "198.51.100.1"]
        dataplane.hold(frozenset({1}))
        assert answers() == ["198.51.100.0", "198.51.100.1"]
        dataplane.undo()


def test_a_journal_of_another_boot_is_void(host: Host) -> None:
    host.up(SHARED)
    assert Journal(host.journal, "after the reboot").entries == []


def test_a_journal_that_cannot_be_read_stops_the_start(host: Host) -> None:
    host.journal.write_text("{}")
    with pytest.raises(Failure, match="undo by hand"):
        host.dataplane(SHARED)


SLICES = """\
[nat64]
[[nat64.pool4]]
prefix = "198.51.100.0/31"
node = 1
[[nat64.pool4]]
prefix = "198.51.100.2/31"
node = 2
[dataplane]
device = "jsync7"
pool4 = "routed"
proxy-arp = ["to4"]
"""
MORE = {
    SHARED: SHARED.replace("61001-65535", "50000-65535"),
    MARKED: MARKED.replace("mark = 5", "mark = 6"),
    ROUTED: ROUTED.replace("198.51.100.0/30", "198.51.100.0/29"),
}


def parsed(text: str) -> config.Settings:
    return config.parse(text, "jsync.toml", check_nat64=lambda _: None)


@pytest.mark.parametrize("text", MORE)
def test_a_changed_pool4_is_followed_without_touching_the_rest(host: Host, text: str) -> None:
    with untouched(host):
        dataplane = host.up(text)
        dataplane.hold(ALL)
        host.kernel.history.clear()
        dataplane.change(parsed(MORE[text]), host.follow_marks)
        assert "down" not in host.kernel.history
        changed = host.kernel.state()
        fresh = Host(host.directory / "fresh")
        fresh.up(MORE[text]).hold(ALL)
        assert changed == fresh.kernel.state()
        dataplane.undo()


@pytest.mark.parametrize("text", MORE)
def test_a_changed_pool4_survives_a_crash(host: Host, text: str) -> None:
    with untouched(host):
        host.up(text).change(parsed(MORE[text]), host.follow_marks)
        host.up(text).undo()


def test_a_change_that_fails_changes_nothing(host: Host) -> None:
    with untouched(host):
        dataplane = host.up(SHARED)
        before = json.dumps(host.kernel.state(), default=sorted)
        with pytest.raises(Failure, match="source ports"):
            dataplane.change(parsed(SHARED.replace("61001", "1024")), host.follow_marks)
        assert json.dumps(host.kernel.state(), default=sorted) == before
        dataplane.undo()


RESERVED = "net/ipv4/ip_local_reserved_ports"


def test_ports_that_leave_pool4_are_the_hosts_again_at_once(host: Host) -> None:
    with untouched(host):
        host.kernel.sysctls[RESERVED] = "8080,55000"
        dataplane = host.up(SHARED)
        assert host.kernel.sysctls[RESERVED] == "8080,55000,61001-65535"
        for text, ports in (
            (SHARED.replace("61001", "50000"), "8080,50000-65535"),
            (SHARED.replace("61001-65535", "62000-62999"), "8080,55000,62000-62999"),
            ('[nat64]\npool4 = []\n[dataplane]\ndevice = "jsync7"\n', "8080,55000"),
            (SHARED, "8080,55000,61001-65535"),
        ):
            dataplane.change(parsed(text), host.follow_marks)
            assert host.kernel.sysctls[RESERVED] == ports
        dataplane.undo()
        assert host.kernel.sysctls[RESERVED] == "8080,55000"
        host.kernel.sysctls[RESERVED] = ""


def test_ports_of_a_refused_change_are_the_hosts_again_at_once(host: Host) -> None:
    def refuse(settings: config.Settings) -> None:
        if settings.pool4[0].first == 50000:
            assert host.kernel.sysctls[RESERVED] == "50000-65535"
            raise Failure("no device")

    with untouched(host):
        dataplane = host.up(SHARED)
        with pytest.raises(Failure, match="no device"):
            dataplane.change(parsed(SHARED.replace("61001", "50000")), refuse)
        assert host.kernel.sysctls[RESERVED] == "61001-65535"
        dataplane.undo()


def test_a_shrinking_pool4_is_never_refused_for_what_others_have_reserved(host: Host) -> None:
    with untouched(host):
        dataplane = host.up(SHARED)
        host.kernel.sysctls[RESERVED] = "32768-60999,61001-65535"
        smaller = SHARED.replace("61001-65535", "61001-62000")
        dataplane.change(parsed(smaller), host.follow_marks)
        assert host.kernel.sysctls[RESERVED] == "32768-60999,61001-62000"
        dataplane.undo()
        assert host.kernel.sysctls[RESERVED] == "32768-60999"
        host.kernel.sysctls[RESERVED] = ""


def test_ports_of_a_change_that_dies_anywhere_are_released_by_the_next_start(
    tmp_path: Path,
) -> None:
    number = 0
    while True:
        number += 1
        host = Host(tmp_path / str(number))
        with untouched(host):
            dataplane = host.up(SHARED.replace("61001", "50000"))
            host.kernel.crash_at = host.kernel.changes + number
            try:
                dataplane.change(parsed(SHARED), host.follow_marks)
            except Crash:
                crashed = True
            else:
                crashed = False
            host.kernel.crash_at = None
            again = host.up(SHARED)
            assert host.kernel.sysctls[RESERVED] == "61001-65535"
            again.undo()
        if not crashed:
            break
    assert number > 2


def test_a_command_that_comes_too_late_begins_nothing_again(host: Host) -> None:
    with untouched(host):
        dataplane = host.up(ROUTED)
        dataplane.undo()
        with pytest.raises(Failure, match="ending"):
            dataplane.change(parsed(MORE[ROUTED]), host.follow_marks)
        with pytest.raises(Failure, match="ending"):
            dataplane.hold(ALL)


def test_a_set_up_that_fails_half_way_is_undone(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise Failure("there is no `nft`")

    with untouched(host):
        dataplane = host.dataplane(SHARED)
        with monkeypatch.context() as patch:
            patch.setattr(host.kernel, "run_nft", fail)
            with pytest.raises(Failure, match="nft"):
                dataplane.prepare()
            assert host.kernel.things
            dataplane.undo()


def test_what_cannot_be_undone_stays_in_the_journal(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataplane = host.up(SHARED)

    def fail(_: object) -> None:
        raise Failure("no nft")

    with monkeypatch.context() as patch:
        patch.setattr(host.kernel, "run_nft", fail)
        dataplane.undo()
    assert "could not be undone" in host.log.getvalue()
    with untouched_after_cleaning(host):
        host.dataplane(SHARED).undo()


@contextmanager
def untouched_after_cleaning(host: Host) -> Iterator[None]:
    assert host.journal.exists()
    yield
    assert host.kernel.things == set()
    assert not host.journal.exists()


def test_an_operators_own_device_and_switches_stay(host: Host) -> None:
    host.kernel.sysctls["net/ipv4/conf/all/forwarding"] = "1"
    host.make_device("jsync7")
    with untouched(host):
        host.up(SHARED).undo()


def test_what_somebody_changed_meanwhile_is_left_alone() -> None:
    kernel = FakeKernel()
    kernel.sysctls["a"] = "0"
    step = Sysctl("a", "1")
    before = step.before(kernel)
    step.apply(kernel)
    kernel.sysctls["a"] = "2"
    step.undo(kernel, before)
    assert kernel.sysctls["a"] == "2"


def test_forwarding_remembers_every_interface() -> None:
    kernel = FakeKernel()
    kernel.sysctls["net/ipv4/conf/eth0/forwarding"] = "1"
    kernel.sysctls["net/ipv4/conf/all/accept_redirects"] = "0"
    old = dict(kernel.sysctls)
    step = Forwarding(4)
    before = step.before(kernel)
    step.apply(kernel)
    assert kernel.sysctls != old
    step.undo(kernel, before)
    assert kernel.sysctls == old


def test_a_local_rule_that_was_moved_is_not_ours() -> None:
    kernel = FakeKernel()
    kernel.local = []
    step = LocalRule()
    before = step.before(kernel)
    step.apply(kernel)
    step.undo(kernel, before)
    assert kernel.local == []


def test_the_last_daemon_of_a_host_restores_what_all_rely_on(host: Host) -> None:
    dataplane = host.up(SHARED)
    host.kernel.others = True
    dataplane.undo()
    assert host.kernel.local == [MARK_SPACE]
    assert host.kernel.sysctls["net/ipv4/conf/all/forwarding"] == "1"


def test_reserved_ports_of_others_stay_reserved() -> None:
    kernel = FakeKernel()
    path = "net/ipv4/ip_local_reserved_ports"
    kernel.sysctls[path] = "8080,61000-61005"
    step = ReservedPorts(((61001, 61010),))
    before = step.before(kernel)
    step.apply(kernel)
    assert kernel.sysctls[path] == "8080,61000-61010"
    step.undo(kernel, before)
    assert kernel.sysctls[path] == "8080,61000-61005"


def test_a_pool4_that_leaves_the_host_no_ports_is_refused(host: Host) -> None:
    with untouched(host):
        dataplane = host.dataplane(SHARED.replace("61001-65535", "1024-65535"))
        with pytest.raises(Failure, match="61001-65535"):
            dataplane.prepare()
        dataplane.undo()


def test_marks_lead_to_devices_of_their_own(host: Host) -> None:
    with untouched(host):
        dataplane = host.up(MARKED)
        five, more = (6464 + 7) << 16 | 5, (6464 + 7) << 16 | 42
        assert host.kernel.things >= {
            ("mark rule", 6, 1, 5, five),
            ("blackhole", "64:ff9b::/96", five, 513, None),
            ("route", "64:ff9b::/96", five, 512, "jsync7-5"),
            ("mark rule", 6, 1, 42, more),
            ("route", "64:ff9b::/96", more, 512, "jsync7-2a"),
        }
        host.kernel.history.clear()
        dataplane.change(parsed(SHARED), host.follow_marks)
        assert not [thing for thing in host.kernel.things if five in thing or more in thing]
        assert host.kernel.devices == {"eth0", "to4", "jsync7"}
        dataplane.change(parsed(MARKED), host.follow_marks)
        assert "jsync7-5" in host.kernel.devices
        assert "down" not in host.kernel.history
        dataplane.undo()


def test_a_mark_whose_device_cannot_be_made_changes_nothing(host: Host) -> None:
    def refuse(settings: config.Settings) -> None:
        if settings.mark_devices:
            raise Failure("no")

    with untouched(host):
        dataplane = host.up(SHARED)
        before = json.dumps(host.kernel.state(), default=sorted)
        with pytest.raises(Failure, match="no"):
            dataplane.change(parsed(MARKED.replace("60001-61000", "61001-65535")), refuse)
        assert json.dumps(host.kernel.state(), default=sorted) == before
        dataplane.undo()


def test_marks_that_can_have_no_device_are_refused() -> None:
    assert [d.name for d in mark_devices("jsync0", [0, 31, 5, 5])] == ["jsync0-5", "jsync0-1f"]
    assert mark_devices("jsync0", [0]) == []
    with pytest.raises(Failure, match="longer than 15 bytes"):
        mark_devices("jsync10", [0x89ABCDEF])
    with pytest.raises(Failure, match="marks 5 and 65540 can't be told apart"):
        mark_devices("jsync0", [5, 65540])
    with pytest.raises(Failure, match="65 marks"):
        mark_devices("jsync0", range(66))


def test_devices_have_tables_of_their_own() -> None:
    assert routing_table("jsync0") == 6464
    assert routing_table("jsync1") == 6465
    assert routing_table("nat") == 6464
    assert table_name("js-1.x") == "jsync_js_1_x"


def test_rules_follow_the_protocols_and_ranges_of_pool4() -> None:
    text = SHARED + '[[nat64.pool4]]\nprotocol = "udp"\nprefix = "192.0.2.8/29"\nports = "7"\n'
    settings = config.parse(text, "x", check_nat64=lambda _: None)
    commands = json.dumps(ruleset("t", settings.pool4, 0x1234))
    assert commands.count('"value": 4660') == 2 * (3 + 1)
    assert '{"prefix": {"addr": "192.0.2.8", "len": 29}}' in commands
    assert '"right": {"range": [61001, 65535]}' in commands
    assert '"field": "dport"}}, "right": 7}' in commands


def test_an_announcement_is_a_gratuitous_arp_request() -> None:
    frame = arp.announcement(bytes.fromhex("020000000401"), "192.0.2.1")
    assert frame.hex() == (
        "ffffffffffff" "020000000401" "0806"
        "0001" "0800" "06" "04" "0001"
        "020000000401" "c0000201" "000000000000" "c0000201"
    )  # fmt: skip
