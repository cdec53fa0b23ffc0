"""Batches in a simulated pool: the real gathering, passing on and calling, over sockets and locks that stand in."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from zlib import crc32

from maildefer.handling.calls.step import HandlerStep
from maildefer.handling.handler_marks import BatchTerms
from maildefer.handling.outcomes import Deferred, Outcome
from maildefer.pool.scoreboard import Scoreboard
from maildefer.pool.worker.batch_worker import BatchWorker
from maildefer.pool.worker.claim_slots import GatheredClaim, GatheredSlots
from tests.simulation.handlers import Handlers
from tests.simulation.histories import FAILED
from tests.simulation.scheduler import Process
from tests.simulation.stand_ins import Bell
from tests.simulation.workers import SimulatedWorker, WatchedClaim, WatchedSlot

if TYPE_CHECKING:
    from tests.simulation.supervisors import SimulatedSupervisor

PLACES = 8  # of a worker, for claims that it gathers
_LIMIT, _LINGER_SECONDS = 3, 0.5
_MOST_NAMES = 3  # in a socket
_ALONE_EVERY = 3  # messages, of which one is for another handler


class PassingChannel:
    """Both ends of one channel to a leader, whichever worker that is."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._names: deque[bytes] = deque()

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def send(self, data: bytes) -> int:
        if len(self._names) >= _MOST_NAMES:
            raise BlockingIOError
        self._names.append(data)
        self._bell.rouse_all()
        return len(data)

    def recv(self, size_bytes: int) -> bytes:
        if not self._names:
            raise BlockingIOError
        return self._names.popleft()


class WatchedGatheredSlots(GatheredSlots):
    """The places for a queue's claims, and the same for the oracle."""

    def __init__(self, board: Scoreboard, slot: int, own: WatchedSlot, queue: int, free: list[int]) -> None:
        super().__init__(board, slot, own, queue, free)
        self.own = own
        self.oracle, self.process = own.oracle, own.process
        self._shown: dict[int, str] = {}
        own.oracle.outputs.slots[own.process.pid].append(self._shown)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("current", "claim"):  # what the worker is on
            setattr(self.own, name, value)
        else:
            object.__setattr__(self, name, value)

    def take_place(self, seq: int, name: str) -> int:
        place = super().take_place(seq, name)
        self._shown[place] = name
        self.oracle.held[self.process.pid].add(name)
        return place

    def free_place(self, place: int) -> None:
        super().free_place(place)
        self.oracle.held[self.process.pid].discard(self._shown.pop(place))


class WatchedGatheredClaim(WatchedClaim, GatheredClaim):
    """A gathered claim that tells the oracle what its holder believes."""

    __slots__ = ()

    def __init__(self, *facts: Any) -> None:
        super().__init__(*facts)
        slots: Any = self._claimer.slots
        slots.own.paths[self.key] = f"{self._claimer.layout.cur}/{self.name}"


class BatchHandlers(Handlers):
    """Most messages are for one `@batch` function; with `exclusive`, one call at a time on all hosts."""

    def __init__(self, *facts: Any) -> None:
        super().__init__(*facts)
        rates = self._host.world.fault_rates
        terms = BatchTerms(_LIMIT, _LINGER_SECONDS, exclusive=rates.batches == 2)
        self._step = HandlerStep(print, "m.F", "m", "F", True, False, terms, print)

    def batch_for(self, request: Any) -> HandlerStep | None:
        return None if crc32(request.Data) % _ALONE_EVERY == 0 else self._step

    def dispatch_batch(self, step: HandlerStep, requests: list[Any]) -> list[Outcome]:
        """All begin, time passes, and each ends in what a handler can end in."""
        slots, random = self._slots, self._host.world.scheduler.random
        oracle, process = slots.oracle, slots.process
        paths = [slots.paths[request.key] for request in requests]
        oracle.calls(process, paths[0], exclusive=self._step.terms is not None and self._step.terms.exclusive)
        for request, path in zip(requests, paths, strict=True):
            oracle.begins(process, path, request.Data)
        process.client.sleep(random.expovariate(1 / self._host.world.fault_rates.handling))
        outcomes = []
        for path in paths:
            outcome = self._outcome()
            failed = isinstance(outcome, Deferred) and outcome.error is not None
            oracle.ends(process, path, FAILED if failed else type(outcome).__name__)
            outcomes.append(outcome)
        oracle.returns(process)
        return outcomes


class SimulatedBatchWorker(SimulatedWorker, BatchWorker):
    """A worker that gathers in all queues."""

    def __init__(self, supervisor: SimulatedSupervisor, slot: int, process: Process) -> None:
        super().__init__(supervisor, slot, process)
        locks = supervisor.locks.of(process.pid)
        self._shared = replace(self._shared, locks=locks)
        self._tokens(self._conversations)
        self._begin_gathering(slot, {(queue.index, "m.F"): False for queue in self._queues})

    def _begin_gathering(self, slot: int, functions: Mapping[tuple[int, str], bool]) -> None:
        super()._begin_gathering(slot, functions)
        for index in self._gathered_slots:
            own: Any = self._slot
            watched = WatchedGatheredSlots(self._shared.board, slot, own, index, self._free_places)
            claimer = self._queues[index].claimer
            self._gathered_slots[index] = claimer.slots = watched
            claimer.kind = WatchedGatheredClaim
            self._attempts[index].run_handlers = partial(self._run_marked, watched)

    def _handlers_for(self, *facts: Any) -> Handlers:
        return BatchHandlers(*facts)
