"""What the oracle knows of each entry and each lease."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.simulation.scheduler import Process


class Violation(Exception):
    """An invariant does not hold; the schedule ends."""


@dataclass(slots=True)
class Believed:
    """What is known of one lease, from the server's side."""

    family: Process | None
    beaten: float  # when its name changed last
    sent: float  # when that beat was sent
    by_the_dead: str = (
        ""  # where that beat is, if a dead keeper's request brought it about and nobody asked for it yet
    )
    asked: dict[tuple[int, str], float] = field(
        default_factory=dict
    )  # by pid and beat: when it was first sent


@dataclass(slots=True)
class Story:
    """One entry, by its key."""

    data: bytes
    pushed_by: Process
    starts: int = 0  # handlers that began, since it was pushed or requeued
    finished: int = 0
    end: str = ""  # acked, or dead
    acknowledged: bool = False
