"""What the oracle knows of each entry."""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulation.scheduler import Process


class Violation(Exception):
    """An invariant does not hold; the schedule ends."""


@dataclass(slots=True)
class Story:
    """One entry, by its key."""

    data: bytes
    pushed_by: Process
    starts: int = 0  # handlers that began, since it was pushed or requeued
    finished: int = 0
    end: str = ""  # acked, popped, withdrawn, or dead
    acknowledged: bool = False
    handed_out: bool = False  # by pop
