"""What the demo has seen: as JSON, as a table, and what of it must not be."""

from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Step:
    """One takeover of the synchronised story. Times in milliseconds."""

    name: str
    gap_ms: float
    """Longest time in which any surviving flow (TCP, UDP, ping) got no byte."""
    ping_gap_ms: float | None
    """The same for the pings alone: the path without TCP's retransmission timer. The simulator
    doesn't tell it."""
    vrrp_ms: float | None
    """From the death to keepalived's entering MASTER on the node that takes over; None where a
    node returns, since then nobody has to notice a death."""
    tcp_survived: int
    udp_survived: int
    sessions: dict[str, int]
    """In each node that runs, after the takeover."""

    @property
    def other_ms(self) -> float:
        """What of the gap isn't VRRP's own time to notice."""
        return max(0.0, self.gap_ms - (self.vrrp_ms or 0.0))


@dataclass
class WithoutSync:
    """The story without synchronisation."""

    tcp_total: int
    """Connections that n6 opened; those through static BIB entries are apart."""
    tcp_survived: int
    static_total: int
    static_survived: int


@dataclass
class WithSync:
    """The story with synchronisation; `tcp_total` counts every TCP connection."""

    tcp_total: int
    udp_total: int
    tcp_survived: int = 0
    udp_survived: int = 0
    steps: list[Step] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """What else went wrong: a flow and how it failed, a node that took over too early."""


@dataclass
class Report:
    """Both stories."""

    simulated: bool
    without_sync: WithoutSync
    with_sync: WithSync

    def violations(self) -> list[str]:
        """Say what must not be; nothing if all is well."""
        found = []
        without, synced = self.without_sync, self.with_sync
        if without.tcp_survived:
            found.append(
                f"without synchronisation {without.tcp_survived} of {without.tcp_total}"
                " connections survived: what the demo shows would be another thing's merit"
            )
        if synced.tcp_survived < synced.tcp_total:
            lost = synced.tcp_total - synced.tcp_survived
            found.append(f"with synchronisation {lost} of {synced.tcp_total} connections broke")
        if synced.udp_survived < synced.udp_total:
            lost = synced.udp_total - synced.udp_survived
            found.append(f"with synchronisation {lost} of {synced.udp_total} UDP flows broke")
        return found + synced.complaints

    def to_json(self) -> dict[str, Any]:
        """Give the report as JSON's types."""
        without, synced = self.without_sync, self.with_sync
        return {
            "simulated": self.simulated,
            "without_sync": {
                "tcp_total": without.tcp_total,
                "tcp_survived": without.tcp_survived,
                "static_total": without.static_total,
                "static_survived": without.static_survived,
            },
            "with_sync": {
                "tcp_total": synced.tcp_total,
                "tcp_survived": synced.tcp_survived,
                "udp_total": synced.udp_total,
                "udp_survived": synced.udp_survived,
                "steps": [
                    {
                        "name": step.name,
                        "gap_ms": round(step.gap_ms, 1),
                        "ping_gap_ms": _rounded(step.ping_gap_ms),
                        "vrrp_ms": _rounded(step.vrrp_ms),
                        "other_ms": round(step.other_ms, 1),
                        "tcp_survived": step.tcp_survived,
                        "udp_survived": step.udp_survived,
                        "sessions": step.sessions,
                    }
                    for step in synced.steps
                ],
            },
            "violations": self.violations(),
        }

    def print(self, console: Console) -> None:
        """Print the table."""
        console.print()
        console.print(self._table())
        without = self.without_sync
        console.print(
            f"Without synchronisation: {without.tcp_survived} of {without.tcp_total} connections"
            f" survived, and {without.static_survived} of {without.static_total} through static"
            " BIB entries."
        )
        synced = self.with_sync
        console.print(
            f"With synchronisation:    {synced.tcp_survived} of {synced.tcp_total} connections"
            f" and {synced.udp_survived} of {synced.udp_total} UDP flows survived everything."
        )

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, title="With synchronisation", title_justify="left")
        table.add_column("step")
        for heading in ("TCP alive", "UDP alive", "gap ms", "of it VRRP", "pings' gap", "sessions"):
            table.add_column(heading, justify="right")
        synced = self.with_sync
        for step in synced.steps:
            table.add_row(
                step.name,
                f"{step.tcp_survived}/{synced.tcp_total}",
                f"{step.udp_survived}/{synced.udp_total}",
                f"{step.gap_ms:.0f}",
                _whole(step.vrrp_ms),
                _whole(step.ping_gap_ms),
                " ".join(f"{name} {count}" for name, count in step.sessions.items()),
            )
        return table


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"
