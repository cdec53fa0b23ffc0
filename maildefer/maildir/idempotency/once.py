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
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from maildefer.errors import raise_named
from maildefer.maildir import durable
from maildefer.maildir.drafts.entry import Draft
from maildefer.maildir.drafts.folder import FolderDraft
from maildefer.maildir.layout import mend
from maildefer.maildir.push import Pusher
from maildefer.maildir.rights.folder import ONCE
from maildefer.maildir.rights.modes import GROUPS_FOLDER_MODE, make_for_group
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
        self._sync_drafts = durable.DirectorySync(layout.tmp, system=system).sync
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
            moved = set(self._finish(marker, answer))
            self._pusher.placer.note_repeated([key for _, key in answer.entries if key not in moved])
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
        text = "".join(f"{name} {key}\n" for name, key in entries).encode()
        made, found, layout = None, None, self._layout
        try:
            self._sync_drafts()
            made = FolderDraft(layout, ONCE, mode=GROUPS_FOLDER_MODE, system=self._system)
            made.write({fingerprint: text})
            for _ in range(_TRIES):
                if (found := self._placed(made, marker, mine)) is not None:
                    for draft in drafts if found is mine else ():
                        self._pusher.placer.note_origin(draft.key, draft.head)
                    return found
            raise OSError(errno.ESTALE, "folders are taken away while being written")
        except OSError as fault:
            raise_named(marker, fault)
        finally:
            if found is not mine and (made is None or made.discard()):
                for draft in drafts:
                    draft.discard()

    def _placed(self, made: FolderDraft, marker: str, mine: Answer) -> Answer | None:
        """Rename a marker into its place; returns that which is there then, or None to try again."""
        bucket = marker.rpartition("/")[0]
        if made.place(marker, lambda: self._make_bucket(bucket)) and not made.is_doubted:
            return mine
        found = self._read(marker, touch=True)
        return mine if found is not None and found.entries == mine.entries else found

    def _make_bucket(self, bucket: str) -> None:
        layout = self._layout
        below = bucket.removeprefix(f"{layout.path}/")
        try:
            make_for_group(layout.path, below, self._system)
        except FileNotFoundError:
            if not mend(layout, system=self._system):
                raise
            make_for_group(layout.path, below, self._system)

    def _finish(self, marker: str, answer: Answer) -> list[str]:
        """Rename what was not renamed before, once the marker is durable, and make it durable; returns those keys."""
        bucket = marker.rpartition("/")[0]
        try:
            if bucket not in self._durable:  # whoever has made these may have died before that
                with suppress(PermissionError):  # a front end may not look into it
                    durable.sync_directory(self._layout.control, system=self._system)
                durable.sync_directory(self._folder, system=self._system)
                self._durable.add(bucket)
            durable.sync_directory(bucket, system=self._system)
            tmp = self._layout.tmp
            return self._pusher.placer.finish([(f"{tmp}/{name}", key) for name, key in answer.entries])
        except OSError as fault:
            raise_named(self._layout.new, fault)
