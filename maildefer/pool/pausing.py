"""Stopping and going on with claims in all queues of one pool, as the supervisor is asked to."""

from __future__ import annotations

import os

from maildefer import events
from maildefer.pool.board import Header, Q
from maildefer.pool.shared import Shared


class Pausing:
    """What TSTP and CONT do. What pauses one queue on all hosts is in `maildir.paused`."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._words = shared.board.words

    def pause(self) -> None:
        if not self._words[Header.PAUSED]:
            self._words[Header.PAUSED] = 1
            os.eventfd_read(self._shared.gate)
            events.emit("pool.paused")

    def resume(self) -> None:
        """Go on, also with queues that a fault had paused."""
        self.clear(Q.PAUSED_UNTIL, Q.PAUSE_CODE, Q.FAULTS, Q.UNROUTED)
        if self._words[Header.PAUSED]:
            self._words[Header.PAUSED] = 0
            os.eventfd_write(self._shared.gate, 1)
            events.emit("pool.resumed")

    def clear(self, *words: int) -> None:
        """Forget faults, in all queues."""
        for index in range(len(self._shared.queues)):
            for word in words:
                self._words[self._shared.board.queue(index) + word] = 0
