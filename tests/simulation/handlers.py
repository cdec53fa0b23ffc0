"""In the place of a dispatcher: handlers that take their time, and end in everything a handler can end in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from maildefer.handling.outcomes import ACKED, Buried, Deferred, HandedOff, Outcome, Postponed
from maildefer.pool.worker.conversation_locks import ConversationLocks
from maildefer.pool.worker.limits.worker_limits import WorkerLimits
from tests.simulation.histories import FAILED
from tests.simulation.limits import AT_A_TIME, RATE
from tests.simulation.world import TTL_SECONDS

if TYPE_CHECKING:
    from tests.simulation.supervisors import SimulatedSupervisor
    from tests.simulation.workers import WatchedSlot

_CONVERSATIONS = 2


class Handlers:
    """One worker's, for one queue. With tokens, a message belongs to a conversation, as for a stateful handler."""

    keeps: Final[Mapping[str, float]] = {}
    may_keep: Final = False

    def __init__(
        self,
        supervisor: SimulatedSupervisor,
        slots: WatchedSlot,
        tokens: ConversationLocks,
        limits: WorkerLimits,
        queue: str,
    ) -> None:
        self._host = supervisor.host
        self._slots = slots
        self._tokens = tokens
        self._limits = limits
        self._queue = queue

    def dispatch(self, request: Any) -> tuple[Outcome, str]:
        if self._host.world.fault_rates.limits:
            return self._handle_within_limits(request)
        return self._converse(request)

    def _handle_within_limits(self, request: Any) -> tuple[Outcome, str]:
        oracle, process = self._slots.oracle, self._slots.process
        uses = ((AT_A_TIME,), (RATE,), (AT_A_TIME, RATE))[crc32(request.Data) % 3]
        if (full := self._limits.take_slots(uses, request.key)) is not None:
            oracle.ends(process, self._slots.current, "Postponed")
            oracle.limits.waiting.add(request.key)
            return full, ""
        if oracle.is_live(self._slots.current):  # else another has reclaimed it, and it may wait again
            oracle.limits.waiting.discard(request.key)
        try:
            oracle.limits.begins(process, uses, self._slots.current)
            return self._handle(request), "handler"
        finally:
            oracle.limits.running.pop(process.pid, None)
            self._limits.release_slots()

    def _converse(self, request: Any) -> tuple[Outcome, str]:
        if not self._host.world.fault_rates.conversations:
            return self._handle(request), "handler"
        conversation = f"conversation {crc32(request.Data) % _CONVERSATIONS}"
        oracle, process = self._slots.oracle, self._slots.process
        if not self._tokens.take_token(conversation):
            oracle.ends(process, self._slots.current, "Postponed")
            return Postponed(1.0, "the conversation is in other hands"), ""
        try:
            oracle.converses(process, conversation, self._slots.current)
            return self._handle(request), "handler"
        finally:
            oracle.falls_silent(process)
            self._tokens.release_token(conversation)

    def most_failures(self, request: Any) -> int | None:
        return None

    def _handle(self, request: Any) -> Outcome:
        world, slots = self._host.world, self._slots
        slots.oracle.begins(slots.process, slots.current, request.Data)
        world.note(slots.process.name, f"handles {slots.current.rpartition('/')[2]}")
        random = world.scheduler.random
        seconds = random.expovariate(1 / world.fault_rates.handling)
        if not self._host.calm and random.random() < 0.1:
            seconds = random.uniform(0, 2 * TTL_SECONDS)
        fault = None
        if world.fault_rates.effects:
            layout = self._host.layouts[0]
            fault = slots.oracle.effects.have(layout, request.key, slots.process, seconds)
        else:
            slots.process.client.sleep(seconds)
        if world.fault_rates.outputs and fault is None:
            fault = slots.oracle.outputs.send(slots.process, slots.current, request.Data, self._host.label)
        outcome = Deferred(str(fault), error=type(fault).__name__) if fault else self._outcome()
        failed = isinstance(outcome, Deferred) and outcome.error is not None
        slots.oracle.ends(slots.process, slots.current, FAILED if failed else type(outcome).__name__)
        return outcome

    def _outcome(self) -> Outcome:
        random, others = self._host.world.scheduler.random, self._host.layouts[1:]
        if others and self._queue != others[0].path and random.random() < 0.5:
            return HandedOff("module", "FUNCTION", others[0].path)
        draw = random.random() * (0.7 if self._host.calm else 1.0)
        if draw < 0.6:
            return ACKED
        if draw < 0.8:
            return Deferred("not now", after_seconds=random.uniform(0, 4))
        if draw < 0.93:
            return Deferred("failed", error="RuntimeError: failed", detail="Traceback")
        return Buried("never")

    def buried(self, message: object, outcome: Outcome) -> None:
        pass
