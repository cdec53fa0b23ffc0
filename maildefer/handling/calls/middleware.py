"""The project's context managers around each call of a handler: `middleware` in the settings, the outermost first.

They see the outcome and can't make it better: what one raises is the call's exception from then on, and one that
suppresses an exception suppresses it for nobody, so that a failed message is never taken for a handled one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, Literal, cast

from maildefer import log_context
from maildefer.errors import ConfigurationError
from maildefer.handling import handler_marks
from maildefer.handling.calls.event_loop import outside
from maildefer.handling.handler_check import never_runs, place_of
from maildefer.handling.handler_marks import Handler
from maildefer.handling.outcomes import Buried, Deferred
from maildefer.handling.project.named_functions import named_objects
from maildefer.handling.project.setting_place import place
from maildefer.handling.results import Handoff, handoff_in, meaning_of, outcome_of, result_of_each

Word = Literal["acked", "handed_off", "deferred", "failed", "buried"]
_WORDS: Final[tuple[Word, ...]] = ("acked", "handed_off", "deferred", "failed", "buried")  # the worst last


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What a handler ended in: `acked`, `handed_off`, `deferred`, `failed` (by an exception) or `buried`.

    `deferred` and `buried` are what the handler asked for, by `Defer`, `Reject` or an `SMTPError`. What was `failed` is
    tried again or buried by the retry policy, afterwards.
    """

    word: Word
    reason: str | None = None
    exception: BaseException | None = None


_ADVICE: Final = "write a function of one argument that yields once, below @contextlib.contextmanager"
_ACKED: Final = CallOutcome("acked")
_TWICE: Final = "it yielded twice"
_ALL_ACKED: Final = (_ACKED,)
_HANDED_OFF: Final = CallOutcome("handed_off")


class HandlerCall:
    """One call of a handler, for middleware: with one message, or with those of a batch."""

    handler: str
    """The handler's full name, such as `workers.posting.POSTING`."""
    messages: Sequence[Any]
    """The message, or those of a batch."""
    outcomes: Sequence[CallOutcome] = ()
    """For each message, once the handler has ended."""

    def __init__(
        self, handler: str, messages: Sequence[Any], function: Handler, captures: Mapping[str, Any]
    ) -> None:
        self.handler = handler
        self.messages = messages
        self._function = function
        self._captures = captures

    @property
    def arguments(self) -> dict[str, Any]:
        """The captures of the route, or the arguments of a task's call. Raises Reject for what is no such call."""
        task = handler_marks.task_of(self._function)
        return dict(self._captures if task is None else task.arguments_in(self.message))

    @property
    def message(self) -> Any:
        """The message; of a batch the first one, as in `queue`, `key` and `attempt`."""
        return self.messages[0]

    @property
    def queue(self) -> str | None:
        """The queue as the settings name it; None in tests and programs without one, as `key` and `attempt`."""
        queue: str | None = self.messages[0].queue
        return log_context.queue_names.get(queue, queue)

    @property
    def key(self) -> str | None:
        key: str | None = self.messages[0].key
        return key

    @property
    def attempt(self) -> int | None:
        attempt: int | None = self.messages[0].attempt
        return attempt

    @property
    def outcome(self) -> CallOutcome | None:
        """The outcome, None until the handler has ended; of a batch the worst of its messages' outcomes."""
        return max(self.outcomes, key=lambda one: _WORDS.index(one.word), default=None)


MiddlewareFunction = Callable[[HandlerCall], AbstractContextManager[object]]
_Running = Generator[None, None, None]


class Middleware:
    """The functions that the settings name, to be put around handlers; safe among threads and tasks."""

    def __init__(self, functions: Sequence[tuple[str, MiddlewareFunction]]) -> None:
        self.functions = tuple(functions)
        self._names = [name for name, _ in functions]
        self._generators = [_generator_of(function) for _, function in functions]

    def around(self, handler: Handler, *, takes_list: bool = False) -> Handler:
        """The handler with the functions around each of its calls, which are given one message or a list of them."""
        name, names, generators = handler_marks.full_name(handler), self._names, self._generators

        def note(call: HandlerCall, result: object) -> None:
            if takes_list:
                call.outcomes = [_of_said(said) for said in result_of_each(handler, call.messages, result)]
            elif isinstance(meaning_of(handler, result), Handoff):
                call.outcomes = (_HANDED_OFF,)
            else:
                call.outcomes = _ALL_ACKED

        async def ended(entered: list[_Running], call: HandlerCall, result: Awaitable[object]) -> object:
            try:
                returned = await result
                note(call, returned)
                _leave(entered)
            except BaseException as fault:
                fault = _leave_failed(names, entered, call, fault)
                raise fault
            return returned

        @functools.wraps(handler)
        def surrounded(given: Any, /, **captures: Any) -> object:
            call = HandlerCall(name, tuple(given) if takes_list else (given,), handler, captures)
            entered: list[_Running] = []
            try:
                for generator in generators:
                    running = generator(call)
                    for _ in running:
                        break
                    else:
                        raise RuntimeError("it did not yield")
                    entered.append(running)
                result = handler(given, **captures)
                if result is None and not takes_list:
                    call.outcomes = _ALL_ACKED
                elif inspect.isawaitable(result):
                    return ended(entered, call, result)
                else:
                    note(call, result)
                _leave(entered)
            except BaseException as fault:
                fault = _leave_failed(names, entered, call, fault)
                raise fault
            return result

        @functools.wraps(handler)
        async def awaited(given: Any, /, **captures: Any) -> object:
            result = outside(surrounded)(given, **captures)  # begun in the context in which it ends
            return await result if inspect.isawaitable(result) else result

        return awaited if handler_marks.is_async(handler) else surrounded


def _generator_of(function: MiddlewareFunction) -> Callable[[HandlerCall], _Running]:
    """The function as a generator that yields once: that beneath `@contextmanager`, whose objects cost 1 µs a call."""
    if getattr(function, "__code__", None) is contextmanager(lambda: iter(())).__code__:
        beneath: Callable[[HandlerCall], _Running] = function.__wrapped__  # type: ignore[attr-defined]
        return beneath

    def generator(call: HandlerCall) -> _Running:
        manager = function(call)
        if not isinstance(manager, AbstractContextManager):
            raise TypeError(f"it returned {manager!r:.200}, which is no context manager: {_ADVICE}")
        with manager:
            yield

    return generator


def _leave(entered: list[_Running]) -> None:
    """Leave those that are entered, the last one first."""
    while entered:
        for _ in entered.pop():
            raise RuntimeError(_TWICE)


def _leave_failed(
    names: Sequence[str], entered: list[_Running], call: HandlerCall, fault: BaseException
) -> BaseException:
    """Raise the exception in each of those that are entered, the last one first; returns the last that was raised.

    If not all are entered it is that of the next one, which was entered or left.
    """
    _note_fault(call, fault, names[len(entered)] if len(entered) < len(names) else "")
    while entered:
        running = entered.pop()
        try:
            running.throw(fault)
            running.close()
            raise RuntimeError(_TWICE)
        except StopIteration:  # it has suppressed the exception, for nobody
            pass
        except BaseException as raised:  # noqa: BLE001  # the user's code may raise anything
            is_converted = isinstance(fault, StopIteration) and raised.__cause__ is fault  # PEP 479
            if raised is not fault and not is_converted:
                fault = raised
                _note_fault(call, fault, names[len(entered)])
    return fault


def _note_fault(call: HandlerCall, fault: BaseException, raised_by: str) -> None:
    """Note the exception in which the call has ended by now, and which middleware raised it, if any did."""
    handler_marks.mark_raised_by(fault, raised_by)
    call.outcomes = [_of_exception(fault)] * len(call.messages)


def middleware_of(settings: ModuleType) -> Middleware | None:
    """Import and check the functions that the settings name; None where they name none. Raises ConfigurationError."""
    found = []
    for name, function in named_objects(settings, "middleware"):
        if (fault := _fault(function)) is not None:
            defined_at = place_of(function)
            where = place(settings, "middleware") if defined_at == "?" else defined_at
            raise ConfigurationError(f"{where}: the middleware {name} {fault}")
        found.append((name, cast(MiddlewareFunction, function)))
    return Middleware(found) if found else None


def _fault(function: object) -> str | None:
    """What is wrong with it, as far as can be seen before a call."""
    if not callable(function) or (hasattr(type(function), "__enter__") and not isinstance(function, type)):
        return f"is {function!r}, and not a function that makes a context manager: {_ADVICE}"
    if inspect.isasyncgenfunction(inspect.unwrap(function)):
        return f"is an async context manager, and handlers are surrounded by plain ones: {_ADVICE}"
    if never_runs(function) or handler_marks.is_async(function):
        return f"is a generator or a coroutine: {_ADVICE}"
    try:
        inspect.signature(function).bind(None)
    except TypeError as fault:
        return f"can't be called with one argument, the call: {fault}: {_ADVICE}"
    except ValueError:  # written in C
        pass
    return None


def _of_said(said: BaseException | str | None) -> CallOutcome:
    """The outcome for one message of a batch."""
    if isinstance(said, BaseException):
        return _of_exception(said)
    return _HANDED_OFF if said is not None and handoff_in(said) else _ACKED


def _of_exception(fault: BaseException) -> CallOutcome:
    match outcome_of(fault, ""):
        case Buried(reason=reason):
            return CallOutcome("buried", reason)
        case Deferred(reason=reason, fault=exception):
            return CallOutcome("deferred" if exception is None else "failed", reason, exception)
        case other:
            raise AssertionError(other)
