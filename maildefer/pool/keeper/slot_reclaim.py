"""Slots of dead workers: what they hold in one queue is reclaimed, and only then are they cleared."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING

from maildefer.errors import MaildeferError
from maildefer.maildir.names import Owner
from maildefer.maildir.upkeep.failed_moves import FailedMoves
from maildefer.maildir.upkeep.reclaim import OwnerState, Reclaimer, StateOf
from maildefer.pool import status_record, worker_deaths
from maildefer.pool.context import PoolContext
from maildefer.pool.keeper.reclaim_log import log_reclaimed_tokens, logged_reclaims
from maildefer.pool.scoreboard import Scoreboard, State
from maildefer.pool.scoreboard_views import HeaderView, SlotView

if TYPE_CHECKING:
    from maildefer.maildir.upkeep.token_reclaim import TokenReclaimer


class DeadSlots:
    """Dead slots of one queue. `add_slot` is for any thread, the rest for the thread of the queue's chores."""

    def __init__(
        self,
        context: PoolContext,
        index: int,
        queue: str,
        on_reclaimed: Callable[[int], None],
        refusals: FailedMoves,
    ) -> None:
        """`on_reclaimed` is called with each slot of which nothing is left in this queue."""
        self._context = context
        self._board = context.board
        self._dumps = context.dumps
        self._index = index
        self._queue = queue
        self._on_reclaimed = on_reclaimed
        self._refusals = refusals
        self._dead: SimpleQueue[int] = SimpleQueue()

    def add_slot(self, slot: int) -> None:
        self._dead.put(slot)

    def next_at(self) -> float:
        """Compute when to reclaim, on the boot clock: at once where a slot was not tried yet."""
        return self._refusals.next_at() if self._dead.empty() else 0.0

    def reclaim(self, reclaimer: Reclaimer, tokens: TokenReclaimer | None) -> None:
        """Reclaim each by itself: a slot whose claims can't be moved stays dead on the scoreboard, and is retried."""
        for name in self._refusals.due():
            self._dead.put(_slot(name))
        for _ in range(self._dead.qsize()):
            slot = self._dead.get()
            if not self._refusals.may_try(_name(slot)):  # added again
                continue
            try:
                is_done = self._reclaim_slot(slot, reclaimer, tokens)
            except (OSError, MaildeferError) as fault:
                self._refusals.note(_name(slot), fault)
                continue
            self._refusals.forget(_name(slot))
            if is_done:
                self._on_reclaimed(slot)

    def _reclaim_slot(self, slot: int, reclaimer: Reclaimer, tokens: TokenReclaimer | None) -> bool:
        """Reclaim one slot; False where that was done before: added twice, it may be another process's by now."""
        board = self._board
        child = SlotView(board, slot)
        pid, state = child.pid, child.state
        if not child.is_dead:
            return False
        with logged_reclaims(self._context, self._index) as reclaimed:
            spared = board.spared(slot, self._index)
            charged, death = state == State.DEAD_CHARGED, worker_deaths.read_death(board, slot, self._dumps)
            reclaimer.reclaim_claims_of(pid, charged=charged, spared=spared, moved=reclaimed, death=death)
        board.forget_gathered(slot, self._index)
        if tokens is not None:
            log_reclaimed_tokens(self._queue, tokens.reclaim_tokens_of(pid))
            child.tokens = 0
        return True

    def clear_all(self) -> None:
        """Clear all of them: there is no lease of ours, so no claim under it."""
        for name in self._refusals.names():
            self._refusals.forget(name)
            self._dead.put(_slot(name))
        while not self._dead.empty():
            slot = self._dead.get()
            if HeaderView(self._board).token_queue == self._index:
                SlotView(self._board, slot).tokens = 0
            self._board.forget_gathered(slot, self._index)
            self._on_reclaimed(slot)


def _name(slot: int) -> str:
    return f"slot {slot}"


def _slot(name: str) -> int:
    return int(name.removeprefix("slot "))


def owner_states(board: Scoreboard) -> StateOf:
    """Read what the scoreboard says of claims of our own lease, after the listing that showed them."""
    on_claim = status_record.on_claims(board)

    def state_of(owner: Owner) -> OwnerState:
        on_it = on_claim(owner.pid, owner.seq)
        return "dead" if on_it is None else "held" if on_it else "alive"

    return state_of
