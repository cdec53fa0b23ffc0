"""The last instant of a periodic task for which a call was pushed: one small file, whose name moves on by renames.

    periodic/workers.nightly.digest@5f0c…/1790000000,KEY     KEY is the entry of that instant's call
    periodic/workers.nightly.digest@5f0c…/1790000000,        none yet: the task began to be watched then

All hosts push a call for an instant in the same way: a durable draft in `tmp/`, then a rename of the file from the name
that was listed to INSTANT,KEY. No name comes back (I4), so one host's rename succeeds, and no late one ever will; the
others find in whose name the file is, and discard their drafts. Then the draft is renamed into `new/` by whoever finds
the file: by the host that won, by those that lost, or by the next keeper, and always before the file moves on. So each
instant has one entry, however many hosts there are and whichever of them die.

The folder is made complete and renamed into place, which the filesystem refuses if there is one: it is never empty.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from maildefer.maildir import doubt, durable, scan
from maildefer.maildir.drafts.entry import draft_name
from maildefer.maildir.drafts.folder import make_whole
from maildefer.maildir.drafts.placer import DraftPlacer
from maildefer.maildir.journal import journal_of
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import fresh_stem, sized
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.rights.folder import PERIODIC
from maildefer.maildir.rights.modes import make_in
from maildefer.maildir.system import SYSTEM, System

PAUSED: Final = ".paused"  # the end of the name of a mark: the task with that label is paused on all hosts
_LISTINGS: Final = 3  # a rename meanwhile may hide the one name of a folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """The last instant of a task, in Unix seconds, and the key of its entry; no key: none was pushed yet."""

    instant: int
    key: str

    @property
    def name(self) -> str:
        return f"{self.instant},{self.key}"


class Ticks:
    """The folders of the periodic tasks of one queue; for one thread. All calls raise OSError."""

    def __init__(self, layout: Layout, *, host: str, system: System = SYSTEM) -> None:
        self._layout = layout
        self._host = host
        self._system = confined_to(layout.path, system)
        self._placer = DraftPlacer(layout, system=self._system)

    def last(self, folder: str) -> Tick | None:
        """Return the last instant of the task with that folder, by a fresh listing; None if it has no folder."""
        path = f"{self._layout.periodic}/{folder}"
        for _ in range(_LISTINGS):
            try:
                names = doubt.fresh_listing(path, self._system)
            except FileNotFoundError:
                return None
            if found := list(filter(None, map(tick_in, names))):
                return max(found, key=lambda tick: tick.instant)
        return None  # `begin` replaces an empty folder, and is refused for one that holds other things

    def begin(self, folder: str, instant: int) -> Tick:
        """Make the folder of a task that begins then; if another host makes it first, return what that has."""
        layout, system, path = self._layout, self._system, f"{self._layout.periodic}/{folder}"
        make_in(layout.path, ".maildefer/periodic", system)
        make_whole(layout, PERIODIC, {f"{instant},": b""}, path, system=system)
        durable.sync_directory(layout.periodic, system=system)
        if (found := self.last(folder)) is None:
            raise FileExistsError(errno.EEXIST, "what is there tells no instant: remove it", path)
        return found

    def push(
        self, folder: str, before: Tick, instant: int, compose: Callable[[str], Sequence[bytes]]
    ) -> tuple[Tick, bool]:
        """Push the entry of an instant that follows `before`, unless another host does.

        Returns what is the last instant then, and whether this call made it so. What `before` names is finished.
        """
        system = self._system
        stem = fresh_stem(self._host, system)
        data = b"".join(compose(stem))
        key = sized(stem, len(data))
        draft = self._draft_of(key)
        durable.write_new(draft, data, rights=self._placer.rights, system=system)
        tick = self.move(folder, before, Tick(instant=instant, key=key))
        if tick.key == key:
            self._look_for_journal()
            self._placer.note_origin(key, data)
        else:
            durable.discard(draft, system)
        self.finish(tick)
        return tick, tick.key == key

    def move(self, folder: str, before: Tick, tick: Tick) -> Tick:
        """Move the file on from `before`; returns where it is now, which may be another host's doing.

        After a refusal nothing will come of it, so the draft goes; after any other fault it may yet be done.
        """
        path = f"{self._layout.periodic}/{folder}"
        try:
            self._system.rename(f"{path}/{before.name}", f"{path}/{tick.name}")
        except OSError as fault:
            if fault.errno not in doubt.DOUBTFUL:
                if tick.key != before.key:
                    durable.discard(self._draft_of(tick.key), self._system)
                raise
            found = self.last(folder)
            if found is None or found == before:
                raise
            tick = found
        durable.sync_directory(path, system=self._system)  # before the entry's own rename is
        return tick

    def finish(self, tick: Tick) -> None:
        """Put the entry into `new/`, unless that was done: by the host that made it, or by any other."""
        if tick.key:
            self._look_for_journal()
            self._placer.finish([(self._draft_of(tick.key), tick.key)])

    def _look_for_journal(self) -> None:
        """Look anew: a keeper lives long, and may have begun before the queue, or its journal, was made."""
        self._placer.journal = journal_of(self._layout, self._system)

    def has_ended(self, tick: Tick) -> bool:
        """Whether the entry is in no folder from which it is handled, as far as listings show."""
        layout, system = self._layout, self._system
        # In the order in which entries move, once round, so that none moves past the look.
        for path in (layout.new, layout.cur, layout.later_new, layout.later_cur, layout.new, layout.cur):
            if scan.has_entry(path, tick.key, system=system):
                return False
        return True

    def paused(self) -> set[str]:
        """Return the labels of the tasks that are paused, by a fresh listing."""
        try:
            names = doubt.fresh_listing(self._layout.periodic, self._system)
        except FileNotFoundError:
            return set()
        return {name.removesuffix(PAUSED) for name in names if name.endswith(PAUSED)}

    def pause(self, label: str) -> bool:
        """Make the mark that pauses a task on all hosts; False if there is one."""
        make_in(self._layout.path, ".maildefer/periodic", self._system)
        try:
            mark = f"{self._layout.periodic}/{label}{PAUSED}"
            durable.write_new(mark, b"", rights=self._placer.rights, system=self._system)
        except FileExistsError:
            return False
        durable.sync_directory(self._layout.periodic, system=self._system)
        return True

    def resume(self, label: str) -> bool:
        """Remove the mark; False if there is none."""
        try:
            self._system.unlink(f"{self._layout.periodic}/{label}{PAUSED}")
        except FileNotFoundError:
            return False
        durable.sync_directory(self._layout.periodic, system=self._system)
        return True

    def _draft_of(self, key: str) -> str:
        return f"{self._layout.tmp}/{draft_name(key, self._placer.rights)}"


def tick_in(name: str) -> Tick | None:
    """Return what the name of a file says; None for a name that we have not made."""
    instant, comma, key = name.partition(",")
    if comma and instant.isascii() and instant.isdecimal() and len(instant) <= 11 and "/" not in key:
        return Tick(instant=int(instant), key=key)
    return None
