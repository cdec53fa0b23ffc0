"""One receiver in a process of its own, without a supervisor: claims, handles in threads, settles.

`maildefer supervise` is the ordinary way; this is Salmon's way to run a queue's handlers, safe beside any number of
others, since it claims as workers do.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from maildefer import events, log_context
from maildefer.errors import ConfigurationError, StorageFault
from maildefer.handling import handler_marks, undeliverable
from maildefer.handling.handler_check import check
from maildefer.handling.handler_marks import HasRecipient
from maildefer.handling.project.module_loader import module_files
from maildefer.handling.project.queue_paths import queue_at
from maildefer.handling.routes import Router, RoutingBase
from maildefer.host.identity import this_host
from maildefer.host.working_directory import WorkingDirectory
from maildefer.maildir.reasons import write_reason
from maildefer.matching import process_client
from maildefer.pool.probe import FileWatch
from maildefer.pool.receiver.batches import WaitingBatches
from maildefer.pool.receiver.consumer import ConsumedClaim, Consumer
from maildefer.pool.receiver.thread_attempts import ThreadAttempts
from maildefer.pool.scoreboard import PLACES
from maildefer.pool.worker import cross_device

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
        self._layout = queue_at(queue_dir)
        self._oversize = queue_at(oversize_dir) if oversize_dir else None
        self._stopped = threading.Event()
        self._settled = threading.Condition()
        self._in_hand = 0
        self._logged_idle = False
        self._directory = WorkingDirectory()
        self.reloaded: Callable[[], None] = lambda: None  # told after each `Router.reload`

    def start(self, one_shot: bool = False) -> None:
        """Loop in the caller until `close()`; with `one_shot` until the queue is empty and all is settled.

        Raises ConfigurationError for wrong routes, or none, UnsafeMount and QueueError when it can't join the queue.
        With `one_shot`, or with `Router.UNDELIVERABLE_QUEUE` set, somebody wants the queue empty even without routes.
        """
        if not (
            Router.table()
            or one_shot
            or Router.UNDELIVERABLE_QUEUE is not None
            or self._own_process_message()
        ):
            raise ConfigurationError(
                "no routes are loaded: call Router.load([...]) before the receiver starts"
            )
        check(Router.table())
        log_context.isolate()
        log_context.in_hand.append(lambda: self._in_hand)
        log_context.queue_names[self._layout.path] = self.queue_dir
        attempts = ThreadAttempts(self.queue_dir, self._set_aside_oversized, self._own_process_message())
        batches = attempts.waiting_batches()
        files = FileWatch(module_files(tuple(Router.HANDLERS)))
        options = attempts.settings
        with (
            process_client.ended_afterwards(),
            self._directory,
            Consumer(
                self._layout,
                max_bytes=options.max_bytes if options else 64 << 20,
                max_crashes=options.max_crashes if options else 5,
                poll_seconds=self.sleep or _LOOK_SECONDS,
                batches=batches is not None,
            ) as consumer,
            ThreadPoolExecutor(self.workers, "receiver") as threads,
        ):
            while not self._stopped.is_set():
                if Router.RELOAD and files.changed():
                    Router.reload()
                    self.reloaded()
                seconds = 0 if one_shot else min(self.sleep, _LOOK_SECONDS)
                claim = self._claim_next(
                    consumer, seconds if batches is None else batches.wait_seconds(seconds)
                )
                if claim is not None and (batches is None or not self._waits_for_batch(batches, claim)):
                    threads.submit(self._handle, attempts, partial(attempts.attempt, claim))
                idle = claim is None
                self._log_idle(idle and not one_shot)
                for group in batches.due(idle=idle, everything=idle and one_shot) if batches else ():
                    self._count_in_hand()
                    threads.submit(self._handle, attempts, partial(attempts.attempt_batch, group))
                if idle and one_shot and self._all_settled():
                    break
            if batches is not None:
                batches.release()

    def close(self) -> None:
        """Have `start` return once all claims are settled. Any thread may call, any number of times."""
        self._stopped.set()
        with self._settled:
            self._settled.notify_all()

    def process_message(self, msg: HasRecipient) -> None:
        """Run the handlers for a message here and now, without a queue. Never raises.

        Failures, of which an `SMTPError` is one here, are logged, and the message is kept as undeliverable.
        """
        try:
            router().deliver(msg)
        except Exception as fault:
            LOG.exception("no handler finished a message for %s from %s", msg.To, msg.From)
            if router().UNDELIVERABLE_QUEUE is not None and not handler_marks.is_in_undeliverable_queue(
                fault
            ):
                undeliverable.push(router().UNDELIVERABLE_QUEUE, msg, "no handler finished it")

    def _own_process_message(self) -> Callable[[Any], object] | None:
        """The `process_message` of a subclass or program, or this class's where a stand-in routes; else None."""
        chosen = self.process_message
        if getattr(chosen, "__func__", None) is not QueueReceiver.process_message:
            return chosen
        ours = router() is Router and getattr(Router.deliver, "__func__", None) is RoutingBase.deliver
        return None if ours else chosen

    def _claim_next(self, consumer: Consumer, timeout_seconds: float) -> ConsumedClaim | None:
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
            self._count_in_hand()
        return claim

    def _waits_for_batch(self, batches: WaitingBatches, claim: ConsumedClaim) -> bool:
        """Whether the claim waits for a batch now, and no thread has it in hand."""
        if self._is_oversized(claim) or not batches.add(claim):
            return False
        with self._settled:
            self._in_hand -= 1
        return True

    def _log_idle(self, idle: bool) -> None:
        """Tell once that the queue is empty, as the next message may be long in coming."""
        waits = idle and not self._in_hand
        if waits and not self._logged_idle:
            events.emit("queue.waiting", queue=self.queue_dir)
        self._logged_idle = waits

    def _count_in_hand(self) -> None:
        with self._settled:
            self._in_hand += 1

    def _has_room(self) -> bool:
        return self._in_hand < self.workers or self._stopped.is_set()

    def _all_settled(self) -> bool:
        """Wait until all claims are settled; True if there were none, so that an empty queue is empty for good."""
        with self._settled:
            if not self._in_hand:
                return True
            self._settled.wait(_LOOK_SECONDS)
            return False

    def _handle(self, attempts: ThreadAttempts, attempt: Callable[[], None]) -> None:
        try:
            attempt()
        finally:
            if threading.get_ident() in self._directory.movers:
                with Router.lock:  # between handlers, as far as they run one at a time
                    self._directory.put_back()
            with self._settled:
                self._in_hand -= 1
                idle = not self._in_hand
                self._settled.notify_all()
            if idle:
                attempts.flush()

    def _set_aside_oversized(self, claim: ConsumedClaim) -> bool:
        """Settle a message over the size limit, which no handler gets; False for any other."""
        if not self._is_oversized(claim):
            return False
        reason = f"over the receiver's limit of {self.size_limit} bytes"
        if self._oversize is None:
            claim.bury(reason)
            return True
        host = this_host().label
        try:
            write_reason(
                self._oversize, claim.to_settle.handed_on(), reason, {"queue": self.queue_dir}, host=host
            )
            claim.handoff(self._oversize)
        except OSError:  # another filesystem
            cross_device.hand_off_copy(claim, self._oversize, host=host)
        return True

    def _is_oversized(self, claim: ConsumedClaim) -> bool:
        return bool(self.size_limit) and len(claim.message.Data) > self.size_limit


def router() -> Any:
    """`maildefer.routing.Router`: the one router, or the stand-in that a test of an application has put there."""
    return getattr(sys.modules.get("maildefer.routing"), "Router", Router)
