"""Reclaiming claims that nobody holds: the audit of own claims, the reclaim of dead owners' claims, and the return of
entries that a mail reader moved.

These scans of all of `cur/` are needed for as long as a queue is served, and not once at a fence: a claim can be
executed late, seconds after its worker was killed or its lease was fenced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from maildefer.maildir import names, reasons
from maildefer.maildir.doubt import fresh_listing
from maildefer.maildir.journal import journal_of
from maildefer.maildir.layout import Layout, make_folder
from maildefer.maildir.markers.ends import free_marker_of
from maildefer.maildir.names import EntryName, Owner, is_entry, owner_of
from maildefer.maildir.reasons import Death
from maildefer.maildir.rights.confined import confined_to, one_round
from maildefer.maildir.rights.modes import is_shared_at
from maildefer.maildir.system import SYSTEM, System
from maildefer.maildir.upkeep.failed_moves import FailedMoves
from maildefer.maildir.upkeep.observer import LeaseObserver

OwnerState = Literal[
    "held", "alive", "dead"
]  # a worker is on the claim; it lives but is not on it; it does not live
StateOf = Callable[[Owner], OwnerState]
_MOST_FOREIGN = 10_000  # so many names of mail readers are watched at a time


@dataclass(slots=True)
class Reclaimed:
    """The keys of what a scan has moved."""

    reclaimed: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    buried: dict[str, str] = field(default_factory=dict)  # with the reason
    returned: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.reclaimed or self.released or self.buried or self.returned)


class Reclaimer:
    """The scans of one queue's `cur/`; one thread only."""

    def __init__(
        self,
        layout: Layout,
        observer: LeaseObserver,
        *,
        own: Callable[[], str],
        look: Callable[[], StateOf],
        host: str,
        max_crashes: int,
        grace_seconds: float,
        refusals: FailedMoves | None = None,
        returns: FailedMoves | None = None,
        ended: set[str] | None = None,
        system: System = SYSTEM,
    ) -> None:
        """`look` reads the scoreboard; it is called after each listing, for all claims that the listing has shown.

        `returns` remembers failed moves of entries that mail readers have moved, `refusals` those of claims. `ended`
        gets the UNIQUE of each claim that was moved before it was committed: what its handlers have sent is nothing.
        """
        self._layout = layout
        self._observer = observer
        self._own = own
        self._look = look
        self._host = host
        self._max_crashes = max_crashes
        self._grace = grace_seconds
        self._system = confined_to(layout.path, system)
        self._refusals = FailedMoves(system=system) if refusals is None else refusals
        self._returns = FailedMoves(system=system) if returns is None else returns
        self._ended: set[str] = set() if ended is None else ended
        self._is_shared: bool | None = None  # not read yet: often nothing has to be reclaimed
        self._foreign: dict[
            str, dict[str, float]
        ] = {}  # by folder, then path: when first seen, on the boot clock

    def scan(self, moved: Reclaimed | None = None) -> Reclaimed:
        """Scan once: list `cur/` first, then read the scoreboard and the leases. Adds to `moved`, and returns it.

        Raises OSError if a listing fails; a single entry that can't be moved is tried again by itself.
        """
        moved = Reclaimed() if moved is None else moved
        mine: list[tuple[str, Owner]] = []
        theirs: dict[str, list[str]] = {}
        foreign: list[str] = []
        own = self._own()
        listed = fresh_listing(self._layout.cur, self._system)
        if len(self._refusals):
            self._refusals.keep({f"{self._layout.cur}/{name}" for name in listed})
        for name in listed:
            if not is_entry(name):
                continue
            owner = owner_of(name)
            if owner is None:
                foreign.append(name)
            elif owner.lease == own:
                mine.append((name, owner))
            else:
                theirs.setdefault(owner.lease, []).append(name)
        state_of = self._look()
        with one_round(self._system):
            for name, owner in mine:
                self._audit(name, state_of(owner), moved)
            for lease in self._observer.abandoned(theirs):
                death = Death(how=f"with all of {lease}, whose lease has ended")
                for name in theirs[lease]:
                    self._try_to_reclaim_claim(name, charged=True, moved=moved, death=death)
            self._return_foreign(self._layout.cur, foreign, moved)
        return moved

    def scan_deferred(self, moved: Reclaimed | None = None) -> Reclaimed:
        """Return entries that a mail reader moved in `.later/`. Raises OSError as `scan` does."""
        moved = Reclaimed() if moved is None else moved
        try:
            listed = fresh_listing(self._layout.later_cur, self._system)
        except FileNotFoundError:  # the folder is made again by the next defer
            listed = []
        self._return_foreign(self._layout.later_cur, filter(is_entry, listed), moved)
        return moved

    def reclaim_claims_of(
        self,
        pid: int,
        *,
        charged: bool,
        spared: frozenset[int] = frozenset(),
        moved: Reclaimed | None = None,
        death: Death | None = None,
    ) -> Reclaimed:
        """Reclaim the claims of one worker of ours that is known to be dead, under our current lease.

        Raises OSError, at the end if single entries could not be moved.

        Those of the SEQs `spared` are never charged: it had not begun with them. What it held under an earlier lease,
        which was fenced, `scan` reclaims. `death` is what is known of how it died.
        """
        moved = Reclaimed() if moved is None else moved
        own, fault = self._own(), None
        for name in fresh_listing(self._layout.cur, self._system):
            owner = owner_of(name)
            if owner is not None and owner.pid == pid and owner.lease == own:
                its_fault = charged and owner.seq not in spared
                try:
                    self.reclaim_claim(name, charged=its_fault, moved=moved, death=death)
                except OSError as refused:  # the other claims must not wait for this one
                    fault = refused
        if fault is not None:
            raise fault
        return moved

    def _audit(self, name: str, state: OwnerState, moved: Reclaimed) -> None:
        match state:
            case "held":
                pass
            case "alive":  # the worker took its claim for failed, and the rename was executed after all
                self._try_to_reclaim_claim(name, charged=False, moved=moved)
            case "dead":
                self._try_to_reclaim_claim(name, charged=True, moved=moved)

    def _try_to_reclaim_claim(
        self, name: str, *, charged: bool, moved: Reclaimed, death: Death | None = None
    ) -> None:
        """Reclaim one claim; one that can't be moved, or buried on a full disk, must not delay the others."""
        path = f"{self._layout.cur}/{name}"
        if not self._refusals.may_try(path):
            return
        try:
            self.reclaim_claim(name, charged=charged, moved=moved, death=death)
        except OSError as fault:
            self._refusals.note(path, fault)
        else:
            self._refusals.forget(path)

    def reclaim_claim(
        self, name: str, *, charged: bool, moved: Reclaimed, death: Death | None = None
    ) -> None:
        """Reclaim a claim (the crash charged; buried at the limit), or release it; no doubt: if gone, it was done."""
        system, entry = self._system, self._with_unique(EntryName.parse(name), names.unique_of(name))
        back = entry.returned(crashes=1) if charged else entry.returned(attempts=-1)
        folder, reason, goes_to = self._layout.new, "", back.waiting()
        most = death.most_failures if death is not None and charged else 0
        is_worn_out = 0 < most <= back.failed
        if charged and (back.crashes >= self._max_crashes or is_worn_out) and not back.is_handled:
            times = "once" if back.crashes == 1 else f"{back.crashes} times"
            reason = f"its worker died {times} while handling it"
            facts: dict[str, object] = {"error": "crash limit"}
            if death is not None:
                reason = f"{reason}, {'at last ' if back.crashes > 1 else ''}{death}"
                facts |= death.facts()
            if is_worn_out:
                reason += f": @retry allows {most}"
            if back.outputs:
                reason += (
                    "; what handlers before it have sent may wait for it: requeue it, and it is published"
                )
            reasons.write_reason(self._layout, back, reason, facts, host=self._host, system=system)
            folder, goes_to = self._layout.dead_new, reasons.dead_name(back)
        if (journal := journal_of(self._layout, system)) is not None:
            if charged:
                facts = {"outcome": "died", "worker": name.partition(":1,")[2], "reason": reason}
                facts |= {} if death is None else {"how": death}
                journal.record_note(back.key, facts)
            journal.record_move(back.key, f"{folder}/{goes_to}")
        try:
            system.rename(f"{self._layout.cur}/{name}", f"{folder}/{goes_to}")
        except FileNotFoundError:
            if folder == self._layout.dead_new:  # the folder may be missing: made for the next scan
                make_folder(self._layout, ".dead", system)
            return
        if (token := names.unique_of(name)) != entry.outputs[
            :10
        ]:  # no commit finds the claim's name any more (I4)
            self._ended.add(token)
        if reason:
            moved.buried[back.key] = reason
            free_marker_of(self._layout, entry, folder, system=system)
        else:
            (moved.reclaimed if charged else moved.released).append(back.key)

    def _return_foreign(self, folder: str, foreign: Iterable[str], moved: Reclaimed) -> None:
        """Return what a mail reader moved from `new/X` to `cur/X:2,S`, since reading a queue must not empty it."""
        now, before = self._system.boottime(), self._foreign.get(folder, {})
        seen = (f"{folder}/{name}" for name in islice(foreign, _MOST_FOREIGN))
        self._foreign[folder] = watched = {path: before.get(path, now) for path in seen}
        refusals = self._returns
        if len(refusals):
            refusals.keep(set().union(*self._foreign.values()))
        for path, since in watched.items():
            if now - since < self._grace or not refusals.may_try(path):
                continue
            entry = names.with_usable_key(EntryName.parse(path.rpartition("/")[2]), self._host, self._system)
            entry = self._with_unique(entry)  # a reader's `N:2,S` and `N:2,T` may have been two entries
            back = f"{self._layout.new}/{entry.returned().waiting()}"
            if entry.due is not None and folder == self._layout.later_cur:
                back = f"{self._layout.later_new}/{entry.deferred(entry.due)}"
            if (journal := journal_of(self._layout, self._system)) is not None:
                journal.record_move(entry.key, back)
            try:
                self._system.rename(path, back)
            except FileNotFoundError:
                continue
            except OSError as fault:
                refusals.note(path, fault)
                continue
            refusals.forget(path)
            moved.returned.append(entry.key)

    def _with_unique(self, entry: EntryName, unique: str = "") -> EntryName:
        """In a queue that a front end of another user shares, give the entry a UNIQUE: no other gets its name (I2)."""
        if self._is_shared is None:
            self._is_shared = is_shared_at(self._layout.path, self._system)
        if not self._is_shared:
            return entry
        return names.with_unique(entry, unique, self._host, self._system)
