"""What each message in flight has of what is kept over all hosts: tokens of conversations and calls, slots of limits.

Two messages of one conversation in one worker wait for each other, the older one first; a token that another worker
holds is looked for by the first of those that wait. Nobody waits for long where others could use its place: a message
that has waited in vain is postponed.
"""

from __future__ import annotations

from asyncio import Future
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from maildefer.handling.calls.step import CALL, EXCLUSIVE_CALL
from maildefer.handling.limits.limit import LimitUse
from maildefer.handling.outcomes import Outcome, Postponed
from maildefer.host.linux.process_locks import ProcessLocks
from maildefer.maildir.upkeep.tokens import token_of
from maildefer.pool.worker.batch_leader import BatchCalls
from maildefer.pool.worker.conversation_locks import IDLE_WAIT_SECONDS, WAIT_SECONDS, ConversationLocks
from maildefer.pool.worker.in_flight.flights import Flight, Flights

if TYPE_CHECKING:
    from maildefer.maildir.outbox.outputs import Outputs
    from maildefer.pool.worker.limits.worker_limits import WorkerLimits

_LOOK_SECONDS: Final = 0.02
_FULL_SECONDS: Final = 1.0


@dataclass(slots=True, eq=False)
class _Place:
    """A place in a line: the entry's name, and what wakes it."""

    name: str
    woken: Future[None] | None = None


class FlightTokens(BatchCalls):
    """All tokens of one worker; its own as `ConversationTokens`, for what it handles outside of the loop.

    `is_wanted` says whether others could use the place of a message that waits.
    """

    def __init__(
        self,
        locks: ProcessLocks,
        conversations: ConversationLocks | None,
        in_flight: Callable[[], int],
        is_wanted: Callable[[], bool],
    ) -> None:
        super().__init__(locks, conversations)
        self._at_once = conversations
        self._in_flight = in_flight
        self._is_wanted = is_wanted
        self._holders: dict[str, tuple[object, int]] = {}  # by token: who has it, how often
        self._lines: dict[str, list[_Place]] = {}  # those that wait, the oldest first

    def take_token(self, conversation: str) -> bool:
        return self._take(conversation, self, waits=not self._in_flight())

    def release_token(self, conversation: str) -> None:
        """Release a token of whichever holder, and wake the first that waits for it."""
        token = _token(conversation)
        holder, times = self._holders.pop(token)
        super().release_token(conversation)
        if times > 1:
            self._holders[token] = holder, times - 1
        else:
            self._wake_first(token)

    async def take_for(self, flight: Flight, flights: Flights, conversation: str) -> bool:
        """Take the token, if need be after a wait; False where the message is to be postponed."""
        token = _token(conversation)
        if token not in self._lines:
            with flights.limits.outside():
                if self._take(conversation, flight):
                    return True
        left = flight.wait()
        try:
            return await self._wait_for(token, conversation, flight, flights)
        finally:
            flight.go_on(left)

    async def _wait_for(self, token: str, conversation: str, flight: Flight, flights: Flights) -> bool:
        began, waited = flights.loop.time(), 0.0
        place, line = _Place(flight.name), self._lines.setdefault(token, [])
        insort(line, place, key=lambda one: one.name)
        try:
            while waited < (WAIT_SECONDS if self._is_wanted() else IDLE_WAIT_SECONDS):
                is_elsewhere = line[0] is place and token not in self._holders
                place.woken = flights.loop.create_future()
                await _sleep(flights, _LOOK_SECONDS if is_elsewhere else WAIT_SECONDS, place.woken)
                if line[0] is place:
                    with flights.limits.outside():
                        if self._take(conversation, flight):
                            return True
                waited = flights.loop.time() - began
            return False
        finally:
            line.remove(place)
            if not line:
                del self._lines[token]
            elif token not in self._holders:  # the next one looks for it
                self._wake_first(token)

    def _take(self, conversation: str, holder: object, *, waits: bool = False) -> bool:
        """Take it at once, or with `waits` as a worker that handles nothing else."""
        token = _token(conversation)
        known, times = self._holders.get(token, (holder, 0))
        if known is not holder or (times and token == conversation):  # one call at a time
            return False
        try:
            if self._at_once is None or waits or token == conversation:
                is_taken = super().take_token(conversation)
            else:
                is_taken = self._at_once.try_token(conversation)
        except IndexError:  # no place is left on the scoreboard
            return False
        if is_taken:
            self._holders[token] = holder, times + 1
        return is_taken

    def _wake_first(self, token: str) -> None:
        if (line := self._lines.get(token)) and (woken := line[0].woken) is not None:
            _wake(woken)


class LimitedFlight(Flight):
    """A call with the tokens and slots that it takes for its handlers: the `Lane` of `Dispatcher.begin`."""

    tokens: FlightTokens
    limits: WorkerLimits | None = None
    outputs: Outputs | None = None

    async def take_token(self, conversation: str) -> bool:
        return await self.tokens.take_for(self, self._flights, conversation)

    def release_token(self, conversation: str) -> None:
        with self._flights.limits.outside():
            self.tokens.release_token(conversation)

    async def take_slots(self, uses: Sequence[LimitUse], key: str | None) -> Postponed | None:
        assert self.limits is not None
        pauses, left = self.limits.taking_slots(uses, key), self.wait()
        try:
            while True:
                with self._flights.limits.outside():
                    seconds = next(pauses)
                await _sleep(self._flights, seconds, self._flights.loop.create_future())
        except StopIteration as end:
            full: Postponed | None = end.value
            return full
        except IndexError:
            return Postponed(_FULL_SECONDS, "no place is left on the scoreboard for the slots of its limits")
        finally:
            with self._flights.limits.outside():
                pauses.close()  # a cancellation would leave what it has to the garbage collector
            self.go_on(left)

    def release_slots(self, outcome: Outcome | None) -> Outcome | None:
        assert self.limits is not None
        with self._flights.limits.outside():
            return self.limits.release_slots(outcome)


async def _sleep(flights: Flights, seconds: float, woken: Future[None]) -> None:
    timer = flights.loop.call_later(seconds, _wake, woken)
    try:
        await woken
    finally:
        timer.cancel()


def _wake(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _token(conversation: str) -> str:
    """Return what holds for one message at a time: the token of a conversation, the name of a call."""
    is_call = conversation.startswith((CALL, EXCLUSIVE_CALL))
    return conversation if is_call else token_of(conversation)
