import csv
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import trio

from jsync import cli
from jsync.control import Control
from jsync.errors import Failure

SESSIONS = [
    {
        "proto": proto,
        "src6": "2001:db8::8",
        "src6_port": 1000 + n,
        "dst6": "64:ff9b::c000:208",
        "dst6_port": 80,
        "src4": "192.0.2.1",
        "src4_port": 61001 + n,
        "dst4": "192.0.2.8",
        "dst4_port": 80,
        "state": "ESTABLISHED",
        "expires_ms": 7_199_500,
    }
    for n, proto in enumerate(["tcp", "udp"])
]
BIB = [
    {
        "proto": "tcp",
        "src6": "2001:db8::8",
        "src6_port": 8001,
        "src4": "192.0.2.1",
        "src4_port": 61001,
        "static": True,
        "sessions": 2,
    }
]
STATUS = {
    "name": "J",
    "node": 1,
    "cluster": "campus",
    "state": "running",
    "role": "primary",
    "slices": [{"node": 1, "state": "MASTER"}, {"node": 2, "state": None}],
    "keepalived": [{"type": "GROUP", "name": "jsync", "state": "MASTER", "priority": 200}],
    "ready": True,
    "reason": "it has taken a snapshot",
    "sessions": 2,
    "bib_entries": 1,
    "max_sessions": 4_000_000,
    "table_bytes": 1_500_000,
    "longest_pause_us": 250,
    "worker": "running",
    "durability": "acked",
    "held_packets": 3,
    "device": "jsync0",
    "pool6": "64:ff9b::/96",
    "transport": "tcp",
    "network": {"frames_sent": 5},
}


def sessions(arguments: dict[str, Any]) -> Iterator[list[Any]]:
    wanted = arguments.get("protocols")
    for row in SESSIONS:
        if wanted is None or row["proto"] in wanted:
            yield [row]


class Daemon:
    """The daemon's end of the socket, with answers that are made up."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.told: list[dict[str, Any]] = []
        self.ready = True
        self.control = Control(
            {
                ("check",): lambda _: {"ready": self.ready, "reason": "because"},
                ("notify",): self._notify,
                ("instance", "status"): lambda _: STATUS,
                ("peers",): lambda _: [{"node": 2, "state": "differs", "ready": True,
                                        "heard_ms_ago": 5, "gaps": 0, "acknowledged": 40,
                                        "unacknowledged": 3, "frames_received": 9, "epoch": 7,
                                        "mismatch": "pool4"}],
                ("stats", "display"): lambda _: [
                    {"name": "packets_in", "help": "Packets read", "value": 5},
                    {"name": "drop_malformed", "help": "Bad packets", "value": 0},
                ],
                ("global", "display"): lambda _: {
                    "udp-timeout": 300_000,
                    "override-tos": True,
                    "mtu-plateaus": [1500, 1280],
                },
                ("pool4", "display"): lambda _: [
                    {
                        "protocol": protocol,
                        "prefix": "192.0.2.1/32",
                        "ports": "61001-65535",
                        "node": node,
                        "mark": mark,
                    }
                    for protocol, node, mark in ((None, None, 0), ("udp", 2, 5))
                ],
            },
            {("session", "display"): sessions, ("bib", "display"): lambda _: iter([BIB])},
            {
                (noun, verb): partial(self._change, f"{noun} {verb}")
                for noun, verb in (
                    ("bib", "add"), ("bib", "remove"), ("global", "update"),
                    ("pool4", "add"), ("pool4", "remove"), ("pool4", "flush"),
                )
            },
        )  # fmt: skip

    def _notify(self, arguments: dict[str, Any]) -> object:
        self.told.append(arguments)
        return {}

    async def _change(self, verb: str, arguments: dict[str, Any]) -> object:
        if verb == "pool4 flush":
            raise Failure("not today", 1)
        self.told.append({"verb": verb, **arguments})
        return {}

    @contextmanager
    def serving(self) -> Iterator[None]:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.path)
            listener.listen()
            thread = threading.Thread(target=self._serve, args=(listener,))
            thread.start()
            yield
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:

                async def send(answer: bytes) -> None:
                    connection.sendall(answer)  # noqa: B023

                with suppress(BrokenPipeError, ConnectionResetError):  # the client has enough
                    for line in lines:
                        trio.run(self.control.answer, line, send)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "control.sock")
    with made.serving():
        yield made


Jsync = Callable[..., tuple[int, str, str]]


@pytest.fixture
def jsync(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Jsync:
    monkeypatch.setenv("JSYNC_CONTROL", str(tmp_path / "control.sock"))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["jsync", *arguments])
        try:
            status = cli.main()
        except SystemExit as end:  # argparse
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.mark.usefixtures("daemon")
def test_sessions_as_jool_shows_them(jsync: Jsync) -> None:
    status, out, _ = jsync("session", "display", "--numeric", "--tcp")
    assert status == 0
    assert out == (
        "TCP (ESTABLISHED) expires in 1:59:59.500\n"
        "Remote: 192.0.2.8#80\t2001:db8::8#1000\n"
        "Local: 192.0.2.1#61001\t64:ff9b::c000:208#80\n"
        "---------------------------------\n"
        "1 sessions\n"
    )


@pytest.mark.usefixtures("daemon")
def test_sessions_for_machines(jsync: Jsync) -> None:
    _, out, _ = jsync("session", "display", "--json", "-i", "J")
    assert [json.loads(line) for line in out.splitlines()] == SESSIONS
    _, out, _ = jsync("session", "display", "--csv")
    assert [row["src6_port"] for row in csv.DictReader(StringIO(out))] == ["1000", "1001"]
    _, out, _ = jsync("session", "display", "--csv", "--no-headers", "--udp")
    assert out.startswith("udp,2001:db8::8,1001,")


@pytest.mark.usefixtures("daemon")
def test_the_bib(jsync: Jsync) -> None:
    _, out, _ = jsync("bib", "display", "--numeric")
    assert out.splitlines() == [
        "[Static TCP] 192.0.2.1#61001 - 2001:db8::8#8001 (2 sessions)",
        "1 entries",
    ]
    _, out, _ = jsync("bib", "display", "--csv")
    assert out.splitlines()[1] == "tcp,2001:db8::8,8001,192.0.2.1,61001,true,2"


@pytest.mark.usefixtures("daemon")
def test_status_peers_options_and_counters(jsync: Jsync) -> None:
    _, out, _ = jsync("instance", "status")
    assert "role:            primary" in out
    assert "slices:          own MASTER, of node 2 not told of" in out
    assert "ready:           yes: it has taken a snapshot" in out
    assert "node 1 of cluster campus, by tcp" in out
    assert "acked, 3 packets wait for peers" in out
    assert "GROUP jsync MASTER 200" in out
    _, out, _ = jsync("instance", "status", "--json")
    assert json.loads(out) == STATUS
    _, out, _ = jsync("peers")
    row = ["2", "differs", "yes", "5", "9", "0", "3", "7", "pool4"]
    assert out.splitlines()[1].split() == row
    _, out, _ = jsync("global", "display", "--no-headers")
    assert [line.split() for line in out.splitlines()] == [
        ["mtu-plateaus", "1500,1280"],
        ["override-tos", "true"],
        ["udp-timeout", "0:05:00"],
    ]
    _, out, _ = jsync("stats", "display", "--csv")
    assert out.splitlines() == ["name,value", "packets_in,5"]
    _, out, _ = jsync("stats", "display", "--csv", "--all", "--explain")
    assert out.splitlines()[2] == "drop_malformed,0,Bad packets"


def test_check_says_it_by_its_status(daemon: Daemon, jsync: Jsync) -> None:
    assert jsync("check") == (0, "ready: because\n", "")
    daemon.ready = False
    assert jsync("check") == (4, "not ready: because\n", "")


def test_without_a_daemon_the_status_is_3(jsync: Jsync, tmp_path: Path) -> None:
    for arguments in (["check"], ["session", "display"], ["notify", "GROUP", "g", "MASTER", "1"]):
        status, _, err = jsync(*arguments)
        assert status == 3
        assert "jsync daemon" in err
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(tmp_path / "control.sock"))
    assert jsync("check")[0] == 3


def test_notify_takes_keepalived_arguments(daemon: Daemon, jsync: Jsync) -> None:
    other = daemon.path
    assert jsync("notify", "--control", other, "INSTANCE", "VI 1", "MASTER", "200")[0] == 0
    assert jsync("notify", "GROUP", "g", "FAULT", "1", f"--control={other}", "-i", "J")[0] == 0
    assert [entry.pop("started")[1] for entry in daemon.told] == [os.getpid()] * 2
    assert daemon.told == [
        {"type": "INSTANCE", "name": "VI 1", "state": "MASTER", "priority": "200"},
        {"type": "GROUP", "name": "g", "state": "FAULT", "priority": "1", "instance": "J"},
    ]


def test_notify_says_when_it_was_started(daemon: Daemon) -> None:
    command = [str(Path(sys.executable).with_name("jsync")), "notify", "--control", daemon.path]
    ticks = [boot_ticks()]
    for state in ("MASTER", "BACKUP"):
        subprocess.run([*command, "GROUP", "g", state, "1"], check=True)
        ticks.append(boot_ticks())
    first, second = (told["started"][0] for told in daemon.told)
    assert ticks[0] <= first <= ticks[1] <= second <= ticks[2]


def boot_ticks() -> int:
    """The time since boot, in the unit of proc_pid_stat(5)."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


@pytest.mark.usefixtures("daemon")
def test_a_refusal_is_told(jsync: Jsync) -> None:
    assert jsync("pool4", "flush") == (1, "", "jsync: not today\n")


def test_changes_reach_the_daemon_with_jools_words(daemon: Daemon, jsync: Jsync) -> None:
    for words in (
        "bib add --tcp 192.0.2.1#61001 2001:db8::8#80",
        "bib remove --udp 2001:db8::8#53",
        "global update udp-timeout 0:10:00",
        "pool4 add --icmp 198.51.100.0/24 7-9",
        "pool4 remove --node 2 --mark 5 198.51.100.1",
        "bib add 192.0.2.1#61002 2001:db8::8#80",
        "bib remove 192.0.2.1#61002",
        "pool4 add --tcp 198.51.100.0/16 --force --max-iterations auto",
        "pool4 add 198.51.100.1 --max-iterations infinity",
    ):
        assert jsync(*words.split()) == (0, "", "")
    assert daemon.told == [
        {"verb": "bib add", "protocol": "tcp", "ipv4": "192.0.2.1#61001", "ipv6": "2001:db8::8#80"},
        {"verb": "bib remove", "protocol": "udp", "ipv6": "2001:db8::8#53"},
        {"verb": "global update", "key": "udp-timeout", "value": "0:10:00"},
        {"verb": "pool4 add", "protocol": "icmp", "prefix": "198.51.100.0/24", "ports": "7-9"},
        {"verb": "pool4 remove", "prefix": "198.51.100.1", "node": 2, "mark": 5},
        {"verb": "bib add", "protocol": "tcp", "ipv4": "192.0.2.1#61002", "ipv6": "2001:db8::8#80"},
        {"verb": "bib remove", "protocol": "tcp", "ipv4": "192.0.2.1#61002"},
        {"verb": "pool4 add", "protocol": "tcp", "prefix": "198.51.100.0/16", "force": True},
        {"verb": "pool4 add", "prefix": "198.51.100.1"},
    ]


def test_a_number_of_iterations_is_taken_and_said_to_change_nothing(
    daemon: Daemon, jsync: Jsync
) -> None:
    status, _, err = jsync("pool4", "add", "198.51.100.1", "--max-iterations", "5000")
    assert status == 0
    assert "--max-iterations changes nothing" in err
    assert daemon.told == [{"verb": "pool4 add", "prefix": "198.51.100.1"}]


@pytest.mark.usefixtures("daemon")
def test_pool4(jsync: Jsync) -> None:
    everyone = ["0", "all", "192.0.2.1/32", "61001-65535", "all"]
    udp = ["5", "udp", "192.0.2.1/32", "61001-65535", "2"]
    for protocols, expected in (
        ((), [everyone, udp]),
        (("--tcp",), [everyone]),
        (("--tcp", "--udp"), [everyone, udp]),
    ):
        _, out, _ = jsync("pool4", "display", "--no-headers", *protocols)
        assert [line.split() for line in out.splitlines()] == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "usage"),
        (["sesion"], "did you mean session?"),
        (["session"], "required"),
        (["session", "display", "--csv", "--json"], "not allowed"),
        (["check", "now"], "too many"),
        (["check", "--frob"], "no option --frob"),
        (["check", "--control"], "a value is missing"),
        (["notify", "MASTER"], "four arguments"),
        (["bib", "add", "2001:db8::8#80"], "required"),
        (["pool4", "remove", "192.0.2.1", "--quick"], "add the new entry before"),
        (["pool4", "flush", "--quick"], "no session outlives"),
        (["pool4", "add", "192.0.2.1", "--max-iterations", "0"], "write auto, infinity, or 1"),
        (["pool4", "add", "192.0.2.1", "--max-iterations", "4294967296"], "to 4294967295"),
        (["bib", "add", "--tcp", "192.0.2.1#1", "192.0.2.1#2"], "one IPv6 and one IPv4"),
        (["pool4", "add", "--tcp", "--udp", "192.0.2.1"], "not allowed"),
    ],
)
def test_wrong_usage_is_status_2_and_says_what_is_right(
    jsync: Jsync, arguments: list[str], words: str
) -> None:
    status, out, err = jsync(*arguments)
    assert status == 2
    assert words in out + err


def test_help_is_not_an_error(jsync: Jsync) -> None:
    for arguments in (["--help"], ["check", "--help"], ["notify", "-h"], ["bib", "--help"]):
        status, out, _ = jsync(*arguments)
        assert status == 0
        assert "usage: jsync" in out


def test_every_command_of_the_list_exists() -> None:
    for module, _ in cli.COMMANDS.values():
        assert callable(__import__(module, fromlist=["run"]).run)


def test_what_keepalived_waits_for_imports_little(daemon: Daemon) -> None:
    script = (
        "import sys; before = set(sys.modules); from jsync.cli import main; status = main();"
        " print(*set(sys.modules) - before, file=sys.stderr); sys.exit(status)"
    )
    for arguments in (["check"], ["notify", "GROUP", "g", "MASTER", "1"]):
        command = [sys.executable, "-c", script, *arguments, "--control", daemon.path]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        modules = {name.partition(".")[0] for name in done.stderr.split()}
        assert modules.isdisjoint({"trio", "msgspec", "rich", "argparse", "typing", "asyncio"})


def test_config_check_and_show(jsync: Jsync, tmp_path: Path) -> None:
    path = tmp_path / "jsync.toml"
    path.write_text('[nat64]\npool4 = [{ prefix = "192.0.2.1", ports = "61001-65535" }]\n')
    assert jsync("config", "check", str(path)) == (0, f"{path}: ok\n", "")
    _, out, _ = jsync("config", "show", str(path))
    assert json.loads(out)["dataplane"]["device"] == "jsync0"
    path.write_text("[nat65]\n")
    status, _, err = jsync("config", "check", str(path))
    assert status == 1
    assert "did you mean 'nat64'?" in err


def test_config_check_looks_at_keys(jsync: Jsync, tmp_path: Path) -> None:
    key, path = tmp_path / "key", tmp_path / "jsync.toml"
    assert jsync("key", "generate", str(key))[0] == 0
    path.write_text(
        '[node]\nid = 1\n[nat64]\npool4 = [{ prefix = "192.0.2.1" }]\n'
        f'[sync]\ncluster = "c"\ninterface = "priv"\nkey-files = ["{key}"]\n'
    )
    assert jsync("config", "check", str(path))[0] == 0
    key.chmod(0o644)
    status, _, err = jsync("config", "check", str(path))
    assert status == 1
    assert f"jsync.toml:8: sync.key-files[0]: {key}: others may read" in err


def test_a_reader_that_has_enough_is_no_error(daemon: Daemon) -> None:
    script = "from jsync.cli import main; import sys; sys.exit(main())"
    done = subprocess.run(
        f"{sys.executable} -c '{script}' session display --control {daemon.path} | head -c1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "T"
    assert done.stderr == ""


def test_the_examples_of_the_help_are_commands_that_work(jsync: Jsync, daemon: Daemon) -> None:
    from jsync.cli.options import EXAMPLES

    for examples in EXAMPLES.values():
        for example in examples:
            if example != "session advertise":  # which this daemon doesn't know
                status, _, err = jsync(*example.split())
                assert (status, err) == (0, ""), example
