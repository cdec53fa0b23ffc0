"""The optional journal of a queue: records of pushes and settles, by which `maildefer audit` proves that none is lost.

A journal is kept if `.maildefer/journal/` is a directory, by every process that begins to use the queue after that.
There are two files for each day, each boot of a host and each user, to which all processes of that user append; those
with many records have files of their own (`journal_file`), as have those that find something else there; `mx1`: a host.

    2026-11-24.mx1.0f8fad5b.0.pushed     TIME begin journal SINCE .   every push is to have a record from then on
                                         TIME push KEY .              after it was durable, before it is acknowledged
    2026-11-24.mx1.0f8fad5b.0.m0.pushed  the same, of one process at a time
    2026-11-24.mx1.0f8fad5b.0.settled    TIME ack|pop|delete|withdraw KEY [h=N,handler=…,ms=…] .    before the unlink
                                         TIME move KEY FOLDER/NAME .                before the rename
                                         TIME note KEY NAME=FACT,… .                what became of an attempt, and why
                                         TIME kept KEY .    the unlink found it gone: the record before is void
                                         TIME gap SINCE .   records until then are missing (a full disk, removed files)

`h=N` in the record of an end says that the entry was handed over N times: the journal of a former queue has its push.
Handlers and milliseconds are those of a first attempt, of which there is no note.
A record begins with a newline and ends with " .": an incomplete record of a killed process damages no other.
On NFS each process has a `settled` file of its own, written past the page cache (`O_DIRECT`), since records in a cache
are lost with the host, and other hosts can't see them for half a minute. NFS does not append such writes one after the
other, so they can't share a file. Elsewhere `O_DIRECT` is not used, since each write would wait for the disk.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final, Literal

from maildefer.maildir import control_folder, durable
from maildefer.maildir.journal_file import (
    AppendedFile,
    JournalFile,
    MappedFile,
    boot_name,
    end_facts,
    host_name,
    open_appended,
    open_mapped,
    quoted,
    quoted_facts,
    were_removed,
)
from maildefer.maildir.layout import Layout
from maildefer.maildir.rights import folder, recording
from maildefer.maildir.rights.confined import unconfined
from maildefer.maildir.rights.modes import make_in
from maildefer.maildir.system import SYSTEM, System

Kind = Literal["pushed", "settled"]
End = Literal["ack", "pop", "delete", "withdraw"]
# An end is kept for longer than its push, which would seem lost:
KEPT_SECONDS: Final[dict[Kind, float]] = {"pushed": 30 * 86400.0, "settled": 32 * 86400.0}
_APPENDED: Final = 16  # records of a process before it maps a file of its own
_LOOK_SECONDS: Final = 10.0  # in which it writes to files that somebody has removed
_report: Callable[..., None] = lambda event, **facts: None  # noqa: E731  # before `report_with` sets another


def report_with(emit: Callable[..., None]) -> None:
    """Have this process, and those that it forks, report by `emit` that records can't be written."""
    global _report
    _report = emit


_describe: Callable[[bytes], Mapping[str, object]] = lambda data: {}  # noqa: E731


def describe_with(describe: Callable[[bytes], Mapping[str, object]]) -> None:
    """Have this process, and those that it forks, note what this says of the bytes of each entry that it pushes."""
    global _describe
    _describe = describe


class Journal:
    """Writes the records of one process; any thread. Raises nothing: a failing journal must not stop the mail.

    That records of a kind can't be written is reported once (`report_with`), and not again before one could be written.
    """

    def __init__(
        self, layout: Layout, *, host: str, boot: str, direct: bool = False, system: System = SYSTEM
    ) -> None:
        self._layout, self._place = layout, (layout.path, ".maildefer", "journal")
        self._writer = f"{host}.{boot}"
        self._direct = direct
        self._system = system
        self._lock = threading.Lock()
        self._files: dict[Kind, JournalFile] = {}
        self._left: dict[Kind, int] = {}  # records until the file is to be a mapped one
        self._day, self._until = 0.0, 0.0  # of the files; when to see whether they are still there, and it is
        self._mapped: dict[Kind, MappedFile] = {}  # those of the files that are, which take half the time
        self._boottime = system.boottime
        # For acks within a millisecond: until when, what comes before a key, after it by which handler, and where to.
        self._ready: tuple[float, str, str, str, Callable[[bytes], object]] = 0.0, "", "", "", bytes
        self._gap: float | None = None
        self._reserve: bytes | bytearray = bytearray(1 << 13)  # memory for one more record
        self._failing: set[Kind] = set()

    def record_pushes(self, keys: Iterable[str]) -> None:
        """Record pushes that are durable and about to be acknowledged, by one write for all of them."""
        self._append("pushed", *[f"push {quoted(key)}" for key in keys])

    def record_origin(self, key: str, data: bytes) -> None:
        """Note what is known of an entry's bytes, which are about to be pushed."""
        if facts := _describe(data):
            self.record_note(key, facts, "pushed")

    def record_end(self, how: End, key: str, handoffs: int = 0) -> None:
        """Record an entry that is about to be unlinked, by whatever."""
        self._append("settled", f"{how} {quoted(key)}{end_facts(handoffs)}")

    def record_ack(self, key: str, handoffs: int, handler: str, began: float) -> None:
        """Record an entry that is about to be unlinked, and whose attempt began then, if `handler` has handled it."""
        if handler and not handoffs and self._mapped:
            clock, (until, head, known, quick, write) = self._boottime, self._ready
            try:
                if (now := clock()) >= until:
                    head, known, quick, write = self._renew(now, handler)
                is_quick = now - began < 0.001 and handler == known
                told = quick if is_quick else end_facts(0, handler, int((now - began) * 1000))
                is_plain = key.isascii() and key.isprintable() and " " not in key and "%" not in key
                name = key if is_plain else quoted(key)  # as that finds out, but a call costs as much again
                write(f"{head}{name}{told} .".encode())
                return
            except (KeyError, ValueError, MemoryError):
                pass  # and the long way round
        ms = int((self._boottime() - began) * 1000) if handler else 0
        self._append("settled", f"ack {quoted(key)}{end_facts(handoffs, handler, ms)}")

    def _renew(self, now: float, handler: str) -> tuple[str, str, str, Callable[[bytes], object]]:
        """Prepare the records of acks within a millisecond. KeyError, ValueError if they go to no mapped file."""
        wall, write = self._system.time(), self._mapped["settled"].window.write
        if wall >= self._until:
            raise ValueError
        self._ready = now + 0.001, f"\n{wall:.3f} ack ", handler, end_facts(0, handler), write
        return self._ready[1:]

    def record_move(self, key: str, destination: str) -> None:
        """Record an entry that is about to be renamed to that path, in this queue or another one."""
        place = destination.removeprefix(f"{self._layout.path}/")
        if place == destination:  # hosts may have the mount at different places
            place = os.path.relpath(destination, self._layout.path)
        self._append("settled", f"move {quoted(key)} {quoted(place)}")

    def record_kept(self, key: str) -> None:
        """Record that another process had the entry, so that the end recorded before did not happen."""
        self._append("settled", f"kept {quoted(key)}")

    def record_note(self, key: str, facts: Mapping[str, object], kind: Kind = "settled") -> None:
        """Record what `maildefer explain` tells of an entry; the audit passes it over. Empty facts are left out."""
        if told := quoted_facts(facts):
            self._append(kind, f"note {quoted(key)} {told}", is_needed=False)

    def close(self) -> None:
        """Close the files; the next record opens them again."""
        with self._lock:
            self._close()

    def _append(self, kind: Kind, *records: str, is_needed: bool = True) -> None:
        now = self._system.time()
        text = "".join([f"\n{now:.3f} {record} ." for record in records])
        if now < self._until:
            try:
                self._mapped[kind].window.write(text.encode())
                return
            except (KeyError, ValueError, MemoryError):
                pass  # and the long way round
        with self._lock:
            fault: OSError | None = None
            for last in (False, True):
                try:
                    file = self._file(kind, now)
                    gap = "" if self._gap is None else f"\n{now:.3f} gap {self._gap:.3f} ."
                    if file.write(f"{gap}{text}".encode()):
                        self._gap = None
                        self._failing.discard(kind)
                        return
                    break
                except (MemoryError, ImportError) as caught:  # a handler has left no memory
                    fault = OSError(errno.ENOMEM, str(caught) or os.strerror(errno.ENOMEM))
                    self._reserve = b""  # and once more
                except OSError as caught:
                    fault = caught
                    self._close()
                    if last or fault.errno not in (errno.EBADF, errno.EINVAL):  # closed by a handler: again
                        break
                    self._direct = self._direct and fault.errno != errno.EINVAL
            if is_needed and self._gap is None:  # else the audit misses nothing
                self._gap = now
                self._mapped.clear()  # so that the next record tells it
            if kind not in self._failing:
                why = "only a part was written" if fault is None else fault.strerror
                _report("journal.failed", queue=self._layout.path, kind=kind, error=why)
            self._failing.add(kind)

    def _file(self, kind: Kind, now: float) -> JournalFile:
        if not self._until - _LOOK_SECONDS <= now < self._until:
            if (day := now // 86400) != self._day:
                self._close()
            elif were_removed(self._files.values()) and os.path.isdir(self._layout.journal):
                self._close()
                self._gap = now
            self._day, self._until = day, min(day * 86400 + 86400, now + _LOOK_SECONDS)
        file = self._files.get(kind)
        if file is not None and kind not in self._left:
            return file
        stem = f"{time.strftime('%Y-%m-%d', time.gmtime(now))}.{self._writer}"
        if file is None:
            file = self._files[kind] = AppendedFile(self._open(kind, stem), system=self._system)
            self._left[kind] = _APPENDED
        self._left[kind] -= 1
        if self._left[kind] < 0:
            del self._left[kind]
            if (mapped := self._map(kind, stem)) is not None:
                file.close()
                file = self._files[kind] = self._mapped[kind] = mapped
        return file

    def _map(self, kind: Kind, stem: str) -> MappedFile | None:
        """Map a file where that is safe, and not for root in a queue of another user."""
        rights = recording.record_rights(self._layout.path, self._system)
        is_safe = not self._direct and control_folder.may_map(self._layout.journal)
        if not is_safe or rights.owner >= 0 or self._system.write is not SYSTEM.write:
            return None
        with (
            suppress(OSError),
            folder.open_folder(*self._place, listing=False, system=self._system) as journal,
        ):
            return open_mapped(journal, stem, kind, rights.file_mode, system=self._system)
        return None

    def _open(self, kind: Kind, stem: str) -> int:
        rights = recording.record_rights(self._layout.path, self._system)
        alone = self._direct and kind == "settled"  # NFS takes no two of these together: open(2)
        with folder.open_folder(*self._place, listing=False, system=self._system) as journal:
            return open_appended(journal, stem, kind, rights, alone=alone, system=self._system)

    def _close(self) -> None:
        for file in self._files.values():
            file.close()
        for known in (self._files, self._left, self._mapped):
            known.clear()


_journals: dict[str, Journal | None] = {}  # of this process, by the queue's path
os.register_at_fork(after_in_child=_journals.clear)


def journal_of(layout: Layout, system: System = SYSTEM, *, anew: bool = False) -> Journal | None:
    """Return the queue's journal; None if none was kept when this process first used the queue.

    A model of a filesystem has no journal. `anew`: as `look_again` has it.
    """
    if unconfined(system) is not SYSTEM:
        return None
    if anew:
        look_again(layout, anew=True)
    with suppress(KeyError):
        return _journals[layout.path]
    journal = None
    if os.path.isdir(layout.journal):
        direct = control_folder.is_nfs(layout.journal)
        journal = Journal(layout, host=host_name(), boot=f"{boot_name()}.{os.geteuid()}", direct=direct)
    elif not os.path.isdir(layout.control):  # it is yet to be made, and then keeps one, perhaps
        return None
    return _journals.setdefault(layout.path, journal)


def look_again(layout: Layout, *, anew: bool = False) -> None:
    """Have a process that outlives reloads look for a journal again, where it has found none before.

    With `anew`, also where it has found one, which may have been ended since, or ended and begun again.
    """
    journal = _journals.get(layout.path)
    if journal is not None and anew:
        journal.close()
    if journal is None or (anew and not os.path.isdir(layout.journal)):
        _journals.pop(layout.path, None)


def begin_journal(layout: Layout) -> bool:
    """Have a journal kept by all processes that begin after this; False if one is kept already."""
    made = make_in(layout.path, recording.JOURNAL, SYSTEM)
    recording.give_journal_rights(layout.path)  # also where root, or a umask, has closed it to others
    if made:
        durable.sync_directory(layout.control)
        _journals.pop(layout.path, None)
    return made


def close_journals() -> None:
    """Close this process's journals, and forget which queues keep one."""
    for journal in filter(None, _journals.values()):
        journal.close()
    _journals.clear()
