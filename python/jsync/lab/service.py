"""A long-running program on a machine of the lab, and what it writes to its log."""

import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


class ServiceError(Exception):
    """A program ended, or kept silent, where it should not have; the message has its last words."""


@dataclass(frozen=True)
class Line:
    """A line of a log, with the time it was read (monotonic clock, seconds)."""

    time: float
    text: str


class Service:
    """A running program. Its log is kept in memory: the lab leaves no files behind."""

    def __init__(self, name: str, argv: list[str]) -> None:
        self.name = name
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # The terminal's signals are for the lab, which takes this along when it ends.
            start_new_session=True,
        )
        self._lines: list[Line] = []
        self._news = threading.Condition()
        self._over = False
        threading.Thread(target=self._read, daemon=True).start()

    def kill(self) -> float:
        """Kill the program as a crash would (SIGKILL); the time it was done."""
        at = time.monotonic()
        self._process.kill()
        self._process.wait()
        return at

    def stop(self, patience: float = 10.0) -> None:
        """Ask the program to end (SIGTERM). Raises ServiceError if it hasn't after `patience`."""
        self._process.terminate()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServiceError(f"{self.name} did not end within {patience:g} s") from None

    def signal(self, number: signal.Signals) -> None:
        """Send the program a signal."""
        self._process.send_signal(number)

    @property
    def running(self) -> bool:
        """Whether the program has not ended."""
        return self._process.poll() is None

    def tail(self, count: int = 15) -> str:
        """Give the last lines of the log."""
        with self._news:
            return "\n".join(line.text for line in self._lines[-count:])

    def find(self, wanted: Callable[[str], bool], since: float = 0.0) -> Line | None:
        """Give the first line since a time that is `wanted`, or None."""
        with self._news:
            return self._find(wanted, since)

    def wait_for(
        self, wanted: Callable[[str], bool], since: float = 0.0, timeout: float = 15.0
    ) -> Line:
        """Wait for a `wanted` line written since a time. Raises ServiceError."""
        deadline = time.monotonic() + timeout
        with self._news:
            while (line := self._find(wanted, since)) is None:
                left = deadline - time.monotonic()
                if self._over or left <= 0:
                    state = "ended" if self._over else f"said nothing of the kind for {timeout:g} s"
                    last = "\n".join(line.text for line in self._lines[-15:])
                    raise ServiceError(f"{self.name} {state}; its last words:\n{last}")
                self._news.wait(left)
            return line

    def _find(self, wanted: Callable[[str], bool], since: float) -> Line | None:
        for line in self._lines:
            if line.time >= since and wanted(line.text):
                return line
        return None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            line = Line(time.monotonic(), text.rstrip())
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()
