"""The state store that processes and hosts share: a directory on the mount, a small file for each conversation.

A file's name is `HASH,VERSION.RANDOM`, in one of 4,096 folders by the hash's first digits. It is found by listing that
folder after a change of one's own, and never comes back (I4): decision 10 says why.

A conversation is handled by one worker at a time (its token), so no two write at once. Where two do (`@nolocking`), the
highest version counts, and no reader ever sees a torn file.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from maildefer.digest import blake2b
from maildefer.errors import raise_named
from maildefer.handling.handler_marks import FIRST_STATE
from maildefer.handling.project.queue_paths import located, redirected, refuse_to_empty
from maildefer.handling.state.storage import EntryStorage
from maildefer.maildir import durable
from maildefer.maildir.rights.modes import PLAIN, make_in
from maildefer.maildir.system import SYSTEM, System

_TRIES = 20
_MOST_ENTRIES = 256
_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """A file's content: the state, and which entry moved the conversation to it from which state."""

    key: str
    sender: str | None
    state: str
    previous: str
    entry: str | None


class DirectoryStorage(EntryStorage):
    """States under `path`, of the project's where relative, made at the first write (its parent must be there).

    May be used by any number of threads, processes and hosts, and across a fork. A file's data is synced before its
    rename, so that a power cut leaves the old state or the new one, never an empty file; the rename isn't, as no
    transition's is. Raises the named `StorageFault` if the filesystem refuses.
    """

    def __init__(self, path: str, *, system: System = SYSTEM) -> None:
        self._place = located(path)
        self._system = system
        self._moved: dict[str, dict[str, str]] = {}  # entry that is being handled → conversation → state

    @property
    def path(self) -> str:
        """The folder of the states; in tests, one in their store."""
        return redirected(self._place)

    def get(self, key: str, sender: str | None) -> str:
        record = self._read(key, sender)
        return FIRST_STATE if record is None else record.state

    def set(self, key: str, sender: str | None, state: str) -> None:
        self._write(_Record(key=key, sender=sender, state=state, previous=state, entry=None))

    def end_attempt(self, entry: str) -> None:
        self._moved.pop(entry, None)

    def get_for_entry(self, key: str, sender: str | None, entry: str) -> str:
        mine = self._moved.get(entry, {}).get(_digest(key, sender))
        if mine is not None:
            return mine
        record = self._read(key, sender)
        if record is None:
            return FIRST_STATE
        return record.previous if record.entry == entry else record.state

    def set_for_entry(self, key: str, sender: str | None, state: str, entry: str) -> None:
        record = self._read(key, sender)
        if record is None:
            previous = FIRST_STATE
        else:
            previous = record.previous if record.entry == entry else record.state
        self._write(_Record(key=key, sender=sender, state=state, previous=previous, entry=entry))
        # The oldest is of a caller that never called `end_attempt`.
        if entry not in self._moved and len(self._moved) >= _MOST_ENTRIES:
            self._moved.pop(next(iter(self._moved)), None)
        self._moved.setdefault(entry, {})[_digest(key, sender)] = state

    def begin_for_entry(self, key: str, sender: str | None, state: str, entry: str) -> None:
        self._write(_Record(key=key, sender=sender, state=state, previous=state, entry=entry))

    def clear(self) -> None:
        refuse_to_empty(self.path)
        for bucket in self._list(self.path):
            for name in self._list(f"{self.path}/{bucket}"):
                durable.discard(f"{self.path}/{bucket}/{name}", self._system)

    def conversations(self) -> Iterator[tuple[str, str | None]]:
        """The key and sender of each conversation that is not in `START`; changes meanwhile may be missed."""
        seen = set()
        for bucket in self._list(self.path):
            for name in self._list(f"{self.path}/{bucket}"):
                record = self._recorded(f"{self.path}/{bucket}/{name}")
                if record is not None and (found := (record.key, record.sender)) not in seen:
                    seen.add(found)
                    if self.get(*found) != FIRST_STATE:
                        yield found

    def _recorded(self, path: str) -> _Record | None:
        try:
            return _record(durable.read_small(path, limit_bytes=_LIMIT_BYTES, system=self._system))
        except OSError:  # replaced since the listing, or not one of our files
            return None

    def _read(self, key: str, sender: str | None) -> _Record | None:
        digest = _digest(key, sender)
        bucket = f"{self.path}/{digest[:3]}"
        for _ in range(_TRIES):
            # Listed twice where nothing is found: a listing that runs beside a write may show neither name (I10).
            names = self._versions(bucket, digest) or self._versions(bucket, digest)
            try:
                return self._newest(bucket, names, key, sender)
            except (FileNotFoundError, InterruptedError):  # replaced since the listing: list again
                continue
            except OSError as fault:
                if fault.errno != errno.ESTALE:
                    raise_named(bucket, fault)
        raise_named(bucket, OSError(errno.ESTALE, os.strerror(errno.ESTALE)))

    def _newest(
        self, bucket: str, names: list[tuple[int, str]], key: str, sender: str | None
    ) -> _Record | None:
        for _, name in names:
            data = durable.read_small(f"{bucket}/{name}", limit_bytes=_LIMIT_BYTES, system=self._system)
            if (record := _parse(data, key, sender)) is not None:
                return record
        return None

    def _write(self, record: _Record) -> None:
        digest = _digest(record.key, record.sender)
        bucket = f"{self.path}/{digest[:3]}"
        old = self._versions(bucket, digest)
        if record.state != FIRST_STATE or record.previous != FIRST_STATE:
            version = old[0][0] + 1 if old else 0
            random = self._system.token(6)
            data = json.dumps(asdict(record)).encode()
            self._make(bucket)
            try:
                durable.write_new(f"{bucket}/.{random}", data, system=self._system)
                self._system.rename(f"{bucket}/.{random}", f"{bucket}/{digest},{version}.{random}")
            except OSError as fault:
                raise_named(bucket, fault)
        for _, name in old:
            durable.discard(f"{bucket}/{name}", self._system)

    def _versions(self, bucket: str, digest: str) -> list[tuple[int, str]]:
        """The conversation's files, newest first: more than one only during a write or after a crash in it."""
        try:
            self._system.utime(bucket)  # a change of one's own drops an NFSv3 client's stale listing
        except OSError:
            pass  # not there yet, or read-only: the listing tells which
        found = []
        for name in self._list(bucket):
            if name.startswith(digest):
                version = name[len(digest) + 1 :].partition(".")[0]
                if version.isdecimal():
                    found.append((int(version), name))
        return sorted(found, reverse=True)

    def _list(self, path: str) -> list[str]:
        try:
            return self._system.listdir(path)
        except FileNotFoundError:  # no conversation yet
            return []
        except OSError as fault:
            raise_named(path, fault)

    def _make(self, bucket: str) -> None:
        queue, control = os.path.split(os.path.dirname(self.path))  # if it is the folder of a queue
        try:
            try:
                self._system.mkdir(bucket, PLAIN.folder_mode)
            except FileNotFoundError:  # the first conversation
                make_in(queue, f"{control}/{os.path.basename(self.path)}", self._system)
                self._system.mkdir(bucket, PLAIN.folder_mode)
        except FileExistsError:  # the ordinary case
            pass
        except OSError as fault:
            raise_named(bucket, fault)


def _digest(key: str, sender: str | None) -> str:
    """A file name of one length, safe whatever an address holds."""
    return blake2b(ascii([key, sender]).encode(), digest_size=20).hexdigest()


def _parse(data: bytes, key: str, sender: str | None) -> _Record | None:
    record = _record(data)
    return record if record is not None and (record.key, record.sender) == (key, sender) else None


def _record(data: bytes) -> _Record | None:
    """The record in a file; None for a damaged file, which counts as absent."""
    try:
        return _Record(**json.loads(data))
    except (ValueError, TypeError, RecursionError):
        return None
