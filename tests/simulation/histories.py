"""What the oracle knows of each entry."""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulation.scheduler import Process

FAILED = "Deferred after an exception"  # what a handler ended in, where it is not the outcome's name


class Violation(Exception):
    """An invariant does not hold; the schedule ends."""


@dataclass(slots=True)
class History:
    """One entry, by its key."""

    data: bytes
    pushed_by: Process
    starts: int = 0  # handlers that began, since it was pushed or requeued
    charged: int = 0  # the most attempts that the name of any of those bore
    counted_from: int = 0  # the generation of its name at that push, requeue or handoff
    finished: int = 0
    end: str = ""  # acked, popped, withdrawn, or dead
    acknowledged: bool = False
    handed_out: bool = False  # by pop
    not_before: float = 0.0  # the mount's time at which it is due, as last asked for
    cancelled: bool = False
    ended_by: Process | None = None

    def begins(self, attempts: int, generation: int = 0) -> bool:
        """A handler starts, under a name with so many attempts; whether each start so far was charged (I5).

        One that begins late, after its claim was taken over and handled again, bears fewer than were charged by then;
        if the entry was handed on or requeued since, its attempt was charged before that, and counts no more.
        """
        if generation < self.counted_from:
            return True
        self.starts += 1
        self.charged = max(self.charged, attempts)
        return self.starts <= self.charged

    def given_back(self) -> None:
        """A start that does not count, and whose attempt is given back."""
        self.starts -= 1
        self.charged -= 1

    def counted_anew(self, generation: int) -> None:
        self.starts, self.charged, self.counted_from = 0, 0, generation
