"""How many messages a second a pool settles, from its board, over the last ten seconds or so."""

from __future__ import annotations

from collections import deque
from typing import Final

from maildefer.pool.scoreboard import S, Scoreboard

_SPAN_SECONDS: Final = 10.0
_LEAST_SECONDS: Final = 1.0


class Rates:
    """Used by one thread, which notes at least every few seconds."""

    def __init__(self, board: Scoreboard) -> None:
        self._board = board
        self._seen: dict[int, tuple[int, int]] = {}  # slot: pid, settled
        self._total = 0
        self._notes: deque[tuple[float, int]] = deque()

    def note(self, now: float) -> None:
        """Look at all slots' counters; a slot that another process has got counts from zero."""
        words = self._board.words
        for slot in self._board.worker_slots():
            base = self._board.slot(slot)
            pid, settled = words[base + S.PID], words[base + S.HANDLED]
            before_pid, before = self._seen.get(slot, (0, 0))
            self._total += settled - before if pid == before_pid and settled >= before else settled
            self._seen[slot] = (pid, settled)
        self._notes.append((now, self._total))
        while len(self._notes) > 2 and self._notes[1][0] <= now - _SPAN_SECONDS:
            self._notes.popleft()

    def noted(self, now: float) -> float | None:
        """Note, and tell the rate up to now."""
        self.note(now)
        return self.per_second()

    def per_second(self) -> float | None:
        """None until a second lies between two notes: one message in the first tenth is no ten a second."""
        if len(self._notes) < 2:
            return None
        (began, first), (ended, last) = self._notes[0], self._notes[-1]
        return round((last - first) / (ended - began), 1) if ended - began >= _LEAST_SECONDS else None
