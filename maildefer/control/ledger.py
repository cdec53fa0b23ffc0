"""What a queue's journal tells: which keys were accepted, and which of them have an end.

Read day by day, so that it takes the memory of one day's keys and of those that are open, whatever the journal's size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from maildefer.maildir.journal import unquoted
from maildefer.maildir.layout import Layout

_DONE = ".done/"


@dataclass(slots=True)
class Open:
    """An accepted key without a known end."""

    key: str
    pushed_at: float  # by the clock of the host that accepted it
    queue: Layout
    moved_at: float | None = None
    moved_to: str | None = None  # a path below the queue whose journal says so, or below another one
    kept: bool = False  # somebody was about to unlink it, and found it gone


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which a host could not write its records."""

    host: str
    since: float
    until: float


@dataclass(slots=True)
class Boot:
    """One boot of a host, as far as it wrote anything."""

    host: str
    name: str
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class _Record:
    when: float
    verb: str
    key: str
    detail: str | None


@dataclass(slots=True)
class Ledger:
    """The journals of some queues, read together, since a key may be handed from one to another."""

    queues: Sequence[Layout]
    open: dict[str, Open] = field(default_factory=dict)
    accepted: int = 0
    ended: int = 0
    torn: int = 0
    since: float | None = None  # the first push of which a record is left
    gaps: list[Gap] = field(default_factory=list)
    boots: dict[tuple[str, str], Boot] = field(default_factory=dict)
    _read: dict[str, int] = field(default_factory=dict)  # path: bytes
    _early: dict[str, str] = field(default_factory=dict)  # ended before their push was read: key, day
    _day: str = ""

    def read(self) -> None:
        """Read from the beginning, or on from where the last reading ended. Raises OSError.

        A file that is forgotten while this reads makes no difference: pushes go before their ends do.
        """
        days: dict[str, list[tuple[Layout, str]]] = {}
        for queue in self.queues:
            for name in sorted(os.listdir(queue.journal)):
                days.setdefault(name[:10], []).append((queue, name))
        for yesterday, day in pairwise(["", *sorted(days)]):
            self._early = {key: seen for key, seen in self._early.items() if seen >= yesterday}
            self._day = day
            for kind in ("pushed", "settled"):  # an end that comes after this is found by the next reading
                for queue, name in days[day]:
                    if name.endswith(f".{kind}"):
                        self._take(queue, name)

    def _take(self, queue: Layout, name: str) -> None:
        for record in self._records(f"{queue.journal}/{name}"):
            self._note_boot(name, record.when)
            match record.verb:
                case "push":
                    self._accept(queue, record)
                case "ack" | "pop" | "delete" | "withdraw":
                    self._end(record.key)
                case "move" if (record.detail or "").startswith(_DONE):
                    self._end(record.key)
                case "move":
                    found = self.open.get(record.key)
                    if found is not None and (found.moved_at is None or found.moved_at <= record.when):
                        found.moved_at, found.moved_to, found.queue = record.when, record.detail, queue
                case "kept":
                    self._reopen(queue, record)
                case "gap":
                    self.gaps.append(Gap(name.split(".")[1], float(record.key), record.when))

    def _accept(self, queue: Layout, record: _Record) -> None:
        self.accepted += 1
        self.since = record.when if self.since is None else min(self.since, record.when)
        if self._early.pop(record.key, None) is not None:
            self.ended += 1
        else:
            self.open[record.key] = Open(record.key, record.when, queue)

    def _end(self, key: str) -> None:
        if self.open.pop(key, None) is not None:
            self.ended += 1
        else:  # pushed on another day by another clock, by somebody else, or ended before
            self._early[key] = self._day

    def _reopen(self, queue: Layout, record: _Record) -> None:
        if self._early.pop(record.key, None) is None and record.key not in self.open:
            self.ended -= 1
            self.open[record.key] = Open(record.key, record.when, queue, kept=True)

    def _note_boot(self, name: str, when: float) -> None:
        _, host, boot, *_ = name.split(".")
        known = self.boots.setdefault((host, boot), Boot(host, boot, when, when))
        known.first, known.last = min(known.first, when), max(known.last, when)

    def _records(self, path: str) -> Iterator[_Record]:
        """The whole records since the last reading; a torn one at the end may be being written, and is left."""
        at = self._read.get(path, 0)
        try:
            with open(path, "rb") as file:
                file.seek(at)
                for line in file:
                    if line.endswith((b"\n", b" .")):
                        at += len(line)
                        if record := self._parsed(line.decode("ascii", "replace").rstrip("\n")):
                            yield record
        except FileNotFoundError:  # forgotten meanwhile
            return
        self._read[path] = at

    def _parsed(self, text: str) -> _Record | None:
        if not text:
            return None
        fields = text.split(" ")
        try:
            when, verb, key = float(fields[0]), fields[1], unquoted(fields[2])
            if fields[-1] != "." or not 4 <= len(fields) <= 5:
                raise ValueError
            return _Record(when, verb, key, unquoted(fields[3]) if len(fields) == 5 else None)
        except (ValueError, IndexError):
            self.torn += 1
            return None
