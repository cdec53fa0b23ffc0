"""What a queue's journal tells: which keys were accepted, and which of them have an end.

Read day by day, so that it remembers one day's keys and those that are open, whatever the journal's size.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from maildefer.maildir.journal import unquoted
from maildefer.maildir.layout import Layout

_DONE = ".done/"
_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA cache_size = -16000;
CREATE TABLE open (
    key BLOB PRIMARY KEY, pushed_at REAL NOT NULL, queue INTEGER NOT NULL, moved_at REAL, moved_to TEXT,
    kept INTEGER NOT NULL DEFAULT 0, folder TEXT
) WITHOUT ROWID;
CREATE TABLE early (key BLOB PRIMARY KEY, day TEXT NOT NULL) WITHOUT ROWID;  -- ended before their push was read
"""
_MOVE = """
UPDATE open SET moved_at = ?, moved_to = ?, queue = ? WHERE key = ? AND (moved_at IS NULL OR moved_at <= ?)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """An accepted key without a known end."""

    key: str
    pushed_at: float  # by the clock of the host that accepted it
    queue: Layout
    moved_to: str | None  # a path below the queue whose journal says so, or below another one
    kept: bool  # somebody was about to unlink it, and found it gone


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


class Ledger:
    """The journals of some queues, read together, since a key may be handed from one to another. One thread only.

    The open keys are in a database of SQLite's that has no name and goes with the process: in memory as far as a
    small cache reaches, else in a temporary file.
    """

    def __init__(self, queues: Sequence[Layout]) -> None:
        self.queues = list(queues)
        self.accepted = 0
        self.torn = 0
        self.since: float | None = None  # the first push of which a record is left
        self.gaps: list[Gap] = []
        self.boots: dict[tuple[str, str], Boot] = {}
        self._read: dict[str, int] = {}  # path: bytes
        self._day = ""
        self._accepts = True
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(_TABLES)

    def close(self) -> None:
        """Give the database's file and memory back."""
        self._database.close()

    def read(self) -> None:
        """Read from the beginning, or on from where the last reading ended. Raises OSError.

        A file that is forgotten while this reads makes no difference: pushes go before their ends do.
        """
        days: dict[str, list[tuple[int, str]]] = {}
        for number, queue in enumerate(self.queues):
            for name in sorted(os.listdir(queue.journal)):
                days.setdefault(name[:10], []).append((number, name))
        for yesterday, day in pairwise(["", *sorted(days)]):
            self._run("DELETE FROM early WHERE day < ?", yesterday)
            self._day = day
            for kind in ("pushed", "settled"):  # an end that comes after this is found by the next reading
                for number, name in days[day]:
                    if name.endswith(f".{kind}"):
                        self._take(number, name)

    def ask_only(self, keys: Iterable[Open] | None) -> None:
        """From now on only these of the open keys count, or, with None, all; no later push does."""
        self._accepts = False
        if keys is not None:
            self._run("CREATE TABLE asked (key BLOB PRIMARY KEY) WITHOUT ROWID")
            self._database.executemany(
                "INSERT INTO asked VALUES (?)", ((os.fsencode(each.key),) for each in keys)
            )
            self._run("DELETE FROM open WHERE key NOT IN (SELECT key FROM asked)")
            self._run("DROP TABLE asked")

    def locate(self, folder: str, keys: Iterable[str]) -> None:
        """These keys lie in that folder; no matter which is not open, or was located before."""
        self._run("BEGIN")
        try:
            self._database.executemany(
                "UPDATE open SET folder = ? WHERE key = ? AND folder IS NULL",
                ((folder, os.fsencode(key)) for key in keys),
            )
        finally:
            self._run("COMMIT")

    def located(self) -> dict[str, int]:
        """How many open keys were located in each folder."""
        return dict(self._run("SELECT folder, count(*) FROM open WHERE folder NOTNULL GROUP BY folder"))

    def missing(self) -> Iterator[Open]:
        """The open keys that were not located, oldest first."""
        columns = "key, pushed_at, queue, moved_to, kept"
        rows = self._run(f"SELECT {columns} FROM open WHERE folder IS NULL ORDER BY pushed_at, key")
        for key, pushed_at, queue, moved_to, kept in rows:
            yield Open(
                key=os.fsdecode(key),
                pushed_at=pushed_at,
                queue=self.queues[queue],
                moved_to=moved_to,
                kept=bool(kept),
            )

    def is_complete(self) -> bool:
        """Whether no key is missing."""
        return self._run("SELECT 1 FROM open WHERE folder IS NULL LIMIT 1").fetchone() is None

    def destinations(self) -> Iterator[tuple[Layout, str]]:
        """The queues whose open keys were handed elsewhere last, with the paths to which they were."""
        rows = self._run("SELECT DISTINCT queue, moved_to FROM open WHERE moved_to LIKE '../%'")
        return ((self.queues[queue], moved_to) for queue, moved_to in rows)

    def _run(self, statement: str, *values: object) -> sqlite3.Cursor:
        return self._database.execute(statement, values)

    def _take(self, queue: int, name: str) -> None:
        self._run("BEGIN")
        for record in self._records(f"{self.queues[queue].journal}/{name}"):
            self._note_boot(name, record.when)
            key = os.fsencode(record.key)
            match record.verb:
                case "push" if self._accepts:
                    self._accept(queue, key, record.when)
                case "ack" | "pop" | "delete" | "withdraw":
                    self._end(key)
                case "move" if (record.detail or "").startswith(_DONE):
                    self._end(key)
                case "move":
                    self._run(_MOVE, record.when, record.detail, queue, key, record.when)
                case "kept":
                    self._reopen(queue, key, record.when)
                case "gap":
                    self.gaps.append(Gap(name.split(".")[1], float(record.key), record.when))
        self._run("COMMIT")

    def _accept(self, queue: int, key: bytes, when: float) -> None:
        self.accepted += 1
        self.since = when if self.since is None else min(self.since, when)
        if not self._run("DELETE FROM early WHERE key = ?", key).rowcount:
            self._run(
                "INSERT OR REPLACE INTO open (key, pushed_at, queue) VALUES (?, ?, ?)", key, when, queue
            )

    def _end(self, key: bytes) -> None:
        if not self._run("DELETE FROM open WHERE key = ?", key).rowcount:
            # pushed on another day by another clock, by somebody else, or ended before
            self._run("INSERT OR REPLACE INTO early VALUES (?, ?)", key, self._day)

    def _reopen(self, queue: int, key: bytes, when: float) -> None:
        if not self._run("DELETE FROM early WHERE key = ?", key).rowcount:
            self._run(
                "INSERT OR IGNORE INTO open (key, pushed_at, queue, kept) VALUES (?, ?, ?, 1)",
                key,
                when,
                queue,
            )

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
