"""A worker whose application has async handlers: it begins their calls, and goes on while they are in flight.

It claims, reads and settles outside of the event loop, like any worker; wherever that would sleep, or has no room for
a further message, the loop runs. Sync handlers run outside of it: what is in flight waits for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from maildefer import log_context
from maildefer.errors import QueueError
from maildefer.handling.application import Application
from maildefer.handling.calls import event_loop
from maildefer.handling.limits.admission import FAULT_SECONDS, ConversationTokens, LimitSlots
from maildefer.handling.outcomes import Buried, Deferred, Outcome, Postponed
from maildefer.handling.results import failure
from maildefer.maildir.claims import Claim
from maildefer.maildir.names import EntryName
from maildefer.message.request import MailRequest
from maildefer.pool.context import PoolContext
from maildefer.pool.scoreboard import Header, SlotWord, State
from maildefer.pool.worker.attempt import ReadMessage
from maildefer.pool.worker.batch_group import BatchGroup
from maildefer.pool.worker.batch_worker import BatchWorker
from maildefer.pool.worker.bisect import Search, search
from maildefer.pool.worker.claim_slots import GatheredClaim, GatheredSlots
from maildefer.pool.worker.conversation_locks import ConversationLocks
from maildefer.pool.worker.in_flight.company import Company
from maildefer.pool.worker.in_flight.flight_tokens import FlightTokens, LimitedFlight
from maildefer.pool.worker.in_flight.flights import Flights
from maildefer.pool.worker.queue_view import QueueView
from maildefer.pool.worker.worker import M, T

if TYPE_CHECKING:
    from maildefer.pool.worker.limits.gate import LimitGate
    from maildefer.pool.worker.limits.worker_limits import WorkerLimits

_PLACES_EACH = 4  # on the scoreboard: a claim, a conversation's token, two slots of limits
_MOST_OUTSIDE_SECONDS = 0.002  # for claims one after the other, while others are in flight
_LOOK_SECONDS = 0.02


class AsyncWorker(BatchWorker):
    """A worker with messages in flight; it gathers batches, too."""

    def __init__(self, shared: PoolContext, slot: int, application: Application) -> None:
        self._places = GatheredSlots.all_places(shared.board, slot)
        self._company = Company(shared.settings.concurrency, shared.settings.max_crashes)
        self._waits: BatchGroup[GatheredClaim] | None = None  # for the company to become smaller
        self._limits: WorkerLimits | None = None  # of the next call
        self._spare_limits: list[WorkerLimits] = []
        super().__init__(shared, slot, application)
        for queue in self._queues:
            if queue.index not in self._gathered_slots:
                self._gather_in(queue, slot)
        self._with_batches = {queue.index for queue in self._queues if application.batches_of(queue.name)}
        gates = (queue.gate for queue in self._queues if application.has_async(queue.name))
        self._gates = [cast("LimitGate", gate) for gate in gates if gate is not None]
        self._flights = Flights(
            lambda: event_loop.runner().get_loop(),
            shared.board,
            slot,
            self._slot,
            lambda: self._waker,
            self._company,
            limit_seconds=self._timeout_ns / 1e9,
            has_forked=lambda: self._forked,
        )
        self._use_in_gates(self._limits)

    def begin_process(self) -> None:
        super().begin_process()
        log_context.in_hand.append(lambda: len(self._flights))

    def serve(self) -> None:
        """Serve like any worker; at the end, wait for what is in flight. Raises an error of ours, which it ends for."""
        try:
            super().serve()
            while self._flights:
                self._handle_signals()
                self._turn(None)
            self._log.flush()
        except BaseException:
            self._flights.spare_all()
            raise
        self._flights.raise_fault()

    def _all_places(self, slot: int) -> list[int]:
        return self._places

    def _tokens(self, conversations: ConversationLocks | None) -> ConversationTokens:
        if conversations is not None:
            conversations.slots = self._token_slots()
        assert self._shared.locks is not None
        self._calls = self._flight_tokens = FlightTokens(
            self._shared.locks,
            conversations,
            lambda: len(self._flights),
            lambda: self._stopping or not self._company.has_room_for(0),
        )
        return self._calls

    def _make_limits(self, home: QueueView | None, application: Application) -> LimitSlots | None:
        limits = super()._make_limits(home, application)
        if limits is not None:
            self._limits = cast("WorkerLimits", limits).beside(self._token_slots())
        return limits

    def _token_slots(self) -> GatheredSlots:
        board, home = self._shared.board, self._shared.tokens_in
        assert home is not None
        return GatheredSlots(board, self._slot_index, self._slot, home, self._places, shows_names=False)

    def _attempt(self, queue: QueueView, name: str, read: ReadMessage) -> None:
        crashes = EntryName.parse(name).crashes if ",c=" in name else 0
        if crashes and not self._await_room(crashes):
            return
        super()._attempt(queue, name, read)
        if self._flights and self._flights.limits.seconds_outside > _MOST_OUTSIDE_SECONDS:
            self._turn(0.0)
        self._await_room(0)  # so that offers go to workers with room

    def _await_room(self, crashes: int) -> bool:
        """Let the loop run until a message with so many crashes may begin; False if the worker is to stop before."""
        while self._is_batch_waiting() or not self._company.has_room_for(crashes):
            if self._stopping or self._words[Header.PAUSED]:
                return False
            self._end_leading()
            self._settle_passed()
            self._handle_signals()
            self._turn(_LOOK_SECONDS if self._groups or self._is_leading_or_passes() else None)
            if not crashes or self._is_batch_waiting():
                self._update_groups(idle=True)
        return True

    def _read_or_gather(
        self, queue: QueueView, since: float, claim: GatheredClaim
    ) -> MailRequest | Buried | None:
        """Read the message of a claim; None where it waits for others, or is in flight."""
        gathers, attempts = queue.index in self._with_batches, self._attempts[queue.index]
        message = super()._read_or_gather(queue, since, claim) if gathers else attempts.read(claim)
        dispatcher = attempts.dispatcher
        if not isinstance(message, MailRequest) or not dispatcher.is_async(message):
            return message
        if claim.crashes and (worn_out := attempts.worn_out(claim, message)) is not None:
            attempts.settle(claim, message, worn_out, "")
            return None
        flight = self._flight(queue, [claim], [message])
        flight.outputs = self._attempts[queue.index].begin_outputs(claim)
        begin = partial(dispatcher.begin, message, tokens=flight, **self._terms(flight))
        handlers = begin() if flight.outputs is None else flight.outputs.during(begin)
        flight.begin(handlers, partial(self._end_message, queue, flight, message))
        return None

    def _end_message(
        self, queue: QueueView, flight: LimitedFlight, message: MailRequest, end: BaseException
    ) -> None:
        attempts, outputs, [claim] = self._attempts[queue.index], flight.outputs, flight.claims
        self._note_landed(queue, flight)
        if isinstance(end, StopIteration):
            outcome, handler = end.value
            attempts.settle(claim, message, outcome, handler, outputs)
        elif isinstance(end, QueueError | MemoryError):
            attempts.end_in_fault(claim, end, outputs)
        else:  # its task was cancelled where it waited for tokens or slots, or there is an error of ours
            attempts.settle(claim, message, failure(end, None), flight.handler, outputs)

    def _call(self, queue: QueueView, batch: BatchGroup[GatheredClaim]) -> None:
        if batch.step.is_async:
            self._call_pieces(queue, batch, search(batch.claims, lambda: not self._stopping), None)
        else:
            super()._call(queue, batch)

    def _call_pieces(
        self,
        queue: QueueView,
        batch: BatchGroup[GatheredClaim],
        pieces: Search[GatheredClaim],
        ended: list[Outcome] | Deferred | None,
    ) -> None:
        """Settle what is known of a batch, and begin the next call, if there is one."""
        attempts = self._attempts[queue.index]
        try:
            claims, outcomes = pieces.send(ended)
            while outcomes is not None:
                for claim, outcome in zip(claims, outcomes, strict=True):
                    attempts.settle(claim, claim.message, outcome, batch.step.name)
                claims, outcomes = pieces.send(None)
        except StopIteration:
            if batch.step.call_token:
                self._calls.release_token(batch.step.call_token)
            return
        messages = [claim.message for claim in claims]
        flight = self._flight(queue, claims, messages)
        flight.begin(
            attempts.dispatcher.begin_batch(batch.step, messages, **self._terms(flight)),
            partial(self._end_piece, queue, flight, batch, pieces),
        )

    def _end_piece(
        self,
        queue: QueueView,
        flight: LimitedFlight,
        batch: BatchGroup[GatheredClaim],
        pieces: Search[GatheredClaim],
        end: BaseException,
    ) -> None:
        self._note_landed(queue, flight)
        if isinstance(end, StopIteration):
            self._call_pieces(queue, batch, pieces, end.value)
        elif isinstance(end, QueueError | MemoryError):
            postponed = Postponed(FAULT_SECONDS, f"the limits of {batch.step.name} can't be kept: {end}")
            self._call_pieces(queue, batch, pieces, [postponed] * len(flight.claims))
        else:
            self._call_pieces(queue, batch, pieces, failure(end, None))

    def _flight(
        self, queue: QueueView, claims: Sequence[GatheredClaim], messages: Sequence[MailRequest]
    ) -> LimitedFlight:
        size = sum(len(message.Data) for message in messages)
        flight = LimitedFlight(self._flights, claims, self._gathered_slots[queue.index], queue.index, size)
        flight.tokens, flight.limits = self._flight_tokens, self._limits
        if self._limits is not None:
            self._use_in_gates(self._spare_limits.pop() if self._spare_limits else self._limits.beside())
        return flight

    def _terms(self, flight: LimitedFlight) -> dict[str, Any]:
        """With what the dispatcher begins a call."""
        return {
            "limits": None if flight.limits is None else flight,
            "running": flight.running,
            "within_limit": flight.within_limit,
        }

    def _use_in_gates(self, limits: WorkerLimits | None) -> None:
        """Use these for the next call: those of the last one are its own until its end."""
        self._limits = limits
        if limits is not None:
            for gate in self._gates:
                gate.limits, gate.waits = limits, False

    def _note_landed(self, queue: QueueView, flight: LimitedFlight) -> None:
        self._words[self._base + SlotWord.QUEUE] = queue.index
        if flight.limits is not None:
            self._spare_limits.append(flight.limits)
            if queue.gate is not None:
                self._offers.hold_no_longer(queue.index)

    def _may_call(self, group: BatchGroup[GatheredClaim], now: float) -> bool:
        """Take the token of the call, if its messages may be handled beside what is in flight."""
        if self._waits is group:
            self._waits = None
        if not super()._may_call(group, now):
            return False
        if self._company.has_room_for(group.claims[0].crashes, min(len(group.claims), group.limit)):
            return True
        if group.step.call_token:
            self._calls.release_token(group.step.call_token)
        self._waits, group.retry_at = group, now + _LOOK_SECONDS
        return False

    def _is_batch_waiting(self) -> bool:
        """Whether a batch waits until less is in flight; nothing else begins before it."""
        return self._waits is not None and any(group is self._waits for group in self._groups.values())

    def _has_room(self) -> bool:
        waiting = sum(group.size_bytes for group in self._groups.values()) + self._flights.size_bytes
        return len(self._free_places) >= _PLACES_EACH and waiting < self._limit_bytes

    def _state_while_waiting(self) -> int:
        return int(State.BUSY) if self._flights else super()._state_while_waiting()

    def _pause(self) -> None:
        self._turn(_LOOK_SECONDS)

    def _sleep(self, *, paused: bool, seconds: float | None) -> None:
        """Sleep in the loop, while anything is in flight or was left running by handlers."""
        if not self._flights.has_tasks():
            super()._sleep(paused=paused, seconds=seconds)
            return
        limits = [limit for limit in (seconds, self._offers.held_seconds()) if limit is not None]
        watch = self._shared.not_paused if paused else self._offers.descriptor
        self._turn(min(limits, default=None), watch)

    def _turn(self, seconds: float | None, watch: int = -1) -> None:
        if seconds != 0.0:
            self._log.flush()
        self._flights.turn(seconds, watch)
        if self._flights.faults or (self.directory.movers and not self.directory.put_back()):
            self._stopping = True

    def _run_handlers(self, handlers: Callable[[M], T], messages: M, claims: Sequence[Claim]) -> T:
        self._words[self._base + SlotWord.LIMIT] = 0  # the deadline tells
        self._flights.watch(-1)
        return super()._run_handlers(handlers, messages, claims)
