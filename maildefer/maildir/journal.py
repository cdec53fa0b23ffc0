"""The optional journal of a queue: records of pushes and settles, by which `maildefer audit` proves that none is lost.

A journal is kept if `.maildefer/journal/` is a directory, by every process that begins to use the queue after that.
There are two files for each day, each boot of a host and each user; all processes of that user append to them, with one
write for each record. If something else has the name of such a file, a process makes a file of its own.

    2026-11-24.mx1.0f8fad5b.0.pushed     TIME begin journal SINCE .   every push is to have a record from then on
                                         TIME push KEY .              after it was durable, before it is acknowledged
    2026-11-24.mx1.0f8fad5b.0.settled    TIME ack|pop|delete|withdraw KEY [h=N] .   before the final unlink
                                         TIME move KEY FOLDER/NAME .                before the rename
                                         TIME kept KEY .    the unlink found it gone: the record before is void
                                         TIME gap SINCE .   records since then could not be written (a full disk)

`h=N` in the record of an end says that the entry was handed over N times: the journal of a former queue has its push.

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
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, Literal

from maildefer.maildir import durable
from maildefer.maildir.layout import Layout
from maildefer.maildir.rights import folder, recording
from maildefer.maildir.rights.confined import unconfined
from maildefer.maildir.rights.folder import Folder
from maildefer.maildir.rights.modes import Rights, make_in, rights_in
from maildefer.maildir.system import SYSTEM, System, token

Kind = Literal["pushed", "settled"]
End = Literal["ack", "pop", "delete", "withdraw"]
KEPT_SECONDS: Final[dict[Kind, float]] = {  # an end is kept for longer than its push, which would seem lost
    "pushed": 30 * 86400.0,
    "settled": 32 * 86400.0,
}
# Faults of a link, a FIFO that nobody reads, a folder, another user's file:
_IN_THE_WAY = {errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.EACCES, errno.EPERM}
HANDOFFS_FIELD: Final = "h="
_HIGH = 200  # a handler that has closed all descriptors does not get so high a number for its next file


def _report_nothing(event: str, **facts: object) -> None:
    """Do nothing: the function that is called before `report_with` sets another."""


_report: Callable[..., None] = _report_nothing


def report_with(emit: Callable[..., None]) -> None:
    """Have this process, and those that it forks, report by `emit` that records can't be written."""
    global _report
    _report = emit


class Journal:
    """Writes the records of one process; any thread. Raises nothing: a failing journal must not stop the mail.

    That records of a kind can't be written is reported once (`report_with`), and not again before one could be written.
    """

    def __init__(
        self, layout: Layout, *, host: str, boot: str, direct: bool = False, system: System = SYSTEM
    ) -> None:
        self._layout = layout
        self._writer = f"{host}.{boot}"
        self._direct = direct
        self._system = system
        self._lock = threading.Lock()
        self._descriptors: dict[Kind, int] = {}
        self._day = -1
        self._gap: float | None = None
        self._failing: set[Kind] = set()

    def record_pushes(self, keys: Iterable[str]) -> None:
        """Record pushes that are durable and about to be acknowledged, by one write for all of them."""
        now = self._system.time()
        self._append("pushed", now, "".join(f"\n{now:.3f} push {quoted(key)} ." for key in keys))

    def record_end(self, how: End, key: str, *, handoffs: int = 0) -> None:
        """Record an entry that is about to be unlinked."""
        now = self._system.time()
        handed = f" {HANDOFFS_FIELD}{handoffs}" if handoffs else ""
        self._append("settled", now, f"\n{now:.3f} {how} {quoted(key)}{handed} .")

    def record_move(self, key: str, destination: str) -> None:
        """Record an entry that is about to be renamed to that path, in this queue or another one."""
        now, home = self._system.time(), f"{self._layout.path}/"
        if destination.startswith(home):
            place = destination.removeprefix(home)
        else:  # hosts may have the mount at different places
            place = os.path.relpath(destination, self._layout.path)
        self._append("settled", now, f"\n{now:.3f} move {quoted(key)} {quoted(place)} .")

    def record_kept(self, key: str) -> None:
        """Record that another process had the entry, so that the end recorded before did not happen."""
        now = self._system.time()
        self._append("settled", now, f"\n{now:.3f} kept {quoted(key)} .")

    def close(self) -> None:
        """Close the files; the next record opens them again."""
        with self._lock:
            self._close()

    def _append(self, kind: Kind, now: float, text: str) -> None:
        with self._lock:
            fault: OSError | None = None
            for last in (False, True):
                data = (text if self._gap is None else f"\n{now:.3f} gap {self._gap:.3f} .{text}").encode()
                try:
                    if self._system.write(self._descriptor(kind, now), data) == len(data):
                        self._gap = None
                        self._failing.discard(kind)
                        return
                    break
                except OSError as caught:
                    fault = caught
                    self._close()
                    if last or fault.errno not in (errno.EBADF, errno.EINVAL):  # closed by a handler: again
                        break
                    self._direct = self._direct and fault.errno != errno.EINVAL
            self._gap = now if self._gap is None else self._gap
            if kind not in self._failing:
                self._failing.add(kind)
                why = "only a part was written" if fault is None else fault.strerror
                _report("journal.failed", queue=self._layout.path, kind=kind, error=why)

    def _descriptor(self, kind: Kind, now: float) -> int:
        day = int(now // 86400)
        if day != self._day:
            self._close()
            self._day = day
        if (descriptor := self._descriptors.get(kind)) is None:
            from fcntl import F_DUPFD_CLOEXEC, fcntl  # a shared library, loaded only where a journal is kept

            opened = self._open(kind, f"{time.strftime('%Y-%m-%d', time.gmtime(now))}.{self._writer}")
            try:
                descriptor = fcntl(opened, F_DUPFD_CLOEXEC, _HIGH)
                self._system.close(opened)
            except OSError:  # RLIMIT_NOFILE is lower
                descriptor = opened
            self._descriptors[kind] = descriptor
        return descriptor

    def _open(self, kind: Kind, stem: str) -> int:
        """Open the shared file; on NFS, or if something else has its name, make a file of this process's own."""
        system, rights = self._system, recording.record_rights(self._layout.path, self._system)
        place = (self._layout.path, ".maildefer", "journal")
        with folder.open_folder(*place, listing=False, system=system) as journal:
            if not (self._direct and kind == "settled") and rights.owner < 0:  # root gives its file away
                try:
                    return self._open_shared(journal, f"{stem}.{kind}", rights)
                except OSError as fault:
                    if fault.errno not in _IN_THE_WAY:
                        raise
            alone = self._direct and kind == "settled"  # NFS takes no two of these together: open(2)
            flags = durable.NEW | (os.O_DIRECT if alone else os.O_APPEND)
            descriptor = journal.open(f"{stem}.{system.token(8)}.{kind}", flags, rights.file_mode)
            rights.give(descriptor)
            return descriptor

    def _open_shared(self, journal: Folder, name: str, rights: Rights) -> int:
        descriptor = journal.open(name, durable.THERE | os.O_APPEND | os.O_CREAT, rights.file_mode)
        try:
            durable.must_be_plain(descriptor, name, os.geteuid(), self._system)
            rights.give(descriptor)
        except OSError:
            self._system.close(descriptor)
            raise
        return descriptor

    def _close(self) -> None:
        for descriptor in self._descriptors.values():
            with suppress(OSError):  # closed by a handler
                self._system.close(descriptor)
        self._descriptors.clear()


_journals: dict[str, Journal | None] = {}  # of this process, by the queue's path
os.register_at_fork(after_in_child=_journals.clear)


def journal_of(layout: Layout, system: System = SYSTEM) -> Journal | None:
    """Return the queue's journal; None if none was kept when this process first used the queue.

    A model of a filesystem has no journal.
    """
    if unconfined(system) is not SYSTEM:
        return None
    try:
        return _journals[layout.path]
    except KeyError:
        pass
    journal = None
    if os.path.isdir(layout.journal):
        direct = is_nfs(layout.journal)
        journal = Journal(layout, host=host_name(), boot=f"{boot_name()}.{os.geteuid()}", direct=direct)
    return _journals.setdefault(layout.path, journal)


def begin_journal(layout: Layout) -> bool:
    """Have a journal kept by all processes that begin after this; False if one is kept already."""
    made = make_in(layout.path, recording.JOURNAL, SYSTEM)
    recording.give_journal_rights(layout.path)  # also where root, or a umask, has closed it to others
    if made:
        _journals.pop(layout.path, None)
    return made


def expect_records(layout: Layout, since: float | None = None) -> None:
    """Record that every push must have a record from now on, and since when the journal is kept. Raises OSError.

    The last such record counts. Its times are to the microsecond, as in keys.
    """
    now = time.time()
    day = time.strftime("%Y-%m-%d", time.gmtime(now))
    name = f"{day}.{host_name()}.{boot_name()}.{os.geteuid()}.{token(8)}.pushed"  # all may read it
    with folder.open_folder(layout.path, ".maildefer", "journal") as journal:
        rights = rights_in(layout.path)
        descriptor = journal.open(name, durable.NEW, rights.file_mode if rights.is_shared else 0o644)
        try:
            rights.give(descriptor)
            os.write(descriptor, f"\n{now:.6f} begin journal {since or now:.6f} .".encode())
        finally:
            os.close(descriptor)


def end_journal(layout: Layout) -> str | None:
    """Keep no journal from now on, and delete its records; returns where other files of it are. Raises OSError."""
    _journals.pop(layout.path, None)
    ended = f"journal-ended-{token(8)}"
    with folder.open_folder(layout.path, ".maildefer") as control:
        control.rename("journal", control, ended)
        with control.folder(ended) as journal:
            journal.remove(name for name in journal.names() if name.rpartition(".")[2] in KEPT_SECONDS)
        try:
            control.rmdir(ended)
        except OSError:  # something else is in it, such as a folder, which may hold anything
            return f"{layout.control}/{ended}"
    return None


def close_journals() -> None:
    """Close this process's journals, and forget which queues keep one."""
    for journal in _journals.values():
        if journal is not None:
            journal.close()
    _journals.clear()


def host_name() -> str:
    """Return this host's name as it is written in names of files: letters, digits and dashes."""
    name = os.uname().nodename.partition(".")[0].lower()
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name)[:30] or "host"


def boot_name() -> str:
    """Return a name of this boot: records of an earlier boot that were not synced may be lost."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read(8)
    except OSError:
        return "unknown"


def is_nfs(path: str) -> bool:
    """Whether the path is on an NFS mount, as far as the mounts of this process show it."""
    try:
        device = os.stat(path).st_dev
        mark = f"{os.major(device)}:{os.minor(device)}"
        with open("/proc/self/mountinfo", errors="surrogateescape") as file:  # proc(5)
            lines = [line.split(" ") for line in file]
    except OSError:
        return False
    return any(line[2] == mark and line[line.index("-") + 1].startswith("nfs") for line in lines)


def quoted(text: str) -> str:
    """Render a field of a record; characters of other writers' names that would break the line are escaped."""
    if text.isascii() and text.isprintable() and " " not in text and "%" not in text:
        return text
    return "".join(chr(c) if 0x21 <= c < 0x7F and c != 0x25 else f"%{c:02X}" for c in os.fsencode(text))


def unquoted(text: str) -> str:
    """Return the text of a field that `quoted` has rendered."""
    if "%" not in text:
        return text
    first, *rest = text.encode().split(b"%")
    return os.fsdecode(first + b"".join(bytes([int(part[:2], 16)]) + part[2:] for part in rest))
