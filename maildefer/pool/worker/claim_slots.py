"""Claims that a worker gathers for a `@batch`, with places of their own on the scoreboard.

A place shows the claim's queue, and whether a handler has begun with its message: after a death in one handler, the
keeper returns uncharged what the worker had gathered for another.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from maildefer.errors import QueueError
from maildefer.maildir.claims import Claim, Claimer
from maildefer.maildir.doubt import fresh_listing
from maildefer.maildir.names import EntryName, owner_of
from maildefer.pool.scoreboard import GATHERED_PLACES, IN_HANDLER, QUEUE_SHIFT, Scoreboard, SlotWord
from maildefer.pool.scoreboard_slot import ScoreboardSlot

if TYPE_CHECKING:
    from maildefer.message.request import MailRequest


class GatheredClaim(Claim):
    """A claim with its place on the scoreboard, and with its message once that was read."""

    __slots__ = ("message",)

    message: MailRequest

    @property
    def place(self) -> int:
        return self._place

    @property
    def is_held(self) -> bool:
        return self._place >= 0

    @property
    def claimer(self) -> Claimer:
        return self._claimer


class GatheringClaimer(Claimer):
    """A claimer that also takes over what another worker under its lease has claimed, and passes on."""

    __slots__ = ()

    @classmethod
    def like(cls, claimer: Claimer, slots: GatheredSlots) -> Self:
        """Make one that claims as `claimer` does, but gathers."""
        made = cls.__new__(cls)
        for name in Claimer.__slots__:
            setattr(made, name, getattr(claimer, name))
        made.slots, made.kind = slots, GatheredClaim
        return made

    def claim(self, name: str) -> Claim | None:
        """Claim `new/NAME`, or take over `cur/NAME`: a claim by one more rename, whose attempt is charged once (I5).

        None if another process was first (I10), as the old holder, which releases what is not taken over. Raises
        StorageFault's kinds; the entry is then where it was.
        """
        folder, slash, claimed = name.rpartition("/")
        if not slash:
            return super().claim(name)
        owner = owner_of(claimed)
        if folder != "cur" or owner is None or owner.lease != self.lease:
            return None
        entry = EntryName.parse(claimed)
        entry = replace(entry, attempts=max(0, entry.attempts - 1))
        slots, system = self.slots, self.system
        seq = slots.next_seq()
        taken = entry.claimed(f"{self._owner}{seq}")
        place = slots.take_place(seq, taken)
        began = system.boottime()
        try:
            system.rename(self._cur + claimed, self._cur + taken)
        except OSError as fault:
            if not self._was_claimed(fault, began, taken, place):
                return None
        return self.kind(self, taken, entry.key, entry, place, began)


def release_all(claims: Sequence[Claim], listed: Collection[str] | None = None) -> int:
    """Release claims, of the names `listed` only if that is given; returns how many were.

    The others, and what cannot be released, are forgotten; of these, the audit returns what is still there.
    """
    released = 0
    for claim in claims:
        if listed is not None and claim.name not in listed:
            claim.abandon()
            continue
        try:
            claim.release()
            released += 1
        except QueueError:  # lost, or the filesystem refuses
            claim.abandon()
    return released


def release_untaken(claims: Sequence[GatheredClaim]) -> int:
    """Release the claims that were passed on and that nobody has taken over; returns how many were."""
    by_claimer: dict[int, list[GatheredClaim]] = {}
    for claim in claims:
        by_claimer.setdefault(id(claim.claimer), []).append(claim)
    released = 0
    for [first, *others] in by_claimer.values():
        try:
            listed = fresh_listing(first.claimer.layout.cur, first.claimer.system)
        except OSError:  # the audit will tell
            listed = []
        released += release_all([first, *others], frozenset(listed))
    return released


class GatheredSlots:
    """A worker's places for the claims of one queue; `free` is shared by all its queues. Implements `ClaimSlots`."""

    __slots__ = ("_first", "_shows_names", "_slot", "_tag", "_top", "_words", "free", "next_seq")

    def __init__(
        self,
        board: Scoreboard,
        slot: int,
        own: ScoreboardSlot,
        queue: int,
        free: list[int],
        *,
        shows_names: bool = True,
    ) -> None:
        self._words = board.words
        self._first = board.gathering(slot)
        self._top = board.slot(slot) + SlotWord.GATHERED
        self._slot = own
        self._tag = (queue + 1) << QUEUE_SHIFT
        self._shows_names = shows_names
        self.free, self.next_seq = free, own.next_seq

    @staticmethod
    def all_places(board: Scoreboard, slot: int) -> list[int]:
        """All places of a slot, the lowest to be taken first, since looks go no further than the highest ever used."""
        first = board.gathering(slot)
        return list(range(first + GATHERED_PLACES - 1, first - 1, -1))

    def take_place(self, seq: int, name: str) -> int:
        place = self.free.pop()
        if place >= self._first + self._words[self._top]:  # first, so that every look sees the claim
            self._words[self._top] = place - self._first + 1
        self._words[place] = self._tag | seq
        if self._shows_names:
            self._slot.hint(name)
        return place

    def free_place(self, place: int) -> None:
        self._words[place] = 0
        self.free.append(place)

    def mark_in_handler(self, claims: Sequence[GatheredClaim]) -> None:
        """Show that a handler gets these now: a death from here on is charged to them."""
        for claim in claims:
            self._words[claim.place] |= IN_HANDLER

    def mark_all_in_handler(self) -> None:
        """Show all claims as in a handler: a program that ends in an exception has them charged."""
        for place in range(self._first, self._first + self._words[self._top]):
            if self._words[place]:
                self._words[place] |= IN_HANDLER

    def unmark(self, claims: Sequence[GatheredClaim]) -> None:
        """Show that the handler has returned, and the claims are not settled yet."""
        for claim in claims:
            self._words[claim.place] &= ~IN_HANDLER
