"""A worker whose application has `@batch` handlers: it gathers messages for them, beside its other work.

Nothing else waits for a batch: while one gathers, the worker takes offers as ever, handles messages for other handlers
at once, and sleeps no longer than until the batch is due.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from maildefer.handling.application import Application
from maildefer.handling.outcomes import Buried
from maildefer.maildir.system import boottime
from maildefer.message.request import MailRequest
from maildefer.pool.context import PoolContext
from maildefer.pool.scoreboard import Header, SlotWord, State
from maildefer.pool.worker.attempt import ReadMessage
from maildefer.pool.worker.batch_group import BatchGroup
from maildefer.pool.worker.batch_leader import BatchLeader
from maildefer.pool.worker.claim_slots import GatheredClaim, GatheredSlots
from maildefer.pool.worker.queue_view import QueueView
from maildefer.pool.worker.worker import M, T, Worker

GroupKey = tuple[int, str, int]  # queue, handler, crashes so far
_NEVER = float("inf")
_MOST_QUEUES = 64  # as many as a word has bits


class BatchWorker(Worker):
    """A worker that gathers; in queues without `@batch` handlers it works like any other."""

    def __init__(self, shared: PoolContext, slot: int, application: Application) -> None:
        super().__init__(shared, slot, application)
        self._max_crashes = shared.settings.max_crashes
        self._groups: dict[GroupKey, BatchGroup[GatheredClaim]] = {}
        self._due = _NEVER  # when the first group is due, on the boot clock
        self._free_places = GatheredSlots.all_places(shared.board, slot)
        self._gathered_slots: dict[int, GatheredSlots] = {}
        for queue in self._queues:
            if application.has_batches(queue.name):
                slots = GatheredSlots(shared.board, slot, self._slot, queue.index, self._free_places)
                self._gathered_slots[queue.index] = queue.claimer.slots = slots
                queue.claimer.kind = GatheredClaim
                self._attempts[queue.index].run_handlers = partial(self._run_marked, slots)
        self._leaders = {
            index: BatchLeader(shared.board, slot, index, shared.gathering[index], self._offers)
            for index in self._gathered_slots
            if index < _MOST_QUEUES and application.has_batches(self._queues[index].name, only=True)
        }

    def serve(self) -> None:
        """Serve like any worker; at the end, handle the messages that are gathered, or in a drain release them."""
        super().serve()
        for leader in self._leaders.values():
            leader.end_leading()
        while self._groups:
            key = next(iter(self._groups))
            if self._words[Header.DRAINING]:
                self._words[self._base + SlotWord.RELEASED] += self._groups.pop(key).release()
            else:
                self._handle_group(key)
        self._log.flush()

    def _attempt(self, queue: QueueView, name: str, read: ReadMessage) -> None:
        leader = self._leaders.get(queue.index)
        if queue.index not in self._gathered_slots:
            super()._attempt(queue, name, read)
        elif leader is None or not leader.is_other_leading():
            self._attempt_or_gather(queue, name, leader)
        elif not leader.pass_on(name):
            self._attempt_or_gather(queue, name, None)
        self._update_groups()

    def _wait_for_offer(self) -> None:
        self._update_groups(idle=True)
        super()._wait_for_offer()
        self._update_groups()

    def _wait_limit_seconds(self) -> float | None:
        return None if self._due == _NEVER else max(0.0, self._due - boottime())

    def _attempt_or_gather(self, queue: QueueView, name: str, leader: BatchLeader | None) -> None:
        """Claim and read an entry of a queue with batches; then gather it, or make an attempt at it at once."""
        if not self._free_places and queue.may_claim() and not queue.is_set_aside(name):
            self._handle_group(min(self._groups, key=lambda key: self._groups[key].due))
        super()._attempt(queue, name, partial(self._read_or_gather, queue, leader))

    def _read_or_gather(
        self, queue: QueueView, leader: BatchLeader | None, claim: GatheredClaim
    ) -> MailRequest | Buried | None:
        """Read the message of a claim, for its attempt; None where it now waits for others, or was released."""
        attempts = self._attempts[queue.index]
        message = attempts.read(claim)
        if isinstance(message, Buried):
            return message
        claim.message = message
        step = attempts.dispatcher.batch_for(message)
        if step is None or step.terms is None:
            return message
        key = (queue.index, step.name, claim.crashes)
        group = self._groups.get(key)
        if group is None:
            group = BatchGroup.begin(step, claim.crashes, self._max_crashes)
            if (
                leader is not None
                and group.waits_for_more
                and not leader.begin_leading(min(group.due, self._due))
            ):
                claim.release()  # both began at once; the scout offers it again, and then it is passed on
                self._words[self._base + SlotWord.RELEASED] += 1
                return None
            self._groups[key] = group
            self._due = min(self._due, group.due)
        group.add(claim, len(message.Data))
        self._words[self._base + SlotWord.TAKEN] += 1
        if group.is_full(self._limit_bytes):
            self._handle_group(key)
        return None

    def _keep_leading(self) -> None:
        """Go on leading where messages wait for the next call and no other worker leads by now."""
        for index, leader in self._leaders.items():
            if any(key[0] == index and group.waits_for_more for key, group in self._groups.items()):
                leader.begin_leading(self._due)

    def _update_groups(self, *, idle: bool = False) -> None:
        """Claim the entries that other workers have passed on, and handle the groups that are due."""
        for index, leader in self._leaders.items():
            queue = self._queues[index]
            while (
                leader.is_leading and self._may_claim(queue) and (name := leader.receive_name()) is not None
            ):
                self._attempt_or_gather(queue, name, leader)
        self._handle_due_groups(idle=idle)

    def _may_claim(self, queue: QueueView) -> bool:
        return not (
            self._stopping or self._attempts_left == 0 or self._words[Header.PAUSED] or queue.is_paused()
        )

    def _handle_due_groups(self, *, idle: bool) -> None:
        """Handle the groups that are due; one without a linger is due as soon as the worker is idle."""
        now = boottime()
        if self._due > now or self._stopping:
            return
        for key, group in list(self._groups.items()):
            if group.due <= now and (idle or group.lingers):
                self._handle_group(key)

    def _handle_group(self, key: GroupKey) -> None:
        """Make the attempt at a group."""
        queue, group = self._queues[key[0]], self._groups.pop(key)
        self._due = min((waiting.due for waiting in self._groups.values()), default=_NEVER)
        self._words[self._base + SlotWord.STATE] = State.BUSY
        self._words[self._base + SlotWord.QUEUE] = queue.index
        if (leader := self._leaders.get(queue.index)) is not None:
            leader.end_leading()
        group.attempt(self._attempts[queue.index], lambda: not self._stopping)
        self._keep_leading()

    def _run_marked(
        self,
        slots: GatheredSlots,
        handlers: Callable[[M], T],
        messages: M,
        claims: Sequence[GatheredClaim],
    ) -> T:
        """Run handlers under the deadline, the claims of their messages marked as in a handler."""
        slots.mark_in_handler(claims)
        try:
            return self._run_handlers(handlers, messages, claims)
        finally:
            slots.unmark(claims)
