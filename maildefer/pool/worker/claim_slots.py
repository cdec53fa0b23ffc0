"""What a worker gathers for a `@batch`: claims with places of their own on the board.

A place tells the claim's queue, and whether a handler has begun with it: a worker that dies in one handler has done no
harm to what it gathered for another, and the keeper gives that back uncharged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from maildefer.maildir.claims import Claim
from maildefer.pool.scoreboard import GATHERED_PLACES, IN_HANDLER, QUEUE_SHIFT, S, Scoreboard
from maildefer.pool.scoreboard_slot import ScoreboardSlot

if TYPE_CHECKING:
    from maildefer.message.request import MailRequest


class GatheredClaim(Claim):
    """A claim with its place, and with the message once it was read."""

    __slots__ = ("message",)

    message: MailRequest

    @property
    def place(self) -> int:
        return self._place


class GatheredSlots:
    """A worker's places for the claims of one queue; `free` is shared by all its queues. Implements `claims.Hand`."""

    __slots__ = ("_first", "_hand", "_tag", "_top", "_words", "free")

    def __init__(
        self, board: Scoreboard, slot: int, hand: ScoreboardSlot, queue: int, free: list[int]
    ) -> None:
        self._words = board.words
        self._first = board.gathering(slot)
        self._top = board.slot(slot) + S.GATHERED
        self._hand = hand
        self._tag = (queue + 1) << QUEUE_SHIFT
        self.free = free

    @staticmethod
    def places(board: Scoreboard, slot: int) -> list[int]:
        """All places of a slot, the lowest to be taken first, since only those ever used are looked at."""
        first = board.gathering(slot)
        return list(range(first + GATHERED_PLACES - 1, first - 1, -1))

    def next_seq(self) -> int:
        return self._hand.next_seq()

    def take(self, seq: int, name: str) -> int:
        place = self.free.pop()
        if place >= self._first + self._words[self._top]:  # first, so that who looks sees the claim
            self._words[self._top] = place - self._first + 1
        self._words[place] = self._tag | seq
        self._hand.hint(name)
        return place

    def drop(self, place: int) -> None:
        self._words[place] = 0
        self.free.append(place)

    def begin(self, claims: Sequence[GatheredClaim]) -> None:
        """A handler gets these now: from here on, its death is theirs."""
        for claim in claims:
            self._words[claim.place] |= IN_HANDLER

    def begin_all(self) -> None:
        """As if a handler had all that is held: a program that breaks is charged with it."""
        for place in range(self._first, self._first + self._words[self._top]):
            if self._words[place]:
                self._words[place] |= IN_HANDLER

    def end(self, claims: Sequence[GatheredClaim]) -> None:
        """It has come back from the handler, and is not settled yet."""
        for claim in claims:
            self._words[claim.place] &= ~IN_HANDLER
