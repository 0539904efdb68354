"""The load of the demo seen from outside: both ends of each flow put together."""

import json
import selectors
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from jsync.lab.network import Network, enter
from jsync.lab.traffic import DYNAMIC_STREAMS

ANSWER_PATIENCE = 30.0


class LoadError(Exception):
    """The traffic could not be set up or observed; the message says what failed."""


@dataclass(frozen=True)
class Flow:
    """What both ends know of a TCP connection, a UDP flow or the pings."""

    kind: str
    """tcp (opened by n6), static (opened by n4 through a static BIB entry), udp, ping."""
    index: int
    failure: str | None
    last: float
    """The end that has waited longer got its last byte at this time."""
    longest: float
    """Longest time without a byte at either end since the mark, in seconds."""
    complete: bool = False
    """TCP: closed in good order, and every byte written at one end was read at the other."""

    def alive(self, since: float) -> bool:
        """Whether bytes got through to both ends after a time, all of them right."""
        return self.failure is None and self.last > since


class Load:
    """The traffic programs on n6 and n4."""

    def __init__(self, network: Network) -> None:
        self._ends: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("n4", "n6"):
            argv = [sys.executable, "-m", "jsync.lab.traffic", name]
            self._ends[name] = subprocess.Popen(
                enter(network.holders[name], *argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )

    def start(self) -> None:
        """Open everything; returns when every flow has data both ways. Raises LoadError."""
        self._ask("mark")  # whoever answers has its sockets open
        self._ask("start")

    def mark(self) -> None:
        """Begin a new observation of gaps."""
        self._ask("mark")

    def finish(self) -> None:
        """Have both ends write no more and close their connections."""
        self._ask("finish")

    def stop(self) -> None:
        """End the traffic programs."""
        for process in self._ends.values():
            process.kill()
            process.wait()

    def flows(self) -> list[Flow]:
        """Tell about every flow."""
        answers = self._ask("report")
        here, there = answers["n6"], answers["n4"]
        flows = [_stream(a, b) for a, b in zip(here["streams"], there["streams"], strict=True)]
        sources = {entry["index"]: entry["sources"] for entry in there["udp"]}
        for entry in here["udp"]:
            failure = entry["failure"]
            if failure is None and sources.get(entry["index"], 1) > 1:
                failure = "the flow comes from another port of the NAT64"
            flows.append(_single("udp", entry["index"], failure, entry))
        flows.append(_single("ping", 0, None, here["ping"]))
        return flows

    def wait_complete(self, timeout: float) -> list[Flow]:
        """Wait until every TCP connection is complete or failed, or until the time is up."""
        deadline = time.monotonic() + timeout
        while True:
            streams = [flow for flow in self.flows() if flow.kind in ("tcp", "static")]
            if all(flow.complete or flow.failure for flow in streams):
                return streams
            if time.monotonic() > deadline:
                return streams
            time.sleep(0.1)

    def _ask(self, command: str) -> dict[str, dict[str, Any]]:
        """Give both ends a command and collect their answers."""
        for process in self._ends.values():
            assert process.stdin is not None
            process.stdin.write(command.encode() + b"\n")
        answers = {name: self._answer(name, command) for name in self._ends}
        for answer in answers.values():
            if "error" in answer:
                raise LoadError(answer["error"])
        return answers

    def _answer(self, name: str, command: str) -> dict[str, Any]:
        stdout = self._ends[name].stdout
        assert stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if not selector.select(ANSWER_PATIENCE):
                raise LoadError(f"the traffic program on {name} doesn't answer {command!r}")
        line = stdout.readline()
        if not line:
            raise LoadError(f"the traffic program on {name} ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _stream(here: dict[str, Any], there: dict[str, Any]) -> Flow:
    """Put the two ends of a TCP connection together."""
    complete = (
        bool(here["complete"] and there["complete"])
        and here["sent"] == there["received"]
        and there["sent"] == here["received"]
    )
    return Flow(
        kind="tcp" if here["index"] < DYNAMIC_STREAMS else "static",
        index=here["index"],
        failure=here["failure"] or there["failure"],
        last=min(here["last"] or 0.0, there["last"] or 0.0),
        longest=max(here["longest"], there["longest"]),
        complete=complete,
    )


def _single(kind: str, index: int, failure: str | None, entry: dict[str, Any]) -> Flow:
    return Flow(kind, index, failure, entry["last"] or 0.0, entry["longest"])
