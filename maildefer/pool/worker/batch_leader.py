"""One worker of a host gathers, where a queue has nothing but batches; the others pass on to it what they are offered.

So one call handles what a host's idle workers would else share among themselves, a message each. What is passed on is a
hint like any offer (I10): the entry still waits in `new/`, and the scout offers it again should nobody take it.
"""

from __future__ import annotations

import os
import select
import socket

from maildefer.maildir.system import boottime
from maildefer.pool.scoreboard import ProcessKind, S, Scoreboard, State
from maildefer.pool.worker.offers import Offers

_ROOM_SECONDS = 0.05  # the kernel may hold ten names only (net.unix.max_dgram_qlen)


class BatchLeader:
    """A queue's, as one worker sees it: whether that is another one, or itself from `begin` to `end`.

    Each worker says on its own slot that it gathers, and looks at the others' after: of two that begin at once at most
    one goes on.
    """

    def __init__(
        self,
        board: Scoreboard,
        slot: int,
        queue: int,
        ends: tuple[socket.socket, socket.socket],
        offers: Offers,
    ) -> None:
        self._board = board
        self._words = board.words
        self._slot = slot
        self._bit = 1 << queue
        self._gathers = board.slot(slot) + S.GATHERS
        self._until = board.slot(slot) + S.GATHERS_UNTIL
        self._sending, self._mine = ends
        for end in ends:
            end.setblocking(False)
        self._offers = offers
        self.listens = False

    def is_another(self) -> bool:
        """Whether there is one who takes what is passed on: it lives, is in no handler, and its batch is not due."""
        words, bit = self._words, self._bit
        for slot in self._board.worker_slots():
            base = self._board.slot(slot)
            if words[base + S.GATHERS] & bit and slot != self._slot and self._takes(base):
                return True
        return False

    def _takes(self, base: int) -> bool:
        words = self._words
        return (
            words[base + S.KIND] == ProcessKind.WORKER
            and words[base + S.STATE] in (State.IDLE, State.BUSY)
            and not words[base + S.DEADLINE]
            and words[base + S.GATHERS_UNTIL] > boottime() * 1e9
        )

    def begin(self, due: float) -> bool:
        """From now on it is this worker, until its batch is due, or `end`; False if it is another."""
        words = self._words
        words[self._until] = int(due * 1e9)
        words[self._gathers] |= self._bit
        if self.is_another():
            self.end()
            return False
        if not self.listens:
            self._offers.wake_for(self._mine)
            self.listens = True
        return True

    def end(self) -> None:
        self._words[self._gathers] &= ~self._bit
        if self.listens:
            self._offers.stop_waking_for(self._mine)
            self.listens = False

    def pass_on(self, name: str) -> bool:
        """False when that did not go: the other one has more than it can take."""
        for last in (False, True):
            try:
                self._sending.send(os.fsencode(name))
                return True
            except BlockingIOError:
                if not last:
                    select.select([], [self._sending], [], _ROOM_SECONDS)
        return False

    def receive_name(self) -> str | None:
        """A name that was passed on to this worker; None when there is none."""
        if not self.listens:
            return None
        try:
            return os.fsdecode(self._mine.recv(4096))
        except BlockingIOError:
            return None
