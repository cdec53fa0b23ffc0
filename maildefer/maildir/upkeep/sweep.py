"""Removing what crashes have left: drafts in `tmp/`, reasons without an entry, fenced leases, answered requests,
requests that no pool will answer, and markers that are over.

Each folder is opened once in a pass, since another user could put a link in its place; and in a folder that is removed,
only files with names of our own are deleted.
A file must be old by the mount's time, and the sweeper must have seen it for a while, since either clock may be wrong.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from maildefer.maildir import scan
from maildefer.maildir.control_folder import CONTROL_DRAFT, clear_control
from maildefer.maildir.idempotency.expire import Expirer
from maildefer.maildir.journal import KEPT_SECONDS as JOURNAL_SECONDS
from maildefer.maildir.layout import Layout
from maildefer.maildir.markers.drafts import clear_marker
from maildefer.maildir.markers.finder import MarkerFinder
from maildefer.maildir.markers.names import MARKER_DRAFT
from maildefer.maildir.names import EntryName, split_beat
from maildefer.maildir.reasons import reason_name
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.rights.folder import OURS, Folder, clear_draft, open_folder
from maildefer.maildir.system import SYSTEM, System

if TYPE_CHECKING:
    from maildefer.maildir.idempotency.effects import EffectSweeper
    from maildefer.maildir.outbox.sweep import OutboxSweeper

DRAFT_SECONDS = 36 * 3600.0  # Maildir's own figure
WATCHED_SECONDS = 3600.0
KEPT_SECONDS = (
    7 * 24 * 3600.0
)  # fenced leases, answered requests, reasons without an entry: for people who ask what happened
SENT_SECONDS = 31 * 24 * 3600.0  # records of recipients already served: longer than a message is tried
_JOURNAL_SECONDS: dict[str, float] = dict(JOURNAL_SECONDS.items())
PASS_SECONDS = 60.0
_BUSY_SECONDS = 3.0  # as long as there are answers to remove
_SWEEP_SECONDS = 900.0
_MOST = 10_000  # names that are watched in a folder at a time


class Sweeper:
    """The sweeps of one queue; one thread only. Each pass is bounded, so that it delays no other chore."""

    def __init__(
        self,
        layout: Layout,
        *,
        queues: Callable[[], Sequence[Layout]] = tuple,
        ended: set[str] | None = None,
        system: System = SYSTEM,
    ) -> None:
        """`queues` returns all of the project, in which a message may be that has done something before.

        `ended` is what the reclaimers of these queues add to.
        """
        self._layout = layout
        self._queues = queues
        self._effects: EffectSweeper | None = None
        self._outbox: OutboxSweeper | None = None
        self._ended: set[str] = set() if ended is None else ended
        self._system = confined_to(layout.path, system)
        self._first_seen: dict[str, float] = {}
        self._expirer = Expirer(layout, system=system)
        self._sweep_at = 0.0
        self.wait_seconds = PASS_SECONDS  # before the next pass

    def do_pass(self, mount_time: float) -> None:
        """Look at the next answers to requests, and sweep if it is time for that. Raises OSError."""
        now = self._system.boottime()
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_SECONDS
            self.sweep(mount_time)
        self.wait_seconds = PASS_SECONDS  # also if that fails now
        if self._expirer.expire(mount_time):
            self.wait_seconds = _BUSY_SECONDS

    def sweep(self, mount_time: float) -> int:
        """Sweep all folders once; returns how many files were removed. Faults of single files are ignored."""
        now, seen, removed = self._system.boottime(), dict[str, float](), 0
        for parts, seconds, is_over in self._folders():
            try:
                with open_folder(self._layout.path, *parts, system=self._system) as folder:
                    for name in filter(is_over, self._names(folder)):
                        path = "/".join((*parts, name))
                        if len(seen) < 4 * _MOST:
                            seen[path] = self._first_seen.get(path, now)
                        if now - seen.get(path, now) >= WATCHED_SECONDS:
                            removed += self._removed(folder, name, mount_time - seconds(name))
            except OSError:  # the folder is missing, or the next pass meets the fault again
                pass
        self._first_seen = seen
        removed += self._sweep_markers(mount_time) + self._sweep_rates(mount_time)
        return removed + self._sweep_effects(mount_time) + self._sweep_outbox(mount_time)

    def _sweep_effects(self, mount_time: float) -> int:
        if not self._listed(f"{self._layout.control}/once"):
            return 0
        if self._effects is None:  # a queue whose messages use no `once` never needs it
            from maildefer.maildir.idempotency.effects import EffectSweeper

            self._effects = EffectSweeper(self._layout, self._queues, system=self._system)
        with suppress(OSError):  # a queue is away: its messages may have done something
            return self._effects.expire(mount_time)
        return 0

    def _sweep_outbox(self, mount_time: float) -> int:
        if not self._listed(f"{self._layout.control}/outbox"):
            return 0
        if self._outbox is None:  # a queue to which no handlers send never needs it
            from maildefer.maildir.outbox.sweep import OutboxSweeper

            self._outbox = OutboxSweeper(self._layout, self._queues, self._ended, system=self._system)
        with suppress(OSError):  # as for effects; or a draft was published meanwhile
            return self._outbox.sweep(mount_time)
        return 0

    def _sweep_rates(self, mount_time: float) -> int:
        if not self._listed(self._layout.rates):
            return 0
        from maildefer.maildir.upkeep.rates import RateSweeper  # a queue without rates never needs it

        return RateSweeper(self._layout, system=self._system).sweep(mount_time)

    def _sweep_markers(self, mount_time: float) -> int:
        """Free markers that are over, and that no push has found; carry out what is left of a push."""
        removed, finder = 0, MarkerFinder(self._layout, system=self._system)
        for place in (f"{finder.folder}/{hashed}" for hashed in self._listed(finder.folder)[:_MOST]):
            with suppress(OSError):  # freed meanwhile; or the next pass meets the fault again
                is_old = self._system.lstat(place).st_mtime < mount_time - DRAFT_SECONDS
                if is_old and finder.found(place) is None:
                    self._system.rmdir(place)
                    removed += 1
        return removed

    def _folders(self) -> Iterator[tuple[tuple[str, ...], Callable[[str], float], Callable[[str], bool]]]:
        """Return each folder, how old a file of a name may become there, and which names may be removed at all."""
        leases = {beat[0] for name in self._listed(self._layout.leases) if (beat := split_beat(name))}
        control, any_name = ".maildefer", lambda name: name != "done"
        yield ("tmp",), lambda name: DRAFT_SECONDS, any_name
        yield (control, "fenced"), lambda name: KEPT_SECONDS, any_name
        yield (control, "requests", "done"), lambda name: KEPT_SECONDS, any_name
        yield (
            (control, "requests"),
            lambda name: DRAFT_SECONDS,
            lambda name: (
                name != "done" and name.rpartition(".")[0] not in leases
            ),  # no keeper is left to answer
        )
        yield (
            (control, "status"),
            lambda name: DRAFT_SECONDS,
            lambda name: name.removesuffix(".json") not in leases,
        )
        yield (
            (control, "journal"),
            lambda name: _JOURNAL_SECONDS[name.rpartition(".")[2]],
            lambda name: name.rpartition(".")[2] in _JOURNAL_SECONDS,
        )
        yield (control, "sent"), lambda name: SENT_SECONDS, any_name
        orphans = self._orphaned_reasons()
        yield (control, "dead"), lambda name: KEPT_SECONDS, lambda name: name in orphans

    def _names(self, folder: Folder) -> list[str]:
        return folder.names()[:_MOST]

    def _listed(self, path: str) -> list[str]:
        try:
            return self._system.listdir(path)
        except OSError:
            return []

    def _orphaned_reasons(self) -> set[str]:
        layout = self._layout
        orphans = set(self._listed(layout.reasons)[:_MOST])
        for folder in (layout.dead_new, layout.dead_cur, layout.new):  # there may be millions of these
            for entry in map(EntryName.parse, scan.entries(folder, system=self._system) if orphans else ()):
                orphans.discard(reason_name(entry))
        return orphans

    def _removed(self, folder: Folder, name: str, than: float) -> bool:
        """Remove a file that is older; returns whether it is gone. In a folder only our own files are removed."""
        try:
            facts = folder.lstat(name)
            if facts.st_mtime >= than:
                return False
            if not stat.S_ISDIR(facts.st_mode):
                folder.unlink(name)
                return True
            if not name.startswith((CONTROL_DRAFT, MARKER_DRAFT, *OURS)):
                return False
            with folder.folder(name) as draft:
                _empty(draft, name)
            folder.rmdir(name)
        except OSError:  # another sweep removed it, or the next pass meets the fault again
            return False
        return True


def _empty(draft: Folder, name: str) -> None:
    """Empty what a crash has left of a control folder, tokens or a marker in the making, or of the doctor's trials."""
    if name.startswith(CONTROL_DRAFT):
        clear_control(draft)
    elif name.startswith(MARKER_DRAFT):
        clear_marker(draft)
    else:
        clear_draft(draft, name)
