"""Calls of async handlers that are in flight, and the turns of the event loop in which they go on.

The worker is outside of the loop while it claims, reads and settles, so that a mount that hangs takes no time of
theirs. No exception of a call ends the worker at once, whose death would be charged to the others as well.
"""

from __future__ import annotations

import math
import os
from asyncio import AbstractEventLoop, CancelledError, Task, all_tasks
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import cached_property
from typing import Any, TypeVar

from maildefer import events
from maildefer.errors import HandlerTimedOut
from maildefer.handling.calls import event_loop
from maildefer.maildir.system import boottime
from maildefer.pool.scoreboard import Scoreboard, SlotWord
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.worker.claim_slots import GatheredClaim, GatheredSlots
from maildefer.pool.worker.in_flight.company import Company
from maildefer.pool.worker.in_flight.time_limits import TimeLimits

T = TypeVar("T")
Ended = Callable[[BaseException], object]


class Flight(Coroutine[Any, Any, None]):
    """One call, for a message or a batch: a coroutine that shows on the scoreboard which call each step belongs to."""

    def __init__(
        self, flights: Flights, claims: Sequence[GatheredClaim], slots: GatheredSlots, queue: int, size: int
    ) -> None:
        self.claims, self.queue, self.size_bytes = claims, queue, size
        self.crashes = max(claim.crashes for claim in claims)
        self.name = min(claim.name for claim in claims)
        self.began_ns = int(boottime() * 1e9)
        self.handler = ""
        self.limit_seconds = flights.limit_seconds
        self._is_in_handler = self._is_over = False  # in an async one; cancelled at its limit
        self.due = math.inf  # by the clock of the limits; never, while it waits
        self.task: Task[None] | None = None
        self._slots, self._flights = slots, flights
        self._left: float | None = None  # of the pool's limit, while a handler with its own runs

    def begin(self, coroutine: Coroutine[Any, Any, Any], ended: Ended) -> None:
        """Begin the call; `ended` is called outside of the loop, with the StopIteration or fault in which it ended."""
        self._coroutine, self.ended = coroutine, ended
        self._flights.add(self)
        self.go_on(self.limit_seconds)

    def running(self, handler: str, limit_seconds: float | None, most_timeouts: int) -> None:
        """Note that a handler begins, with a time limit of its own or what is left of the message's."""
        self.handler, left = handler, self.due - self._flights.limits.now()
        if limit_seconds is not None:
            self._left, self.limit_seconds = left if self._left is None else self._left, limit_seconds
            self._flights.limits.begin(self, limit_seconds)
        elif self._left is not None or left <= 0:
            left, self._left = left if self._left is None else self._left, None
            self.limit_seconds = self._flights.limit_seconds
            self._flights.limits.begin(self, max(left, 0.0))
        self._flights.show_handler(self)

    async def within_limit(self, awaitable: Awaitable[T], name: str) -> T:
        """Await what an async handler does, which is cancelled at its limit. Raises HandlerTimedOut."""
        assert self.task is not None
        before, self._is_in_handler = self.task.cancelling(), True
        try:
            return await awaitable
        except CancelledError as fault:
            if self._is_over:
                raise HandlerTimedOut(name, self.limit_seconds) from fault
            raise
        finally:
            while self.task.cancelling() > before:  # by whatever: it is the handler's only
                self.task.uncancel()
            self._is_in_handler = self._is_over = False
            self._flights.limits.forget_overdue(self)

    def may_be_cancelled(self) -> bool:
        return self._is_in_handler

    def cancel(self) -> None:
        assert self.task is not None
        self._is_over = True
        self._flights.end_step()  # what it waits for may take the cancellation, so that it makes no step
        self.task.cancel()

    def wait(self) -> float:
        """Begin to wait for what other messages have: no handler has it now. Returns what is left of its limit."""
        left, self.due = self.due - self._flights.limits.now(), math.inf
        self._slots.unmark(self.claims)
        return left

    def go_on(self, left: float) -> None:
        """Go on with so much left of its limit."""
        self._slots.mark_in_handler(self.claims)
        self._flights.limits.begin(self, left)

    def charge(self) -> None:
        """Have the worker's death charged to what is not settled."""
        self._slots.mark_in_handler([claim for claim in self.claims if claim.is_held])

    def send(self, value: Any) -> Any:
        return self._step(self._coroutine.send, value)

    def throw(self, *fault: Any) -> Any:
        return self._step(self._coroutine.throw, *fault)

    def close(self) -> None:
        """Cancel it: closed, its task would be woken by nothing. A handler may do that with all tasks."""
        if self.task is not None:
            self.task.cancel()

    def __await__(self) -> Any:
        raise NotImplementedError("it is run by its task only")

    def _step(self, step: Callable[..., Any], *given: Any) -> Any:
        if self._flights.shown is not self:
            self._flights.publish(self)
        try:
            return step(*given)
        except BaseException as end:  # noqa: BLE001  # for whoever settles
            self._flights.note_ended(self, end)
            raise StopIteration from None
        finally:
            self._flights.end_step()


class Flights:
    """All that one worker has in flight. `waker` is a descriptor that ends a turn when it is readable.

    `has_forked` says whether this process is a child that a handler has made.
    """

    def __init__(
        self,
        make_loop: Callable[[], AbstractEventLoop],
        board: Scoreboard,
        slot: int,
        own: ScoreboardSlot,
        waker: Callable[[], int],
        company: Company,
        *,
        limit_seconds: float,
        has_forked: Callable[[], bool],
    ) -> None:
        self.limit_seconds, self.size_bytes = limit_seconds, 0
        self._make_loop, self._waker = make_loop, waker
        self._company = company
        self._words, self._base, self._slot = board.words, board.slot(slot), own
        self._has_forked = has_forked
        self._all: set[Flight] = set()
        self._ended: deque[tuple[Flight, BaseException]] = deque()
        self.shown: Flight | None = None
        self.faults: list[tuple[Flight, BaseException]] = []
        """Errors of ours at the ends of calls: the worker is to end, once the others have ended."""
        self.limits = TimeLimits[Flight](lambda: self.loop, board, slot)
        self._watched = -1

    def __len__(self) -> int:
        return len(self._all)

    @cached_property
    def loop(self) -> AbstractEventLoop:
        """The event loop, made for the first call: 1 MB, which an idle worker has no use for."""
        loop = self._make_loop()
        loop.add_reader(waker := self._waker(), self._wake, waker)
        loop.call_soon(self.limits.keep_telling)
        return loop

    def has_tasks(self) -> bool:
        """Whether anything is in flight, or was left running by handlers."""
        return bool(self._all) or (event_loop.has_loop() and bool(all_tasks(self.loop)))

    def add(self, flight: Flight) -> None:
        self._company.join(flight.crashes, len(flight.claims))
        self._all.add(flight)
        self.size_bytes += flight.size_bytes
        flight.task = self.loop.create_task(flight)

    def turn(self, seconds: float | None, watch: int = -1) -> None:
        """Run the loop until a call has ended, a signal or what is watched has come, or so long; then settle."""
        if not self._ended:
            self.watch(watch)
            timer = None if seconds is None else self.loop.call_later(seconds, self.loop.stop)
            self._begin_turn()
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as fault:  # of a task that a handler has left behind
                self.loop.call_exception_handler({"message": "a task has raised it", "exception": fault})
            finally:
                self.limits.leave()
                if timer is not None:
                    timer.cancel()
        while self._ended:
            flight, end = self._ended.popleft()
            try:
                flight.ended(end)
            except BaseException as fault:  # noqa: BLE001  # the others have to end before the worker does
                self.faults.append((flight, fault))
                events.emit("worker.recycled", pid=os.getpid(), error=f"{type(fault).__name__}: {fault}")

    def spare_all(self) -> None:
        """Have a death that comes now charged to nothing that is in flight."""
        for flight in self._all:
            flight.wait()

    def raise_fault(self) -> None:
        """Raise the first error of ours, if there is any: the worker's death is charged to what met them."""
        for flight, _ in self.faults:
            flight.charge()
        for flight, fault in self.faults:
            self.publish(flight)
            raise fault

    def publish(self, flight: Flight) -> None:
        """Show on the scoreboard which call the worker is on."""
        words, base = self._words, self._base
        words[base + SlotWord.QUEUE], words[base + SlotWord.BEGAN] = flight.queue, flight.began_ns
        self._slot.hint(flight.name)
        self.shown = flight
        self.show_handler(flight)

    def show_handler(self, flight: Flight) -> None:
        self._words[self._base + SlotWord.LIMIT] = int(flight.limit_seconds * 1000)
        self._slot.show_handler(flight.handler)

    def end_step(self) -> None:
        """Show what is overdue, if anything: else it is the step's call that a crash or a look finds."""
        if self._has_forked():  # a handler's own child, which has come back from it
            os._exit(0)
        if self.limits.overdue and self.shown is not self.limits.overdue[0]:
            self.publish(self.limits.overdue[0])

    def note_ended(self, flight: Flight, end: BaseException) -> None:
        """Stop the turn, so that the call's messages are settled."""
        if flight not in self._all:  # something has run its coroutine besides its task
            return
        flight.wait()
        self._all.remove(flight)
        self.size_bytes -= flight.size_bytes
        self._company.leave(flight.crashes, len(flight.claims))
        self._ended.append((flight, end))
        self._stop()

    def _begin_turn(self) -> None:
        self._words[self._base + SlotWord.MOST_TIMEOUTS] = 0  # a death charges those without a part in it
        self.shown = None
        self.end_step()
        self.limits.enter()

    def watch(self, descriptor: int) -> None:
        """Stop the turns when that is readable; -1: nothing but signals."""
        if descriptor == self._watched:
            return
        if self._watched >= 0:
            self.loop.remove_reader(self._watched)
        if descriptor >= 0:
            self.loop.add_reader(descriptor, self._stop)
        self._watched = descriptor

    def _wake(self, waker: int) -> None:
        try:
            os.read(waker, 4096)
        except BlockingIOError:
            pass
        self._stop()

    def _stop(self) -> None:
        if self.limits.is_inside:  # else a handler runs the loop, for what it awaits
            self.loop.stop()
