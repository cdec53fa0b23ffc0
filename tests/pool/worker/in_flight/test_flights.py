from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from maildefer.errors import HandlerTimedOut
from maildefer.handling.calls.event_loop import CANCEL_GRACE_SECONDS
from maildefer.pool import status_record
from maildefer.pool.scoreboard import IN_HANDLER, Header, ProcessKind, Scoreboard, SlotWord
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.status_record import worker_record
from maildefer.pool.worker.claim_slots import GatheredSlots
from maildefer.pool.worker.in_flight import flights, time_limits
from maildefer.pool.worker.in_flight.company import Company
from maildefer.pool.worker.in_flight.flights import Flight, Flights

LIMIT = 60.0


class Worker:
    """One worker's flights, whose clock is `now` and goes on only if the test says so."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now = 1000.0
        self.board = Scoreboard(1, 2)
        self.board.words[Header.USED] = 1
        self.base = self.board.slot(0)
        self.own = ScoreboardSlot(self.board, 0)
        self.places = GatheredSlots.all_places(self.board, 0)
        self.slots = GatheredSlots(self.board, 0, self.own, 0, self.places)
        self.waker, self.writer = os.pipe2(os.O_NONBLOCK)
        self.loop = loop
        self.ends: list[BaseException] = []

    def open(self) -> Worker:
        self.company = Company(10, 5)
        self.flights = Flights(
            lambda: self.loop,
            self.board,
            0,
            self.own,
            lambda: self.waker,
            self.company,
            limit_seconds=LIMIT,
            has_forked=lambda: False,
        )
        return self

    def begin(
        self,
        handler: Callable[[Flight], Coroutine[Any, Any, Any]],
        name: str = "a",
        ended: Callable[[BaseException], object] | None = None,
    ) -> Flight:
        claim: Any = SimpleNamespace(crashes=0, name=name, is_held=True)
        claim.place = self.slots.take_place(self.slots.next_seq(), name)
        flight = Flight(self.flights, [claim], self.slots, 0, 100)
        flight.begin(handler(flight), ended or self.ends.append)
        return flight

    def turn(self) -> None:
        self.flights.turn(0.0)

    @property
    def deadline(self) -> float:
        return self.board.words[self.base + SlotWord.DEADLINE] / 1e9

    def marked(self) -> int:
        first = self.board.gathering(0)
        return sum(1 for word in self.board.words[first : first + 8] if word & IN_HANDLER)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    with asyncio.Runner() as runner:
        made = Worker(runner.get_loop())
        for module in (flights, time_limits):
            monkeypatch.setattr(module, "boottime", lambda: made.now)
        yield made.open()
        for end in (made.waker, made.writer):
            os.close(end)


async def hang(flight: Flight) -> None:
    await asyncio.sleep(3600)


def limited(seconds: float | None, inner: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """A call as the dispatcher makes it, of a handler with that time limit."""

    async def call(flight: Flight) -> Any:
        flight.running("m.F", seconds, 0)
        return await flight.within_limit(inner(), "m.F")

    return call


def test_the_deadline_holds_within_a_turn_only_and_time_outside_is_added(worker: Worker) -> None:
    seen: list[float] = []

    async def look(flight: Flight) -> None:
        while True:
            seen.append(worker.deadline)
            await asyncio.sleep(0)

    worker.begin(look)
    assert worker.deadline == 0
    worker.turn()
    assert seen[-1] == pytest.approx(1000 + LIMIT + CANCEL_GRACE_SECONDS)
    assert worker.deadline == 0
    worker.now += 500  # a mount hangs
    worker.turn()
    assert seen[-1] == pytest.approx(1500 + LIMIT + CANCEL_GRACE_SECONDS)


def test_what_is_over_its_limit_is_cancelled_and_nothing_else_is(worker: Worker) -> None:
    async def sleep() -> None:
        await asyncio.sleep(3600)

    over = worker.begin(limited(0.5, sleep))
    other = worker.begin(limited(None, sleep))
    worker.turn()
    worker.now += 0.6
    worker.loop.call_later(0.01, lambda: setattr(worker, "now", worker.now + 0.6))
    worker.flights.turn(5.0)
    [end] = worker.ends
    assert isinstance(end, HandlerTimedOut)
    assert "m.F was cancelled at its time limit of 0.5 s" in str(end)
    assert over not in worker.flights._all
    assert other in worker.flights._all
    assert len(worker.flights) == 1


def test_a_handler_that_ends_well_after_its_cancellation_has_ended_well(worker: Worker) -> None:
    async def tidy() -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "done"
        return ""

    worker.begin(limited(0.01, tidy))
    worker.loop.call_later(0.005, lambda: setattr(worker, "now", worker.now + 1))
    worker.flights.turn(5.0)
    [end] = worker.ends
    assert isinstance(end, StopIteration)
    assert end.value == "done"


def test_a_time_limit_is_told_as_such_also_where_the_handler_has_cancelled_itself_before(
    worker: Worker,
) -> None:
    async def cancel_first() -> None:
        cancel_own_task()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(3600)

    worker.begin(limited(0.01, cancel_first))
    worker.loop.call_later(0.005, lambda: setattr(worker, "now", worker.now + 1))
    worker.flights.turn(5.0)
    [end] = worker.ends
    assert isinstance(end, HandlerTimedOut)


def test_a_cancellation_is_over_with_the_handler_that_it_was_for(worker: Worker) -> None:
    async def cancel() -> None:
        cancel_own_task()
        await asyncio.sleep(3600)

    async def call(flight: Flight) -> int:
        with pytest.raises(asyncio.CancelledError):
            await flight.within_limit(cancel(), "m.F")
        assert flight.task is not None
        return flight.task.cancelling()

    worker.begin(call)
    worker.flights.turn(5.0)
    [end] = worker.ends
    assert isinstance(end, StopIteration)
    assert end.value == 0


def cancel_own_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


def test_what_swallows_its_cancellation_is_shown_and_its_deadline_stays(worker: Worker) -> None:
    async def swallow() -> None:
        while not is_over:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass

    async def busy(flight: Flight) -> None:
        flight.running("m.BUSY", None, 0)
        while True:
            seen.append(worker.deadline)
            await asyncio.sleep(0.001)

    seen: list[float] = []
    is_over: list[bool] = []
    worker.begin(busy, "busy")
    worker.begin(limited(0.01, swallow), "bad")
    worker.loop.call_later(0.005, lambda: setattr(worker, "now", worker.now + 1))
    worker.flights.turn(0.5)
    assert worker.board.name(0) == "bad"
    assert worker.board.handler(0) == "m.F"
    assert seen[-1] == pytest.approx(1000.01 + CANCEL_GRACE_SECONDS)
    assert worker.ends == []
    is_over.append(True)


def test_what_waits_for_a_task_that_swallows_the_cancellation_is_shown_before_any_further_step(
    worker: Worker,
) -> None:
    async def swallow() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(3600)

    async def wait() -> None:
        await asyncio.ensure_future(swallow())

    worker.begin(limited(0.01, wait), "bad")
    worker.begin(hang, "last")
    worker.turn()
    assert worker.board.name(0) == "last"
    worker.loop.call_later(0.005, lambda: setattr(worker, "now", worker.now + 1))
    worker.loop.call_later(0.4, lambda: shown.append(worker.board.name(0)))
    shown: list[str] = []
    worker.flights.turn(0.5)
    assert shown == ["bad"]


def test_a_plain_handlers_limit_before_it_is_not_that_of_a_call(worker: Worker) -> None:
    worker.own.running("m.PLAIN", 2.0)  # outside of the loop
    seen: list[tuple[float, int]] = []

    async def handler(flight: Flight) -> None:
        seen.append((worker.deadline, worker.board.words[worker.base + SlotWord.LIMIT]))

    worker.begin(handler)
    worker.turn()
    assert seen == [(worker.now + LIMIT + CANCEL_GRACE_SECONDS, LIMIT * 1000)]


def test_the_call_whose_step_it_is_is_shown(worker: Worker) -> None:
    shown: list[tuple[str, str]] = []

    def handler(name: str) -> Any:
        async def handle(flight: Flight) -> None:
            flight.running(f"m.{name}", None, 0)
            for _ in range(2):
                await asyncio.sleep(0)
                shown.append((worker.board.name(0), worker.board.handler(0)))

        return handle

    worker.begin(handler("A"), "a")
    worker.begin(handler("B"), "b")
    while worker.flights:
        worker.turn()
    assert shown == [("a", "m.A"), ("b", "m.B")] * 2


def test_claims_are_in_a_handler_from_the_call_to_its_end_but_for_waits(worker: Worker) -> None:
    marked: list[int] = []

    async def handle(flight: Flight) -> None:
        marked.append(worker.marked())
        left = flight.wait()
        marked.append(worker.marked())
        worker.now += 100
        flight.go_on(left)
        marked.append(worker.marked())
        assert flight.due == pytest.approx(worker.flights.limits.now() + LIMIT)

    worker.begin(handle)
    assert worker.marked() == 1
    worker.turn()
    assert marked == [1, 0, 1]
    assert worker.marked() == 0
    assert worker.company.has_room_for(4)


def test_a_look_at_the_mount_from_a_step_takes_no_time_of_any_call(worker: Worker) -> None:
    deadlines: list[float] = []

    async def look(flight: Flight) -> None:
        with worker.flights.limits.outside():
            deadlines.append(worker.deadline)
            worker.now += 100
        deadlines.append(worker.deadline)

    worker.begin(hang)
    worker.begin(look)
    worker.turn()
    assert deadlines == pytest.approx([0, 1100 + LIMIT + CANCEL_GRACE_SECONDS])


def test_a_handler_with_its_own_limit_leaves_the_others_what_they_had(worker: Worker) -> None:
    dues: list[float] = []

    async def handle(flight: Flight) -> None:
        for seconds, takes in ((None, 10), (1.0, 5), (None, 10), (None, 100), (None, 0)):
            flight.running("m.F", seconds, 0)
            dues.append(flight.due - worker.flights.limits.now())
            worker.now += takes

    worker.begin(handle)
    worker.turn()
    assert dues == pytest.approx([LIMIT, 1.0, LIMIT - 10, LIMIT - 20, 0])


def test_an_exit_of_a_task_that_was_left_behind_ends_no_worker(worker: Worker) -> None:
    told: list[dict[str, Any]] = []
    worker.loop.set_exception_handler(lambda loop, facts: told.append(facts))

    async def leave(flight: Flight) -> None:
        worker.kept = asyncio.ensure_future(end())  # type: ignore[attr-defined]

    async def end() -> None:
        raise SystemExit(3)

    worker.begin(hang)
    worker.begin(leave)
    for _ in range(3):
        worker.turn()
    assert len(worker.flights) == 1
    assert any(isinstance(facts["exception"], SystemExit) for facts in told)


def test_a_turn_ends_by_a_signal(worker: Worker) -> None:
    worker.begin(hang)
    os.write(worker.writer, b"x")
    worker.flights.turn(None)
    assert len(worker.flights) == 1


def test_an_error_of_ours_at_the_end_of_a_call_is_charged_to_it_alone_once_the_others_have_ended(
    worker: Worker,
) -> None:
    async def done(flight: Flight) -> None:
        flight.running("m.DONE", None, 0)

    async def sleep(flight: Flight) -> None:
        flight.running("m.SLEEP", None, 0)
        await asyncio.sleep(0.005)

    def settle(end: BaseException) -> None:
        raise AssertionError("ours")

    worker.begin(done, "bad", settle)
    worker.begin(done, "settled", settle).claims[0].is_held = False  # type: ignore[misc]
    worker.begin(sleep)
    while worker.flights:
        worker.flights.turn(5.0)
    assert len(worker.ends) == 1
    assert worker.marked() == 0, "a kill that comes now charges nothing"
    with pytest.raises(AssertionError, match="ours"):
        worker.flights.raise_fault()
    assert (worker.board.name(0), worker.board.handler(0)) == ("bad", "m.DONE")
    assert worker.marked() == 1


def test_no_death_is_charged_to_what_is_in_flight_once_it_is_spared(worker: Worker) -> None:
    worker.begin(hang)
    worker.begin(hang)
    worker.turn()
    assert worker.marked() == 2
    worker.flights.spare_all()
    assert worker.marked() == 0


def test_where_asyncio_fails_at_a_cancellation_the_other_limits_are_kept(worker: Worker) -> None:
    async def sleep() -> None:
        await asyncio.sleep(3600)

    def fail() -> bool:
        raise RecursionError

    told: list[dict[str, Any]] = []
    worker.loop.set_exception_handler(lambda loop, facts: told.append(facts))
    worker.begin(limited(0.01, sleep), "bad").task = SimpleNamespace(  # type: ignore[assignment]
        cancelling=lambda: 0, cancel=fail
    )
    worker.begin(limited(0.02, sleep))
    worker.turn()
    worker.loop.call_later(0.005, lambda: setattr(worker, "now", worker.now + 1))
    worker.flights.turn(5.0)
    assert [type(end) for end in worker.ends] == [HandlerTimedOut]
    assert [type(facts["exception"]) for facts in told] == [RecursionError]
    assert worker.board.name(0) == "bad", "it is ended with its worker, and named"


def test_a_call_whose_coroutine_something_closes_or_runs_to_its_end_ends_once(worker: Worker) -> None:
    async def sleep() -> None:
        await asyncio.sleep(0.001)

    closed = worker.begin(limited(None, sleep))
    thrown = worker.begin(limited(None, sleep))
    worker.turn()
    closed.close()
    with pytest.raises(StopIteration):
        thrown.throw(ValueError("from elsewhere"))
    worker.flights.turn(0.05)
    worker.flights.turn(0.05)
    assert thrown.task is not None
    thrown.task.cancel()
    worker.turn()
    assert sorted(type(end).__name__ for end in worker.ends) == ["CancelledError", "ValueError"]
    assert worker.marked() == 0


def test_a_loop_that_a_handler_blocks_is_shown_with_that_handler_and_not_once_it_goes_on(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told() -> tuple[object, object]:
        record = worker_record(shared, 0)
        assert record is not None
        return record["handler"], record["blocked_seconds"]

    async def block() -> None:
        seen.append(told())
        worker.now += 4.0
        seen.append(told())

    seen: list[tuple[object, object]] = []
    shared: Any = SimpleNamespace(board=worker.board, queues=[SimpleNamespace(name="q")])
    monkeypatch.setattr(status_record, "boottime", lambda: worker.now)
    worker.board.words[worker.base + SlotWord.KIND] = ProcessKind.WORKER
    worker.board.words[worker.base + SlotWord.PID] = 7
    worker.begin(limited(3600.0, block))
    worker.begin(hang)
    worker.flights.turn(5.0)
    assert seen == [("m.F", None), ("m.F", 4.0)]
    assert told()[1] is None
    worker.now += 4.0
    assert told()[1] is None  # outside of the loop, as on a slow mount, no handler blocks it


def test_a_loop_that_goes_on_says_so_each_second(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait(flight: Flight) -> None:
        await asyncio.sleep(0.001)
        worker.now += 4.0
        while worker.board.words[worker.base + SlotWord.TURNED] != worker.now * 1e9:
            await asyncio.sleep(0.001)

    monkeypatch.setattr(time_limits, "_TELL_SECONDS", 0.001)
    worker.begin(wait)
    worker.flights.turn(5.0)
    assert len(worker.ends) == 1
