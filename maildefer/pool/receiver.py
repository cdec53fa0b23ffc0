"""One receiver in a process of its own, without a supervisor: claims, handles in threads, settles.

`maildefer supervise` is the ordinary way; this is Salmon's way to run a queue's handlers, safe beside any number of
others, since it claims as workers do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from maildefer import events
from maildefer.errors import ClaimLost, ConfigurationError, QueueError, StorageFault
from maildefer.handling import marks
from maildefer.handling.application import pool_settings
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.loading import module_files
from maildefer.handling.marks import Addressed
from maildefer.handling.outcomes import Buried, Outcome
from maildefer.handling.retry import RetryPolicy
from maildefer.handling.routes import Router, RoutingBase
from maildefer.handling.settings import PoolSettings, loaded_settings
from maildefer.handling.turns import Turns
from maildefer.host.identity import this_host
from maildefer.maildir.layout import create_queue
from maildefer.pool import shipping
from maildefer.pool.attempts import AttemptLog
from maildefer.pool.board import PLACES
from maildefer.pool.consumer import ConsumedClaim, Consumer
from maildefer.pool.reloading import FileWatch
from maildefer.pool.settle import Settler

LOG = logging.getLogger("maildefer.receiver")
_LOOK_SECONDS = 0.5
_FAULT_SECONDS = 1.0


class QueueReceiver:
    """Handles the entries of a queue with what `Router` has loaded, until `close()`.

    `sleep`: the most seconds between two looks at an empty queue; local pushes wake it at once. A message over
    `size_limit` bytes (0: none) goes to the queue `oversize_dir`, or to the dead letters. Up to `workers` messages are
    in hand at a time; their handlers run one at a time unless they are `@nolocking`, and no two messages of one
    conversation are handled at once in this process; other processes are not kept out. Not for use across a fork.
    What has no route, is rejected or given up goes to `Router.UNDELIVERABLE_QUEUE` where one is set, else to the dead
    letters. A `process_message` of a subclass's, or of the object's own, is given the messages in the handlers' place.
    """

    def __init__(
        self,
        queue_dir: str,
        sleep: float = 10,
        size_limit: int = 0,
        oversize_dir: str | None = None,
        workers: int = 10,
    ) -> None:
        self.queue_dir = queue_dir
        self.sleep = sleep
        self.size_limit = size_limit
        self.workers = max(1, min(workers, PLACES))
        self._layout = create_queue(queue_dir)
        self._oversize = create_queue(oversize_dir) if oversize_dir else None
        self._stopped = threading.Event()
        self._settled = threading.Condition()
        self._in_hand = 0
        self.reloaded: Callable[[], None] = lambda: None  # told after each `Router.reload`

    def start(self, one_shot: bool = False) -> None:
        """Loop in the caller until `close()`; with `one_shot` until the queue is empty and all is settled.

        Raises ConfigurationError when no routes are loaded, UnsafeMount and QueueError when the queue can't be joined.
        With `one_shot`, or with `Router.UNDELIVERABLE_QUEUE` set, somebody wants the queue empty even without routes.
        """
        if not (Router.table() or one_shot or Router.UNDELIVERABLE_QUEUE is not None or self._replaced()):
            raise ConfigurationError(
                "no routes are loaded: call Router.load([...]) before the receiver starts"
            )
        attempts = Attempts(self, self._oversized)
        files = FileWatch({"files": module_files(tuple(Router.HANDLERS)), "reload": True})
        options = attempts.settings
        with (
            Consumer(
                self._layout,
                max_bytes=options.max_bytes if options else 64 << 20,
                max_crashes=options.max_crashes if options else 5,
                poll_seconds=self.sleep or _LOOK_SECONDS,
            ) as consumer,
            ThreadPoolExecutor(self.workers, "receiver") as threads,
        ):
            while not self._stopped.is_set():
                if Router.RELOAD and files.changed():
                    Router.reload()
                    self.reloaded()
                claim = self._next(consumer, 0 if one_shot else min(self.sleep, _LOOK_SECONDS))
                if claim is not None:
                    threads.submit(self._handle, attempts, claim)
                elif one_shot and self._all_settled():
                    break

    def close(self) -> None:
        """Have `start` return once what is in hand is settled. Any thread may call, any number of times."""
        self._stopped.set()
        with self._settled:
            self._settled.notify_all()

    def process_message(self, msg: Addressed) -> None:
        """Run the handlers for a message here and now, without a queue. Never raises.

        Failures, of which an `SMTPError` is one here, are logged, and the message is kept as undeliverable.
        """
        try:
            Router.deliver(msg)
        except Exception as fault:
            LOG.exception("no handler finished a message for %s from %s", msg.To, msg.From)
            if Router.UNDELIVERABLE_QUEUE is not None and not marks.is_kept(fault):
                Router.UNDELIVERABLE_QUEUE.push(msg)

    def _replaced(self) -> Callable[[Any], object] | None:
        """The `process_message` that somebody has put in the place of ours."""
        chosen = self.process_message
        return None if getattr(chosen, "__func__", None) is QueueReceiver.process_message else chosen

    def _next(self, consumer: Consumer, timeout_seconds: float) -> ConsumedClaim | None:
        """The next claim, when a thread is free for it."""
        with self._settled:
            if self._in_hand >= self.workers and not self._settled.wait_for(self._has_room, _LOOK_SECONDS):
                return None
        try:
            claim = consumer.claim(timeout_seconds)
        except StorageFault as fault:  # not the message's: it was released
            events.emit("entry.unreadable", queue=self.queue_dir, error=str(fault))
            self._stopped.wait(_FAULT_SECONDS)
            return None
        if claim is not None:
            with self._settled:
                self._in_hand += 1
        return claim

    def _has_room(self) -> bool:
        return self._in_hand < self.workers or self._stopped.is_set()

    def _all_settled(self) -> bool:
        """Wait for what is in hand; True when there was nothing, so that an empty queue is empty for good."""
        with self._settled:
            if not self._in_hand:
                return True
            self._settled.wait(_LOOK_SECONDS)
            return False

    def _handle(self, attempts: Attempts, claim: ConsumedClaim) -> None:
        try:
            attempts.make(claim)
        finally:
            with self._settled:
                self._in_hand -= 1
                idle = not self._in_hand
                self._settled.notify_all()
            if idle:
                attempts.flush()

    def _oversized(self, claim: ConsumedClaim) -> bool:
        """Put away a message over the limit; it is no handler's."""
        if not self.size_limit or len(claim.message.Data) <= self.size_limit:
            return False
        if self._oversize is None:
            claim.bury(f"over the receiver's limit of {self.size_limit} bytes")
            return True
        try:
            claim.handoff(self._oversize)
        except OSError:  # another filesystem
            shipping.ship(claim, self._oversize, host=this_host().label)
        return True


class Attempts:
    """From a claim to its end; for any number of threads."""

    def __init__(self, receiver: QueueReceiver, set_aside: Callable[[ConsumedClaim], bool]) -> None:
        module = loaded_settings()
        self.settings: PoolSettings | None = None if module is None else pool_settings(module)
        self._queue = receiver.queue_dir
        self._set_aside = set_aside
        own = tuple(dict.fromkeys(marks.module_of(f) for _, functions in Router.table() for f in functions))
        self._dispatcher = Dispatcher(Router, own, queues_of=self._queues_of(own), tokens=Turns())
        if (process_message := receiver._replaced()) is not None:
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
            outcome, handler = self._dispatcher.dispatch(claim.message)
            word = self._settler.settle(claim, outcome, handler, claim.message, self._dispatcher.buried)  # type: ignore[arg-type]
            self._note(claim, outcome, handler, word)
        except ClaimLost as lost:
            events.emit("claim.lost", queue=self._queue, name=lost.name)
        except (QueueError, MemoryError) as fault:
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
        if detail := getattr(outcome, "detail", None):
            events.emit("handler.failed", queue=self._queue, key=claim.key, handler=handler, traceback=detail)
        if isinstance(outcome, Buried):
            events.emit("entry.buried", queue=self._queue, key=claim.key, reason=outcome.reason)

    def _policy(self) -> RetryPolicy:
        if self.settings is None:
            return RetryPolicy()
        return RetryPolicy(
            max_attempts=self.settings.max_attempts, lifetime_seconds=self.settings.lifetime_seconds
        )

    def _queues_of(self, own: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """Who lists which module, for handoffs; other queues' modules are loaded, and none of their routes used."""
        queues_of: dict[str, tuple[str, ...]] = {}
        if self.settings is not None:
            for queue, modules in self.settings.queues.items():
                for module in modules:
                    queues_of[module] = (*queues_of.get(module, ()), queue)
            Router.load([module for module in queues_of if module not in own])
        for module in own:
            queues_of.setdefault(module, (self._queue,))
        return queues_of


def _only(function: Callable[[Any], object]) -> RoutingBase:
    """A router whose one handler gets every message."""

    def process_message(message: Any) -> object:
        return function(message)

    marks.mark_stateless(process_message)
    marks.mark_nolocking(process_message)
    router = RoutingBase()
    router.register_route("(?s:.*)", process_message)
    return router


def _kept(message: object) -> bool:
    """Give what would be buried to `Router.UNDELIVERABLE_QUEUE`; where that takes nothing, it is buried after all."""
    if Router.UNDELIVERABLE_QUEUE is None:
        return False
    try:
        Router.UNDELIVERABLE_QUEUE.push(message)
    except Exception:
        LOG.exception("the undeliverable queue did not take a message: it goes to the dead letters")
        return False
    return True
