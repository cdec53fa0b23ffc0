"""A worker whose application has `@batch` handlers: it gathers messages for them, beside all else that it does.

Nothing waits for a batch but the batch itself: while one gathers, the worker takes offers as ever, handles at once what
is for other handlers, and sleeps no longer than until the batch is due.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from maildefer.errors import ClaimLost, EntryMalformed, EntryTooLarge, QueueError, StorageFault
from maildefer.handling.application import Application
from maildefer.handling.outcomes import Buried, Deferred, Outcome
from maildefer.maildir.system import boottime
from maildefer.message.request import received
from maildefer.pool.context import PoolContext
from maildefer.pool.scoreboard import Header, S, State
from maildefer.pool.worker.batch_group import BatchGroup
from maildefer.pool.worker.batch_leader import BatchLeader
from maildefer.pool.worker.bisect import sift
from maildefer.pool.worker.claim_slots import GatheredClaim, GatheredSlots
from maildefer.pool.worker.queue_view import QueueView
from maildefer.pool.worker.worker import M, T, Worker

Key = tuple[int, str, int]  # queue, handler, crashes so far
_NEVER = float("inf")
_MOST_QUEUES = 64  # as many as a word has bits


class BatchWorker(Worker):
    """In queues without batches it does what any worker does."""

    def __init__(self, shared: PoolContext, slot: int, application: Application) -> None:
        super().__init__(shared, slot, application)
        self._max_crashes = shared.settings.max_crashes
        self._groups: dict[Key, BatchGroup[GatheredClaim]] = {}
        self._due = _NEVER  # the first of them
        self._free = GatheredSlots.places(shared.board, slot)
        self._hands: dict[int, GatheredSlots] = {}
        for queue in self._queues:
            if application.has_batches(queue.name):
                hand = GatheredSlots(shared.board, slot, self._hand, queue.index, self._free)
                self._hands[queue.index] = queue.claimer.hand = hand
                queue.claimer.kind = GatheredClaim
        self._gatherers = {
            index: BatchLeader(shared.board, slot, index, shared.gathering[index], self._offers)
            for index in self._hands
            if index < _MOST_QUEUES and application.has_batches(self._queues[index].name, only=True)
        }

    def serve(self) -> None:
        """As any worker; at the end, what is gathered is handled as the message in hand, but in a drain given back."""
        super().serve()
        for gatherer in self._gatherers.values():
            gatherer.end()
        while self._groups:
            key = next(iter(self._groups))
            if self._words[Header.DRAINING]:
                self._release(key)
            else:
                self._handle_group(key)
        self._log.flush()

    def _attempt(self, queue: QueueView, name: str) -> None:
        gatherer = self._gatherers.get(queue.index)
        if queue.index not in self._hands:
            super()._attempt(queue, name)
        elif gatherer is None or not gatherer.is_another():
            self._take(queue, name, gatherer)
        elif not gatherer.pass_on(name):
            self._take(queue, name, None)
        self._mind_gathering()

    def _rest(self) -> None:
        self._mind_gathering(idle=True)
        super()._rest()
        self._mind_gathering()

    def _patience_seconds(self) -> float | None:
        return None if self._due == _NEVER else max(0.0, self._due - boottime())

    def _take(self, queue: QueueView, name: str, gatherer: BatchLeader | None) -> None:
        """Claim and read; then gather it, or handle it at once. The same as `_attempt` otherwise."""
        if not queue.may_claim() or queue.is_aside(name):
            return
        if not self._free:
            self._handle_group(min(self._groups, key=lambda key: self._groups[key].due))
        self._words[self._base + S.QUEUE] = queue.index
        claim = None
        try:
            claim = queue.claimer.claim(name)
            if claim is None:
                return
            assert isinstance(claim, GatheredClaim)
            self._left -= 1
            self._sort(queue, claim, gatherer)
            queue.note_success()
        except ClaimLost as lost:
            self._note_lost(queue, lost)
        except (StorageFault, MemoryError) as fault:
            self._give_back(queue, name, claim, fault)

    def _sort(self, queue: QueueView, claim: GatheredClaim, gatherer: BatchLeader | None) -> None:
        """To the messages that wait for the same handler, or to its handlers now."""
        try:
            data = claim.read(self._limit_bytes)
        except (EntryMalformed, EntryTooLarge) as fault:
            self._settle(queue, claim, Buried(str(fault), error=type(fault).__name__), "", None)
            return
        claim.message = request = received(data, claim.key, claim.attempt, queue.name, queue.name)
        step = self._dispatchers[queue.index].batch_for(request)
        if step is None or step.terms is None:
            dispatch = self._dispatchers[queue.index].dispatch
            outcome, handler = self._in_handler(queue, [claim], dispatch, request)
            self._settle(queue, claim, outcome, handler, request)
            return
        key = (queue.index, step.name, claim.crashes)
        group = self._groups.get(key)
        if group is None:
            group = BatchGroup.begin(step, claim.crashes, self._max_crashes)
            if (
                gatherer is not None
                and group.waits_for_more
                and not gatherer.begin(min(group.due, self._due))
            ):
                claim.release()  # both began at once; the scout offers it again, and then it is passed on
                self._words[self._base + S.RELEASED] += 1
                return
            self._groups[key] = group
            self._due = min(self._due, group.due)
        group.add(claim, len(data))
        self._words[self._base + S.TAKEN] += 1
        if group.is_full(self._limit_bytes):
            self._handle_group(key)

    def _lead(self) -> None:
        """Go on gathering for this host, where anything waits for the next call, and nobody else does by now."""
        for index, gatherer in self._gatherers.items():
            if any(key[0] == index and group.waits_for_more for key, group in self._groups.items()):
                gatherer.begin(self._due)

    def _mind_gathering(self, *, idle: bool = False) -> None:
        """Take what was passed on, and handle what has waited long enough."""
        for index, gatherer in self._gatherers.items():
            queue = self._queues[index]
            while gatherer.listens and self._may_take(queue) and (name := gatherer.taken()) is not None:
                self._take(queue, name, gatherer)
        self._mind_due(idle=idle)

    def _may_take(self, queue: QueueView) -> bool:
        return not (self._stopping or self._left == 0 or self._words[Header.PAUSED] or queue.is_paused())

    def _mind_due(self, *, idle: bool) -> None:
        """Without a linger, it is due as soon as there is nothing else to do."""
        now = boottime()
        if self._due > now or self._stopping:
            return
        for key, group in list(self._groups.items()):
            if group.due <= now and (idle or group.lingers):
                self._handle_group(key)

    def _handle_group(self, key: Key) -> None:
        """Call the function, and settle each message by itself."""
        queue, group = self._queues[key[0]], self._groups.pop(key)
        self._due = min((waiting.due for waiting in self._groups.values()), default=_NEVER)
        self._words[self._base + S.STATE] = State.BUSY
        self._words[self._base + S.QUEUE] = queue.index
        dispatch = partial(self._dispatchers[queue.index].dispatch_batch, group.step)
        if (gatherer := self._gatherers.get(queue.index)) is not None:
            gatherer.end()

        def call(claims: list[GatheredClaim]) -> list[Outcome] | Deferred:
            return self._in_handler(queue, claims, dispatch, [claim.message for claim in claims])

        for claims, outcomes in sift(group.claims, call, lambda: not self._stopping):
            for claim, outcome in zip(claims, outcomes, strict=True):
                self._settle_one(queue, claim, outcome, group.step.name)
        self._lead()

    def _in_handler(
        self, queue: QueueView, claims: list[GatheredClaim], handlers: Callable[[M], T], messages: M
    ) -> T:
        """Run handlers under the deadline, their messages marked as theirs."""
        self._hands[queue.index].begin(claims)
        try:
            return self._limited(handlers, messages)
        finally:
            self._hands[queue.index].end(claims)

    def _settle_one(self, queue: QueueView, claim: GatheredClaim, outcome: Outcome, handler: str) -> None:
        try:
            self._settle(queue, claim, outcome, handler, claim.message)
        except ClaimLost as lost:
            self._note_lost(queue, lost)
        except (StorageFault, MemoryError) as fault:
            self._give_back(queue, claim.name, claim, fault)

    def _release(self, key: Key) -> None:
        for claim in self._groups.pop(key).claims:
            try:
                claim.release()
                self._words[self._base + S.RELEASED] += 1
            except QueueError:  # the audit takes it back, or somebody has
                claim.abandon()
