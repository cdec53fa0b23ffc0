"""How many messages may be in flight together: fewer beside one that a crash was charged to, at last one alone.

A worker that dies charges all that handlers have, whichever was the cause. As in a batch, a sound one must be handled
alone before the crash limit buries it, and so must the cause of the deaths.
"""

from __future__ import annotations

from maildefer.pool.worker.batch_group import batch_size


class Company:
    """The calls that a worker has in flight, and their messages; `most` of each call's crashes says how many."""

    def __init__(self, concurrency: int, max_crashes: int) -> None:
        self._sizes = [batch_size(concurrency, crashes, max_crashes) for crashes in range(max_crashes)]
        self._charged = [0] * max_crashes  # calls, by crashes
        self._calls = self._messages = self._worst = 0

    def has_room_for(self, crashes: int, messages: int = 1) -> bool:
        """Whether a call with so many messages, the most of them with so many crashes, may begin now."""
        if not self._messages:  # a batch is as large as its own rule allows
            return True
        worst = max(crashes and self._place(crashes), self._worst)
        if worst == 0:
            return self._calls < self._sizes[0]
        return self._messages + messages <= self._sizes[worst]

    def join(self, crashes: int, messages: int = 1) -> None:
        """Count a call that begins."""
        self._calls += 1
        self._messages += messages
        if crashes:
            self._charge(crashes, 1)

    def leave(self, crashes: int, messages: int = 1) -> None:
        """Count a call that has ended."""
        self._calls -= 1
        self._messages -= messages
        if crashes:
            self._charge(crashes, -1)

    def _charge(self, crashes: int, calls: int) -> None:
        self._charged[self._place(crashes)] += calls
        self._worst = max((place for place, count in enumerate(self._charged) if count), default=0)

    def _place(self, crashes: int) -> int:
        return min(crashes, len(self._sizes) - 1)
