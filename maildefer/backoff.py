"""How long to wait before what failed is tried again: each failure in a row doubles the pause, up to a limit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """The pauses of one thing that is tried again and again; used by one thread."""

    first_seconds: float = 1.0
    longest_seconds: float = 30.0
    failures: int = 0  # in a row
    not_before: float = 0.0  # on the clock of `note_failure`; 0: at any time

    def note_failure(self, now: float) -> float:
        """It failed again; returns the pause until the next try, in seconds."""
        pause = min(self.first_seconds * 2.0 ** min(self.failures, 30), self.longest_seconds)
        self.failures += 1
        self.not_before = now + pause
        return pause

    def note_success(self) -> None:
        self.failures = 0
        self.not_before = 0.0
