"""What a worker gathers for a `@batch`: claims with places of their own on the board, and the groups that they make.

A place tells the claim's queue, and whether a handler has begun with it: a worker that dies in one handler has done no
harm to what it gathered for another, and the keeper gives that back uncharged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from maildefer.maildir.claims import Claim
from maildefer.pool.board import GATHERED_PLACES, IN_HANDLER, QUEUE_SHIFT, Board, Hand, S

if TYPE_CHECKING:
    from maildefer.handling.steps import Step
    from maildefer.message.request import MailRequest
    from maildefer.pool.serving import Serving

_ALONE_AFTER_CRASHES = 3


class GatheredClaim(Claim):
    """A claim with its place, and with the message once it was read."""

    __slots__ = ("message",)

    message: MailRequest

    @property
    def place(self) -> int:
        return self._place


class GatherHand:
    """A worker's places for the claims of one queue; `free` is shared by all its queues. Implements `claims.Hand`."""

    __slots__ = ("_first", "_hand", "_tag", "_top", "_words", "free")

    def __init__(self, board: Board, slot: int, hand: Hand, queue: int, free: list[int]) -> None:
        self._words = board.words
        self._first = board.gathering(slot)
        self._top = board.slot(slot) + S.GATHERED
        self._hand = hand
        self._tag = (queue + 1) << QUEUE_SHIFT
        self.free = free

    @staticmethod
    def places(board: Board, slot: int) -> list[int]:
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

    def begin(self, claims: list[GatheredClaim]) -> None:
        """A handler gets these now: from here on, its death is theirs."""
        for claim in claims:
            self._words[claim.place] |= IN_HANDLER

    def begin_all(self) -> None:
        """As if a handler had all that is held: a program that breaks is charged with it."""
        for place in range(self._first, self._first + self._words[self._top]):
            if self._words[place]:
                self._words[place] |= IN_HANDLER

    def end(self, claims: list[GatheredClaim]) -> None:
        """It has come back from the handler, and is not settled yet."""
        for claim in claims:
            self._words[claim.place] &= ~IN_HANDLER


@dataclass(slots=True)
class Group:
    """Messages for one call of a `@batch` function."""

    queue: Serving
    step: Step
    limit: int
    lingers: bool
    due: float  # on the boot clock
    claims: list[GatheredClaim] = field(default_factory=list)
    size_bytes: int = 0

    def add(self, claim: GatheredClaim, size_bytes: int) -> None:
        self.claims.append(claim)
        self.size_bytes += size_bytes

    def is_full(self, limit_bytes: int) -> bool:
        return len(self.claims) >= self.limit or self.size_bytes >= limit_bytes


def company(limit: int, crashes: int, max_crashes: int) -> int:
    """How many messages with so many crashes go into one batch: fewer at each, and at last one.

    A batch that dies charges all its messages, whoever is to blame; so the innocent must be alone with time to spare
    before the crash limit buries. With the limit at 500 and five crashes allowed: 500, 63, 8, 1, 1.
    """
    alone = min(_ALONE_AFTER_CRASHES, max_crashes - 1)
    return 1 if crashes >= alone else math.ceil(limit ** (1 - crashes / alone))
