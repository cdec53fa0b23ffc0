"""From a receiver's claim to its end: its handlers, its outcome, its line in the log; and the same for batches."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from maildefer import events
from maildefer.errors import ClaimLost, QueueError
from maildefer.handling import handler_marks, undeliverable
from maildefer.handling.application import pool_settings
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.outcomes import Buried, Deferred, Outcome
from maildefer.handling.project.settings import PoolSettings, loaded_settings
from maildefer.handling.retry import RetryPolicy
from maildefer.handling.routes import Router, RoutingBase
from maildefer.handling.state.thread_locks import ThreadLocks
from maildefer.host.identity import this_host
from maildefer.pool.attempt_log import AttemptLog, tell_failure
from maildefer.pool.receiver.batches import WaitingBatches
from maildefer.pool.receiver.consumer import ConsumedClaim
from maildefer.pool.worker.batch_group import BatchGroup
from maildefer.pool.worker.bisect import sift
from maildefer.pool.worker.settle import Settler

LOG = logging.getLogger("maildefer.receiver")


class AttemptRunner:
    """From a claim to its end; for any number of threads."""

    def __init__(
        self,
        queue: str,
        set_aside: Callable[[ConsumedClaim], bool],
        process_message: Callable[[Any], object] | None,
    ) -> None:
        """`set_aside` puts away what is no handler's; `process_message` may take all handlers' place."""
        module = loaded_settings()
        self.settings: PoolSettings | None = None if module is None else pool_settings(module)
        self._queue = queue
        self._set_aside = set_aside
        own = tuple(
            dict.fromkeys(handler_marks.module_of(f) for _, functions in Router.table() for f in functions)
        )
        self._dispatcher = Dispatcher(Router, own, queues_of=self._queues_of(own), tokens=ThreadLocks())
        if process_message is not None:
            self._dispatcher = Dispatcher(_only(process_message))
        host = this_host().label
        self._settler = Settler(policy=self._policy(), layouts={}, host=host, keep=_kept)
        self._log = AttemptLog()
        self._writing = threading.Lock()

    def make(self, claim: ConsumedClaim) -> None:
        """One attempt; raises nothing, so that the thread goes on."""
        try:
            if self._set_aside(claim):
                return
            self._tell(claim)
            outcome, handler = self._dispatcher.dispatch(claim.message)
        except ClaimLost as lost:
            events.emit("claim.lost", queue=self._queue, name=lost.name)
        except (QueueError, MemoryError) as fault:
            self._give_up(claim, fault)
        else:
            self._settle(claim, outcome, handler)

    def make_all(self, collected: BatchGroup[ConsumedClaim]) -> None:
        """One attempt at a batch, each of its messages settled by itself; raises nothing either."""
        step = collected.step

        def call(claims: list[ConsumedClaim]) -> list[Outcome] | Deferred:
            return self._dispatcher.dispatch_batch(step, [claim.message for claim in claims])

        for claims, outcomes in sift(collected.claims, call):
            for claim, outcome in zip(claims, outcomes, strict=True):
                self._settle(claim, outcome, step.name)

    def collecting(self) -> WaitingBatches | None:
        """Where batches wait; None without batch handlers."""
        if not any(
            handler_marks.batch_of(function) for _, functions in Router.table() for function in functions
        ):
            return None
        given = self.settings
        return WaitingBatches(
            self._dispatcher,
            max_crashes=given.max_crashes if given else 5,
            max_bytes=given.max_bytes if given else 64 << 20,
        )

    def _tell(self, claim: ConsumedClaim) -> None:
        """For who watches a receiver at work; a pool has one line for each attempt, and no more."""
        message = claim.message
        events.emit(
            "claim.taken",
            queue=self._queue,
            key=claim.key,
            peer=message.Peer,
            sender=message.From,
            recipient=message.To,
        )

    def _settle(self, claim: ConsumedClaim, outcome: Outcome, handler: str) -> None:
        try:
            word = self._settler.settle(claim, outcome, handler, claim.message, self._dispatcher.buried)  # type: ignore[arg-type]
            self._note(claim, outcome, handler, word)
        except ClaimLost as lost:
            events.emit("claim.lost", queue=self._queue, name=lost.name)
        except (QueueError, MemoryError) as fault:
            self._give_up(claim, fault)

    def _give_up(self, claim: ConsumedClaim, fault: Exception) -> None:
        events.emit("entry.unreadable", queue=self._queue, key=claim.key, error=str(fault))
        claim.abandon()

    def flush(self) -> None:
        with self._writing:
            self._log.flush()

    def _note(self, claim: ConsumedClaim, outcome: Outcome, handler: str, word: str) -> None:
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        facts = {"reason": reason} if (reason := getattr(outcome, "reason", None)) else {}
        with self._writing:
            self._log.add(
                self._queue, claim.key, handler, word, claim.attempt, now - claim.began, now, **facts
            )
        tell_failure(outcome, claim.message, handler, last=word == "buried")
        if isinstance(outcome, Buried):
            events.emit("entry.buried", queue=self._queue, key=claim.key, reason=outcome.reason)

    def _policy(self) -> RetryPolicy:
        if self.settings is None:
            return RetryPolicy()
        return RetryPolicy(
            max_attempts=self.settings.max_attempts, lifetime_seconds=self.settings.lifetime_seconds
        )

    def _queues_of(self, own: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """Who lists which module, for handoffs. None is imported here that the program has not asked for."""
        queues_of: dict[str, tuple[str, ...]] = {}
        if self.settings is not None:
            for queue, modules in self.settings.queues.items():
                for module in modules:
                    queues_of[module] = (*queues_of.get(module, ()), queue)
        for module in own:
            queues_of.setdefault(module, (self._queue,))
        return queues_of


def _only(function: Callable[[Any], object]) -> RoutingBase:
    """A router whose one handler gets every message."""

    def process_message(message: Any) -> object:
        return function(message)

    handler_marks.mark_stateless(process_message)
    handler_marks.mark_nolocking(process_message)
    router = RoutingBase()
    router.register_route("(?s:.*)", process_message)
    return router


def _kept(message: object, reason: str, facts: Mapping[str, object]) -> bool:
    """Give what would be buried to `Router.UNDELIVERABLE_QUEUE`; where that takes nothing, it is buried after all."""
    if Router.UNDELIVERABLE_QUEUE is None:
        return False
    try:
        queue, key, attempt = (getattr(message, name, None) for name in ("queue", "key", "attempt"))
        told = {"queue": queue, "came_as": key, "attempts": attempt, **facts}
        undeliverable.give(Router.UNDELIVERABLE_QUEUE, message, reason, **told)
    except Exception:
        LOG.exception("the undeliverable queue did not take a message: it goes to the dead letters")
        return False
    return True
