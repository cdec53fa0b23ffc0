"""How long to wait before what failed is tried again: each failure in a row doubles the pause, up to a limit."""

from __future__ import annotations

from dataclasses import dataclass

_MOST_DOUBLINGS = 64  # 2.0**1024 would overflow


def backoff_seconds(doublings: float, *, first_seconds: float, longest_seconds: float) -> float:
    """Compute a pause that has been doubled so many times, up to the limit."""
    factor: float = 2.0 ** min(doublings, _MOST_DOUBLINGS)
    return min(first_seconds * factor, longest_seconds)


@dataclass(slots=True)
class Backoff:
    """The pauses of one thing that is tried again and again; used by one thread."""

    first_seconds: float = 1.0
    longest_seconds: float = 30.0
    failures: int = 0  # in a row
    not_before: float = 0.0  # on the clock of `note_failure`; 0: at any time

    def note_failure(self, now: float) -> float:
        """Count one more failure; returns the pause until the next try, in seconds."""
        pause = backoff_seconds(
            self.failures, first_seconds=self.first_seconds, longest_seconds=self.longest_seconds
        )
        self.failures += 1
        self.not_before = now + pause
        return pause

    def note_success(self) -> None:
        self.failures = 0
        self.not_before = 0.0
