"""A worker's side of the conversation tokens: under which lease, and what the board shows of them.

Costs nothing before the first message for a stateful handler: until then nothing is imported, listed or made.

A taken token is waited for: a tenth of a second, since most handlers are quick, and longer while the worker has nothing
else to do. Else a sender's burst is handled at the pace of postponements, whose unit is a second: 50 messages of 10 ms
took 91 s, now 3. In vain it costs other messages no more than a handler of a tenth of a second does.

Who waits says so on the board, and of a host's entries the oldest is first, so that a conversation has the queue's
order. What had to be postponed comes when it comes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from maildefer.maildir.system import SYSTEM, System
from maildefer.pool.scoreboard import Header, S, Scoreboard
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.worker.queue_view import QueueView

if TYPE_CHECKING:
    from maildefer.maildir.upkeep.tokens import Tokens


PATIENCE_SECONDS = 0.1
IDLE_PATIENCE_SECONDS = 5.0
_LOOK_SECONDS = 0.005
_IDLE_LOOK_SECONDS = 0.02


class ConversationLocks:
    """The worker's tokens, in the queue `home`; implements the dispatcher's `ConversationTokens`. For one thread.

    `is_wanted` tells whether the worker is wanted elsewhere: for another message, or to end.
    """

    def __init__(
        self,
        home: QueueView,
        board: Scoreboard,
        slot: int,
        hand: ScoreboardSlot,
        is_wanted: Callable[[], bool],
        *,
        system: System = SYSTEM,
    ) -> None:
        self._home = home
        self._is_wanted = is_wanted
        self._system = system
        self._board = board
        self._slot = slot
        self._waits = board.slot(slot) + S.WAITS_FOR
        self._hand = TokenSlots(board, slot, hand)
        self._tokens: Tokens | None = None

    def take_token(self, conversation: str) -> bool:
        """Raises StorageFault's kinds, where the filesystem refuses.

        The handler's time does not run meanwhile: that a mount hangs, or another handler takes long, is not its fault,
        and a death in here not its crash (I5).
        """
        words, deadline = self._board.words, self._board.slot(self._slot) + S.DEADLINE
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

    def release_token(self, conversation: str) -> None:
        if self._tokens is not None:
            self._tokens.release_token(conversation)

    def _wait_for(self, conversation: str, number: int, tokens: Tokens) -> bool:
        began = self._system.boottime()
        while (waited := self._system.boottime() - began) < IDLE_PATIENCE_SECONDS:
            if waited >= PATIENCE_SECONDS and self._is_wanted():
                return False
            self._system.sleep(_LOOK_SECONDS if waited < PATIENCE_SECONDS else _IDLE_LOOK_SECONDS)
            if self._is_first(number) and tokens.take_token(conversation):
                return True
        return False

    def _is_first(self, number: int) -> bool:
        """Whether no older entry waits for that token in another worker of this host."""
        board = self._board
        waiting = [
            slot
            for slot in board.workers()
            if board.words[board.slot(slot) + S.WAITS_FOR] == number and slot != self._slot
        ]
        return not waiting or board.name(self._slot) < min(map(board.name, waiting))

    def _begin(self) -> Tokens:
        from maildefer.maildir.upkeep.tokens import (
            Tokens,  # an application without conversations never needs it
        )

        self._board.words[Header.TOKENS] = self._home.index + 1  # the keeper looks after them from now on
        self._tokens = Tokens(self._home.claimer.layout, self._hand, lease=self._lease, system=self._system)
        return self._tokens

    def _lease(self) -> str | None:
        return self._home.claimer.lease if self._home.may_take_tokens() else None


class TokenSlots:
    """Places for tokens, among those of the process's hand: counted, and without a name; implements `claims.Hand`."""

    def __init__(self, board: Scoreboard, slot: int, hand: ScoreboardSlot) -> None:
        self._words = board.words
        self._count = board.slot(slot) + S.TOKENS
        self._hand = hand

    def next_seq(self) -> int:
        return self._hand.next_seq()

    def take(self, seq: int, name: str) -> int:
        self._words[self._count] += 1  # first, so that who finds a place taken finds it counted
        return self._hand.take_unnamed(seq)

    def drop(self, place: int) -> None:
        self._hand.drop(place)
        self._words[self._count] -= 1
