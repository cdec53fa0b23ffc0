"""Claims that a worker gathers for a `@batch`, with places of their own on the scoreboard.

A place shows the claim's queue, and whether a handler has begun with its message: after a death in one handler, the
keeper returns uncharged what the worker had gathered for another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from maildefer.maildir.claims import Claim
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


class GatheredSlots:
    """A worker's places for the claims of one queue; `free` is shared by all its queues. Implements `ClaimSlots`."""

    __slots__ = ("_first", "_slot", "_tag", "_top", "_words", "free")

    def __init__(
        self, board: Scoreboard, slot: int, own: ScoreboardSlot, queue: int, free: list[int]
    ) -> None:
        self._words = board.words
        self._first = board.gathering(slot)
        self._top = board.slot(slot) + SlotWord.GATHERED
        self._slot = own
        self._tag = (queue + 1) << QUEUE_SHIFT
        self.free = free

    @staticmethod
    def all_places(board: Scoreboard, slot: int) -> list[int]:
        """All places of a slot, the lowest to be taken first, since looks go no further than the highest ever used."""
        first = board.gathering(slot)
        return list(range(first + GATHERED_PLACES - 1, first - 1, -1))

    def next_seq(self) -> int:
        return self._slot.next_seq()

    def take_place(self, seq: int, name: str) -> int:
        place = self.free.pop()
        if place >= self._first + self._words[self._top]:  # first, so that every look sees the claim
            self._words[self._top] = place - self._first + 1
        self._words[place] = self._tag | seq
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
