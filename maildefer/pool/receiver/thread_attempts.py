"""The attempts of a receiver's threads: the same course as in a pool's worker, with the handlers of this process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from maildefer import events
from maildefer.errors import ConfigurationError, QueueError
from maildefer.handling import handler_marks, undeliverable
from maildefer.handling.application import pool_settings
from maildefer.handling.calls.step import use_middleware
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.limits.limit import limits_of
from maildefer.handling.outcomes import Buried, Outcome
from maildefer.handling.project.settings import PoolSettings, loaded_settings
from maildefer.handling.retry import RetryPolicy
from maildefer.handling.routes import Router, RoutingBase
from maildefer.handling.state.thread_locks import ThreadLocks
from maildefer.host.identity import this_host
from maildefer.message.request import MailRequest
from maildefer.pool.attempt_log import AttemptLog
from maildefer.pool.receiver.batches import WaitingBatches
from maildefer.pool.receiver.consumer import ConsumedClaim
from maildefer.pool.worker.attempt import QueueAttempts
from maildefer.pool.worker.batch_group import BatchGroup
from maildefer.pool.worker.settle import Settler

LOG = logging.getLogger("maildefer.receiver")


class SharedAttemptLog(AttemptLog):
    """The attempt lines of several threads. A signal handler must not call it."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()

    def add(self, *line: Any, **more: Any) -> None:
        with self._lock:
            super().add(*line, **more)

    def flush(self) -> None:
        with self._lock:
            super().flush()


class ThreadAttempts:
    """Attempts of a receiver's threads; any of them may call."""

    def __init__(
        self,
        queue: str,
        set_aside: Callable[[ConsumedClaim], bool],
        process_message: Callable[[Any], object] | None,
    ) -> None:
        """`set_aside` settles what no handler gets, and says so; `process_message` may replace all handlers."""
        module = loaded_settings()
        self.settings: PoolSettings | None = None if module is None else pool_settings(module)
        self._queue = queue
        self._set_aside = set_aside
        own = tuple(
            dict.fromkeys(handler_marks.module_of(f) for _, functions in Router.table() for f in functions)
        )
        self._tokens = ThreadLocks()
        use_middleware(Router)
        seconds = 0.0 if self.settings is None else self.settings.keep_seconds(queue)
        queues = self._queues_of(own)
        dispatcher = Dispatcher(Router, own, queues_of=queues, tokens=self._tokens, keep_seconds=seconds)
        for handler in {one for _, functions in Router.table() for one in functions if limits_of(one)}:
            limits = "; ".join(map(str, limits_of(handler)))
            events.emit("limit.unkept", queue=queue, handler=handler_marks.full_name(handler), limit=limits)
        if process_message is not None:
            only = _only(process_message)
            only.middleware = Router.middleware
            dispatcher = Dispatcher(only)
        host = this_host().label
        self._log = SharedAttemptLog()
        self._attempts = QueueAttempts(
            queue=queue,
            dispatcher=dispatcher,
            settler=Settler(policy=self._policy(), layouts={}, host=host, keep=_keep_undeliverable),
            log=self._log,
            return_claim=self._return_claim,
            note_settled=self._note_settled,
        )

    def attempt(self, claim: ConsumedClaim) -> None:
        """Make one attempt; raises no fault, so that the thread goes on."""
        self._attempts.make(claim, self._message_of)

    def attempt_batch(self, group: BatchGroup[ConsumedClaim]) -> None:
        """Make one attempt at a batch, each of its messages settled by itself; raises no fault.

        It waits until the last call of the function has ended, unless these may overlap.
        """
        token = group.step.call_token
        while token and not self._tokens.take_token(token):
            pass  # it has waited
        try:
            group.attempt(self._attempts)
        finally:
            if token:
                self._tokens.release_token(token)

    def waiting_batches(self) -> WaitingBatches | None:
        """Where messages wait for a batch; None without batch handlers.

        Raises ConfigurationError where one is exclusive.
        """
        functions = [function for _, functions in Router.table() for function in functions]
        terms = {function: handler_marks.batch_of(function) for function in functions}
        if not any(terms.values()):
            return None
        for function, its in terms.items():
            if its is not None and its.exclusive:
                raise ConfigurationError(
                    f"{handler_marks.full_name(function)} is a @batch(exclusive=True), and a receiver knows of no "
                    "other host: run it by `maildefer supervise`"
                )
        given = self.settings
        return WaitingBatches(
            self._attempts.dispatcher,
            max_crashes=given.max_crashes if given else 5,
            max_bytes=given.max_bytes if given else 64 << 20,
        )

    def flush(self) -> None:
        self._log.flush()

    def _message_of(self, claim: ConsumedClaim) -> MailRequest | None:
        """Read the message and log it; a pool has one line for each attempt, and no more."""
        if self._set_aside(claim):
            return None
        message = claim.message
        events.emit(
            "claim.taken",
            queue=self._queue,
            key=claim.key,
            peer=message.Peer,
            sender=message.From,
            recipient=message.To,
        )
        return message

    def _note_settled(self, claim: ConsumedClaim, outcome: Outcome, word: str) -> None:
        if isinstance(outcome, Buried):
            events.emit("entry.buried", queue=self._queue, key=claim.key, reason=outcome.reason)

    def _return_claim(self, claim: ConsumedClaim, fault: QueueError | MemoryError) -> None:
        events.emit("entry.unreadable", queue=self._queue, key=claim.key, error=str(fault))
        claim.abandon()

    def _policy(self) -> RetryPolicy:
        if self.settings is None:
            return RetryPolicy()
        return RetryPolicy(
            max_attempts=self.settings.max_attempts, lifetime_seconds=self.settings.lifetime_seconds
        )

    def _queues_of(self, own: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """Map each module to the queues that list it, for handoffs; this imports no module."""
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


def _keep_undeliverable(message: object, reason: str, facts: Mapping[str, object]) -> bool:
    """Give what would be buried to `Router.UNDELIVERABLE_QUEUE`; where that takes nothing, it is buried after all."""
    if Router.UNDELIVERABLE_QUEUE is None:
        return False
    try:
        queue, key, attempt = (getattr(message, name, None) for name in ("queue", "key", "attempt"))
        context = {"queue": queue, "came_as": key, "attempts": attempt, **facts}
        undeliverable.push(Router.UNDELIVERABLE_QUEUE, message, reason, **context)
    except Exception:
        LOG.exception("the undeliverable queue did not take a message: it goes to the dead letters")
        return False
    return True
