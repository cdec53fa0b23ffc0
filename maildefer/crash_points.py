"""Deaths of a handler's worker in tests: after each effect, followed by the attempt that a pool makes next.

For `maildefer.testing.every_crash`. A death is an exception that no `except Exception` catches; what a handler has in
`finally` runs all the same, which a killed worker's does not.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any
from unittest.mock import patch

from maildefer.handling import handler_marks
from maildefer.handling.calls.event_loop import finished
from maildefer.handling.results import ensure_run
from maildefer.handling.routes import RoutingBase
from maildefer.handling.tasks.task import Task
from maildefer.message.once import Once, forget
from maildefer.message.outgoing.relay import Relay
from maildefer.queue import Queue

_MOST_EFFECTS = 1000
_RUN_KEY = re.compile(r"\b[0-9]+(\.M[0-9]+)R[0-9a-f]+(\.crash)\b")  # another in each run, of the same effect


class WorkerDied(BaseException):
    """The worker died here, as far as the test goes."""


@dataclass(slots=True)
class _Effects:
    """The effects of one or two attempts, and after which of them the worker dies."""

    dies_after: int = 0  # 0: after none
    done: list[tuple[str, str]] = field(default_factory=list)  # what kind, and what
    _inside: bool = False
    _is_dead: bool = False

    def attempt(self, call: Callable[[], object]) -> None:
        """Make one attempt, which may end in the worker's death. An exception of the handler's is raised."""
        __tracebackhide__ = True
        self._is_dead = False
        try:
            call()
        except WorkerDied:
            self.dies_after = 0
        except BaseExceptionGroup as group:  # of an asyncio.TaskGroup
            if group.subgroup(WorkerDied) is None:
                raise
            self.dies_after = 0

    def watched(
        self, kind: str, describe: Callable[..., str], real: Callable[..., Any]
    ) -> Callable[..., Any]:
        @wraps(real)
        def effect(*arguments: Any, **named: Any) -> Any:
            if self._inside:  # a part of an effect, as the push of a message that is sent in a test
                return real(*arguments, **named)
            if self._is_dead:
                raise WorkerDied
            self._inside = True
            try:
                result = real(*arguments, **named)
            finally:
                self._inside = False
            if getattr(result, "is_new", True):  # else a push under a unique key has stored nothing
                self.done.append((kind, _RUN_KEY.sub(r"0\1\2", describe(*arguments, **named))))
                if len(self.done) == self.dies_after:
                    self._is_dead = True
                    raise WorkerDied
            return result

        return effect

    @contextmanager
    def watch(self) -> Iterator[None]:
        with ExitStack() as stack:
            for owner, name, kind, describe in (
                (Queue, "push", "push", _push_text),
                (Task, "_push", "defer", _call_text),
                (Relay, "deliver", "deliver", _sent_text),
                (RoutingBase, "set_state", "state", _state_text),
                (Once, "_begin", "once", lambda once: f"begin of {once._what}"),
                (Once, "_end", "once", lambda once: f"end of {once._what}"),
            ):
                watched = self.watched(kind, describe, getattr(owner, name))
                stack.enter_context(patch.object(owner, name, watched))
            yield


def every_crash(
    handler: Callable[..., object],
    *arguments: Any,
    before: Callable[[], object] = lambda: None,
    may_repeat: Container[str] = (),
    **captures: Any,
) -> int:
    """Call the handler with a death after each of its effects, each time followed by a whole second attempt.

    Effects are `push`, `defer` (of a task), `deliver` (by a relay), `state`, and begin and end of a block of `once`.
    Raises AssertionError that names the effect that happened more often than without a death, unless its kind is in
    `may_repeat`; a state that is written again is the same state, and a block may be begun again. Raises it also for
    effects that differ from run to run, HandlerNotRun for a generator, and what the handler raises.

    `arguments` and `captures` are the handler's. A message among them, or in a list of them, gets a key of its own for
    each death, and its attempt's number. `before` is called before each, and puts back what the handler has changed
    otherwise. Returns how many effects there are.
    """
    __tracebackhide__ = True  # for pytest, as below: the assertion is the test's
    alive = _Effects()
    _run(alive, handler, arguments, captures, before, 0)
    wanted = Counter(alive.done)
    for number in range(1, len(alive.done) + 1):
        if number > _MOST_EFFECTS:
            raise AssertionError(f"{handler_marks.full_name(handler)} has over {_MOST_EFFECTS} effects")
        effects = _Effects(dies_after=number)
        _run(effects, handler, arguments, captures, before, number)
        if effects.dies_after:  # it has not died
            raise AssertionError(
                f"{handler_marks.full_name(handler)} had {len(alive.done)} effects and then {len(effects.done)}, so "
                f"no death after the effect {number} can be tried: what it had done was still there; put that back "
                'in `before`, as before=lambda: clear_queue("run/posts") does for a push with unique="front page"'
            )
        kind, what = effects.done[number - 1]
        for kind_again, what_again in Counter(effects.done) - wanted:
            if kind_again not in ("state", "once") and kind_again not in may_repeat:
                if effects.done.count((kind_again, what_again)) == 1:
                    raise AssertionError(
                        f"{handler_marks.full_name(handler)} did {kind_again} {what_again}, and not in its first run, "
                        "in which no worker died, so its effects can't be compared: make them the same in each run, "
                        "with arguments and unique keys of message.key"
                    )
                raise AssertionError(
                    f"{handler_marks.full_name(handler)} did it twice: {kind_again} {what_again}. Its worker died "
                    f"after {kind} {what}, and the next attempt did it again: push with unique=…, or do it in a "
                    "block of message.once(…) that asks the other side where it was interrupted"
                )
    return len(alive.done)


def _run(
    effects: _Effects,
    handler: Callable[..., object],
    arguments: tuple[Any, ...],
    captures: dict[str, Any],
    before: Callable[[], object],
    number: int,
) -> None:
    """Make one attempt, and a second one if the worker died in it."""
    __tracebackhide__ = True
    before()
    run = os.urandom(8).hex()  # another in each call, so that what an earlier test has pushed is another's
    dies = bool(effects.dies_after)
    messages = [one for each in arguments for one in (each if isinstance(each, list) else [each])]
    for attempt in (1, 2) if dies else (1,):
        for place, message in enumerate(messages):
            if hasattr(message, "attempt"):
                if attempt == 1:
                    forget(message)
                message.key, message.attempt = f"{number}.M{place}R{run}.crash", attempt
        with effects.watch():
            effects.attempt(lambda: _call(handler, arguments, captures))


def _call(handler: Callable[..., object], arguments: tuple[Any, ...], captures: dict[str, Any]) -> None:
    result = finished(
        handler(*arguments, **captures), handler_marks.timeout_of(handler), handler_marks.full_name(handler)
    )
    if not isinstance(result, Mapping):  # what a @batch returns: which of its messages are deferred
        ensure_run(handler, result)


def _push_text(queue: Queue, message: object, **named: Any) -> str:
    to = named.get("recipient") or getattr(message, "To", None)
    return f"to {queue.dir}" + (f" for {to}" if to else "")


def _call_text(task: Any, arguments: tuple[Any, ...], named: dict[str, Any], options: object) -> str:
    return f"{task.name}{json.dumps([arguments, named], default=repr)}"


def _sent_text(relay: Relay, message: Any, To: Any = None, From: Any = None, *, now: bool = False) -> str:
    return f"to {To or getattr(message, 'To', None) or message['To']}"


def _state_text(router: RoutingBase, module: str, message: object, state: str) -> str:
    return f"of {module}: {state}"
