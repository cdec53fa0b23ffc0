from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from maildefer.errors import MountFault
from maildefer.handling.outcomes import ACKED, Buried, Deferred, Outcome
from maildefer.message.request import MailRequest
from maildefer.pool.worker.batch_worker import BatchWorker
from maildefer.pool.worker.bisect import search
from maildefer.pool.worker.in_flight.async_worker import AsyncWorker

QUEUE: Any = SimpleNamespace(index=0)


class Attempts:
    """Notes what becomes of the claims."""

    def __init__(self) -> None:
        self.settled: list[tuple[Any, Outcome, str]] = []
        self.faults: list[tuple[Any, BaseException]] = []

    def settle(
        self, claim: Any, message: object, outcome: Outcome, handler: str, outputs: object = None
    ) -> None:
        self.settled.append((claim, outcome, handler))

    def begin_outputs(self, claim: Any) -> None:
        pass

    def end_in_fault(self, claim: Any, fault: BaseException, outputs: object = None) -> None:
        self.faults.append((claim, fault))


@pytest.fixture
def attempts() -> Attempts:
    return Attempts()


@pytest.fixture
def worker(attempts: Attempts, monkeypatch: pytest.MonkeyPatch) -> Any:
    made: Any = AsyncWorker.__new__(AsyncWorker)
    made._attempts = [attempts]
    monkeypatch.setattr(made, "_note_landed", lambda queue, flight: None, raising=False)
    return made


def flight(*claims: Any) -> Any:
    return SimpleNamespace(claims=claims, handler="m.F", outputs=None)


def test_a_call_that_returns_has_the_outcome_that_it_says(worker: Any, attempts: Attempts) -> None:
    worker._end_message(QUEUE, flight("a"), None, StopIteration((ACKED, "m.G")))
    assert attempts.settled == [("a", ACKED, "m.G")]


def test_a_fault_of_the_mount_is_not_the_messages(worker: Any, attempts: Attempts) -> None:
    fault = MountFault("q", OSError(5, "I/O error"))
    worker._end_message(QUEUE, flight("a"), None, fault)
    assert (attempts.settled, attempts.faults) == ([], [("a", fault)])


@pytest.mark.parametrize(
    "end",
    [
        asyncio.CancelledError(),
        RuntimeError("an error of ours"),
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
    ],
)
def test_a_call_that_ends_in_any_other_exception_has_failed_and_the_worker_lives(
    worker: Any, attempts: Attempts, end: BaseException
) -> None:
    worker._end_message(QUEUE, flight("a"), None, end)
    [(claim, outcome, handler)] = attempts.settled
    assert (claim, handler) == ("a", "m.F")
    assert isinstance(outcome, Deferred)
    assert type(end).__name__ in str(outcome.error)


@pytest.mark.parametrize("crashes", [0, 1])
def test_a_message_whose_workers_died_as_often_as_its_handlers_allow_is_not_begun_again(
    worker: Any, attempts: Any, crashes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up = Buried("enough", begun=False)
    message = MailRequest("peer", "ann@example.org", "post@osb", b"Subject: x\n\nhi\n")
    begun: list[object] = []
    attempts.read = lambda claim: message
    attempts.worn_out = lambda claim, message: given_up
    attempts.dispatcher = SimpleNamespace(is_async=lambda message: True, begin=lambda message, **terms: None)
    made = SimpleNamespace(begin=lambda *given: begun.append(given))
    monkeypatch.setattr(worker, "_flight", lambda *given: made)
    monkeypatch.setattr(worker, "_terms", lambda flight: {})
    worker._with_batches = set()
    claim = SimpleNamespace(crashes=crashes)
    assert worker._read_or_gather(QUEUE, 0.0, claim) is None
    assert len(begun) == 1 - crashes
    assert attempts.settled == [(claim, given_up, "")] * crashes


def test_a_batch_whose_call_is_cancelled_falls_apart_as_after_any_failure(
    worker: Any, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Begun:
        claims: list[Any]

        def begin(self, coroutine: object, ended: Any) -> None:
            ended(asyncio.CancelledError())

    def begin(queue: object, claims: list[Any], messages: object) -> Begun:
        begun.append([claim.name for claim in claims])
        made = Begun()
        made.claims = claims
        return made

    begun: list[list[str]] = []
    attempts.dispatcher = SimpleNamespace(begin_batch=lambda *given, **terms: None)  # type: ignore[attr-defined]
    monkeypatch.setattr(worker, "_flight", begin)
    monkeypatch.setattr(worker, "_terms", lambda flight: {})
    claims = [SimpleNamespace(name=name, message=name) for name in "ab"]
    batch = SimpleNamespace(step=SimpleNamespace(name="m.F", call_token=""))
    worker._call_pieces(QUEUE, batch, search(claims), None)
    assert begun == [["a", "b"], ["a"], ["b"]]
    assert [(claim.name, type(outcome)) for claim, outcome, _ in attempts.settled] == [
        ("a", Deferred),
        ("b", Deferred),
    ]


def test_what_is_in_flight_goes_back_uncharged_where_the_worker_ends_by_an_error_of_ours(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(self: object) -> None:
        raise RuntimeError("ours")

    spared: list[bool] = []
    monkeypatch.setattr(BatchWorker, "serve", serve)
    worker._flights = SimpleNamespace(spare_all=lambda: spared.append(True))
    with pytest.raises(RuntimeError, match="ours"):
        worker.serve()
    assert spared == [True]


def test_a_worker_begins_nothing_more_after_an_error_of_ours_and_ends_by_it(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Flights(list[str]):
        faults: list[str]

        def turn(self, seconds: object, watch: int) -> None:
            self.faults.append(self.pop())

        def raise_fault(self) -> None:
            raise RuntimeError("ours")

    worker._flights = flights = Flights(["a"])
    flights.faults = []
    worker._log = SimpleNamespace(flush=lambda: None)
    worker.directory = SimpleNamespace(movers=[])
    monkeypatch.setattr(BatchWorker, "serve", lambda self: None)
    monkeypatch.setattr(worker, "_handle_signals", lambda: None)
    worker._stopping = False
    with pytest.raises(RuntimeError, match="ours"):
        worker.serve()
    assert worker._stopping
