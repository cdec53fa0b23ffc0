"""A process's own slot on the scoreboard: what it holds, and which handler it is in."""

from __future__ import annotations

import time
from itertools import count

from maildefer.pool.scoreboard import (
    HANDLER_BYTES,
    HANDLER_WORD,
    NAME_WORD,
    PLACES,
    WORD_BYTES,
    Scoreboard,
    SlotWord,
)


class ScoreboardSlot:
    """A process's own slot: what it may hold. Used by that process only; implements `claims.ClaimSlots`."""

    __slots__ = (
        "_free",
        "_handler",
        "_handler_length",
        "_handler_start",
        "_handler_word",
        "_left_ns",
        "_length_word",
        "_limit_word",
        "_memory",
        "_most_word",
        "_name_start",
        "_timed_words",
        "_words",
        "next_seq",
    )

    def __init__(self, board: Scoreboard, slot: int) -> None:
        base = board.slot(slot)
        self._words = board.words
        self._memory = board._memory
        self._free = list(range(base + SlotWord.HELD + PLACES - 1, base + SlotWord.HELD - 1, -1))
        self.next_seq = count(1).__next__
        self._name_start = (base + NAME_WORD) * WORD_BYTES
        self._length_word = base + SlotWord.NAME_LENGTH
        self._handler = ""
        self._handler_length = 0
        self._handler_start = (base + HANDLER_WORD) * WORD_BYTES
        self._handler_word = base + SlotWord.HANDLER_LENGTH
        self._timed_words = base + SlotWord.BEGAN, base + SlotWord.DEADLINE
        self._limit_word = base + SlotWord.LIMIT
        self._most_word = base + SlotWord.MOST_TIMEOUTS
        self._left_ns = 0  # of the pool's time limit, while a handler with its own runs

    def take_place(self, seq: int, name: str) -> int:
        """Publish SEQ, in one store, and the name as a hint; IndexError when all places are taken."""
        place = self._free.pop()
        self._words[place] = seq
        hint = name.encode("utf-8", "surrogateescape")  # as in `hint`, a call less
        start = self._name_start
        self._memory[start : start + len(hint)] = hint
        self._words[self._length_word] = len(hint)
        return place

    def hint(self, name: str) -> None:
        hint = name.encode("utf-8", "surrogateescape")
        self._memory[self._name_start : self._name_start + len(hint)] = hint
        self._words[self._length_word] = len(hint)

    def take_unnamed_place(self, seq: int) -> int:
        """Publish SEQ without a name: the hint stays the entry's."""
        place = self._free.pop()
        self._words[place] = seq
        return place

    def free_place(self, place: int) -> None:
        self._words[place] = 0
        self._free.append(place)

    def running(
        self, handler: str, limit_seconds: float | None = None, most: int = 0, grace_seconds: float = 0.0
    ) -> None:
        """Publish which handler has the message, and when it is ended: at its limit, and the grace after it."""
        if limit_seconds is not None or self._left_ns:
            self._begin_limit(limit_seconds, grace_seconds)
            self._words[self._most_word] = most
        self.show_handler(handler)

    def show_handler(self, handler: str) -> None:
        """Publish its name, which is written only where it is another than the last."""
        if handler is not self._handler:
            encoded = handler.encode("utf-8", "replace")[:HANDLER_BYTES]
            self._memory[self._handler_start : self._handler_start + len(encoded)] = encoded
            self._handler, self._handler_length = handler, len(encoded)
        self._words[self._handler_word] = self._handler_length

    def _begin_limit(self, seconds: float | None, grace: float) -> None:
        """Begin a handler's own time limit, or go on with the pool's, which the message's other handlers share.

        The pool's does not run while a handler with its own does.
        """
        words, (began, deadline) = self._words, self._timed_words
        if not words[self._handler_word]:  # the message's first handler: the pool's limit has just begun
            self._left_ns = 0
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        words[self._limit_word] = int((seconds or 0) * 1000) if grace else 0  # else the deadline tells
        if seconds is not None:
            self._left_ns = self._left_ns or max(words[deadline] - now, 1)
            words[began], words[deadline] = now, now + int((seconds + grace) * 1e9)
        elif self._left_ns:
            words[began], words[deadline], self._left_ns = now, now + self._left_ns, 0
