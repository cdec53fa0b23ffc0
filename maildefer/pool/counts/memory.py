"""The memory in which each process of a pool counts what it does, in a part of its own."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from typing import Final

from maildefer.handling.outcomes import NO_ROUTE, Buried, Deferred, Outcome
from maildefer.handling.outgoing.delivery_count import OUTCOMES as DELIVERY_OUTCOMES
from maildefer.pool.counts.places import WORD_BYTES, NamedPlaces

OUTCOMES: Final = ("acked", "deferred", "failed", "buried", "handed_off", "postponed")
FIRST_BUCKET: Final = len(OUTCOMES)
BOUNDS: Final = tuple(4**power / 1e6 for power in range(5, 17))
"""Upper bounds of the buckets of durations in seconds, 1 ms to over an hour; above them is one bucket more."""
SUM: Final = FIRST_BUCKET + len(BOUNDS) + 1  # microseconds
# By the number of bits of a duration in microseconds:
_BUCKET: Final = tuple(FIRST_BUCKET + min(max((bits + 1) // 2 - 5, 0), len(BOUNDS)) for bits in range(65))
_OUTCOME: Final = {word: number for number, word in enumerate(OUTCOMES)}
_HANDLERS: Final = 64  # of each process, in all its queues
_NOTABLE: Final = 32
_DESTINATIONS: Final = 32
_LAST_WORDS: Final = 40
_LAST_BYTES: Final = _LAST_WORDS * WORD_BYTES
_HANDLER_WORDS: Final = _HANDLERS * NamedPlaces.words_in_place(SUM + 1)
_NOTABLE_WORDS: Final = _NOTABLE * NamedPlaces.words_in_place(2 + _LAST_WORDS)
DEFERRED_AT: Final = len(DELIVERY_OUTCOMES)  # Unix seconds; behind it, what was said then
_DELIVERY_VALUES: Final = DEFERRED_AT + 2 + _LAST_WORDS
_DELIVERY_WORDS: Final = _DESTINATIONS * NamedPlaces.words_in_place(_DELIVERY_VALUES)
_SLOT_WORDS: Final = _HANDLER_WORDS + _NOTABLE_WORDS + _DELIVERY_WORDS

CountAttempt = Callable[[str, Outcome, str, float, str], None]
"""Called with the handler, the outcome, what happened in a word, the seconds that it took, and the entry's key."""


class CountsMemory:
    """The memory; made before the fork, for so many slots. Pages that are never written to take no memory.

    Unless `counts_attempts`, only deliveries are counted.
    """

    def __init__(self, slots: int, *, counts_attempts: bool = True) -> None:
        self.counts_attempts = counts_attempts
        self._slots = slots
        self._own: dict[int, SlotCounts] = {}
        self._memory = mmap.mmap(-1, slots * _SLOT_WORDS * WORD_BYTES)
        self.words = memoryview(self._memory).cast("Q")

    def own_slot(self, number: int) -> SlotCounts:
        """The part of the process that calls, and alone writes there."""
        if number not in self._own:
            self._own[number] = SlotCounts(self.words, number * _SLOT_WORDS)
        return self._own[number]

    def slots(self) -> list[SlotCounts]:
        """All parts in which anything was counted, to be read."""
        used = (number for number in range(self._slots) if self._is_used(number))
        return [SlotCounts(self.words, number * _SLOT_WORDS) for number in used]

    def _is_used(self, number: int) -> bool:
        first = number * _SLOT_WORDS
        parts = (0, _HANDLER_WORDS, _HANDLER_WORDS + _NOTABLE_WORDS)
        return any(self.words[first + part] for part in parts)


class SlotCounts:
    """The part of one process."""

    def __init__(self, words: memoryview, first: int) -> None:
        self._words = words
        self._bytes = words.cast("B")
        self.handlers = NamedPlaces(words, first, places=_HANDLERS, values=SUM + 1)
        self.notable = NamedPlaces(words, first + _HANDLER_WORDS, places=_NOTABLE, values=2 + _LAST_WORDS)
        self.destinations = NamedPlaces(
            words,
            first + _HANDLER_WORDS + _NOTABLE_WORDS,
            places=_DESTINATIONS,
            values=_DELIVERY_VALUES,
        )

    def counter(self, queue: int) -> CountAttempt:
        """Make the function that counts the attempts at one queue's entries: a microsecond a call."""
        words = self._words
        places: dict[str, int] = {}

        def count(handler: str, outcome: Outcome, word: str, seconds: float, key: str) -> None:
            base = places.get(handler)
            if base is None:
                base = places[handler] = self.handlers.place(f"{queue}\n{handler}")
            microseconds, place = int(seconds * 1e6), base
            if word != "acked":
                if word == "deferred" and isinstance(outcome, Deferred) and outcome.error is not None:
                    word = "failed"
                elif word == "buried" and isinstance(outcome, Buried | Deferred):
                    self.note(
                        queue, "buried", f"{burial_kind(outcome)}\n{handler}", f"{key}\n{outcome.reason}"
                    )
                place += _OUTCOME[word]
            words[place] += 1
            words[base + _BUCKET[microseconds.bit_length()]] += 1
            words[base + SUM] += microseconds

        return count

    def count_delivery(self, destination: str, outcome: str, words: str = "") -> None:
        """Count an attempt to deliver, and keep why the last one was put off. Of one thread."""
        base = self.destinations.place(destination)
        self._words[base + DELIVERY_OUTCOMES.index(outcome)] += 1
        if words:
            self._write(base + DEFERRED_AT + 1, words)
            self._words[base + DEFERRED_AT] = int(time.time())

    def note(self, queue: int, event: str, what: str, last: str) -> None:
        """Count a notable event of some kind, and keep what is to be said of the last one. Any thread may call."""
        base = self.notable.place(f"{queue}\n{event}\n{what}")
        self._write(base + 1, last)
        self._words[base] += 1

    def _write(self, place: int, last: str) -> None:
        text = last.encode("utf-8", "replace")[:_LAST_BYTES]
        start = (place + 1) * WORD_BYTES
        self._bytes[start : start + len(text)] = text
        self._words[place] = len(text)

    def text_at(self, place: int) -> str:
        """Read the text that was written last; torn, if it is written meanwhile: it is for people."""
        start = (place + 1) * WORD_BYTES
        text = bytes(self._bytes[start : start + min(self._words[place], _LAST_BYTES)])
        return text.decode("utf-8", "replace")


def burial_kind(outcome: Buried | Deferred) -> str:
    """The kind of reason for which an entry is buried: an exception's type, `no route`, or a word of ours."""
    if outcome.error:
        return outcome.error.partition(":")[0]
    if outcome.reason.startswith(NO_ROUTE):
        return NO_ROUTE
    return "rejected" if isinstance(outcome, Buried) else "deferred too long"
