"""One worker of a host gathers, where a queue has nothing but batches; the others pass on to it what they are offered.

So one call handles what a host's idle workers would else share among themselves, a message each. What is passed on is a
hint like any offer (I10): the entry still waits in `new/`, and the scout offers it again should nobody take it.
"""

from __future__ import annotations

import os
import select
import socket

from maildefer.maildir.system import boottime
from maildefer.pool.board import Board, Kind, Q, S, State
from maildefer.pool.offers import Offers

_ROOM_SECONDS = 0.05  # the kernel may hold ten names only (net.unix.max_dgram_qlen)


class Gatherer:
    """A queue's, as one worker sees it: whether that is another one, or itself from `begin` to `end`."""

    def __init__(
        self,
        board: Board,
        slot: int,
        queue: int,
        ends: tuple[socket.socket, socket.socket],
        offers: Offers,
    ) -> None:
        self._board = board
        self._words = board.words
        self._me = slot + 1
        self._who = board.queue(queue) + Q.GATHERER
        self._until = board.queue(queue) + Q.GATHERS_UNTIL
        self._sending, self._mine = ends
        for end in ends:
            end.setblocking(False)
        self._offers = offers
        self.listens = False
        self.end()  # the slot's last worker may have died as the one

    def is_another(self) -> bool:
        """Whether there is one who takes what is passed on: it lives, is in no handler, and its batch is not due."""
        who = self._words[self._who]
        if who in (0, self._me) or self._words[self._until] <= boottime() * 1e9:
            return False
        base = self._board.slot(who - 1)
        return (
            self._words[base + S.KIND] == Kind.WORKER
            and self._words[base + S.STATE] in (State.IDLE, State.BUSY)
            and not self._words[base + S.DEADLINE]
        )

    def begin(self, due: float) -> None:
        """From now on it is this worker, until its batch is due, or `end`; unless it is another."""
        if self.is_another():
            return
        if not self.listens:
            self._offers.also_from(self._mine)
            self.listens = True
        self._words[self._until] = int(due * 1e9)
        self._words[self._who] = self._me

    def end(self) -> None:
        if self._words[self._who] == self._me:
            self._words[self._who] = 0
        if self.listens:
            self._offers.no_longer_from(self._mine)
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

    def taken(self) -> str | None:
        """A name that was passed on to this worker; None when there is none."""
        if not self.listens:
            return None
        try:
            return os.fsdecode(self._mine.recv(4096))
        except BlockingIOError:
            return None
