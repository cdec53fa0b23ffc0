"""A ledger of the keys in journals: which were accepted, and which of them have an end.

Read day by day, so that it remembers one day's keys and those that are open, whatever the journal's size.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from maildefer.control import journal_reader
from maildefer.control.journal_gaps import HostBoot, JournalGap
from maildefer.control.journal_reader import JournalRecord
from maildefer.maildir import names
from maildefer.maildir.journal import KEPT_SECONDS
from maildefer.maildir.journal_file import HANDOFFS_FIELD, REPEATED
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName
from maildefer.untrusted import UntrustedRecord

_DONE = ".done/"
_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA cache_size = -16000;
CREATE TABLE open (
    key BLOB PRIMARY KEY, pushed_at REAL NOT NULL, queue INTEGER NOT NULL, moved_at REAL, moved_to BLOB,
    kept INTEGER NOT NULL DEFAULT 0, folder TEXT
) WITHOUT ROWID;
CREATE TABLE early (  -- ended before their push was read; pushed_at by the key, if it is one of our own pushes
    key BLOB PRIMARY KEY, day TEXT NOT NULL, queue INTEGER NOT NULL, ended_at REAL NOT NULL, pushed_at REAL
) WITHOUT ROWID;
CREATE TABLE seen (  -- in a folder, pushed by us, and not open: their push left no record, or their end came too early
    key BLOB PRIMARY KEY, queue INTEGER NOT NULL, pushed_at REAL NOT NULL
) WITHOUT ROWID;
-- A second push was told that it is there:
CREATE TABLE repeated (key BLOB PRIMARY KEY, queue INTEGER NOT NULL, noted_at REAL NOT NULL) WITHOUT ROWID;
"""
_MOVE = """
UPDATE open SET moved_at = ?, moved_to = ?, queue = ? WHERE key = ? AND (moved_at IS NULL OR moved_at <= ?)
"""
_EARLY = """
INSERT INTO early VALUES (?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET day = excluded.day, ended_at = excluded.ended_at
"""
_ACCEPT = "INSERT OR IGNORE INTO open (key, pushed_at, queue) VALUES (?, ?, ?)"
_LOCATE = "UPDATE open SET folder = ? WHERE key = ? AND folder IS NULL"
_SEEN = "INSERT OR IGNORE INTO seen SELECT ?1, ?2, ?3 WHERE NOT EXISTS (SELECT 1 FROM open WHERE key = ?1)"
_UNRECORDED = """
SELECT key FROM early WHERE queue = ? AND pushed_at >= ? AND ended_at >= ?
UNION SELECT key FROM seen WHERE queue = ? AND pushed_at >= ? AND pushed_at >= ?
"""
_DAY_SECONDS = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenKey:
    """An accepted key without a known end."""

    key: str
    pushed_at: float  # by the clock of the host that accepted it
    queue: Layout
    moved_at: float | None  # by the clock of the host that moved it last
    moved_to: str | None  # a path below the queue whose journal says so, or below another one
    kept: bool  # somebody was about to unlink it, and found it gone


class KeyLedger:
    """The keys of some queues, read together, since a key may be handed from one to another. One thread only.

    The open keys are in a database of SQLite's that has no name and goes with the process: in memory as far as a
    small cache reaches, else in a temporary file.
    """

    def __init__(self, queues: Sequence[Layout]) -> None:
        self.queues = list(queues)
        self.accepted = 0
        self.handed = 0  # ends of what was handed over from queues of which nothing was read
        self.torn = 0
        self.since: float | None = None  # the first push of which a record is left
        self.gaps: list[JournalGap] = []
        self.boots: dict[tuple[str, str], HostBoot] = {}
        self.unreadable: dict[str, str] = {}  # files of the journals, and why
        self.kept_since: dict[int, float] = {}  # since when the queue keeps a journal, as is known
        self._begun: dict[int, float] = {}  # since when every push is to have a record: the same, or later
        self._first: dict[int, float] = {}  # the queue's first record
        self._read: dict[str, int] = {}  # path: bytes
        self._day = ""
        self._accepts = True
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(_TABLES)

    def read(self) -> None:
        """Read from the beginning, or on from where the last reading ended. Raises OSError.

        A file that is forgotten while this reads makes no difference: pushes go before their ends do.
        """
        days: dict[str, list[tuple[int, str]]] = {}
        for number, queue in enumerate(self.queues):
            for name in journal_reader.list_files(queue):
                days.setdefault(name[:10], []).append((number, name))
        for yesterday, day in pairwise(["", *sorted(days)]):
            self._run("DELETE FROM early WHERE day < ? AND pushed_at IS NULL", yesterday)
            self._day = day
            for kind in ("pushed", "settled"):  # an end that comes after this is found by the next reading
                for number, name in days[day]:
                    if name.endswith(f".{kind}"):
                        self._take(number, name)
        self._accept_repeated()

    def ask_only(self, keys: Iterable[OpenKey] | None) -> None:
        """Restrict the ledger to these of the open keys, or, with None, to all of them: no later push counts."""
        self._accepts = False
        if keys is not None:
            self._run("CREATE TABLE asked (key BLOB PRIMARY KEY) WITHOUT ROWID")
            self._database.executemany(
                "INSERT INTO asked VALUES (?)", ((os.fsencode(each.key),) for each in keys)
            )
            self._run("DELETE FROM open WHERE key NOT IN (SELECT key FROM asked)")
            self._run("DROP TABLE asked")

    def locate(self, queue: int, folder: str, found: Iterable[EntryName]) -> None:
        """Note that these entries lie in that folder; one whose push is not on record may have left none."""
        self._run("BEGIN")
        try:
            for entry in found:
                key = os.fsencode(entry.key)
                if self._run(_LOCATE, folder, key).rowcount or entry.handoffs or entry.returns:
                    continue
                if (pushed_at := names.pushed_by_us_at(entry.key)) is not None:
                    self._run(_SEEN, key, queue, pushed_at)
        finally:
            self._run("COMMIT")

    def located(self) -> dict[str, int]:
        """How many open keys were located in each folder."""
        return dict(self._run("SELECT folder, count(*) FROM open WHERE folder NOTNULL GROUP BY folder"))

    def missing(self) -> Iterator[OpenKey]:
        """The open keys that were not located, oldest first."""
        columns = "key, pushed_at, queue, moved_at, moved_to, kept"
        rows = self._run(f"SELECT {columns} FROM open WHERE folder IS NULL ORDER BY pushed_at, key")
        for key, pushed_at, queue, moved_at, moved_to, kept in rows:
            yield OpenKey(
                key=os.fsdecode(key),
                pushed_at=pushed_at,
                queue=self.queues[queue],
                moved_at=moved_at,
                moved_to=None if moved_to is None else os.fsdecode(moved_to),
                kept=bool(kept),
            )

    def is_complete(self) -> bool:
        """Whether no key is missing."""
        return self._run("SELECT 1 FROM open WHERE folder IS NULL LIMIT 1").fetchone() is None

    def destinations(self) -> Iterator[tuple[Layout, str]]:
        """The queues whose open keys were handed elsewhere last, with the paths to which they were."""
        rows = self._run("SELECT DISTINCT queue, moved_to FROM open WHERE substr(moved_to, 1, 3) = x'2e2e2f'")
        return ((self.queues[queue], os.fsdecode(moved_to)) for queue, moved_to in rows)

    def unrecorded(self, *, now: float, ended_since: float = -math.inf) -> Iterator[str]:
        """Keys that have an end in a journal, or lie in a folder, but no beginning, though it was kept at their push.

        What was handed over from another queue has its beginning there; what was pushed longer ago than beginnings are
        kept for may have had one.
        """
        kept = now - KEPT_SECONDS["pushed"] + 2 * _DAY_SECONDS
        for queue, first in self._first.items():
            since = max(self._begun.get(queue, first), kept)
            values = (queue, since, ended_since)
            for (key,) in self._run(_UNRECORDED, *values, *values):
                yield os.fsdecode(key)

    def forget_recorded(self) -> None:
        """Read all pushes once more for ends without one: theirs may have been read, and forgotten, before a first.

        A note of where an entry is from comes before its push: who wrote that one does keep records, and was killed
        before the push could be recorded, and acknowledged.
        """
        self._run("BEGIN")
        for key in self._recorded("push", "note"):
            self._forget(key)
        self._run("COMMIT")

    def _accept_repeated(self) -> None:
        """Accept what a second push was told to be there, where the first was killed before it could record it."""
        self._run("DELETE FROM repeated WHERE key IN (SELECT key FROM open)")
        if self._run("SELECT 1 FROM repeated LIMIT 1").fetchone() is None:
            return
        for key in self._recorded("push"):  # ended and forgotten since, most of them
            self._run("DELETE FROM repeated WHERE key = ?", key)
        for key, queue, when in self._run("SELECT * FROM repeated").fetchall():
            pushed_at = names.pushed_by_us_at(os.fsdecode(key)) or 0.0
            if pushed_at >= self.kept_since.get(queue, self._first[queue]):
                self._accept(queue, key, when)
        self._run("DELETE FROM repeated")

    def _recorded(self, *verbs: str) -> Iterator[bytes]:
        for queue in self.queues:
            for name in journal_reader.list_files(queue):
                if name.endswith(".pushed"):
                    found = self._records(f"{queue.journal}/{name}")
                    yield from (os.fsencode(record.key) for record, _ in found if record.verb in verbs)

    def _run(self, statement: str, *values: object) -> sqlite3.Cursor:
        return self._database.execute(statement, values)

    def _take(self, queue: int, name: str) -> None:
        self._run("BEGIN")
        path = f"{self.queues[queue].journal}/{name}"
        for record, at in self._records(path, self._read.get(path, 0), counts=True):
            self._note_boot(name, record.when)
            self._first[queue] = min(record.when, self._first.get(queue, record.when))
            self._note(queue, name, record)
            self._read[path] = at
        self._run("COMMIT")

    def _note(self, queue: int, name: str, record: JournalRecord) -> None:
        key, detail = os.fsencode(record.key), record.detail or ""
        match record.verb:
            case "begin":
                self._begun[queue] = max(record.when, self._begun.get(queue, record.when))
                first = journal_reader.beginning_of(record)
                self.kept_since[queue] = min(first, self.kept_since.get(queue, first))
            case "push" if self._accepts:
                self._accept(queue, key, record.when)
            case "push":
                self._forget(key)
            case "note" if self._accepts and detail.startswith(f"{REPEATED}="):
                self._run("INSERT OR IGNORE INTO repeated VALUES (?, ?, ?)", key, queue, record.when)
            case "ack" | "pop" | "delete" | "withdraw":
                self._end(queue, record, is_own=not detail.startswith(HANDOFFS_FIELD))
            case "move" if detail.startswith(_DONE):
                self._end(queue, record, is_own=",h=" not in detail)
            case "move":
                is_open = self._run(_MOVE, record.when, os.fsencode(detail), queue, key, record.when).rowcount
                if not is_open and detail.startswith("../") and EntryName.parse(detail).handoffs == 1:
                    self._note_early(queue, record, is_own=True)
            case "kept":
                self._reopen(queue, key, record.when)
            case "gap":
                try:
                    self.gaps.append(JournalGap(name.split(".")[1], float(record.key), record.when))
                except ValueError:
                    self.torn += 1

    def _forget(self, key: bytes) -> None:
        """Forget a key whose push is on record."""
        self._run("DELETE FROM early WHERE key = ?", key)
        self._run("DELETE FROM seen WHERE key = ?", key)

    def _accept(self, queue: int, key: bytes, when: float) -> None:
        self.since = when if self.since is None else min(self.since, when)
        if (
            self._run("DELETE FROM early WHERE key = ?", key).rowcount
            or self._run(_ACCEPT, key, when, queue).rowcount
        ):
            self.accepted += 1  # else whoever recovered it, and its pusher, have both recorded it

    def _end(self, queue: int, record: JournalRecord, *, is_own: bool) -> None:
        if not self._run("DELETE FROM open WHERE key = ?", os.fsencode(record.key)).rowcount:
            self._note_early(queue, record, is_own=is_own)

    def _note_early(self, queue: int, record: JournalRecord, *, is_own: bool) -> None:
        """Note an end without a push: another program's entry, a slow clock, a second end, or no record."""
        self.handed += not is_own
        pushed_at = names.pushed_by_us_at(record.key) if is_own and self._accepts else None
        self._run(_EARLY, os.fsencode(record.key), self._day, queue, record.when, pushed_at)

    def _reopen(self, queue: int, key: bytes, when: float) -> None:
        if not self._run("DELETE FROM early WHERE key = ?", key).rowcount:
            columns = "key, pushed_at, queue, kept"
            self._run(f"INSERT OR IGNORE INTO open ({columns}) VALUES (?, ?, ?, 1)", key, when, queue)

    def _note_boot(self, name: str, when: float) -> None:
        _, host, boot, *_ = name.split(".")
        known = self.boots.setdefault((host, boot), HostBoot(host, boot, when, when))
        known.first, known.last = min(known.first, when), max(known.last, when)

    def _records(
        self, path: str, at: int = 0, *, counts: bool = False
    ) -> Iterator[tuple[JournalRecord, int]]:
        """Yield the records from an offset on, with the next offset; a file that can't be read is noted once."""
        if path in self.unreadable:
            return
        try:
            for line, following in journal_reader.read_lines(path, at):
                try:
                    if record := journal_reader.parse_record(line):
                        yield record, following
                except UntrustedRecord:
                    self.torn += counts
        except FileNotFoundError:  # forgotten meanwhile
            pass
        except (PermissionError, UntrustedRecord) as fault:
            self.unreadable[path] = getattr(fault, "strerror", None) or str(fault)
