"""The stories in the simulator: same nodes, but network, hosts and VRRP are made up.

Nothing of the machine is needed, and time is the simulator's: it takes a second or two.
"""

import msgspec

from jsync import _core
from jsync.demo.report import Report, Step, WithoutSync, WithSync
from jsync.demo.timeline import Timeline

SEED = 1


class SimulatedStep(msgspec.Struct):
    """A takeover, as the simulator tells of it. Times in milliseconds."""

    name: str
    master: str
    takeover_ms: int
    gap_ms: int
    tcp_survived: int
    udp_survived: int
    sessions: dict[str, int]


class SimulatedStory(msgspec.Struct):
    """A story, as the simulator tells it; `tcp_total` counts every TCP connection."""

    tcp_total: int
    tcp_survived: int
    static_total: int
    static_survived: int
    udp_total: int
    udp_survived: int
    steps: list[SimulatedStep]


def play(timeline: Timeline) -> Report:
    """Play both stories in the simulator."""
    without, synced = _play(synchronised=False), _play(synchronised=True)
    for title, story in (("Without", without), ("With", synced)):
        timeline.story(f"{title} synchronisation (simulated)")
        for step in story.steps:
            timeline.tell(
                f"{step.name}: {step.master} is MASTER after {step.takeover_ms} ms,"
                f" {step.tcp_survived} of {story.tcp_total} connections are alive"
            )
        timeline.tell(f"{story.tcp_survived} of {story.tcp_total} connections arrived whole")
    return Report(
        simulated=True,
        without_sync=WithoutSync(
            tcp_total=without.tcp_total - without.static_total,
            tcp_survived=without.tcp_survived - without.static_survived,
            static_total=without.static_total,
            static_survived=without.static_survived,
        ),
        with_sync=WithSync(
            tcp_total=synced.tcp_total,
            udp_total=synced.udp_total,
            tcp_survived=synced.tcp_survived,
            udp_survived=synced.udp_survived,
            steps=[_step(step) for step in synced.steps],
        ),
    )


def _play(*, synchronised: bool) -> SimulatedStory:
    return msgspec.json.decode(_core.simulate_failover(SEED, synchronised), type=SimulatedStory)


def _step(step: SimulatedStep) -> Step:
    return Step(
        name=step.name,
        gap_ms=step.gap_ms,
        ping_gap_ms=None,
        # While a node returns the old MASTER goes on: that time isn't part of any gap.
        vrrp_ms=step.takeover_ms if step.takeover_ms <= step.gap_ms else None,
        tcp_survived=step.tcp_survived,
        udp_survived=step.udp_survived,
        sessions=step.sessions,
    )
