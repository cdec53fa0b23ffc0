"""A process's own slot on the scoreboard: what it holds, and which handler it is in."""

from __future__ import annotations

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
        "_length_word",
        "_memory",
        "_name_start",
        "_seq",
        "_words",
    )

    def __init__(self, board: Scoreboard, slot: int) -> None:
        base = board.slot(slot)
        self._words = board.words
        self._memory = board._memory
        self._free = list(range(base + SlotWord.HELD + PLACES - 1, base + SlotWord.HELD - 1, -1))
        self._seq = 0
        self._name_start = (base + NAME_WORD) * WORD_BYTES
        self._length_word = base + SlotWord.NAME_LENGTH
        self._handler = ""
        self._handler_length = 0
        self._handler_start = (base + HANDLER_WORD) * WORD_BYTES
        self._handler_word = base + SlotWord.HANDLER_LENGTH

    def next_seq(self) -> int:
        self._seq += 1
        return self._seq

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

    def running(self, handler: str) -> None:
        """Publish which handler has the message; the name is written only where it is another than the last."""
        if handler is not self._handler:
            encoded = handler.encode("utf-8", "replace")[:HANDLER_BYTES]
            self._memory[self._handler_start : self._handler_start + len(encoded)] = encoded
            self._handler, self._handler_length = handler, len(encoded)
        self._words[self._handler_word] = self._handler_length
