"""Claiming an entry by one rename, and settling the claim by one more, or by the final unlink.

The destination of a claim is unique to the claimer (I3), the attempt is charged by the claim itself (I5), a settle
names the claimed entry in full (I7), and every return changes `n` (I4).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from maildefer.errors import ClaimLost, ClaimRefused, QueueError, QueueMissing, UseAfterFork, raise_named
from maildefer.maildir import doubt, names, reading
from maildefer.maildir.due import postpone
from maildefer.maildir.journal import Journal, journal_of
from maildefer.maildir.layout import Layout, make_again
from maildefer.maildir.markers import ends, moved
from maildefer.maildir.markers.names import IN_KEY
from maildefer.maildir.names import EntryName
from maildefer.maildir.reasons import dead_name, write_reason
from maildefer.maildir.rights.modes import is_shared_at
from maildefer.maildir.system import SYSTEM, System

_FIELD, _LONGEST = re.compile(r",[acdfhnou]=").search, names.MAX_SHARED_KEY_BYTES
QUICK_SECONDS = 0.1  # an ENOENT sooner than this is no reply to a retry: another process was first


class ClaimSlots(Protocol):
    """Where a claimer publishes what it may hold before it sends the claim: the scoreboard, which the audit reads."""

    def next_seq(self) -> int: ...

    def take_place(self, seq: int, name: str) -> int: ...

    def free_place(self, place: int) -> None: ...


class Claimer:
    """Claims entries of one queue for one process under one lease; not after a fork. Any thread may settle claims."""

    __slots__ = tuple(
        "_cur _lease _new _owner _permit host is_shared journal kind layout local mount_time slots stale system".split()
    )

    def __init__(
        self,
        layout: Layout,
        slots: ClaimSlots,
        *,
        lease: str,
        host: str,
        local: bool = False,
        mount_time: Callable[[], float] | None = None,
        may_claim: Callable[[], bool] = lambda: True,
        kind: type[Claim] | None = None,
        system: System = SYSTEM,
    ) -> None:
        self.layout = layout
        self.kind = kind or Claim  # the class of the claims
        self.stale = False  # set in a forked child, which is not the claimer
        self.slots = slots
        self.host, self.system = host, system
        self.mount_time = mount_time or system.time
        self.local = local
        self.journal: Journal | None = None
        self.is_shared = False  # whether a front end of another user shares the queue, and chooses names
        self._permit = may_claim
        self._new, self._cur = f"{layout.new}/", f"{layout.cur}/"
        self.serve_under(lease)

    @property
    def lease(self) -> str:
        return self._lease

    def serve_under(self, lease: str) -> None:
        """Claim under this lease from now on; existing claims keep theirs."""
        self._lease = lease
        self._owner = lease and f"{lease}.{self.system.pid()}."
        if lease:  # without a lease the mount may not answer yet
            self.journal = journal_of(self.layout, self.system, anew=True)  # another queue may be there now
            self.is_shared = is_shared_at(self.layout.path, self.system)

    def claim(self, name: str) -> Claim | None:
        """Claim the entry that was seen as `new/NAME`; None if another process was first (I10), or if it is not due.

        Raises StorageFault's kinds; the entry is then where it was.
        """
        slots, system, is_marked = self.slots, self.system, True
        seq = slots.next_seq()
        is_bare = name.count("=") == (",S=" in name)  # no field but its size: quicker than a search
        if (not is_bare and _FIELD(name)) or ":" in name or len(name) > _LONGEST or not name.isascii():
            entry = names.with_usable_key(EntryName.parse(name), self.host, system, shared=self.is_shared)
            if entry.due is not None and entry.due > self.mount_time():
                postpone(name, entry, self.layout, host=self.host, system=system)
                return None
            if IN_KEY in name:
                is_marked = ends.touch(self.layout, entry.key, system=system)
                if not self._permit():  # the touch may have taken long (I8)
                    return None
            claimed = entry.claimed(f"{self._owner}{seq}")
        else:  # the same for an entry that is here for the first time
            entry, claimed = None, f"{name},a=1:1,{self._owner}{seq}"
        place, began = slots.take_place(seq, claimed), system.boottime()
        try:
            system.rename(self._new + name, self._cur + claimed)
        except OSError as fault:
            if not self._was_claimed(fault, began, claimed, place):
                return None
        claim = self.kind(self, claimed, entry.key if entry else name, entry, place, began)
        return claim if is_marked else moved.hold(claim, self.layout, host=self.host, system=system)

    def _was_claimed(self, fault: OSError, began: float, claimed: str, place: int) -> bool:
        """Settle a claim's doubtful reply by listing: whether its unique destination exists.

        A wrong or early listing is harmless: the audit finds a claim that is executed later.
        """
        system = self.system
        lost = fault.errno == errno.ENOENT
        if lost and (self.local or system.boottime() - began < QUICK_SECONDS):
            self.slots.free_place(place)
            return False
        with suppress(OSError):  # the listing failed: as if not claimed; the audit finds out
            if fault.errno in doubt.DOUBTFUL and doubt.is_listed(self.layout.cur, claimed, system):
                return True
        self.slots.free_place(place)
        if lost:
            return False
        raise_named(fault.filename or self._new, fault, refused=ClaimRefused)


class Claim:
    """A claimed entry. Settle it once: ack, release, postpone, defer, bury or handoff; one thread at a time.

    Every settle raises ClaimLost if the lease was fenced and the entry reclaimed, and StorageFault's kinds if the
    filesystem refused; after the latter the claim is still held and may be settled again.
    """

    __slots__ = ("_claimer", "_place", "attempt", "began", "committed", "crashes", "handoffs", "key", "name")

    def __init__(
        self, claimer: Claimer, name: str, key: str, entry: EntryName | None, place: int, began: float
    ) -> None:
        self._claimer = claimer
        self.name = name  # in cur/
        self.key = key  # stable over attempts, queues and time
        self._place = place
        self.began = began  # on the boot clock
        if entry is None:  # it is here for the first time
            self.attempt, self.crashes, self.handoffs, self.committed = 1, 0, 0, ""
        else:
            self.attempt, self.crashes, self.handoffs = entry.attempts + 1, entry.crashes, entry.handoffs
            self.committed = entry.outputs  # as in its name, until they are published

    @property
    def entry(self) -> EntryName:
        """The entry's parts as claimed, this attempt charged."""
        return EntryName.parse(self.name)

    @property
    def to_settle(self) -> EntryName:
        """The parts for the next name: in a shared queue, of a name that no other entry can have (I2)."""
        claimer, entry = self._claimer, replace(self.entry, outputs=self.committed)
        if not claimer.is_shared:
            return entry
        return names.with_unique(entry, names.unique_of(self.name), claimer.host, claimer.system)

    def read(self, limit_bytes: int = 64 << 20) -> bytes:
        """Read the entry's bytes. Raises EntryMalformed, EntryTooLarge, ClaimLost, StorageFault's kinds."""
        try:
            return reading.read_entry(
                self._claimer._cur + self.name, limit_bytes, system=self._claimer.system
            )
        except FileNotFoundError as fault:
            self._free_place()
            raise ClaimLost(self.name) from fault

    def ack(self, *, keep_seconds: float = 0.0, handler: str = "") -> None:
        """Unlink the entry, which `handler` has handled, or keep it in `.done/`, its due time being the end of that."""
        claimer = self._claimer
        self._must_be_held()
        if keep_seconds:
            name = self.to_settle.deferred(names.due_at(self.mount_time() + keep_seconds))
            self._move(claimer.layout.done_new, name, folder=".done")
            return
        if (journal := claimer.journal) is not None:
            journal.record_ack(self.key, self.handoffs, handler, self.began)
        try:
            if IN_KEY in self.name:
                ends.end_entry(claimer.layout, claimer._cur + self.name, self.key, system=claimer.system)
            else:
                claimer.system.unlink(claimer._cur + self.name)
        except OSError as fault:
            if self._still_there(fault):
                raise_named(claimer._cur + self.name, fault)
        claimer.slots.free_place(self._place)
        self._place = -1

    def release(self, *, key: str = "") -> None:
        """Move the entry back to `new/`, the attempt not charged: a fault that is not the message's, or a new key."""
        entry = self.to_settle.returned(attempts=-1)
        self._move(self._claimer.layout.new, replace(entry, key=key or entry.key).waiting())

    def postpone(self, seconds: float) -> str:
        """Move the entry to `.later/` for so long, the attempt not charged. Returns the deferred name."""
        name = self.to_settle.deferred(names.due_at(self.mount_time() + seconds), attempts=-1)
        return self._move(self._claimer.layout.later_new, name, folder=".later")

    def defer(self, seconds: float, *, failed: bool = False) -> str:
        """Move the entry to `.later/` for so long; charge the attempt, and a failure if `failed`. Returns the name."""
        name = self.to_settle.deferred(names.due_at(self.mount_time() + seconds), failures=int(failed))
        return self._move(self._claimer.layout.later_new, name, folder=".later")

    def bury(self, reason: str, *, failed: bool = False, begun: bool = True, **facts: object) -> str:
        """Move the entry to the dead letters, after writing the reason durably beside it. Returns the dead name."""
        claimer, entry = self._claimer, self.to_settle.returned(attempts=begun - 1, failures=int(failed))
        self._must_be_held()
        try:
            write_reason(claimer.layout, entry, reason, facts, host=claimer.host, system=claimer.system)
        except OSError as fault:
            raise_named(claimer.layout.reasons, fault)
        return self._move(claimer.layout.dead_new, dead_name(entry), folder=".dead")

    def handoff(self, other: Layout, *, outputs: str = "") -> None:
        """Move the entry to another queue on the same filesystem, in one rename; key, crashes and OUTPUTS go along.

        Attempts begin at zero. Raises QueueMissing; across filesystems OSError EXDEV: see `pool.worker.cross_device`.
        """
        claimer = self._claimer
        entry = names.with_outputs(self.to_settle, outputs, claimer.host, claimer.system)
        self._move(other.new, entry.handed_on().waiting(), other=other)

    def mount_time(self) -> float:
        """The present time by the mount's clock, as far as this host knows it, in Unix seconds."""
        return self._claimer.mount_time()

    def abandon(self) -> None:
        """Forget the claim without a settle, for faults that do not end: the audit reclaims the entry."""
        self._free_place()

    def _move(
        self, folder_path: str, name: str, *, folder: str | None = None, other: Layout | None = None
    ) -> str:
        claimer = self._claimer
        self._must_be_held()
        source, destination = claimer._cur + self.name, f"{folder_path}/{name}"
        if claimer.journal is not None:
            claimer.journal.record_move(self.key, destination)
        for last in (False, True):
            try:
                claimer.system.rename(source, destination)
                break
            except OSError as fault:
                if fault.errno == errno.EXDEV:
                    raise
                if not self._still_there(fault):
                    break
                if other is not None and fault.errno == errno.ENOENT:
                    raise QueueMissing(other.path) from fault
                if last or fault.errno != errno.ENOENT:
                    raise_named(destination, fault)
                make_again(claimer.layout, folder, claimer.system)  # our own name is in `cur/`
        self._free_place()
        if IN_KEY in self.name and (other is not None or folder in (".dead", ".done")):
            ends.free_marker_of(claimer.layout, self.entry, folder_path, system=claimer.system)
        return name

    def _still_there(self, fault: OSError) -> bool:
        """Settle a settle's doubtful reply: True, nothing happened; False, it is done; ClaimLost, it was reclaimed.

        The destination can't tell, since the entry may have been moved on from there.
        """
        if fault.errno not in doubt.DOUBTFUL:
            return True
        try:
            return doubt.is_still_claimed(self._claimer.layout, self.name, self._claimer.system)
        except ClaimLost:
            self._free_place()
            raise
        except OSError as worse:
            raise_named(self._claimer.layout.path, worse)

    def _must_be_held(self) -> None:
        if self._claimer.stale:
            raise UseAfterFork(
                f"the claim {self.name} belongs to the parent process: settle it there", self.name
            )
        if self._place < 0:
            raise QueueError(f"the claim {self.name} is settled already: a claim is settled once", self.name)

    def _free_place(self) -> None:
        if self._place >= 0:
            self._claimer.slots.free_place(self._place)
            self._place = -1
