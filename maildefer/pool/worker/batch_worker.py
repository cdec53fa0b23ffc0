"""A worker whose application has `@batch` handlers: it gathers messages for them, beside its other work.

Nothing else waits for a batch: what is for other handlers is handled at once. For a function that lingers, one worker
of the host leads: the others pass on to it what they find, and where there are enough of them it leaves the offers to
them, so that no handler of another message delays the call. A call that has to wait until another one has ended waits
in its worker's hands, which go on gathering as long as they have room.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import takewhile

from maildefer.errors import StorageFault
from maildefer.handling.application import Application
from maildefer.handling.handler_marks import batch_of, full_name
from maildefer.handling.limits.admission import ConversationTokens
from maildefer.handling.outcomes import Buried
from maildefer.maildir.claims import Claim
from maildefer.maildir.system import boottime
from maildefer.message.request import MailRequest
from maildefer.pool.context import PoolContext
from maildefer.pool.scoreboard import BATCH_CHANNELS, Header, SlotWord, State
from maildefer.pool.worker.attempt import ReadMessage
from maildefer.pool.worker.batch_group import BatchGroup
from maildefer.pool.worker.batch_leader import BatchCalls, BatchLeader, LeadersSeat
from maildefer.pool.worker.claim_slots import GatheredClaim, GatheredSlots, GatheringClaimer
from maildefer.pool.worker.conversation_locks import ConversationLocks
from maildefer.pool.worker.queue_view import QueueView
from maildefer.pool.worker.worker import M, T, Worker

GroupKey = tuple[int, str, int]  # queue, handler, crashes so far
_LOOK_SECONDS = 0.02  # at what another process of this host does
_LOOK_AT_MOUNT_SECONDS = 0.25  # at an exclusive call on another host


class BatchWorker(Worker):
    """A worker that gathers; in queues without `@batch` handlers it works like any other."""

    def __init__(self, shared: PoolContext, slot: int, application: Application) -> None:
        super().__init__(shared, slot, application)
        functions = {
            (queue.index, full_name(function)): application.handlers_of(queue.name) == [function]
            and (terms := batch_of(function)) is not None
            and terms.linger_seconds > 0
            and terms.limit > 1
            for queue in self._queues
            for function in application.batches_of(queue.name)
        }
        self._begin_gathering(slot, functions)

    def _begin_gathering(self, slot: int, functions: Mapping[tuple[int, str], bool]) -> None:
        """Prepare for these functions of queues; True: what waits in its queue can be for nothing else."""
        shared, locks = self._shared, self._shared.locks
        assert locks is not None
        self._max_crashes = shared.settings.max_crashes
        self._groups: dict[GroupKey, BatchGroup[GatheredClaim]] = {}
        self._free_places = self._all_places(slot)
        self._gathered_slots: dict[int, GatheredSlots] = {}
        for index in {index for index, _ in functions}:
            self._gather_in(self._queues[index], slot)
        self._leaders = [
            BatchLeader(number, shared.gathering[number], locks, self._offers)
            for number in range(min(len(functions), BATCH_CHANNELS))
        ]
        self._leader_of = {
            place: self._leaders[number % BATCH_CHANNELS] for number, place in enumerate(sorted(functions))
        }
        self._only = {index: name for (index, name), is_only in functions.items() if is_only}
        self._seat = LeadersSeat(locks, self._offers)

    def _all_places(self, slot: int) -> list[int]:
        return GatheredSlots.all_places(self._shared.board, slot)

    def _gather_in(self, queue: QueueView, slot: int) -> None:
        """Give the claims of a queue places of their own."""
        slots = GatheredSlots(self._shared.board, slot, self._slot, queue.index, self._free_places)
        self._gathered_slots[queue.index] = slots
        queue.claimer = GatheringClaimer.like(queue.claimer, slots)
        self._attempts[queue.index].run_handlers = partial(self._run_marked, slots)

    def _tokens(self, conversations: ConversationLocks | None) -> ConversationTokens:
        assert self._shared.locks is not None
        self._calls = BatchCalls(self._shared.locks, conversations)
        return self._calls

    def serve(self) -> None:
        """Serve like any worker; at the end, handle the messages that are gathered, or in a drain release them."""
        super().serve()
        self._end_leading()
        self._settle_passed(now=True)
        while self._groups:
            key = next(iter(self._groups))
            if self._words[Header.DRAINING]:
                self._words[self._base + SlotWord.RELEASED] += self._groups.pop(key).release()
            elif not self._handle_group(key):
                self._pause()
        self._log.flush()

    def _attempt(self, queue: QueueView, name: str, read: ReadMessage) -> None:
        if queue.index not in self._gathered_slots:
            super()._attempt(queue, name, read)
        elif not self._is_passed_on(queue, name):
            self._attempt_or_gather(queue, name)
        self._update_groups()

    def _wait_for_offer(self) -> None:
        self._update_groups(idle=True)
        super()._wait_for_offer()
        self._update_groups()

    def _state_while_waiting(self) -> int:
        return int(State.BUSY if self._seat.is_taken else State.IDLE)

    def _wait_limit_seconds(self) -> float | None:
        now = boottime()
        looks = [group.look_at(self._limit_bytes) for group in self._groups.values()]
        if any(leader.passes for leader in self._leaders) or any(map(self._is_for_another, self._groups)):
            looks.append(now + _LOOK_SECONDS)
        return max(0.0, min(looks) - now) if looks else None

    def _is_passed_on(self, queue: QueueView, name: str) -> bool:
        """Pass the name on unclaimed, where it can only be for the function for which another worker leads."""
        function = self._only.get(queue.index)
        if function is None or not self._has_room():
            return False
        leader = self._leader_of[queue.index, function]
        return not leader.begin_leading() and leader.pass_name(queue.index, name)

    def _attempt_or_gather(self, queue: QueueView, name: str, since: float = 0.0) -> None:
        """Claim and read an entry of a queue with batches; then gather it, or make an attempt at it at once.

        `since`: when another worker has claimed it, which passes it on.
        """
        if queue.may_claim() and not queue.is_set_aside(name) and self._make_room():
            super()._attempt(queue, name, partial(self._read_or_gather, queue, since))

    def _read_or_gather(
        self, queue: QueueView, since: float, claim: GatheredClaim
    ) -> MailRequest | Buried | None:
        """Read the message of a claim, for its attempt; None where it now waits for others."""
        attempts = self._attempts[queue.index]
        message = attempts.read(claim)
        if not isinstance(message, MailRequest):
            return message
        claim.message = message
        step = attempts.dispatcher.batch_for(message)
        if step is None or step.terms is None:
            return message
        key = (queue.index, step.name, claim.crashes)
        if (group := self._groups.get(key)) is None:
            group = self._groups[key] = BatchGroup.begin(step, claim.crashes, self._max_crashes)
        group.add(claim, len(message.Data), since)
        self._words[self._base + SlotWord.TAKEN] += 1
        return None

    def _update_groups(self, *, idle: bool = False) -> None:
        """Claim what other workers have passed on, pass on what is for their functions, and call what is due."""
        if self._stopping or not (self._groups or self._is_leading_or_passes()):
            return
        self._settle_passed()
        for leader in self._leaders:
            if leader.passes:
                leader.begin_leading()  # unless another worker does: what was passed on would wait for nobody
            while leader.is_leading and self._may_claim() and (passed := leader.receive()) is not None:
                self._attempt_or_gather(self._queues[passed[0]], passed[2], passed[1])
        for key in list(self._groups):
            self._update_group(key, idle=idle)
        self._update_leading()

    def _update_group(self, key: GroupKey, *, idle: bool) -> None:
        group = self._groups[key]
        full = group.is_full(self._limit_bytes)
        if group.waits_for_more and not full and self._has_room():
            leader = self._leader_of[key[:2]]
            if not leader.begin_leading():
                waiting = zip(group.claims, group.began, strict=True)
                passed = takewhile(lambda one: leader.pass_claim(key[0], *one), waiting)
                group.forget(sum(1 for _ in passed))
                if not group.claims:
                    del self._groups[key]
                    return
        if full or (group.due <= boottime() and (idle or group.lingers)):
            self._handle_group(key)

    def _handle_group(self, key: GroupKey) -> bool:
        """Call the function with the first messages of a group, and settle them; False while another call is on."""
        group, queue, now = self._groups[key], self._queues[key[0]], boottime()
        if group.retry_at > now or not self._may_call(group, now):
            return False
        batch = group.take(self._limit_bytes)
        if not group.claims:
            del self._groups[key]
        self._call(queue, batch)
        return True

    def _call(self, queue: QueueView, batch: BatchGroup[GatheredClaim]) -> None:
        self._words[self._base + SlotWord.STATE] = State.BUSY
        self._words[self._base + SlotWord.QUEUE] = queue.index
        try:
            batch.attempt(self._attempts[queue.index], lambda: not self._stopping)
        finally:
            if batch.step.call_token:
                self._calls.release_token(batch.step.call_token)

    def _may_call(self, group: BatchGroup[GatheredClaim], now: float) -> bool:
        """Take the token of the call, if it needs one."""
        token, terms = group.step.call_token, group.step.terms
        try:
            if not token or self._calls.take_token(token):
                return True
        except StorageFault:  # of the queue in which the tokens lie
            pass
        exclusive = terms is not None and terms.exclusive
        group.retry_at = now + (_LOOK_AT_MOUNT_SECONDS if exclusive else _LOOK_SECONDS)
        return False

    def _update_leading(self) -> None:
        """Lead on for the functions whose messages wait here, while there is room; then other work waits."""
        led = {self._leader_of[key[:2]] for key, group in self._groups.items() if group.waits_for_more}
        for leader in self._leaders:
            if leader.is_leading and (leader not in led or not self._has_room()):
                leader.end_leading()
        if any(leader.is_leading for leader in self._leaders):
            self._seat.take(self._shared.board)
        else:
            self._seat.leave()

    def _end_leading(self) -> None:
        for leader in self._leaders:
            leader.end_leading()
        self._seat.leave()

    def _is_leading_or_passes(self) -> bool:
        return any(leader.is_leading or leader.passes for leader in self._leaders)

    def _is_for_another(self, key: GroupKey) -> bool:
        return self._groups[key].waits_for_more and not self._leader_of[key[:2]].is_leading

    def _settle_passed(self, *, now: bool = False) -> None:
        released = sum(leader.settle_passed(now=now) for leader in self._leaders)
        self._words[self._base + SlotWord.RELEASED] += released

    def _has_room(self) -> bool:
        waiting = sum(group.size_bytes for group in self._groups.values())
        return bool(self._free_places) and waiting < self._limit_bytes

    def _make_room(self) -> bool:
        """Wait for room, as if in a handler; False if the worker is to end."""
        while not self._has_room():
            if self._stopping:
                return False
            self._end_leading()
            self._settle_passed()
            oldest_first = sorted(self._groups, key=lambda key: self._groups[key].due)
            if not any(map(self._handle_group, oldest_first)):
                self._pause()
        return True

    def _pause(self) -> None:
        """Wait a moment for what other workers do."""
        time.sleep(_LOOK_SECONDS)

    def _may_claim(self) -> bool:
        return not (self._stopping or self._attempts_left == 0 or self._words[Header.PAUSED])

    def _run_handlers(self, handlers: Callable[[M], T], messages: M, claims: Sequence[Claim]) -> T:
        """Run handlers under the deadline; meanwhile another worker may lead."""
        self._end_leading()
        return super()._run_handlers(handlers, messages, claims)

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
