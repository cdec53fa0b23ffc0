"""A pool in a test's own process: the project's queues and handlers, real claims and settles, and a simulated clock.

For the fixture `maildefer_queue` of `maildefer.pytest_plugin`. There is no process, socket or sleep in it. What is
deferred is handled once the test has advanced the clock; handlers see its time in `time.time()`, and in the `datetime`
that the project's modules have imported.
"""

from __future__ import annotations

import datetime as datetimes
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast
from unittest.mock import patch

from maildefer import testing
from maildefer.errors import QueueUnlisted
from maildefer.handling.application import queues_of
from maildefer.handling.calls.event_loop import refuse_running_loop
from maildefer.handling.calls.step import use_middleware
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.project import setting_place, settings
from maildefer.handling.project.queue_paths import keeps_outputs
from maildefer.handling.retry import RetryPolicy
from maildefer.handling.tasks.task import Task
from maildefer.host.identity import this_host
from maildefer.mail import MailRequest
from maildefer.maildir import due, names
from maildefer.maildir.claims import Claim, Claimer
from maildefer.maildir.names import EntryName
from maildefer.maildir.outbox.current import current
from maildefer.maildir.outbox.publish import Outboxes
from maildefer.maildir.system import SYSTEM
from maildefer.pool.attempt_log import AttemptLog
from maildefer.pool.worker.attempt import QueueAttempts
from maildefer.pool.worker.settle import Settler
from maildefer.queue import Queue
from maildefer.routing import Router
from maildefer.utils import import_settings

_MOST_ATTEMPTS = 10_000
_LEASE = "test-1-abcdef"
_DELIVERS = "maildefer.handlers.outgoing"  # what waits for it is as good as sent
_real_time, _real_datetime = time.time, datetimes.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedAttempt:
    """One attempt: `outcome` is `acked`, `deferred`, `buried`, `handed_off` or `postponed`."""

    queue: str
    key: str
    handler: str
    outcome: str
    attempt: int
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferredCall:
    """A call of a `@task` that a handler, or the test, has deferred."""

    task: str
    arguments: tuple[Any, ...]
    named: dict[str, Any]


class SimulatedPool:
    """What the fixture `maildefer_queue` gives: pushes, drains, and advances the clock. For a thread without a loop."""

    def __init__(self) -> None:
        testing.store()
        self._module = settings.loaded_settings() or import_settings(False)
        self._settings = settings.pool_settings(self._module)
        use_middleware(Router)
        queues = self._settings.queues
        self._queues = {name: testing.queue(name) for name in (*queues, *self._settings.kept)}
        self._inbox = testing.queue("run/answers")
        outgoing = [self._queues[name] for name, modules in queues.items() if _DELIVERS in modules]
        self._sent = [self._inbox, *outgoing]
        self._outboxes = Outboxes(lambda: [one.layout for one in (self._inbox, *self._queues.values())])
        self._sent_tasks: list[DeferredCall] = []  # of the attempt, whose handlers have not returned
        self._offset = 0.0
        self._seqs = itertools.count(1)
        self._ended: list[SimulatedAttempt] = []
        self.tasks: list[DeferredCall] = []
        self._attempts = {
            name: self._attempts_of(name, Dispatcher(Router, modules, queues_of=queues_of(queues)))
            for name, modules in queues.items()
            if _DELIVERS not in modules
        }

    @property
    def now(self) -> datetimes.datetime:
        """The simulated time, in UTC."""
        return _real_datetime.fromtimestamp(self._time(), datetimes.UTC)

    @property
    def answers(self) -> list[MailRequest]:
        """The messages that handlers have given to a relay, or were pushed to be delivered, in their order."""
        keys = sorted((key, place) for place, one in enumerate(map(Queue.keys, self._sent)) for key in one)
        return [self._sent[place].get(key) for key, place in keys]

    def push(self, message: object, *, queue: str | None = None, **options: Any) -> str:
        """Push a message into one of the project's queues, the first unless `queue` names one: see `Queue.push`."""
        return str(self._queue(queue).push(message, **options))

    def advance(self, **duration: float) -> list[SimulatedAttempt]:
        """Move the clock by so many `hours`, `minutes`, `days` …, handling in between what falls due; see `drain`.

        Raises TypeError, ValueError for what is no such time, or would set it back.
        """
        until, ended = self._offset + _seconds_of(duration), self.drain()
        while (following := self._next_due()) is not None and following - _real_time() <= until:
            self._offset = max(self._offset, following - _real_time())
            ended += self.drain()
        self._offset = max(self._offset, until)
        return ended + self.drain()

    def drain(self) -> list[SimulatedAttempt]:
        """Handle all that is due now, and what comes of it; returns the attempts in their order."""
        refuse_running_loop("maildefer_queue")
        self._ended = []
        while sum(self._drain_queue(name) for name in self._attempts):
            if len(self._ended) > _MOST_ATTEMPTS:
                raise AssertionError(f"{_MOST_ATTEMPTS} attempts, and something is left to be done: a loop?")
        return self._ended

    def dead(self, queue: str | None = None) -> list[str]:
        """The keys of the dead letters of all queues, or of one."""
        chosen = self._queues.values() if queue is None else (self._queue(queue),)
        return sorted(EntryName.parse(name).key for one in chosen for name in _listed(one.layout.dead_new))

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The clock is the process's until the end; the queues begin empty, and conversations in their first states.

        Raises RealQueueRefused where states outside of the tests' store would be deleted.
        """
        real_push = Task._push

        def push(task: Any, arguments: tuple[Any, ...], named: dict[str, Any], options: Any) -> str:
            key = real_push(task, arguments, named, options)
            if getattr(key, "is_new", True):
                is_output = current.get() is not None and not options.now and options.unique is None
                calls = self._sent_tasks if is_output else self.tasks
                calls.append(DeferredCall(task=task.name, arguments=arguments, named=named))
            return key

        with ExitStack() as stack:
            for owner, name, value in (
                (time, "time", self._time),
                (time, "time_ns", lambda: int(self._time() * 1e9)),
                (due.MountClock, "now", lambda clock: self._time()),
                (Task, "_push", push),
                *self._datetimes(),
            ):
                stack.enter_context(patch.object(owner, name, value))
            object.__setattr__(SYSTEM, "time", self._time)  # a frozen value, which all modules share
            stack.callback(object.__setattr__, SYSTEM, "time", _real_time)
            for queue in (self._inbox, *self._queues.values()):
                _empty(queue)
            Router.clear_states()
            stack.enter_context(testing._answers_in(self._inbox))
            yield

    def _queue(self, name: str | None) -> Queue:
        found = self._queues.get(next(iter(self._queues)) if name is None else name)
        if found is None:
            place = os.path.join(settings.project(), str(name))
            raise QueueUnlisted(place, setting_place.place(self._module, "queues"), str(name))
        return found

    def _datetimes(self) -> list[tuple[Any, str, Any]]:
        """The `datetime` of the project's modules, which asks this clock."""
        clock = self._time

        class Datetime(datetimes.datetime):
            def __new__(cls, *parts: Any, **named: Any) -> Any:
                return _real_datetime(*parts, **named)  # as arguments of tasks have to be

            @classmethod
            def now(cls, tz: datetimes.tzinfo | None = None) -> Any:
                return _real_datetime.fromtimestamp(clock(), tz)

            @classmethod
            def utcnow(cls) -> Any:
                return _real_datetime.fromtimestamp(clock(), datetimes.UTC).replace(tzinfo=None)

        folder = f"{settings.project()}{os.sep}"
        return [
            (module, "datetime", Datetime)
            for module in list(sys.modules.values())
            if (getattr(module, "__file__", None) or "").startswith(folder)
            and vars(module).get("datetime") is _real_datetime
            and not module.__name__.startswith("maildefer.")
        ]

    def _time(self) -> float:
        return _real_time() + self._offset

    def _attempts_of(self, queue: str, dispatcher: Dispatcher) -> QueueAttempts:
        known = self._settings
        policy = RetryPolicy(max_attempts=known.max_attempts, lifetime_seconds=known.lifetime_seconds)
        log = cast(AttemptLog, _Lines(lambda *line, reason=None: self._note(line, reason)))
        return QueueAttempts(
            queue=queue,
            dispatcher=dispatcher,
            settler=Settler(policy=policy, layouts={}, host=this_host().label),
            log=log,
            return_claim=_raise,
            note_settled=lambda claim, outcome, word: None,
            keeps_outputs=keeps_outputs(self._module),
            outboxes=lambda: self._outboxes,
        )

    def _note(self, line: tuple[Any, ...], reason: str | None) -> None:
        queue, key, handler, outcome, attempt, *_ = line
        ended = SimulatedAttempt(
            queue=queue, key=key, handler=handler, outcome=outcome, attempt=attempt, reason=reason
        )
        self._ended.append(ended)

    def _drain_queue(self, name: str) -> int:
        """Promote what is due, and make an attempt at all that waits; returns how many."""
        layout, now = self._queues[name].layout, self._time()
        for later in _listed(layout.later_new):
            if (names.due_of(later) or 0) <= now:
                waiting = EntryName.parse(later).returned().waiting()
                os.rename(f"{layout.later_new}/{later}", f"{layout.new}/{waiting}")
        slots: Any = self
        claimer = Claimer(layout, slots, lease=_LEASE, host=this_host().label, mount_time=self._time)
        claims = [claim for each in _listed(layout.new) if (claim := claimer.claim(each)) is not None]
        for claim in claims:
            self._attempts[name].make(claim, self._attempts[name].read)
            if self._ended and self._ended[-1].outcome in ("acked", "handed_off"):
                self.tasks += self._sent_tasks
            self._sent_tasks.clear()
        return len(claims)

    def _next_due(self) -> float | None:
        folders = (self._queues[name].layout.later_new for name in self._attempts)
        return min((float(names.due_of(one) or 0) for path in folders for one in _listed(path)), default=None)

    def next_seq(self) -> int:  # as the places of the scoreboard, which nobody reads here
        return next(self._seqs)

    def take_place(self, seq: int, name: str) -> int:
        return seq

    def free_place(self, place: int) -> None:
        pass


class _Lines:
    """In the place of the log: attempts are the test's to look at."""

    def __init__(self, add: Callable[..., None]) -> None:
        self.add = add

    def flush(self) -> None:
        pass


def _seconds_of(duration: Mapping[str, float]) -> float:
    given = ", ".join(f"{unit}={number!r}" for unit, number in duration.items())
    advice = "give numbers that move the clock on, such as hours=5 or days=2"
    try:
        seconds = datetimes.timedelta(**duration).total_seconds()
    except TypeError as fault:
        raise TypeError(f"advance({given}): {fault}: {advice}") from None
    except (ValueError, OverflowError) as fault:  # not a number, or too many
        raise ValueError(f"advance({given}): {fault}: {advice}") from None
    if seconds < 0:
        raise ValueError(f"advance({given}) would set the clock back: {advice}")
    return seconds


def _raise(claim: Claim, fault: BaseException) -> None:
    raise fault


def _listed(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if names.is_entry(name))
    except FileNotFoundError:  # made at the first use
        return []


def _empty(queue: Queue) -> None:
    layout = queue.layout
    for folder in (layout.new, layout.cur, layout.later_new, layout.dead_new):
        for name in _listed(folder):
            os.unlink(f"{folder}/{name}")
