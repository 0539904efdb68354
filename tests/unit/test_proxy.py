"""jsync in the place of `jool session proxy` and joold."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from jsync import cli, daemon
from jsync.config import Settings
from jsync.errors import USAGE, Failure
from jsync.jool.joold_stats import StatsServer, open_stats_sockets
from jsync.jool.stream import StreamStats
from jsync.netlink.interfaces import interface_for
from jsync.transport import TransportStats


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings with which a daemon would have been started."""
    found: list[Settings] = []
    monkeypatch.setattr(daemon, "run_settings", lambda settings, log: found.append(settings))
    return found


def jsync(monkeypatch: pytest.MonkeyPatch, words: str) -> int:
    monkeypatch.setattr("sys.argv", ["jsync", *words.split()])
    return cli.main()


def told(settings: Settings) -> tuple[Any, ...]:
    assert settings.jool is not None
    assert settings.joold is not None
    joold = settings.joold
    return (
        settings.jool.instance,
        (joold.group, joold.port, joold.interface, joold.out_interface, joold.ttl),
        settings.joold_stats,
    )


LO = ("lo", "lo")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "session proxy 239.1.1.1 --net.dev.in=127.0.0.1 --net.dev.out=127.0.0.1",
            ("default", ("239.1.1.1", 6400, *LO, 1), None),
        ),
        (
            "session proxy -i potato ff08::1 --net.mcast.port 6464 --net.dev.in=lo -o lo"
            " --net.ttl=3 --stats.port=7000",
            ("potato", ("ff08::1", 6464, *LO, 3), ("::", "7000")),
        ),
        (
            "-i potato session proxy -i lo -o lo -p 6464 -t 3 ff08::1 --stats.address=::1",
            ("potato", ("ff08::1", 6464, *LO, 3), ("::1", "6401")),
        ),
        (
            "session -i potato proxy 239.1.1.1 -i lo -o lo",
            ("potato", ("239.1.1.1", 6400, *LO, 1), None),
        ),
    ],
)
def test_the_options_and_defaults_are_jools(
    monkeypatch: pytest.MonkeyPatch, started: list[Settings], words: str, expected: Any
) -> None:
    assert jsync(monkeypatch, words) == 0
    assert [told(settings) for settings in started] == [expected]
    assert started[0].path == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("session proxy -i lo 239.1.1.1", "--net.dev.in=lo"),
        ("session proxy 192.0.2.1", "no multicast address"),
        ("session proxy 239.1.1.1 --net.ttl=0 --net.dev.in=lo", "time to live"),
        ("session proxy 239.1.1.1 --net.mcast.port=nonsense", "--net.mcast.port"),
        ("-i potato session proxy -i lo --net.dev.in=lo 239.1.1.1", "give one of them"),
    ],
)
def test_options_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch,
    started: list[Settings],
    capsys: pytest.CaptureFixture[str],
    words: str,
    message: str,
) -> None:
    assert jsync(monkeypatch, words) == USAGE
    assert message in capsys.readouterr().err
    assert started == []


def test_joold_takes_its_old_files(
    monkeypatch: pytest.MonkeyPatch, started: list[Settings], tmp_path: Path
) -> None:
    net, module = tmp_path / "netsocket.json", tmp_path / "modsocket.json"
    interfaces = {"in interface": "lo", "out interface": "lo"}
    net.write_text(json.dumps({"multicast address": "ff08::1", "ttl": 2, **interfaces}))
    module.write_text("{}")
    assert jsync(monkeypatch, f"joold {net} {module} 7000") == 0
    assert told(started[0]) == ("default", ("ff08::1", 6400, *LO, 2), ("::", "7000"))
    monkeypatch.chdir(tmp_path)
    module.write_text('{"instance": "potato"}')
    assert jsync(monkeypatch, "joold") == 0
    assert told(started[1]) == ("potato", ("ff08::1", 6400, *LO, 2), None)


def test_interfaces_may_be_named_by_an_address() -> None:
    assert interface_for("239.1.1.1", "eth9") == "eth9"
    assert interface_for("239.1.1.1", "127.0.0.1") == "lo"
    with pytest.raises(Failure, match=r"no interface has the address 192\.0\.2\.99"):
        interface_for("239.1.1.1", "192.0.2.99")


ANSWER = """\
KERNEL_SENT_PKTS,4
KERNEL_SENT_BYTES,208
NET_RCVD_PKTS,3
NET_RCVD_BYTES,120
NET_SENT_PKTS,5
NET_SENT_BYTES,260
"""


def test_any_datagram_is_answered_with_the_statistics() -> None:
    module = StreamStats(batches_received=4, bytes_received=208)
    network = TransportStats(frames_sent=5, bytes_sent=260, frames_received=3, bytes_received=120)

    async def main(sockets: list[socket.socket]) -> None:
        where = sockets[0].getsockname()
        server = StatsServer(sockets, module, network)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
                for question in (b"", b"\n", b"x" * 3000):
                    await asker.sendto(question, where)
                    with trio.fail_after(5):
                        assert await asker.recv(4096) == ANSWER.encode()
            nursery.cancel_scope.cancel()

    sockets = open_stats_sockets("127.0.0.1", "0")
    try:
        trio.run(main, sockets)
        with pytest.raises(Failure, match=r"choose another --stats\.address"):
            open_stats_sockets("127.0.0.1", str(sockets[0].getsockname()[1]))
    finally:
        for one in sockets:
            one.close()


def test_the_command_waits_for_the_module_and_answers_meanwhile(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as free:
        free.bind(("::1", 0))
        port = free.getsockname()[1]
    words = f"-i jsync-test session proxy 239.64.64.64 -i lo -o lo --stats.port={port}"
    command = [sys.executable, "-c", "import jsync.cli; raise SystemExit(jsync.cli.main())"]
    with subprocess.Popen(
        [*command, *words.split(), f"--control={tmp_path}/s"], stderr=subprocess.PIPE, text=True
    ) as proxy:
        assert proxy.stderr is not None
        try:
            log = ""
            while "Jool" not in log:  # it isn't loaded here, or has no such instance
                line = proxy.stderr.readline()
                assert line, log
                log += line
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asker:
                asker.settimeout(5)
                asker.sendto(b"\n", ("::1", port))
                assert asker.recv(4096).startswith(b"KERNEL_SENT_PKTS,0\n")
            proxy.terminate()
            assert "message=ended" in proxy.stderr.read()
            assert proxy.wait(5) == 0
        finally:
            proxy.kill()
