"""The optional journal of a queue: records of pushes and settles, by which `maildefer audit` proves that none is lost.

It is kept where `.maildefer/journal/` is a directory, by every process that begins to use the queue after that: two
files for each day, each boot of a host and each user, appended to by all of that user's processes there with one write
a record. Where something else is in such a file's place, a process makes one of its own.

    2026-11-24.mx1.0f8fad5b.0.pushed     TIME begin journal SINCE .   every push is to have a record from then on
                                         TIME push KEY .              after it was durable, before it is acknowledged
    2026-11-24.mx1.0f8fad5b.0.settled    TIME ack|pop|delete|withdraw KEY [h=N] .   before the final unlink
                                         TIME move KEY FOLDER/NAME .                before the rename
                                         TIME kept KEY .    the unlink found it gone: the record before was not so
                                         TIME gap SINCE .   records since then could not be written (a full disk)

`h=N` at an end tells that the entry was handed over N times: the journal of a former queue has its push.

A record begins with a newline and ends with " .": the torn one of a killed process spoils no other.

On NFS each process has a `settled` file of its own, written past the page cache (`O_DIRECT`): what lies in the cache is
lost with the host, and unseen by others for half a minute. Not so elsewhere, where it would be a wait for the disk; and
not in one file, where such writes are not appended one after the other.
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
KEPT_SECONDS: Final[dict[Kind, float]] = {  # an end is kept for longer than its push, or it would be missed
    "pushed": 30 * 86400.0,
    "settled": 32 * 86400.0,
}
# A link, a FIFO that nobody reads, a folder, another user's file:
_IN_THE_WAY = {errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.EACCES, errno.EPERM}
HANDOFFS_FIELD: Final = "h="
_HIGH = 200  # where no handler's next file lands that has closed all descriptors


def _report_nothing(event: str, **facts: object) -> None:
    """What tells nobody, before `report_with`."""


_report: Callable[..., None] = _report_nothing


def report_with(emit: Callable[..., None]) -> None:
    """Have this process, and those that it forks, tell by `emit` that records can't be written."""
    global _report
    _report = emit


class Journal:
    """One process's pen; any thread. Never raises: a journal that can't be written must not stop the mail.

    That records of a kind can't be written is told once, as `report_with` says, and not again before one could be.
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

    def pushed(self, keys: Iterable[str]) -> None:
        """These are durable, and about to be acknowledged: one write for all of them."""
        now = self._system.time()
        self._append("pushed", now, "".join(f"\n{now:.3f} push {quoted(key)} ." for key in keys))

    def ends(self, how: End, key: str, *, handoffs: int = 0) -> None:
        """This entry is about to be unlinked."""
        now = self._system.time()
        handed = f" {HANDOFFS_FIELD}{handoffs}" if handoffs else ""
        self._append("settled", now, f"\n{now:.3f} {how} {quoted(key)}{handed} .")

    def moves(self, key: str, destination: str) -> None:
        """This entry is about to be renamed to that path, in this queue or another one."""
        now, home = self._system.time(), f"{self._layout.path}/"
        if destination.startswith(home):
            place = destination.removeprefix(home)
        else:  # hosts may have the mount at different places
            place = os.path.relpath(destination, self._layout.path)
        self._append("settled", now, f"\n{now:.3f} move {quoted(key)} {quoted(place)} .")

    def kept(self, key: str) -> None:
        """The entry was in other hands, so it did not end as was said."""
        now = self._system.time()
        self._append("settled", now, f"\n{now:.3f} kept {quoted(key)} .")

    def close(self) -> None:
        """Until the next record."""
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
                    if last or fault.errno not in (errno.EBADF, errno.EINVAL):  # else a handler has closed it
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
            from fcntl import F_DUPFD_CLOEXEC, fcntl  # a library of its own, for who keeps a journal only

            opened = self._open(kind, f"{time.strftime('%Y-%m-%d', time.gmtime(now))}.{self._writer}")
            try:
                descriptor = fcntl(opened, F_DUPFD_CLOEXEC, _HIGH)
                self._system.close(opened)
            except OSError:  # fewer are allowed
                descriptor = opened
            self._descriptors[kind] = descriptor
        return descriptor

    def _open(self, kind: Kind, stem: str) -> int:
        """The file that is shared, else one of this process's own: on NFS, and where another lies in the way."""
        system, rights = self._system, recording.record_rights(self._layout.path, self._system)
        place = (self._layout.path, ".maildefer", "journal")
        with folder.opened(*place, listing=False, system=system) as journal:
            if not (self._direct and kind == "settled") and rights.owner < 0:  # else it is given away
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
    """The queue's journal; None where none is kept, as was found at this process's first use of the queue.

    A model of a filesystem has none.
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
    """Keep a journal from now on, in processes that begin after this; False where one is kept already."""
    made = make_in(layout.path, recording.JOURNAL, SYSTEM)
    recording.let_record(layout.path)  # of one that root, or a umask, has shut, too
    if made:
        _journals.pop(layout.path, None)
    return made


def expect_records(layout: Layout, since: float | None = None) -> None:
    """Note that from now on every push is to have a record, and that the journal is kept since then, or before.

    The last such note counts. To the microsecond, as keys have it. Raises OSError.
    """
    now = time.time()
    day = time.strftime("%Y-%m-%d", time.gmtime(now))
    name = f"{day}.{host_name()}.{boot_name()}.{os.geteuid()}.{token(8)}.pushed"  # which all may read
    with folder.opened(layout.path, ".maildefer", "journal") as journal:
        rights = rights_in(layout.path)
        descriptor = journal.open(name, durable.NEW, rights.file_mode if rights.is_shared else 0o644)
        try:
            rights.give(descriptor)
            os.write(descriptor, f"\n{now:.6f} begin journal {since or now:.6f} .".encode())
        finally:
            os.close(descriptor)


def end_journal(layout: Layout) -> str | None:
    """Keep none from now on, whatever lies in it, and forget what was written; where the rest is. Raises OSError."""
    _journals.pop(layout.path, None)
    ended = f"journal-ended-{token(8)}"
    with folder.opened(layout.path, ".maildefer") as control:
        control.rename("journal", control, ended)
        with control.folder(ended) as journal:
            journal.remove(name for name in journal.names() if name.rpartition(".")[2] in KEPT_SECONDS)
        try:
            control.rmdir(ended)
        except OSError:  # a folder in it, for one, which may hold anything
            return f"{layout.control}/{ended}"
    return None


def close_journals() -> None:
    """Close this process's journals, and forget which queues keep one."""
    for journal in _journals.values():
        if journal is not None:
            journal.close()
    _journals.clear()


def host_name() -> str:
    """This host as it stands in names of files: letters, digits and dashes."""
    name = os.uname().nodename.partition(".")[0].lower()
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name)[:30] or "host"


def boot_name() -> str:
    """This boot of the host: what was written before another one, and not synced, may be gone."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read(8)
    except OSError:
        return "unknown"


def is_nfs(path: str) -> bool:
    """Whether an NFS mount holds it, as this process's mounts say; False where they don't."""
    try:
        device = os.stat(path).st_dev
        mark = f"{os.major(device)}:{os.minor(device)}"
        with open("/proc/self/mountinfo", errors="surrogateescape") as file:  # proc(5)
            lines = [line.split(" ") for line in file]
    except OSError:
        return False
    return any(line[2] == mark and line[line.index("-") + 1].startswith("nfs") for line in lines)


def quoted(text: str) -> str:
    """A field of a record: as it is, but for names of other writers that would break the line."""
    if text.isascii() and text.isprintable() and " " not in text and "%" not in text:
        return text
    return "".join(chr(c) if 0x21 <= c < 0x7F and c != 0x25 else f"%{c:02X}" for c in os.fsencode(text))


def unquoted(text: str) -> str:
    """The inverse."""
    if "%" not in text:
        return text
    first, *rest = text.encode().split(b"%")
    return os.fsdecode(first + b"".join(bytes([int(part[:2], 16)]) + part[2:] for part in rest))
