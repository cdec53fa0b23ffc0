"""A worker's slots of limits: taken before the handlers of a message run, all or none, and released after.

Slots of `@concurrency` are tokens (`maildir.upkeep.tokens`), those of `@rate` files that say when they are free again
(`maildir.upkeep.rates`); both are in the queue `home`. Slots of rates are taken last, since what is taken in vain is
wasted where it can't be returned.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Self, TypeVar

from maildefer.errors import StorageFault
from maildefer.handling.limits.limit import LimitUse
from maildefer.handling.outcomes import Outcome, Postponed
from maildefer.maildir.claims import ClaimSlots
from maildefer.maildir.names import pushed_at
from maildefer.maildir.system import SYSTEM, System
from maildefer.maildir.upkeep.rates import RateGrant, RateOf, RateSlots
from maildefer.maildir.upkeep.tokens import Tokens, slots_of
from maildefer.pool.scoreboard import Header, QueueWord, Scoreboard, SlotWord
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.worker.conversation_locks import TokenSlots
from maildefer.pool.worker.limits.down import DownDestinations
from maildefer.pool.worker.limits.quick_waits import LOOK_SECONDS, Pauses, QuickWaits
from maildefer.pool.worker.limits.waiting_line import WaitingLine, number_of
from maildefer.pool.worker.queue_view import QueueView

_LEAST_SECONDS = 0.5
_JOIN_SECONDS = 2.0  # that a worker's first messages wait for the lease of `home`, all together
_HOME_SECONDS = 1.0  # between tries without it
_LOOK_AGAIN_SECONDS = 2.0  # for whether a destination is open again
_PROMOTED_FOR_EACH = 2  # of those that wait for a destination, for each message that it answers


T = TypeVar("T")


class WorkerLimits:
    """The slots of one worker, for one message at a time. Implements the dispatcher's `LimitSlots`."""

    def __init__(
        self,
        home: QueueView,
        board: Scoreboard,
        slot: int,
        own: ScoreboardSlot,
        tell_released: Callable[[int], None],
        *,
        lifetime_seconds: float = math.inf,
        places: int = 1,
        draw: Callable[[float, float], float] = random.uniform,
        system: System = SYSTEM,
    ) -> None:
        self._home = home
        self._board = board
        self._base = board.slot(slot)
        self._system = system
        self._tell_released = tell_released  # called with the number of a limit for which entries wait here
        self._draw = draw
        layout, slots = home.claimer.layout, TokenSlots(board, slot, own)
        self._tokens = Tokens(layout, slots, lease=self._lease, folder="limits", system=system)
        self._rates = RateSlots(layout, now=home.claimer.mount_time, system=system)
        self._down = DownDestinations(layout, home.claimer.mount_time, lifetime_seconds, places, draw, system)
        self._line = WaitingLine(board, system=system)
        self._taken: list[str] = []
        self._grants: list[RateGrant] = []
        self._ahead: tuple[LimitUse, ...] = ()  # what they were taken for, before the claim
        self._began = 0.0
        self._running: tuple[LimitUse, ...] = ()
        self._waits = QuickWaits(system)
        self._has_joined = False  # whether `home` was served at some time, and so its time is known
        self._wait_until: float | None = None  # for that

    def beside(self, slots: ClaimSlots | None = None) -> Self:
        """Make those of another message that is in flight in this worker; `slots` publishes its tokens from then on."""
        other = copy.copy(self)
        other._taken, other._grants, other._ahead, other._running = [], [], (), ()
        other._down = self._down.beside()
        if slots is not None:
            layout = self._home.claimer.layout
            other._tokens = Tokens(layout, slots, lease=self._lease, folder="limits", system=self._system)
        return other

    def take_slots(self, uses: Sequence[LimitUse], key: str | None) -> Postponed | None:
        """Take a slot of each limit; or none, and say for how long the entry of that key is postponed.

        The handler's time limit does not run meanwhile, as for conversations. Raises StorageFault's kinds.
        """
        words, deadline = self._board.words, self._base + SlotWord.DEADLINE
        until, words[deadline] = words[deadline], 0
        began = self._system.boottime()
        try:
            return self._slept(self.taking_slots(uses, key))
        finally:
            words[deadline] = until and until + int((self._system.boottime() - began) * 1e9)

    def taking_slots(self, uses: Sequence[LimitUse], key: str | None) -> Pauses[Postponed | None]:
        """Do what `take_slots` does, but leave all sleep to the caller."""
        if not (yield from self._wait_for_home(uses)):
            return self._without_home(uses[0])
        full = None if self._has_ahead(uses) else (yield from self._take(uses, key))
        if full is not None:
            words, queue = (
                self._board.words,
                self._board.queue(self._board.words[self._base + SlotWord.QUEUE]),
            )
            hosts = max(1, words[queue + QueueWord.HOSTS])
            return self._line.postponed(*full, age=self._age(key), hosts=hosts, draw=self._draw)
        self._ahead, self._running, self._began = (), tuple(uses), self._system.boottime()
        return None

    def take_ahead(
        self, uses: Sequence[LimitUse], *, waits: bool = True, name: str | None = None
    ) -> float | None:
        """Take a slot of each limit before the claim, for the next message; else return in how many seconds to try.

        `name` is that of the entry, if it is known.
        """
        if not self._may_take(uses):
            return 0.0
        if self._has_ahead(uses):
            return None
        full = self._slept(self._take(uses, name, waits=waits))
        if full is None:
            self._ahead = tuple(uses)
            return None
        seconds = full[1] or 0.0
        return min(seconds, _LOOK_AGAIN_SECONDS) if full[0].limit.closes else seconds

    def release_ahead(self) -> None:
        """Release what was taken for a message that did not come."""
        if self._ahead:
            self._return_all()

    def release_slots(self, outcome: Outcome | None = None) -> Outcome | None:
        """Release the slots of a message whose handlers have returned; those of rates are used.

        Returns the outcome to settle: a message whose destination is down is postponed.
        """
        seconds = self._system.boottime() - self._began
        self._grants.clear()
        self._release_tokens()
        for use in self._running:
            if use.limit.period_seconds is not None:
                continue
            self._waits.note_seconds(use.name, seconds)
            if use.limit.closes:
                outcome = self._end_at(use, outcome)
            elif not self._line.is_empty(number := number_of(use.name)):
                self._tell_released(number)
        self._running = ()
        return outcome

    def _end_at(self, use: LimitUse, outcome: Outcome | None) -> Outcome | None:
        """Close the destination if it is down, or let what waits for it go on if it was; returns what to settle."""
        try:
            seconds = self._down.end(use.destination, outcome)
        except StorageFault:  # the next message finds out the same
            return outcome
        number = number_of(use.name)
        if seconds is not None:
            self._line.join(number, least_seconds=seconds, spacing_seconds=0.0)
            return Postponed(seconds, getattr(outcome, "reason", ""), limit=number, tried=True)
        if not isinstance(outcome, Postponed | None) and not self._line.is_empty(number):
            for _ in range(_PROMOTED_FOR_EACH):
                self._tell_released(number)
        return outcome

    def _may_take(self, uses: Sequence[LimitUse]) -> bool:
        """Whether there is a lease to take tokens under; slots of rates need to know the time, so only that it was."""
        if self._has_joined and all(use.limit.closes or use.limit.period_seconds is not None for use in uses):
            return True
        if not self._home.may_take_tokens():
            return False
        self._has_joined = True
        return True

    def _slept(self, pauses: Pauses[T]) -> T:
        while True:
            try:
                self._system.sleep(next(pauses))
            except StopIteration as end:
                result: T = end.value
                return result

    def _wait_for_home(self, uses: Sequence[LimitUse]) -> Pauses[bool]:
        """Whether slots may be taken; where `home` is joined a moment later than the message's queue, after a wait."""
        while not self._may_take(uses):
            now = self._system.boottime()
            if self._wait_until is None:
                self._wait_until = now + _JOIN_SECONDS
            if self._has_joined or now >= self._wait_until:
                return False
            yield LOOK_SECONDS
        return True

    def _without_home(self, use: LimitUse) -> Postponed:
        """No limit is reached, so the log does not tell one; of `home` it tells what is wrong."""
        reason = f"the limits of {use.handler} can't be kept while {self._home.name} has no lease"
        return Postponed(_HOME_SECONDS, reason, limit=number_of(use.name))

    def _has_ahead(self, uses: Sequence[LimitUse]) -> bool:
        """Whether these slots are taken already, and good for a start now."""
        if not self._ahead:
            return False
        if self._ahead == tuple(uses) and self._are_good():
            return True
        self._return_all()
        return False

    def _take(
        self, uses: Sequence[LimitUse], entry: str | None, *, waits: bool = True
    ) -> Pauses[tuple[LimitUse, float | None] | None]:
        """Take a slot of each limit; where one has none, none, and return it with the seconds until it may have one."""
        # The keeper reclaims what the dead hold from now on.
        self._board.words[Header.TOKENS] = self._home.index + 1
        try:
            for use in uses:
                if not use.limit.closes:
                    continue
                if seconds := self._down.wait(use.destination, self._age(entry)):
                    return use, seconds
                if use.limit.key is not None:
                    take = partial(self._down.take_place, use.destination)
                    if not (yield from self._waits.wait_for(use, take, may_wait=waits)):
                        return use, None
            for use in uses:
                if use.limit.closes or use.limit.period_seconds is not None:
                    continue
                if not (yield from self._take_token(use, waits)):
                    self._return_all()
                    return use, None
            for use in uses:
                if use.limit.period_seconds is not None:
                    rate = RateOf(use.name, use.limit.count, use.limit.period_seconds)
                    grant = self._rates.take_slot(rate)
                    if not isinstance(grant, RateGrant):
                        self._return_all()
                        return use, grant
                    self._grants.append(grant)
            for use in uses:
                if use.limit.closes and (seconds := self._down.begin(use.destination)):
                    self._return_all()
                    return use, seconds
        except BaseException:
            self._return_all()
            raise
        if self._are_good():
            return None
        self._return_all()  # a mount was slow; another try finds what it leaves free
        return uses[-1], _LEAST_SECONDS

    def _are_good(self) -> bool:
        """Whether the slots of rates that were taken are good for a start now."""
        return not self._grants or self._system.boottime() < min(grant.until for grant in self._grants)

    def _take_token(self, use: LimitUse, waits: bool) -> Pauses[bool]:
        """Take a slot of `@concurrency`; wait for it a moment where handlers are quick and nothing else is held."""
        slots = slots_of(use.name, use.limit.count)
        if any(slot in self._taken for slot in slots):  # of another limit of this message, by its hash
            return True
        first = int(self._draw(0, len(slots)))  # workers that begin at the same one get in each other's way
        slots = slots[first:] + slots[:first]
        may_wait = waits and not self._taken
        take = partial(self._tokens.take_one_of, slots)
        taken = yield from self._waits.wait_for(use, take, may_wait=may_wait)
        if taken:
            self._taken.append(taken)
        return bool(taken)

    def _return_all(self) -> None:
        """Return what nothing was started for."""
        for grant in self._grants:
            self._rates.return_slot(grant)
        self._grants.clear()
        self._ahead = ()
        self._down.give_up()
        self._release_tokens()

    def _release_tokens(self) -> None:
        for token in reversed(self._taken):
            self._tokens.release(token)
        self._taken.clear()

    def _age(self, key: str | None) -> float:
        pushed = None if key is None else pushed_at(key)
        return 0.0 if pushed is None else self._home.claimer.mount_time() - pushed

    def _lease(self) -> str | None:
        return self._home.claimer.lease if self._home.may_take_tokens() else None
