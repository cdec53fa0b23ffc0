"""Push: make an entry durable in `new/`, or in `.later/` until it is due, and only then return its key (I1)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from maildefer.errors import MaildeferError, QueueMissing, StaleHandle, raise_named
from maildefer.maildir import durable, names
from maildefer.maildir.drafts.entry import Compose as Compose
from maildefer.maildir.drafts.entry import Draft, UnsyncedEntry, draft_name, mark_priorities
from maildefer.maildir.drafts.entry import Planned as Planned
from maildefer.maildir.drafts.placer import DraftPlacer
from maildefer.maildir.drafts.synced import SyncedDrafts
from maildefer.maildir.due import clock_of, due_time
from maildefer.maildir.journal import Journal
from maildefer.maildir.layout import Layout, mend
from maildefer.maildir.system import SYSTEM, System

if TYPE_CHECKING:
    from datetime import datetime

SyncAll = Callable[[Sequence[int]], list[OSError | None]]
_TRIES = 5
_MOST_UNSYNCED = 32  # written before the first of them is synced; so many descriptors are open


class Pusher:
    """Pushes into one queue; any number of threads may use it, and share directory syncs. One for each process.

    >>> pusher = Pusher(layout, host="mx1-0a1b2c")           # doctest: +SKIP
    >>> key = pusher.push(lambda stem: [block(stem), data])  # doctest: +SKIP
    """

    _may_sync_once: ClassVar[bool] = True  # where the queue and its filesystem allow it

    def __init__(
        self,
        layout: Layout,
        *,
        host: str,
        system: System = SYSTEM,
        journal: Journal | None = None,
        sync_all: SyncAll | None = None,
    ) -> None:
        """`sync_all`: syncs the files of several entries, where there is a faster way than one after the other."""
        self.layout = layout
        self.host = host
        self._system = system
        self.placer = DraftPlacer(layout, journal=journal, system=system)
        self._synced = SyncedDrafts(layout, self.placer, may=self._may_sync_once)
        self._sync_all = sync_all or partial(durable.sync_all, system=system)
        self._clock = clock_of(layout, system)
        self._is_marked = False  # whether this process has said that entries here have priorities

    def due(self, *, after: float | None = None, at: datetime | None = None) -> int | None:
        """Return when a `Planned` entry is due, after so many seconds or at a time; None if at once.

        Raises TypeError and ValueError for what is no such time, StorageFault's kinds.
        """
        if after is None and at is None:
            return None
        try:
            return due_time(self._clock.now(), after=after, at=at)
        except FileNotFoundError as fault:  # of `tmp/`
            if self._mend_queue():
                return self.due(after=after, at=at)
            raise QueueMissing(self.layout.path) from fault
        except OSError as fault:
            raise_named(self.layout.tmp, fault)

    def push(self, compose: Compose) -> str:
        """Write what `compose(stem)` returns as one entry; the stem is the key without its size. Returns the key.

        When it returns, data and directory entry are on stable storage. When it raises (StorageFault's kinds,
        QueueMissing), nothing of it will be handled, except that a copy may be after a MountFault, or where the
        directory's sync failed and somebody had claimed it before it was withdrawn.
        A lost reply is settled without pushing twice, as long as nobody has swept `tmp/`.
        """
        key = self._place_entry(compose)
        self._sync([key])
        return key

    def draft(self, stem: str | None = None, *, due: int | None = None) -> Draft:
        """Begin an entry whose bytes come in parts; a compose that returns it makes `push_all` finish it."""
        stem = stem or names.fresh_stem(self.host, self._system, due)
        return Draft(self.layout, stem, rights=self.placer.rights, system=self._system)

    def push_all(self, composes: Sequence[Compose]) -> list[str | MaildeferError]:
        """Push several entries, with one sync of each folder: for each its key, or the error of its push or compose."""
        results: list[str | MaildeferError] = []
        for first in range(0, len(composes), _MOST_UNSYNCED):
            results += self._place_all(composes[first : first + _MOST_UNSYNCED])
        try:
            if placed := [result for result in results if isinstance(result, str)]:
                self._sync(placed)
        except MaildeferError as fault:
            return [fault if isinstance(result, str) else result for result in results]
        return results

    def push_together(self, composes: Sequence[Compose]) -> list[str]:
        """Push all entries, or none: after a fault those that are in place are withdrawn. Raises what `push` raises.

        If this process dies before the end, the first ones may stay; so does one that was claimed before it could be
        withdrawn.
        """
        results = self.push_all(composes)
        keys = [result for result in results if isinstance(result, str)]
        for fault in results:
            if isinstance(fault, MaildeferError):
                for key in keys:
                    self.withdraw(key)
                raise fault
        return keys

    def withdraw(self, key: str) -> None:
        """Remove an entry that was pushed and is not acknowledged yet; if it was claimed meanwhile it stays."""
        if self.placer.journal is not None:
            self.placer.journal.record_end("withdraw", key)
        try:
            self._system.unlink(self.place_of(key))
        except OSError:
            if self.placer.journal is not None:
                self.placer.journal.record_kept(key)

    def _place_entry(self, compose: Compose) -> str:
        """Write one entry and rename it into `new/`; not durable before the next sync."""
        for _ in range(_TRIES):
            begun = self._begin_entry(compose)
            if begun is not None:
                if self._sync_and_rename(begun):
                    return begun.key
                if begun.draft is not None:
                    break
        raise self._swept_fault()

    def _swept_fault(self) -> StaleHandle:
        gone = "files in tmp/ are taken away while being written"
        return StaleHandle(self.layout.tmp, OSError(errno.ESTALE, gone))

    def _place_all(self, composes: Sequence[Compose]) -> list[str | MaildeferError]:
        """Write all, sync all, rename each."""
        if len(composes) == 1:
            return [self._finish_entry(composes[0], None)]
        waiting: list[UnsyncedEntry] = []
        try:
            begun: list[UnsyncedEntry | MaildeferError | None] = []
            for compose in composes:
                try:
                    begun.append(one := self._begin_entry(compose))
                except MaildeferError as fault:
                    begun.append(fault)
                else:
                    waiting += [one] if one is not None else []
            for each in waiting:
                each.announce_sync(self._system)
            faults = iter(self._sync_all([each.descriptor for each in waiting]))
            results = []
            for compose, entry in zip(composes, begun, strict=True):
                synced = None
                if isinstance(entry, UnsyncedEntry):
                    waiting.pop(0)
                    synced = next(faults)
                results.append(self._finish_entry(compose, entry, synced))
            return results
        finally:
            for each in waiting:  # after an interrupt
                self._discard_entry(each)

    def _finish_entry(
        self, compose: Compose, begun: UnsyncedEntry | MaildeferError | None, fault: OSError | None = None
    ) -> str | MaildeferError:
        """Rename an entry that was begun and synced, or begin again; returns its key, or the fault."""
        try:
            if isinstance(begun, MaildeferError):
                return begun
            if begun is not None:
                if fault is not None:
                    self._discard_entry(begun)
                    raise_named(self.layout.tmp, fault)
                if self._rename_entry(begun):
                    return begun.key
                if begun.draft is not None:  # nothing is left from which to write it again
                    raise self._swept_fault()
            return self._place_entry(compose)  # not begun yet, or swept: written again
        except MaildeferError as fault:
            return fault

    def _begin_entry(self, compose: Compose) -> UnsyncedEntry | None:
        """Create the file and write it; None if the caller has to begin again.

        That is so if a file of that name exists, after a CREATE whose reply was lost, or if a folder was made again.
        """
        due, part = (compose.due, compose.part) if isinstance(compose, Planned) else (None, "")
        stem = names.fresh_stem(self.host, self._system, due, part)
        if part and not self._is_marked:
            mark_priorities(self.layout, self.placer.rights, self._system)
            self._is_marked = True
        chunks = compose(stem)
        if isinstance(chunks, Draft):
            self.placer.note_origin(chunks.key, chunks.head)
            return UnsyncedEntry(chunks.key, chunks.path, chunks.descriptor, chunks)
        data = b"".join(chunks)
        key = names.sized(stem, len(data))
        path = self._synced.path_of(key, data)
        path = path or f"{self.layout.tmp}/{draft_name(key, self.placer.rights)}"
        self.placer.note_origin(key, data)
        try:
            descriptor = durable.begin_file(path, data, rights=self.placer.rights, system=self._system)
            return UnsyncedEntry(key, path, descriptor, None)
        except FileExistsError:
            return None
        except OSError as fault:
            if self._synced.give_up(path, fault):
                return None
            if not isinstance(fault, FileNotFoundError):
                raise_named(self.layout.tmp, fault)
            if self._mend_queue():
                return None
            raise QueueMissing(self.layout.path) from fault

    def _sync_and_rename(self, begun: UnsyncedEntry) -> bool:
        """Sync and rename; False if it was swept before its rename, and has to be written again, under another key."""
        self._sync_file(begun)
        return self._rename_entry(begun)

    def _sync_file(self, begun: UnsyncedEntry) -> None:
        try:
            self._system.fsync(begun.descriptor)
        except BaseException as fault:
            self._discard_entry(begun)
            if isinstance(fault, OSError):
                raise_named(self.layout.tmp, fault)
            raise

    def _rename_entry(self, begun: UnsyncedEntry) -> bool:
        """Rename a synced entry into `new/`; False if it was swept."""
        try:
            is_moved = self._rename_draft(begun.path, begun.key, begun.descriptor)
            if begun.draft is not None and is_moved:
                self._synced.note_other(begun.key)
            return is_moved
        finally:
            begun.close(self._system)

    def _discard_entry(self, begun: UnsyncedEntry) -> None:
        begun.close(self._system)
        durable.discard(begun.path, self._system)

    def place_of(self, key: str) -> str:
        """Return where an entry is put."""
        return self.placer.place_of(key)

    def _sync(self, keys: Sequence[str]) -> None:
        try:
            self.placer.commit(keys, keys, are_durable=self._synced.are_durable(keys))
        except OSError as fault:
            for key in keys:  # not acknowledged, so withdrawn, unless they are claimed already
                durable.discard(self.place_of(key), self._system)
            raise_named(fault.filename or self._folder_of(keys[0]), fault)

    def _folder_of(self, key: str) -> str:
        return self.place_of(key).rpartition("/")[0]

    def _rename_draft(self, draft: str, key: str, descriptor: int) -> bool:
        try:
            self._system.rename(draft, self.placer.place_of(key))
        except OSError as fault:
            return self._was_moved(fault, draft, key, descriptor)
        return True

    def _was_moved(self, fault: OSError, draft: str, key: str, descriptor: int) -> bool:
        """Whether a draft is in its place after a doubtful reply: it is gone, and its file still has a link somewhere.

        A listing of `new/` can't tell: the entry may have been claimed, handled and unlinked by now.
        """
        try:
            return bool(self.placer.move_left([(draft, key)], fault)) or self._has_link(descriptor)
        except OSError as worse:
            durable.discard(draft, self._system)
            if worse.errno == errno.ENOENT:
                raise QueueMissing(self.layout.path) from worse
            raise_named(self._folder_of(key), worse)

    def _has_link(self, descriptor: int) -> bool:
        try:
            return self._system.fstat(descriptor).st_nlink > 0
        except OSError as fault:
            if fault.errno != errno.ESTALE:
                raise
            return False

    def _mend_queue(self) -> bool:
        """Whether a folder of the queue was missing, as after a clean-up of empty ones, and has been made again."""
        try:
            return mend(self.layout, system=self._system)
        except MaildeferError:  # the queue is gone, or the filesystem refuses: the first fault is raised
            return False
