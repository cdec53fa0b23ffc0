from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from maildefer.handling.outcomes import Postponed
from maildefer.pool.worker.in_flight import flight_tokens as module
from maildefer.pool.worker.in_flight.flight_tokens import FlightTokens, LimitedFlight
from tests.pool.worker.in_flight.test_flights import Worker

ANN, BOB = "['m', 'ann']", "['m', 'bob']"
CALL = "batch m.F"


class Mount:
    """Stands for the tokens on the mount, and for the locks of calls: `elsewhere` are those that others have."""

    def __init__(self) -> None:
        self.elsewhere: set[object] = set()
        self.held: list[object] = []

    def try_token(self, conversation: str) -> bool:
        if conversation in self.elsewhere:
            return False
        self.held.append(conversation)
        return True

    take_token = try_token

    def release_token(self, conversation: str) -> None:
        self.held.remove(conversation)

    def try_lock(self, number: int) -> bool:
        return True

    def unlock(self, number: int) -> None:
        pass


class Flying(Worker):
    """A worker whose messages in flight take tokens."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.mount = cast("Any", Mount())
        self.is_wanted = False
        self.log: list[str] = []
        self.open()
        self.tokens = FlightTokens(self.mount, self.mount, lambda: len(self.flights), lambda: self.is_wanted)

    def converse(self, name: str, *conversations: str, seconds: float = 0.0) -> None:
        """Begin a message that takes these tokens, and notes when it runs."""

        async def handle(flight: LimitedFlight) -> None:
            taken = [one for one in conversations if await flight.take_token(one)]
            self.log.append(f"{name} {len(taken)}/{len(conversations)}")
            await asyncio.sleep(seconds)
            for one in taken:
                flight.release_token(one)

        claim: Any = SimpleNamespace(crashes=0, name=name)
        claim.place = self.slots.take_place(self.slots.next_seq(), name)
        flight = LimitedFlight(self.flights, [claim], self.slots, 0, 100)
        flight.tokens = self.tokens
        flight.begin(handle(flight), self.ends.append)

    def run(self) -> list[str]:
        while self.flights:
            self.flights.turn(1.0)
        assert self.mount.held == []
        assert (self.tokens._holders, self.tokens._lines) == ({}, {})
        return self.log


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Flying]:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.001)
    with asyncio.Runner() as runner:
        yield Flying(runner.get_loop())


def test_messages_of_one_conversation_wait_for_each_other_the_oldest_first(worker: Flying) -> None:
    for name in ("1", "4", "2", "3"):
        worker.converse(name, ANN, seconds=0.001)
    worker.converse("0", BOB)
    assert worker.run() == ["1 1/1", "0 1/1", "2 1/1", "3 1/1", "4 1/1"]


def test_a_message_may_need_a_token_twice_and_others_wait_until_it_has_none(worker: Flying) -> None:
    worker.converse("1", ANN, ANN)
    worker.converse("2", ANN)
    assert worker.run() == ["1 2/2", "2 1/1"]


def test_a_token_that_another_worker_has_is_looked_for_again(worker: Flying) -> None:
    worker.mount.elsewhere.add(ANN)
    worker.converse("1", ANN)
    worker.converse("2", ANN)
    worker.loop.call_later(0.02, worker.mount.elsewhere.clear)
    assert worker.run() == ["1 1/1", "2 1/1"]


def test_where_others_could_use_its_place_a_message_waits_for_a_moment_only(
    worker: Flying, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.01)
    worker.mount.elsewhere.add(ANN)
    worker.is_wanted = True
    worker.converse("1", ANN)
    worker.converse("2", ANN)
    assert sorted(worker.run()) == ["1 0/1", "2 0/1"]


def test_what_is_handled_outside_of_the_loop_does_not_get_what_a_message_in_flight_has(
    worker: Flying,
) -> None:
    worker.converse("1", ANN, seconds=0.01)
    worker.turn()
    assert not worker.tokens.take_token(ANN)
    assert worker.tokens.take_token(BOB)
    worker.tokens.release_token(BOB)
    assert worker.run() == ["1 1/1"]
    assert worker.tokens.take_token(ANN)
    worker.tokens.release_token(ANN)


def test_calls_of_a_batch_function_do_not_overlap_in_one_worker(worker: Flying) -> None:
    assert worker.tokens.take_token(CALL)
    assert not worker.tokens.take_token(CALL)
    worker.tokens.release_token(CALL)
    worker.converse("1", CALL)
    assert worker.run() == ["1 1/1"]


def test_without_a_place_on_the_scoreboard_a_message_is_postponed(
    worker: Flying, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bool:
        raise IndexError

    monkeypatch.setattr(module, "IDLE_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(worker.mount, "try_token", refuse)
    worker.converse("1", ANN)
    assert worker.run() == ["1 0/1"]


def test_a_wait_for_a_limit_is_not_in_a_handler_and_blocks_nobody(worker: Flying) -> None:
    marked: list[int] = []

    def taking_slots(uses: object, key: object) -> Iterator[float]:
        yield 0.005
        marked.append(worker.marked())
        return Postponed(1.0, "full")  # type: ignore[return-value]

    async def handle(flight: LimitedFlight) -> None:
        full = await flight.take_slots((), "a")
        worker.log.append(full.reason if full else "")

    claim: Any = SimpleNamespace(crashes=0, name="1")
    claim.place = worker.slots.take_place(worker.slots.next_seq(), "1")
    flight = LimitedFlight(worker.flights, [claim], worker.slots, 0, 100)
    flight.limits = SimpleNamespace(taking_slots=taking_slots)  # type: ignore[assignment]
    flight.begin(handle(flight), worker.ends.append)
    worker.converse("2", ANN)
    assert worker.run() == ["2 1/1", "full"]
    assert marked == [0]


def test_a_message_that_is_cancelled_while_it_waits_for_a_limit_returns_what_it_has_at_once(
    worker: Flying,
) -> None:
    held: list[str] = []

    def taking_slots(uses: object, key: object) -> Iterator[float]:
        held.append("slot")
        try:
            yield 60.0
        finally:
            held.clear()

    async def handle(flight: LimitedFlight) -> None:
        await flight.take_slots((), "a")

    claim: Any = SimpleNamespace(crashes=0, name="1")
    claim.place = worker.slots.take_place(worker.slots.next_seq(), "1")
    flight = LimitedFlight(worker.flights, [claim], worker.slots, 0, 100)
    flight.limits = SimpleNamespace(taking_slots=taking_slots)  # type: ignore[assignment]
    flight.begin(handle(flight), worker.ends.append)
    worker.turn()
    assert held == ["slot"]
    assert flight.task is not None
    flight.task.cancel()
    worker.flights.turn(5.0)
    [end] = worker.ends  # whose traceback has the frame that waited
    assert isinstance(end, asyncio.CancelledError)
    assert held == []
