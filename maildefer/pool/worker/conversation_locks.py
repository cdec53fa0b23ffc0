"""The conversation tokens that a worker holds: under which lease, and what the scoreboard shows of them.

Costs nothing before the first message for a stateful handler: until then nothing is imported, listed or made.

The worker waits for a token that another one holds: a tenth of a second, since most handlers are quick, and longer
while it has nothing else to do. Without the wait, a sender's burst was handled at the pace of postponements, whose
unit is a second: 50 messages of 10 ms took 91 s, and take 3 s now. A wait in vain costs other messages a tenth of a
second.

A worker that waits shows it on the scoreboard, and of a host's entries the oldest is first, so that a conversation has
the queue's order. An entry that had to be postponed has no such order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from maildefer.maildir.claims import ClaimSlots
from maildefer.maildir.system import SYSTEM, System
from maildefer.pool.scoreboard import Header, Scoreboard, SlotWord
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.worker.queue_view import QueueView

if TYPE_CHECKING:
    from maildefer.maildir.upkeep.tokens import Tokens


WAIT_SECONDS = 0.1
IDLE_WAIT_SECONDS = 5.0
_LOOK_SECONDS = 0.005
_IDLE_LOOK_SECONDS = 0.02


class ConversationLocks:
    """The worker's tokens, in the queue `home`; implements the dispatcher's `ConversationTokens`. For one thread.

    `is_wanted` says whether the worker has something else to do: another message, or to end.
    """

    def __init__(
        self,
        home: QueueView,
        board: Scoreboard,
        slot: int,
        own: ScoreboardSlot,
        is_wanted: Callable[[], bool],
        *,
        system: System = SYSTEM,
    ) -> None:
        self._home = home
        self._is_wanted = is_wanted
        self._system = system
        self._board = board
        self._slot = slot
        self._waits = board.slot(slot) + SlotWord.WAITS_FOR
        self.slots: ClaimSlots = TokenSlots(board, slot, own)
        self._tokens: Tokens | None = None

    def take_token(self, conversation: str) -> bool:
        """Take the token of a conversation, or say that another worker holds it. Raises StorageFault's kinds.

        The handler's time limit does not run meanwhile: that a mount hangs, or another handler takes long, is not its
        fault, and a death in here is not its crash (I5).
        """
        words, deadline = self._board.words, self._board.slot(self._slot) + SlotWord.DEADLINE
        until, words[deadline] = words[deadline], 0
        began = self._system.boottime()
        try:
            return self._take_token(conversation)
        finally:
            words[deadline] = until and until + int((self._system.boottime() - began) * 1e9)

    def _take_token(self, conversation: str) -> bool:
        tokens = self._tokens or self._begin()
        number = tokens.token_number(conversation)
        if (tokens.holds_token(conversation) or self._is_first(number)) and tokens.take_token(conversation):
            return True
        self._board.words[self._waits] = number
        try:
            return self._wait_for(conversation, number, tokens)
        finally:
            self._board.words[self._waits] = 0

    def try_token(self, conversation: str) -> bool:
        """Take the token if no other worker holds it, without a wait. Raises StorageFault's kinds."""
        return (self._tokens or self._begin()).take_token(conversation)

    def release_token(self, conversation: str) -> None:
        if self._tokens is not None:
            self._tokens.release_token(conversation)

    def _wait_for(self, conversation: str, number: int, tokens: Tokens) -> bool:
        began = self._system.boottime()
        while (waited := self._system.boottime() - began) < IDLE_WAIT_SECONDS:
            if waited >= WAIT_SECONDS and self._is_wanted():
                return False
            self._system.sleep(_LOOK_SECONDS if waited < WAIT_SECONDS else _IDLE_LOOK_SECONDS)
            if self._is_first(number) and tokens.take_token(conversation):
                return True
        return False

    def _is_first(self, number: int) -> bool:
        """Whether no older entry waits for that token in another worker of this host."""
        board = self._board
        waiting = [
            slot
            for slot in board.workers()
            if board.words[board.slot(slot) + SlotWord.WAITS_FOR] == number and slot != self._slot
        ]
        return not waiting or board.name(self._slot) < min(map(board.name, waiting))

    def _begin(self) -> Tokens:
        from maildefer.maildir.upkeep.tokens import (
            Tokens,  # an application without conversations never needs it
        )

        self._board.words[Header.TOKENS] = (
            self._home.index + 1
        )  # the keeper reclaims the tokens of the dead from now on
        self._tokens = Tokens(self._home.claimer.layout, self.slots, lease=self._lease, system=self._system)
        return self._tokens

    def _lease(self) -> str | None:
        return self._home.claimer.lease if self._home.may_take_tokens() else None


class TokenSlots:
    """Places for tokens, among those of the process's slot: counted, and without a name. Implements `ClaimSlots`."""

    def __init__(self, board: Scoreboard, slot: int, own: ScoreboardSlot) -> None:
        self._words = board.words
        self._count = board.slot(slot) + SlotWord.TOKENS
        self._slot = own

    def next_seq(self) -> int:
        return self._slot.next_seq()

    def take_place(self, seq: int, name: str) -> int:
        self._words[self._count] += 1  # first, so that a place that is taken is counted
        return self._slot.take_unnamed_place(seq)

    def free_place(self, place: int) -> None:
        self._slot.free_place(place)
        self._words[self._count] -= 1
