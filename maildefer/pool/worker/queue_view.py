"""One process's view of one queue: under which lease it claims, whether it may claim, and what follows from faults."""

from __future__ import annotations

import errno
import time
from typing import Protocol

from maildefer import events
from maildefer.backoff import backoff_seconds
from maildefer.errors import StorageFault
from maildefer.maildir.claims import Claimer, ClaimSlots
from maildefer.maildir.layout import Layout
from maildefer.maildir.system import boottime
from maildefer.pool.scoreboard import QueueState, QueueWord, Scoreboard

_FIRST_PAUSE_SECONDS = 1.0
_FAULTS_IN_A_ROW = 3
_ASIDE_SECONDS = 60.0
_MOST_ASIDE = 1000
_LONGEST_PAUSE_SECONDS = 60.0
_UNREADABLE_SECONDS = 600.0
_DOUBLINGS = 5  # of an entry's pause, at most, for each fault of it that this process has met
UNROUTED_LIMIT = 100  # burials for `no route` in a row: a deployment fault, not the messages'
_UNROUTED_PAUSE_SECONDS = 60.0


class Gate(Protocol):
    """What keeps a worker from claiming in a queue whose one handler is limited: see `worker.limits.gate`."""

    def holds(self, names: list[str]) -> bool: ...
    def leave(self) -> None: ...


class QueueView:
    """A queue as one worker or consumer sees it; used by that process only."""

    __slots__ = tuple("_returned _base _board _generation _words claimer gate index name set_aside".split())

    def __init__(
        self, name: str, layout: Layout, index: int, board: Scoreboard, slots: ClaimSlots, host: str
    ) -> None:
        self.name = name
        self.index = index
        self._board = board
        self._words = board.words
        self._base = board.queue(index)
        self._generation = -1
        self.gate: Gate | None = None  # where its one handler is limited
        self._returned: dict[str, int] = {}  # by key: faults in a row of an entry that was claimed
        # Names that could not be claimed, and are not to be before this boot-clock second: ask by `is_set_aside`.
        self.set_aside: dict[str, float] = {}
        self.claimer = Claimer(
            layout, slots, lease="", host=host, mount_time=self._mount_time, may_claim=self.may_claim
        )

    def may_claim(self) -> bool:
        """Whether an entry may be claimed now (I8), under the current lease. Called before each claim."""
        words, base, now = self._words, self._base, time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if words[base + QueueWord.CLAIM_UNTIL] < now or words[base + QueueWord.PAUSED_UNTIL] > now:
            return False
        if words[base + QueueWord.GENERATION] != self._generation:
            generation = words[base + QueueWord.GENERATION]  # read before the words that it covers
            if words[base + QueueWord.PAUSED] or not self._serve_under_current_lease():
                return False
            self._generation = generation
        return True

    def may_take_tokens(self) -> bool:
        """Whether conversation tokens may be taken now: also while this queue is paused, as other queues use them."""
        words, base = self._words, self._base
        if words[base + QueueWord.CLAIM_UNTIL] < time.clock_gettime_ns(time.CLOCK_BOOTTIME):
            return False
        return words[base + QueueWord.GENERATION] == self._generation or self._serve_under_current_lease()

    def _serve_under_current_lease(self) -> bool:
        if self._words[self._base + QueueWord.STATE] != QueueState.SERVED:
            return False
        if (lease := self._board.lease(self.index)) != self.claimer.lease:
            self.claimer.serve_under(lease)
        self.claimer.local = bool(self._words[self._base + QueueWord.LOCAL])
        return True

    def is_set_aside(self, name: str) -> bool:
        """Whether this name could not be claimed within the last minute, such as a directory of another user."""
        return self.set_aside.get(name, 0.0) > boottime()

    def note_fault(self, fault: StorageFault, name: str) -> None:
        """Note that the filesystem refused, which is not the message's fault.

        One name alone is set aside for a minute. Faults of several names in a row are the filesystem's: the queue is
        paused on this host, longer each time.
        """
        if len(self.set_aside) >= _MOST_ASIDE:
            self.set_aside.clear()
        self.set_aside[name] = boottime() + _ASIDE_SECONDS
        faults = self._words[self._base + QueueWord.FAULTS] = self._words[self._base + QueueWord.FAULTS] + 1
        if faults >= _FAULTS_IN_A_ROW:
            seconds = backoff_seconds(
                faults - _FAULTS_IN_A_ROW,
                first_seconds=_FIRST_PAUSE_SECONDS,
                longest_seconds=_LONGEST_PAUSE_SECONDS,
            )
            self.set_aside.clear()  # the names are not the cause
            self.pause(seconds, fault.errno or errno.EIO, str(fault))
        else:
            events.emit("entry.unreadable", queue=self.name, name=name, error=str(fault))

    def pause_after_fault(self, key: str, returns: int) -> float:
        """For how long a claimed entry that met a fault waits: 2 s, then 4 s, … and at last ten minutes.

        Its returns are the same for all processes, and count postponements too: only after faults that this one has met
        may it wait longer than 2 s.
        """
        if len(self._returned) >= _MOST_ASIDE:
            self._returned.clear()
        before = self._returned.get(key, 0)
        self._returned[key] = before + 1
        doublings = min(returns / 2, _DOUBLINGS * before)
        return backoff_seconds(doublings, first_seconds=2.0, longest_seconds=_UNREADABLE_SECONDS)

    def note_settled(self, key: str) -> None:
        """Note that an attempt at the entry has ended without a fault: the filesystem works again."""
        words, base = self._words, self._base
        if self._returned:
            self._returned.pop(key, None)
        if words[base + QueueWord.FAULTS]:
            words[base + QueueWord.FAULTS] = 0
            if words[base + QueueWord.PAUSE_CODE]:
                words[base + QueueWord.PAUSE_CODE] = 0
                events.emit("queue.resumed", queue=self.name)

    def note_acked(self, key: str) -> None:
        self.note_settled(key)
        if self._words[self._base + QueueWord.UNROUTED]:
            self._words[self._base + QueueWord.UNROUTED] = 0

    def note_unrouted(self) -> None:
        word = self._base + QueueWord.UNROUTED
        self._words[word] += 1
        if self._words[word] >= UNROUTED_LIMIT and self._words[word] % UNROUTED_LIMIT == 0:
            self.pause(
                _UNROUTED_PAUSE_SECONDS, errno.ENOENT, f"{self._words[word]} messages in a row had no route"
            )

    def pause(self, seconds: float, code: int, why: str) -> None:
        self._words[self._base + QueueWord.PAUSE_CODE] = code
        self._words[self._base + QueueWord.PAUSED_UNTIL] = int((boottime() + seconds) * 1e9)
        events.emit("queue.paused", queue=self.name, pause_ms=events.ms(seconds), why=why)

    def _mount_time(self) -> float:
        return self._board.mount_time(self.index, time.time(), boottime())
