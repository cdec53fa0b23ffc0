"""Push: make an entry durable in `new/`, and only then say so (I1)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from maildefer.errors import (
    MaildeferError,
    QueueMissing,
    StaleHandle,
    StorageFault,
    raise_named,
    storage_fault,
)
from maildefer.maildir import doubt, durable, names
from maildefer.maildir.draft import Draft
from maildefer.maildir.journal import Journal, journal_of
from maildefer.maildir.layout import Layout, mend
from maildefer.maildir.rights.modes import Rights, rights_in
from maildefer.maildir.system import SYSTEM, System

SyncAll = Callable[[Sequence[int]], list[OSError | None]]
Compose = Callable[[str], Sequence[bytes | memoryview] | Draft]
_TRIES = 5
_MOST_UNSYNCED = 32  # written before the first of them is synced; so many descriptors are open


class _Begun(NamedTuple):
    """An entry in `tmp/` that is not synced yet; `draft` where it can't be written anew."""

    key: str
    path: str
    descriptor: int
    draft: Draft | None

    def close(self, system: System) -> None:
        if self.draft is not None:
            self.draft.close()
        else:
            system.close(self.descriptor)

    def announce_sync(self, system: System) -> None:
        if self.draft is not None:
            self.draft.announce_sync()
        else:
            durable.announce_sync(self.descriptor, system)


class Pusher:
    """Pushes into one queue; any number of threads may, and share directory syncs. One for each process.

    >>> pusher = Pusher(layout, host="mx1-0a1b2c")           # doctest: +SKIP
    >>> key = pusher.push(lambda stem: [block(stem), data])  # doctest: +SKIP
    """

    def __init__(
        self,
        layout: Layout,
        *,
        host: str,
        system: System = SYSTEM,
        journal: Journal | None = None,
        sync_all: SyncAll | None = None,
    ) -> None:
        """`sync_all`: syncs the files of several entries where there is a better way than one after the other."""
        self.layout = layout
        self._host = host
        self._system = system
        self._journal = journal or journal_of(layout, system)
        self._sync_all = sync_all or partial(durable.sync_all, system=system)
        self._commit = durable.DirectorySync(layout.new, system=system)
        self._known_rights: Rights | None = None

    @property
    def _rights(self) -> Rights:
        """As they were at the first push: no look at the queue's folder for each."""
        if self._known_rights is None:
            self._known_rights = rights_in(self.layout.path, self._system)
        return self._known_rights

    def push(self, compose: Compose) -> str:
        """Write what `compose(stem)` returns as one entry; the stem is the key without its size. Returns the key.

        When it returns, data and directory entry are on stable storage. When it raises (StorageFault's kinds,
        QueueMissing), nothing of it will be handled, except that a copy may be after a MountFault, or where the
        directory's sync failed and somebody had claimed it before it was withdrawn.
        A lost reply is settled without pushing twice, as long as nobody has swept `tmp/`.
        """
        key = self._placed(compose)
        self._sync([key])
        return key

    def draft(self, stem: str | None = None) -> Draft:
        """Begin an entry whose bytes come in parts; a compose that returns it makes `push_all` finish it."""
        stem = stem or names.fresh_stem(self._host, self._system)
        return Draft(self.layout, stem, rights=self._rights, system=self._system)

    def push_all(self, composes: Sequence[Compose]) -> list[str | MaildeferError]:
        """Push several entries with one directory sync: for each its key, or what `push` would have raised for it.

        Also what `compose` raises, as far as it is an error of this package.
        """
        results: list[str | MaildeferError] = []
        for first in range(0, len(composes), _MOST_UNSYNCED):
            results += self._all_placed(composes[first : first + _MOST_UNSYNCED])
        try:
            if placed := [result for result in results if isinstance(result, str)]:
                self._sync(placed)
        except MaildeferError as fault:
            return [fault if isinstance(result, str) else result for result in results]
        return results

    def withdraw(self, key: str) -> None:
        """Take back what was pushed and is not acknowledged yet; what somebody has claimed meanwhile stays."""
        if self._journal is not None:
            self._journal.ends("withdraw", key)
        try:
            self._system.unlink(f"{self.layout.new}/{key}")
        except OSError:
            if self._journal is not None:
                self._journal.kept(key)

    def _placed(self, compose: Compose) -> str:
        """Write one entry and rename it into `new/`; not durable before the next sync."""
        for _ in range(_TRIES):
            begun = self._begun(compose)
            if begun is not None:
                if self._completed(begun):
                    return begun.key
                if begun.draft is not None:
                    break
        raise self._swept()

    def _swept(self) -> StaleHandle:
        fault = OSError(errno.ESTALE, "files in tmp/ are taken away while being written")
        return StaleHandle(self.layout.tmp, fault)

    def _all_placed(self, composes: Sequence[Compose]) -> list[str | MaildeferError]:
        """Write all, sync all, rename each."""
        if len(composes) == 1:
            return [self._tried(composes[0], None)]
        waiting: list[_Begun] = []
        try:
            begun: list[_Begun | MaildeferError | None] = []
            for compose in composes:
                try:
                    begun.append(one := self._begun(compose))
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
                if isinstance(entry, _Begun):
                    waiting.pop(0)
                    synced = next(faults)
                results.append(self._tried(compose, entry, synced))
            return results
        finally:
            for each in waiting:  # after an interrupt
                self._undo(each)

    def _tried(
        self, compose: Compose, begun: _Begun | MaildeferError | None, fault: OSError | None = None
    ) -> str | MaildeferError:
        """With what has been begun, and synced, unless that was at fault."""
        try:
            if isinstance(begun, MaildeferError):
                return begun
            if begun is not None:
                if fault is not None:
                    self._undo(begun)
                    raise_named(self.layout.tmp, fault)
                if self._renamed(begun):
                    return begun.key
                if begun.draft is not None:  # of which nothing is left to be written anew
                    raise self._swept()
            return self._placed(compose)  # or written anew
        except MaildeferError as fault:
            return fault

    def _begun(self, compose: Compose) -> _Begun | None:
        """Create and write it; None where it is to be begun anew.

        A file of that name was there: a CREATE whose reply was lost. Or `tmp/` was not, and has been made again.
        """
        stem = names.fresh_stem(self._host, self._system)
        chunks = compose(stem)
        if isinstance(chunks, Draft):
            return _Begun(chunks.key, chunks.path, chunks.descriptor, chunks)
        data = b"".join(chunks)
        key = names.sized(stem, len(data))
        path = f"{self.layout.tmp}/{key}"
        try:
            return _Begun(key, path, self._written(path, data), None)
        except FileNotFoundError as fault:
            if self._is_mended():
                return None
            raise QueueMissing(self.layout.path) from fault
        except FileExistsError:
            return None
        except OSError as fault:
            raise_named(self.layout.tmp, fault)

    def _written(self, path: str, data: bytes) -> int:
        return durable.begin_file(path, data, rights=self._rights, system=self._system)

    def _completed(self, begun: _Begun) -> bool:
        """Sync and rename; False when it was swept before its rename, and has to be written anew, under another key."""
        self._sync_file(begun)
        return self._renamed(begun)

    def _sync_file(self, begun: _Begun) -> None:
        try:
            self._system.fsync(begun.descriptor)
        except BaseException as fault:
            self._undo(begun)
            if isinstance(fault, OSError):
                raise_named(self.layout.tmp, fault)
            raise

    def _renamed(self, begun: _Begun) -> bool:
        """What is synced; False where it was swept."""
        try:
            return self._moved(begun.path, begun.key, begun.descriptor)
        finally:
            begun.close(self._system)

    def _undo(self, begun: _Begun) -> None:
        begun.close(self._system)
        durable.discard(begun.path, self._system)

    def _sync(self, keys: Sequence[str]) -> None:
        try:
            self._commit.sync()
        except OSError as fault:
            for key in keys:  # not accepted, so withdrawn, but for those that are claimed already
                durable.discard(f"{self.layout.new}/{key}", self._system)
            raise_named(self.layout.new, fault)
        if self._journal is not None:
            self._journal.pushed(keys)

    def _moved(self, draft: str, key: str, descriptor: int) -> bool:
        try:
            self._system.rename(draft, f"{self.layout.new}/{key}")
        except OSError as fault:
            return self._was_placed(fault, draft, key, descriptor)
        return True

    def _was_placed(self, fault: OSError, draft: str, key: str, descriptor: int) -> bool:
        """Settle a rename's doubtful reply: the draft gone and its file still linked somewhere means that it is done.

        Not by looking in `new/`: the entry may have been claimed, handled and unlinked by now.
        """
        system = self._system
        if fault.errno not in doubt.DOUBTFUL:
            durable.discard(draft, system)
            raise_named(self.layout.new, fault)
        try:
            if doubt.listed(self.layout.tmp, draft.rpartition("/")[2], system):
                if fault.errno == errno.ENOENT and self._is_mended():  # new/ was not there
                    return self._moved(draft, key, descriptor)
                durable.discard(draft, system)
                raise self._not_placed(fault)
            return system.fstat(descriptor).st_nlink > 0
        except OSError as worse:
            if worse.errno == errno.ESTALE:
                return False
            durable.discard(draft, system)
            if worse.errno == errno.ENOENT:
                raise QueueMissing(self.layout.path) from worse
            raise_named(self.layout.tmp, worse)

    def _is_mended(self) -> bool:
        """Whether a folder of the queue was missing, as after a clean-up of empty ones, and has been made again."""
        try:
            return mend(self.layout, system=self._system)
        except MaildeferError:  # there is no queue any more, or the filesystem refuses: the first fault tells
            return False

    def _not_placed(self, fault: OSError) -> QueueMissing | StorageFault:
        if fault.errno == errno.ENOENT:
            return QueueMissing(self.layout.path)  # new/ is not there
        return storage_fault(self.layout.new, fault)
