"""One worker of a host, the leader, gathers where a queue has only `@batch` handlers; the others pass their offers on.

So one call handles the messages that idle workers of a host would else share, one each. A name that is passed on is a
hint like any offer (I10): the entry still waits in `new/`, and the scout offers it again if nobody claims it.
"""

from __future__ import annotations

import os
import select
import socket

from maildefer.maildir.system import boottime
from maildefer.pool.scoreboard import ProcessKind, Scoreboard, SlotWord, State
from maildefer.pool.worker.offers import Offers

_FULL_SOCKET_SECONDS = 0.05  # the kernel may hold ten names only (net.unix.max_dgram_qlen)


class BatchLeader:
    """The leader for one queue, as one worker sees it: another worker, or itself until its batch is due.

    Each worker shows in its own slot that it leads, and then looks at the others': of two that begin at once at most
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
        self._queue_bit = 1 << queue
        self._leads_word = board.slot(slot) + SlotWord.GATHERS
        self._until_word = board.slot(slot) + SlotWord.GATHERS_UNTIL
        self._sending, self._receiving = ends
        for end in ends:
            end.setblocking(False)
        self._offers = offers
        self.is_leading = False

    def is_other_leading(self) -> bool:
        """Whether another worker leads and takes names: it lives, is in no handler, and its batch is not due."""
        words, bit = self._words, self._queue_bit
        for slot in self._board.worker_slots():
            base = self._board.slot(slot)
            if words[base + SlotWord.GATHERS] & bit and slot != self._slot and self._accepts(base):
                return True
        return False

    def _accepts(self, base: int) -> bool:
        words = self._words
        return (
            words[base + SlotWord.KIND] == ProcessKind.WORKER
            and words[base + SlotWord.STATE] in (State.IDLE, State.BUSY)
            and not words[base + SlotWord.DEADLINE]
            and words[base + SlotWord.GATHERS_UNTIL] > boottime() * 1e9
        )

    def begin_leading(self, due: float) -> bool:
        """Lead from now on, until the batch is due or `end_leading`; False if another worker leads."""
        words = self._words
        words[self._until_word] = int(due * 1e9)
        words[self._leads_word] |= self._queue_bit
        if self.is_other_leading():
            self.end_leading()
            return False
        if not self.is_leading:
            self._offers.wake_for(self._receiving)
            self.is_leading = True
        return True

    def end_leading(self) -> None:
        """Lead no longer; nothing to do where this worker does not."""
        self._words[self._leads_word] &= ~self._queue_bit
        if self.is_leading:
            self._offers.stop_waking_for(self._receiving)
            self.is_leading = False

    def pass_on(self, name: str) -> bool:
        """Pass a name on to the leader; False where it has more than it can take."""
        for last in (False, True):
            try:
                self._sending.send(os.fsencode(name))
                return True
            except BlockingIOError:
                if not last:
                    select.select([], [self._sending], [], _FULL_SOCKET_SECONDS)
        return False

    def receive_name(self) -> str | None:
        """A name that was passed on to this worker; None when there is none."""
        if not self.is_leading:
            return None
        try:
            return os.fsdecode(self._receiving.recv(4096))
        except BlockingIOError:
            return None
