"""Pushes the entries of a request once, however often it comes, and returns the same keys each time.

    .maildefer/idempotency/3f/3f2a…/FINGERPRINT     a line for each entry: its name in tmp/, and its key

A request is known by a name of 32 hex digits; by the fingerprint it is known for the same.

1. All of its entries are written to `tmp/`, their data and names durable.
2. A marker, a folder with one file that names them, is made in `tmp/` and renamed to the request's name. No rename
   replaces a folder that is not empty: of all processes and hosts that try, one gets the name.
3. The entries that the marker names are renamed into place, by whoever finds it, since who has made it may be dead.
   A draft's name is nobody else's: what is not in `tmp/` any more was renamed before, wherever it is by now (I4).
4. The keys in the marker are the answer.

A death before 2 leaves drafts for the sweep, and no entry. What one after it has left undone, the next request does.
The reply of 2 may be lost, and it may come late: the marker's content tells whose it is, and what it names is discarded
only once it can't get into its place any more. None is withdrawn after 2.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from maildefer.errors import raise_named
from maildefer.maildir import doubt, durable
from maildefer.maildir.draft import Draft
from maildefer.maildir.durable import DirectorySync
from maildefer.maildir.journal import journal_of
from maildefer.maildir.layout import mend
from maildefer.maildir.push import Pusher
from maildefer.maildir.rights.folder import ONCE, clear_answer, open_folder
from maildefer.maildir.rights.modes import make_for_group, rights_in
from maildefer.maildir.system import SYSTEM, System

_MOST_BYTES: Final = 1 << 20
_TRIES: Final = 5
_LINE: Final = re.compile(r"([^/ ]+) ([^/ ]+)").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is known of a request: its fingerprint, and of each entry the name in `tmp/` and the key."""

    fingerprint: str
    entries: tuple[tuple[str, str], ...]
    is_repeated: bool
    """Whether a request before this one has made the entries."""


class OncePusher:
    """Pushes requests into one queue; any thread. One for each process. Raises StorageFault's kinds, QueueMissing."""

    def __init__(self, pusher: Pusher, *, system: System = SYSTEM) -> None:
        layout = self._layout = pusher.layout
        self._folder = f"{layout.control}/idempotency"
        self._pusher = pusher
        self._system = system
        folders = layout.tmp, layout.new, layout.later_new
        self._syncs = {folder: DirectorySync(folder, system=system) for folder in folders}
        self._durable: set[str] = set()  # folders of markers whose names this process has synced

    def push(self, name: str, fingerprint: str, write: Callable[[], Sequence[Draft]]) -> Answer:
        """Push what `write` returns, synced and closed, unless it is pushed already; durable when it returns (I1).

        An answer with another fingerprint is another request's, which has the same name.
        """
        marker = f"{self._folder}/{name[:2]}/{name}"
        answer = self._read(marker)
        if answer is None:
            answer = self._place(marker, fingerprint, write())
        if answer.fingerprint == fingerprint:
            self._finish(marker, answer)
        return answer

    def _read(self, marker: str, *, touch: bool = False) -> Answer | None:
        """Read a marker; `touch` changes its folder first, so that no look-up of an NFS client's cache answers."""
        system = self._system
        try:
            if touch:
                system.utime(marker.rpartition("/")[0])
            for name in system.listdir(marker):
                if not name.startswith("."):
                    text = durable.read_small(f"{marker}/{name}", limit_bytes=_MOST_BYTES, system=system)
                    found = [_LINE(line) for line in text.decode("ascii", "replace").splitlines()]
                    entries = tuple((each[1], each[2]) for each in found if each)
                    if len(entries) < len(found) or not found:
                        raise OSError(errno.EBADMSG, "it names no entries")
                    return Answer(fingerprint=name, entries=entries, is_repeated=True)
        except FileNotFoundError:  # the ordinary case, or it was removed meanwhile
            pass
        except OSError as fault:
            raise_named(marker, fault)
        return None

    def _place(self, marker: str, fingerprint: str, drafts: Sequence[Draft]) -> Answer:
        """Make the marker, or find another's; then the drafts are of no use."""
        entries = tuple((draft.path.rpartition("/")[2], draft.key) for draft in drafts)
        mine = Answer(fingerprint=fingerprint, entries=entries, is_repeated=False)
        made = f"{ONCE}{self._system.token(8)}"
        found: Answer | None = None
        is_sent = False
        try:
            self._syncs[self._layout.tmp].sync()
            self._make(made, mine)
            for _ in range(_TRIES):
                try:
                    is_sent = True
                    self._system.rename(f"{self._layout.tmp}/{made}", marker)
                    found = mine
                except OSError as fault:
                    found = self._after(fault, marker, mine)
                if found is not None:
                    return found
            raise OSError(errno.ESTALE, "folders are taken away while being written")
        except OSError as fault:
            raise_named(marker, fault)
        finally:
            if found is not mine:
                self._discard(made, drafts, is_sent=is_sent)

    def _after(self, fault: OSError, marker: str, mine: Answer) -> Answer | None:
        """Return the marker that is there after a rename that failed; None to try again."""
        bucket, _, _ = marker.rpartition("/")
        if fault.errno == errno.ENOENT:
            self._make_bucket(bucket)
        found = self._read(marker, touch=True)
        by_a_sweep = {errno.ENOENT, *doubt.NOT_EMPTY}  # which has removed it meanwhile
        if found is None and fault.errno not in by_a_sweep:
            raise fault
        return mine if found is not None and found.entries == mine.entries else found

    def _make(self, made: str, answer: Answer) -> None:
        """Make a marker in `tmp/`, durable."""
        layout, system = self._layout, self._system
        path = f"{layout.tmp}/{made}"
        text = "".join(f"{name} {key}\n" for name, key in answer.entries).encode()

        def fill() -> None:
            rights = rights_in(layout.path, system)
            durable.write_new(f"{path}/{answer.fingerprint}", text, rights=rights, system=system)

        if not make_for_group(layout.path, f"tmp/{made}", system, fill):  # after a MKDIR whose reply was lost
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        durable.sync_directory(path, system=system)

    def _make_bucket(self, bucket: str) -> None:
        layout = self._layout
        below = bucket.removeprefix(f"{layout.path}/")
        try:
            make_for_group(layout.path, below, self._system)
        except FileNotFoundError:
            if not mend(layout, system=self._system):
                raise
            make_for_group(layout.path, below, self._system)

    def _discard(self, made: str, drafts: Sequence[Draft], *, is_sent: bool) -> None:
        """Remove a marker that was not placed, and then what it names.

        If its rename was sent, it is renamed away before: where that succeeds, no late copy of the other finds it, and
        nobody has read it. Else all stays, as it may be in its place, or get there: a sweep removes what is left.
        """
        if is_sent:
            gone = f"{ONCE}{self._system.token(8)}"
            try:
                self._system.rename(f"{self._layout.tmp}/{made}", f"{self._layout.tmp}/{gone}")
            except OSError:
                return
            made = gone
        try:
            with open_folder(self._layout.path, "tmp", system=self._system) as tmp:
                with tmp.folder(made) as marker:
                    clear_answer(marker)
                tmp.rmdir(made)
        except OSError:  # it was not made, or a sweep removes it
            pass
        for draft in drafts:
            draft.discard()

    def _finish(self, marker: str, answer: Answer) -> None:
        """Rename what was not renamed before, once the marker is durable, and make it durable."""
        bucket = marker.rpartition("/")[0]
        try:
            if bucket not in self._durable:  # whoever has made these may have died before that
                with suppress(PermissionError):  # a front end may not look into it
                    durable.sync_directory(self._layout.control, system=self._system)
                durable.sync_directory(self._folder, system=self._system)
                self._durable.add(bucket)
            durable.sync_directory(bucket, system=self._system)
            placed = self._rename_all(answer.entries)
            places = [self._pusher.place_of(key) for _, key in answer.entries]
            for folder in {place.rpartition("/")[0] for place in places}:
                self._syncs[folder].sync()
        except OSError as fault:
            raise_named(self._layout.new, fault)
        if placed and (journal := journal_of(self._layout, self._system)) is not None:
            journal.record_pushes(placed)

    def _rename_all(self, entries: Sequence[tuple[str, str]]) -> list[str]:
        """Return the keys of those that this call has renamed. Raises OSError."""
        placed, last = list[str](), OSError()
        for _ in range(_TRIES):
            failed = []
            for name, key in entries:
                try:
                    self._system.rename(f"{self._layout.tmp}/{name}", self._pusher.place_of(key))
                    placed.append(key)
                except OSError as fault:
                    if fault.errno not in doubt.DOUBTFUL:
                        raise
                    failed.append((name, key))
                    last = fault
            if not failed:
                return placed
            there = set(doubt.fresh_listing(self._layout.tmp, self._system))
            entries = [entry for entry in failed if entry[0] in there]
            if not entries:
                return placed
            mend(self._layout, system=self._system)
        raise last
