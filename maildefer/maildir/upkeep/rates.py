"""Slots of rates: no more than so many starts in any period, on all hosts together.

    rates/HASH/17,d=1700000060123,u=RANDOM    a slot, and when it is free again: milliseconds of the mount's time

A rate of 30 starts a minute has 30 slots. A start takes a free one by one rename, from the name that was seen to one
that nobody else will use, a period later: exclusive by its source, whoever else has seen it (I3); no name comes back
(I4). So whatever crashes, a slot is good for one start in a period; a crash after the rename only wastes that one.

The folder is made complete in `tmp/` and renamed into place, so that no slot is made twice. When all slots are free it
tells nothing, and `RateSweeper` removes it.
"""

from __future__ import annotations

import errno
import heapq
import re
from binascii import crc32
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from maildefer.digest import blake2b
from maildefer.errors import raise_named
from maildefer.maildir import doubt
from maildefer.maildir.claims import QUICK_SECONDS
from maildefer.maildir.drafts.folder import make_whole
from maildefer.maildir.layout import Layout
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.rights.folder import RATES, open_folder
from maildefer.maildir.rights.modes import make_in
from maildefer.maildir.system import SYSTEM, System

MOST_STARTS: Final = 5000  # each is a file
_SLOT: Final = re.compile(r"([0-9]{1,4}),d=([0-9]{1,15}),u=[0-9a-f]{16}\Z")
_HASH: Final = re.compile(r"[0-9a-f]{20}\Z")
_GRACE_SECONDS: Final = 0.1  # between taking a slot and the start
# What is added for what hosts know of the mount's time: a share of the period, at least and at most so much.
_CLOCK_SHARE, _LEAST_CLOCK_SECONDS, _MOST_CLOCK_SECONDS = 50, 0.1, 1.1
_SET_BACK_SECONDS: Final = 60.0
_RELIST_SECONDS: Final = 5.0
_MOST_MISSES: Final = 3
_MOST_RATES: Final = 500
_CONTENDED_SECONDS: Final = 1.0
_SHORTEST_SECONDS: Final = 0.05
_IDLE_SECONDS: Final = 600.0
_SWEPT_SECONDS: Final = 300.0
_SWEEP_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class RateOf:
    """So many starts in a period, of whatever `name` stands for."""

    name: str
    starts: int
    period_seconds: float

    @property
    def folder(self) -> str:
        """The name of its folder; another limit has another one, and so begins anew."""
        text = f"{self.starts}/{self.period_seconds:g} {self.name}"
        return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()


@dataclass(frozen=True, slots=True)
class RateGrant:
    """A slot that was taken: good for one start, up to a moment on the boot clock."""

    path: str  # of the slot
    until: float


@dataclass(slots=True)
class _Seen:
    """What a listing showed: a hint, of which each slot is tried by its rename (I10)."""

    listed_at: float  # mount's time, milliseconds
    slots: list[tuple[int, int, str]]  # a heap: free when, then in an order of this process's own; name


class RateSlots:
    """The slots as one process takes them; for one thread. `now` is the mount's time, in seconds."""

    def __init__(self, layout: Layout, *, now: Callable[[], float], system: System = SYSTEM) -> None:
        self._layout = layout
        self._now = now
        self._system = system
        self._grace = _GRACE_SECONDS
        self._seen: dict[str, _Seen] = {}

    def take_slot(self, rate: RateOf) -> RateGrant | float:
        """Take a slot; where none is free, return in how many seconds one may be. Raises StorageFault's kinds."""
        path = f"{self._layout.rates}/{rate.folder}"
        seen = self._seen.get(path)
        try:
            for _ in range(2):
                if seen is None or self._may_have_changed(seen, rate):
                    seen = self._seen[path] = self._list_slots(path, rate)
                if (grant := self._take_seen(seen, path, rate)) is not None:
                    return grant
                if not seen.slots:  # others were first, again and again
                    seen = None
                elif not self._may_have_changed(seen, rate):
                    break
        except OSError as fault:
            raise_named(path, fault)
        if seen is None:
            return min(rate.period_seconds, _CONTENDED_SECONDS)
        return max(seen.slots[0][0] / 1000 - self._now(), _SHORTEST_SECONDS)

    def return_slot(self, grant: RateGrant) -> None:
        """Let others have a slot for which nothing was started; raises nothing. Where it fails, the slot is wasted."""
        folder, _, name = grant.path.rpartition("/")
        free = self._named(name.partition(",")[0], 0.0)
        try:
            self._system.rename(grant.path, f"{folder}/{free}")
        except OSError:
            return
        if (seen := self._seen.get(folder)) is not None:
            heapq.heappush(seen.slots, (0, 0, free))

    def _may_have_changed(self, seen: _Seen, rate: RateOf) -> bool:
        """Whether a slot may be free that was not listed as free: others' next starts are at least a period away."""
        now = self._now() * 1000
        if seen.slots and seen.slots[0][0] <= now:
            return False
        return now >= seen.listed_at + 1000 * min(rate.period_seconds, _RELIST_SECONDS)

    def _take_seen(self, seen: _Seen, path: str, rate: RateOf) -> RateGrant | None:
        misses = 0
        while seen.slots and seen.slots[0][0] <= self._now() * 1000 and misses < _MOST_MISSES:
            name = heapq.heappop(seen.slots)[2]
            if (grant := self._take(path, name, rate, seen)) is not None:
                return grant
            misses += 1
        if misses == _MOST_MISSES:
            seen.slots.clear()
        return None

    def _take(self, path: str, name: str, rate: RateOf, seen: _Seen) -> RateGrant | None:
        """Take one slot by one rename; None if others were first, or it took so long that the slot is not good now."""
        system, began, grace = self._system, self._system.boottime(), self._grace
        clocks = min(max(rate.period_seconds / _CLOCK_SHARE, _LEAST_CLOCK_SECONDS), _MOST_CLOCK_SECONDS)
        taken = self._named(name.partition(",")[0], rate.period_seconds + grace + clocks)
        try:
            system.rename(f"{path}/{name}", f"{path}/{taken}")
        except OSError as fault:
            is_lost = fault.errno == errno.ENOENT
            if is_lost and system.boottime() - began < QUICK_SECONDS:
                return None
            if fault.errno not in doubt.DOUBTFUL or not doubt.is_listed(path, taken, system):
                if is_lost:
                    return None
                raise
        heapq.heappush(seen.slots, (_due_of(taken), 0, taken))
        lasted = system.boottime() - began
        # A start later than the slot says would be less than a period before the slot's next one.
        self._grace = max(_GRACE_SECONDS, min(2 * lasted, rate.period_seconds))
        return RateGrant(f"{path}/{taken}", began + grace) if lasted < grace else None

    def _named(self, number: str, seconds: float) -> str:
        return f"{number},d={int((self._now() + seconds) * 1000)},u={self._system.token(8)}"

    def _list_slots(self, path: str, rate: RateOf) -> _Seen:
        """List the slots freshly, after making them where there are none."""
        now = self._now()
        try:
            names = doubt.fresh_listing(path, self._system)
        except FileNotFoundError:
            names = []
        if not names:  # or an empty folder, which the rename replaces
            self._make(path, rate)
            names = doubt.fresh_listing(path, self._system)
        if len(self._seen) >= _MOST_RATES:
            self._seen.clear()
        # Later than any start can have put it: the clock was set back since.
        latest, salt = (now + rate.period_seconds + _SET_BACK_SECONDS) * 1000, self._system.pid()
        slots = [
            (due if now * 1000 < (due := _due_of(name)) <= latest else 0, crc32(name.encode(), salt), name)
            for name in names
            if _SLOT.match(name)
        ]
        heapq.heapify(slots)
        return _Seen(now * 1000, slots)

    def _make(self, path: str, rate: RateOf) -> None:
        system = confined_to(self._layout.path, self._system)
        make_in(self._layout.path, ".maildefer/rates", system)
        token = system.token(8)
        since = int(self._now() * 1000)
        files = {f"{number},d={since},u={token}": b"" for number in range(rate.starts)}
        make_whole(self._layout, f"{RATES}{path.rpartition('/')[2]}-", files, path, system=system)


class RateSweeper:
    """Removes the folders of rates whose slots are all free; for one thread."""

    def __init__(self, layout: Layout, *, system: System = SYSTEM) -> None:
        self._layout = layout
        self._system = confined_to(layout.path, system)

    def sweep(self, mount_time: float) -> int:
        """Remove idle folders for up to a minute; returns how many. Faults are left to the next sweep."""
        removed, until = 0, self._system.boottime() + _SWEEP_SECONDS
        try:
            folders = [name for name in self._system.listdir(self._layout.rates) if _HASH.match(name)]
        except OSError:  # no rate was ever used, or the next sweep meets the fault again
            return 0
        for folder in folders:
            if self._system.boottime() > until:
                break
            try:
                removed += self._remove_idle(folder, mount_time)
            except OSError:
                pass
        return removed

    def _remove_idle(self, folder: str, mount_time: float) -> bool:
        """Take all slots, as starts do, so that none can begin meanwhile; then move the folder away in one rename.

        What is taken is free again by itself where another was first, or this process dies. The folder stays in `tmp/`
        with one file in it, so that a late copy of that rename finds its destination taken (I4).
        """
        system, path, began = self._system, f"{self._layout.rates}/{folder}", self._system.boottime()
        names, idle_since = doubt.fresh_listing(path, system), (mount_time - _IDLE_SECONDS) * 1000
        if not names or any(not _SLOT.match(name) or _due_of(name) > idle_since for name in names):
            return False
        due = int((mount_time + _SWEPT_SECONDS) * 1000)
        for name in names:
            number = name.partition(",")[0]
            system.rename(f"{path}/{name}", f"{path}/{number},d={due},u={system.token(8)}")
        if len(doubt.fresh_listing(path, system)) != len(names) or system.boottime() - began > _SWEEP_SECONDS:
            return False
        draft = f"{RATES}{folder}-{system.pid()}-{system.token(8)}"
        system.rename(path, f"{self._layout.tmp}/{draft}")
        with open_folder(self._layout.path, "tmp", draft, system=system) as removed:
            removed.remove(removed.names()[1:])
        return True


def _due_of(name: str) -> int:
    """Return when the slot of that name is free again; 0 for a name that is no slot's."""
    found = _SLOT.match(name)
    return int(found[2]) if found else 0
