"""What the oracle knows of each entry and each lease."""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulation.scheduler import Process


class Violation(Exception):
    """An invariant does not hold; the schedule ends."""


@dataclass(slots=True)
class Believed:
    """What is known of one lease, from the server's side."""

    family: Process | None
    beaten: float  # when its name changed last
    sent: float  # when that beat was sent


@dataclass(slots=True)
class Story:
    """One entry, by its key."""

    data: bytes
    pushed_by: Process
    starts: int = 0  # handlers that began, since it was pushed or requeued
    finished: int = 0
    end: str = ""  # acked, or dead
    acknowledged: bool = False
