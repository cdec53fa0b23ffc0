"""Places with names: a fixed number of records, given out in the order in which their names come."""

from __future__ import annotations

import threading
from typing import Final

WORD_BYTES: Final = 8
_NAME_WORDS: Final = 24
_NAME_BYTES: Final = _NAME_WORDS * WORD_BYTES
OTHER: Final = "other"  # what all further names share: the number of names has a limit


class NamedPlaces:
    """So many places of so many words, of which one process writes, and any may read. A place is never given back."""

    def __init__(self, words: memoryview, first: int, *, places: int, values: int) -> None:
        self._words = words
        self._bytes = words.cast("B")
        size = self.words_in_place(values)
        self._places = range(first, first + places * size, size)
        self._values = values
        self._lock = threading.Lock()  # a keeper has a thread for each queue
        self._found: dict[str, int] = {}
        self._has_read = False  # what an earlier process of this slot has given out

    @staticmethod
    def words_in_place(values: int) -> int:
        return 1 + values + _NAME_WORDS

    def place(self, name: str) -> int:
        """Return where the values of that name begin, in words; a new name gets a place."""
        found = self._found.get(name)
        return self._give_out(name) if found is None else found

    def read(self) -> list[tuple[str, int]]:
        """List names and where their values begin, in words."""
        return [
            (
                bytes(self._bytes[start : start + min(length, _NAME_BYTES)]).decode("utf-8", "replace"),
                base + 1,
            )
            for base in self._places
            if (length := self._words[base]) and (start := self._name_start(base))
        ]

    def _give_out(self, name: str) -> int:
        with self._lock:
            if not self._has_read:
                self._found, self._has_read = dict(self.read()), True
            known = name.encode("utf-8", "replace")[:_NAME_BYTES].decode("utf-8", "replace")
            free = [base for base in self._places if not self._words[base]]
            if known not in self._found and len(free) <= 1:
                known = OTHER
            if known not in self._found:
                text = known.encode()[:_NAME_BYTES]
                start = self._name_start(free[0])
                self._bytes[start : start + len(text)] = text
                self._words[free[0]] = len(text)  # only now others see it
                self._found[known] = free[0] + 1
            if len(self._found) < 4 * len(self._places):  # else it is looked up each time
                self._found[name] = self._found[known]
            return self._found[known]

    def _name_start(self, base: int) -> int:
        return (base + 1 + self._values) * WORD_BYTES
