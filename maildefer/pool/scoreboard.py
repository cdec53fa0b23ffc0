"""The scoreboard: shared memory in which a host's processes say what they are on, without a system call.

It has three kinds of records, all of aligned 64-bit words, each written in one store: one header, one record for each
queue, one slot for each child. A word has one writer, its owner, except where said.

Words are named by plain constants: an enum's members cost 100 ns a look on Python 3.11, a dozen times a message. Off
the hot path, `scoreboard_views` names them.
"""

from __future__ import annotations

import mmap
import os
import time
from enum import IntEnum
from typing import Final

WORD_BYTES = 8
_LINES_WORD, _LINES = 32, 256  # of messages that wait for a limit: see `worker.limits.waiting_line`
_HEADER_WORDS = _LINES_WORD + _LINES
FAULT_WORD, FAULT_PLACES, FAULT_WORDS = 64, 16, 32  # of a queue: see `chore_faults`
_QUEUE_WORDS = FAULT_WORD + FAULT_PLACES * FAULT_WORDS
_SLOT_WORDS = 184
PLACES = 32  # claims that one process may hold at a time, besides those that it gathers
GATHERED_PLACES = 1024  # for batches and messages in flight; at the end, so that other pools never touch them
BATCH_CHANNELS = 8  # `@batch` functions beyond so many share them, and their leaders
HANDLER_WORD = 28 + PLACES
HANDLER_BYTES = 16 * WORD_BYTES
NAME_WORD = 44 + PLACES
_NAME_BYTES = (_SLOT_WORDS - NAME_WORD) * WORD_BYTES
_LEASE_WORD = 32
_LEASE_BYTES = 96
QUEUE_SHIFT = 48  # a gathered claim's word: SEQ, above it 1 + its queue, above that whether a handler has it
_SEQ_MASK = (1 << QUEUE_SHIFT) - 1
_QUEUE_MASK = (1 << 62) - 1
IN_HANDLER = 1 << 63
_BIAS = 1 << 62  # words are unsigned; the clock's offset need not be


class ProcessKind(IntEnum):
    """Kinds of processes that have a slot."""

    FREE = 0
    KEEPER = 1
    SCOUT = 2
    WORKER = 3
    INTAKE = 4


class State(IntEnum):
    """States of a slot's process. The two DEAD states last until the keeper has reclaimed its claims."""

    STARTING = 0
    IDLE = 1
    BUSY = 2
    DEAD_CHARGED = 3
    DEAD_UNCHARGED = 4


class QueueState(IntEnum):
    """States of a queue on this host."""

    ABSENT = 0  # not joined: never, or its directory is away
    SERVED = 1
    FENCED = 2  # our lease was ended; its claims are being dropped


class Header:
    """Words of the header."""

    TICK: Final = 0  # boot clock, ns: the supervisor lives
    PAUSED: Final = 1
    DRAINING: Final = 2
    DEATHS: Final = 3  # workers that died so far: the scout forgets its offers
    STARTED: Final = 4
    KEEPER: Final = 7  # boot clock, ns: the keeper lives, whatever its mounts do
    SCOUT: Final = 8  # and the scout
    USED: Final = 5  # worker slots that were ever taken; the others need no look
    INVALID_OFFERS: Final = 9  # 1: the scout has offered what is no name; by workers
    TOKENS: Final = 6  # 1 + the queue in which conversation tokens lie, once one was taken; by workers


class QueueWord:
    """Words of a queue's record."""

    STATE: Final = 0
    BEAT: Final = 1  # when the last good beat was sent: boot clock, ns
    CLAIM_UNTIL: Final = 2  # no claim later than this (I8): boot clock, ns
    GENERATION: Final = 3  # of lease and PAUSED: when either changed last, boot clock, ns
    HOSTS: Final = 4  # live leases that share this queue, ours included
    INDEX: Final = 5  # ours among them
    PAUSED_UNTIL: Final = 6  # after a fault: boot clock, ns; written by workers and supervisor
    FAULTS: Final = 7  # in a row; written by workers
    UNROUTED: Final = 8  # burials for `no route` in a row; written by workers
    CLOCK_OFFSET: Final = 9  # mount's time less our boot clock, which nobody sets; microseconds, biased
    LOCAL: Final = 10  # 1: a local filesystem
    PAUSE_CODE: Final = 11  # errno of the fault, or 0
    SCANS: Final = 12  # of the keeper, so far
    FORMAT_TTL: Final = 13  # milliseconds
    LIMITED: Final = 14  # entries that wait for a limit, as far as this host knows
    PAUSED: Final = 15  # 1: by an operator, on all hosts; see `maildir.operator.pause_mark`
    PRIORITIES: Final = 16  # 1: entries have priorities; see `maildir.scan`
    BEATS: Final = 17  # so far, as are the next two
    FENCES: Final = 18  # of other hosts' leases
    RECLAIMS: Final = 19  # claims of the dead


class SlotWord:
    """Words of a child's slot."""

    PID: Final = 0
    KIND: Final = 1
    STATE: Final = 2
    QUEUE: Final = 3  # which queue it is on
    DEADLINE: Final = 4  # of the handler: boot clock, ns; 0 outside a handler
    HANDLED: Final = 5  # settled so far
    ACKED: Final = 6
    DEFERRED: Final = 7
    BURIED: Final = 8
    RELEASED: Final = 9
    LOST: Final = 10
    HANDED: Final = 11
    NAME_LENGTH: Final = 12
    STARTED: Final = 13
    GENERATION: Final = 14  # of the application
    BEGAN: Final = 15  # of the handler
    HELD: Final = 16  # the first of PLACES words: SEQ of a claim, or token, that may be held, or 0
    TOKENS: Final = HELD + PLACES  # how many of them are conversation tokens
    LINES_SINCE: Final = HELD + PLACES + 1  # attempt lines wait since then: boot clock, ns; 0: none do
    GATHERED: Final = HELD + PLACES + 2  # how many of its places for gathered claims it has ever used
    TAKEN: Final = HELD + PLACES + 4  # how many it has gathered so far
    WAITS_FOR: Final = HELD + PLACES + 3  # 1 + the conversation token that its entry waits for, or 0
    MOST_TIMEOUTS: Final = (
        HELD + PLACES + 5
    )  # of the handler, while it has a time limit of its own; see `step`
    TURNED: Final = (
        HELD + PLACES + 6
    )  # when its event loop went on last: boot clock, ns; 0 outside of the loop
    FAILED: Final = HELD + PLACES + 7  # of DEFERRED, those after an exception
    HANDLER_LENGTH: Final = HELD + PLACES + 8  # of its name, at HANDLER_WORD; 0 before any handler
    EXIT: Final = HELD + PLACES + 9  # 1 + the wait status of a dead one; see `worker_deaths`
    DIED: Final = HELD + PLACES + 10  # boot clock, ns
    LIMIT: Final = (
        HELD + PLACES + 11
    )  # the time limit that it was ended for, ms; 0: it was not; see `worker_deaths`


class Scoreboard:
    """The mapping, inherited over fork, or shared by a descriptor with an executed child."""

    def __init__(self, queues: int, slots: int, descriptor: int = -1) -> None:
        self.queues = queues
        self.slots = slots
        self.descriptor = descriptor
        self._gathered = _HEADER_WORDS + queues * _QUEUE_WORDS + slots * _SLOT_WORDS
        size = (self._gathered + slots * GATHERED_PLACES) * WORD_BYTES
        if descriptor >= 0 and os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)
        self._memory = mmap.mmap(descriptor, size)
        self.words = memoryview(self._memory).cast("Q")

    @classmethod
    def inheritable(cls, queues: int, slots: int) -> Scoreboard:
        """Make a scoreboard whose descriptor an executed child may inherit."""
        descriptor = os.memfd_create("maildefer-board", os.MFD_CLOEXEC)
        return cls(queues, slots, descriptor)

    @property
    def most_workers(self) -> int:
        """How many may be wanted, beside a roll's new ones and the dead whose claims are still to be reclaimed."""
        return self.slots // 2 - 2

    def line_words(self) -> range:
        """The words of the header that hold ends of waiting lines; written by all workers."""
        return range(_LINES_WORD, _LINES_WORD + _LINES)

    def worker_slots(self) -> range:
        """The slots that may have a worker, alive or dead."""
        return range(min(self.words[Header.USED], self.slots))

    def queue(self, index: int) -> int:
        """Compute where the record of a queue begins, in words."""
        return _HEADER_WORDS + index * _QUEUE_WORDS

    def slot(self, index: int) -> int:
        """Compute where a child's slot begins, in words."""
        return _HEADER_WORDS + self.queues * _QUEUE_WORDS + index * _SLOT_WORDS

    def gathering(self, slot: int) -> int:
        """Compute where a child's places for gathered claims begin, in words."""
        return self._gathered + slot * GATHERED_PLACES

    def clear_slot(self, index: int) -> None:
        base, places = self.slot(index), self.gathering(index)
        for word in range(places, places + min(self.words[base + SlotWord.GATHERED], GATHERED_PLACES)):
            self.words[word] = 0
        for word in range(base, base + NAME_WORD):
            self.words[word] = 0

    def lease(self, index: int) -> str:
        start = (self.queue(index) + _LEASE_WORD) * WORD_BYTES
        return self._memory[start : start + _LEASE_BYTES].rstrip(b"\0").decode("ascii", "replace")

    def set_lease(self, index: int, lease: str) -> None:
        """Write the lease. For the keeper, while the queue is not served."""
        start = (self.queue(index) + _LEASE_WORD) * WORD_BYTES
        self._memory[start : start + _LEASE_BYTES] = lease.encode("ascii").ljust(_LEASE_BYTES, b"\0")
        self.words[self.queue(index) + QueueWord.GENERATION] = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def mount_time(self, index: int, wall: float, boot: float) -> float:
        """Compute the mount's time from our clocks; a local filesystem, and one not yet measured, goes by our own."""
        base = self.queue(index)
        word = self.words[base + QueueWord.CLOCK_OFFSET]
        return boot + (word - _BIAS) / 1e6 if word and not self.words[base + QueueWord.LOCAL] else wall

    def set_clock_offset(self, index: int, seconds: float) -> None:
        self.words[self.queue(index) + QueueWord.CLOCK_OFFSET] = int(seconds * 1e6) + _BIAS

    def name(self, slot: int) -> str:
        """Read the entry that a child was last on: a hint for people."""
        base = self.slot(slot)
        start = (base + NAME_WORD) * WORD_BYTES
        length = min(self.words[base + SlotWord.NAME_LENGTH], _NAME_BYTES)
        return os.fsdecode(self._memory[start : start + length])

    def handler(self, slot: int) -> str:
        """Read the handler that a child was last in; empty if none had begun with its message."""
        base = self.slot(slot)
        start = (base + HANDLER_WORD) * WORD_BYTES
        length = min(self.words[base + SlotWord.HANDLER_LENGTH], HANDLER_BYTES)
        return self._memory[start : start + length].decode("utf-8", "replace")

    def workers(self) -> list[int]:
        """List the slots of living workers."""
        words = self.words
        return [
            slot
            for slot in self.worker_slots()
            if words[self.slot(slot) + SlotWord.KIND] == ProcessKind.WORKER
            and words[self.slot(slot) + SlotWord.STATE] <= State.BUSY
        ]

    def holds(self, slot: int) -> bool:
        """Whether the child may hold any claim."""
        first = self.slot(slot) + SlotWord.HELD
        return any(self.words[first : first + PLACES]) or any(self._gathered_words(slot))

    def holds_under(self, slot: int, queue: int) -> bool:
        """Whether the child may hold anything under our lease in that queue: a claim, or a token that lies there."""
        base = self.slot(slot)
        if self.words[base + SlotWord.TOKENS] and self.words[Header.TOKENS] == queue + 1:
            return True
        if self.words[base + SlotWord.QUEUE] == queue and any(
            self.words[base + SlotWord.HELD : base + SlotWord.HELD + PLACES]
        ):
            return True
        return any(_queue_of(word) == queue for word in self._gathered_words(slot) if word)

    def gathered(self, slot: int) -> int:
        """Count the claims that the child holds for batches."""
        return sum(1 for word in self._gathered_words(slot) if word)

    def in_handlers(self, slot: int) -> int:
        """Count those of them whose messages handlers have: of a batch, or in flight."""
        return sum(1 for word in self._gathered_words(slot) if word & IN_HANDLER)

    def spared(self, slot: int, queue: int) -> frozenset[int]:
        """List the claims, by SEQ, that the child had gathered in that queue and no handler had begun with."""
        words = self._gathered_words(slot)
        return frozenset(w & _SEQ_MASK for w in words if w and not w & IN_HANDLER and _queue_of(w) == queue)

    def gathered_in(self, slot: int) -> int | None:
        """Find a queue of which the child may hold gathered claims."""
        found = (_queue_of(word) for word in self._gathered_words(slot) if word)
        return next((queue for queue in found if 0 <= queue < self.queues), None)

    def forget_gathered(self, slot: int, queue: int) -> None:
        """Clear a dead child's gathered claims: they are reclaimed, or their lease is gone. For the keeper."""
        first = self.gathering(slot)
        for place, word in enumerate(self._gathered_words(slot), first):
            if word and _queue_of(word) == queue:
                self.words[place] = 0

    def _gathered_words(self, slot: int) -> memoryview:
        first = self.gathering(slot)
        return self.words[
            first : first + min(self.words[self.slot(slot) + SlotWord.GATHERED], GATHERED_PLACES)
        ]

    def held_seqs(self, slot: int) -> set[int]:
        """List the claims that the child may hold, by SEQ."""
        base = self.slot(slot)
        seqs = set(self.words[base + SlotWord.HELD : base + SlotWord.HELD + PLACES])
        seqs.update(word & _SEQ_MASK for word in self._gathered_words(slot))
        return seqs


def _queue_of(word: int) -> int:
    """Extract the queue of a gathered claim."""
    return ((word & _QUEUE_MASK) >> QUEUE_SHIFT) - 1
