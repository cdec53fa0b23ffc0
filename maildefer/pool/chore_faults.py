"""The chores of a queue that fail, on the scoreboard: since when, with how many entries, and with which error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from maildefer.pool.scoreboard import FAULT_PLACES, FAULT_WORD, FAULT_WORDS, Scoreboard

CHORES: Final = (
    "take back",
    "fence",
    "reclaim",
    "clock",
    "promote",
    "tick",
    "list deferred",
    "return",
    "free tokens",
    "share",
    "requests",
    "pause",
    "status",
    "sweep",
    "folders",
)
_TEXT_WORD: Final = 3
_TEXT_BYTES: Final = (FAULT_WORDS - _TEXT_WORD) * 8
assert len(CHORES) <= FAULT_PLACES


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoreFault:
    """One chore that fails."""

    chore: str
    since: int  # unix seconds, by this host's clock
    entries: int  # how many fail by themselves
    error: str


class ChoreFaults:
    """Faults of one queue's chores: written by the keeper's thread of that queue, read by any process."""

    def __init__(self, board: Scoreboard, index: int) -> None:
        self._words = board.words
        self._bytes = board.words.cast("B")
        self._first = board.queue(index) + FAULT_WORD

    def note_fault(self, fault: ChoreFault) -> None:
        """Write a fault. A text that is read while it is written may be torn, which does no harm: it is for people."""
        base = self._base(fault.chore)
        text = fault.error.encode("utf-8", "backslashreplace")[:_TEXT_BYTES].ljust(_TEXT_BYTES, b"\0")
        start = (base + _TEXT_WORD) * 8
        self._bytes[start : start + _TEXT_BYTES] = text
        self._words[base + 1] = fault.entries
        self._words[base] = max(1, fault.since)

    def clear_fault(self, chore: str) -> None:
        self._words[self._base(chore)] = 0

    def read_faults(self) -> list[ChoreFault]:
        """Read all faults, in the order of the chores."""
        found = []
        for chore in CHORES:
            base = self._base(chore)
            if since := self._words[base]:
                start = (base + _TEXT_WORD) * 8
                text = bytes(self._bytes[start : start + _TEXT_BYTES]).rstrip(b"\0")
                error = text.decode("utf-8", "replace")
                found.append(ChoreFault(chore=chore, since=since, entries=self._words[base + 1], error=error))
        return found

    def _base(self, chore: str) -> int:
        return self._first + CHORES.index(chore) * FAULT_WORDS
