"""The decorators of handler modules.

`@route` and `@route_like` stand on top, `@stateless` and `@batch` below them, `@retry`, `@timeout` and `@keep`
anywhere; they return the function itself.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, Never, NoReturn, TypeVar, cast

from maildefer.handling import handler_marks
from maildefer.handling.handler_check import never_runs, place_of
from maildefer.handling.handler_marks import LONGEST_LINGER_SECONDS, MOST_MESSAGES, Handler, RetryTerms
from maildefer.handling.patterns import capture_faults, regex_text
from maildefer.handling.routes import KeyFunction, Router
from maildefer.units import seconds_of

Function = TypeVar("Function", bound=Handler)
Pause = float | str


def route(format: str, **captures: str) -> Callable[[Function], Function]:
    """Send the messages whose recipient matches `format` to the function below.

    Each `(name)` in it stands for the regex given for that name here or in `Router.defaults`, as it is at this moment,
    and comes to the function as the keyword argument `name`. Works on functions of a module, not on methods: there
    the call fails with `TypeError`. A method, a `(name)` that nothing defines, and a capture that `format` lacks are
    refused where the handlers are checked: before a pool or a receiver starts, and by `maildefer routes`.
    """
    known = {**Router.DEFAULT_CAPTURES, **captures}
    regex = regex_text(format, known)
    faults = tuple(capture_faults(format, captures, known))
    caller = sys._getframe(1)
    place = f"{caller.f_code.co_filename}:{caller.f_lineno}"

    def decorate(function: Function) -> Function:
        chosen = _register(function, (regex,))
        for fault in faults:
            handler_marks.add_fault(chosen, f"{place}: the route {format!r}: {fault}")
        return chosen

    return decorate


def route_like(func: Handler) -> Callable[[Function], Function]:
    """Give the function below the routes of `func`, of this or another module. Raises `TypeError` if it has none."""
    regexes = handler_marks.routes_of(func)
    if not regexes:
        raise TypeError(f"{handler_marks.full_name(func)} has no route to be like: put @route above it first")
    return lambda function: _register(function, regexes)


def stateless(func: Function) -> Function:
    """Send the function every matching message, whatever state the sender is in.

    Stands below `@route` or `@route_like`, else raises `TypeError`.
    """
    _below_the_route("@stateless", func)
    handler_marks.mark_stateless(func)
    return func


def nolocking(func: Function) -> Function:
    """Let the function run beside other handlers of this process and of its own conversation."""
    handler_marks.mark_nolocking(func)
    return func


def batch(
    *bare: Never, limit: int = 100, linger: float = 1.0, overlap: bool = False, exclusive: bool = False
) -> Callable[[Function], Function]:
    """Give the function lists of up to `limit` messages; the first message waits `linger` seconds for the others.

    Stands below `@route` and `@stateless`. The captures of a message are its `captures`. What the function raises or
    returns holds for all messages; a mapping from messages to exceptions or `"module.FUNCTION"` says it for each.
    With `linger=0`, it gets the messages that wait already. On a host, one call ends before the next one begins, unless
    with `overlap`; with `exclusive`, that holds for all hosts that share the queues. Raises `ValueError` for terms out
    of range, `TypeError` for functions that can't take lists.
    """
    if bare:
        raise TypeError("@batch stands with parentheses, as @batch() or @batch(limit=100)")
    if type(limit) is not int or not 1 <= limit <= MOST_MESSAGES:
        raise ValueError(f"@batch(limit={limit!r}): give a number from 1 to {MOST_MESSAGES}")
    if not isinstance(linger, int | float) or not 0 <= linger <= LONGEST_LINGER_SECONDS:
        raise ValueError(f"@batch(linger={linger!r}): give seconds from 0 to {LONGEST_LINGER_SECONDS:g}")
    if not isinstance(overlap, bool) or not isinstance(exclusive, bool) or (overlap and exclusive):
        raise ValueError(
            f"@batch(overlap={overlap!r}, exclusive={exclusive!r}): give True for one of them at most"
        )

    def decorate(func: Function) -> Function:
        _below_the_route("@batch", func)
        if handler_marks.takes_one_message(func):
            raise TypeError(f"@batch on {handler_marks.full_name(func)}, which takes one message at a time")
        handler_marks.mark_batch(func, handler_marks.BatchTerms(limit, float(linger), overlap, exclusive))
        return func

    return decorate


def retry(
    *bare: Never,
    attempts: int | None = None,
    backoff: Pause | tuple[Pause, Pause] | None = None,
    lifetime: Pause | None = None,
    **unknown: Never,
) -> Callable[[Function], Function]:
    """Say how often and how soon a message is tried again on which the function below fails, in place of the settings.

    `attempts`: with so many failures it is buried. `backoff`: the pause before the next try, or the first and the
    longest of pauses that double; each is up to a tenth longer or shorter. `lifetime`: the age at which a failure
    buries. Times are seconds, or texts such as `"5m"`. For handlers, batches and tasks, above or below their other
    decorators. Raises `TypeError` and `ValueError` that name the function and the argument.
    """

    def terms() -> RetryTerms:
        if bare or unknown or (attempts is None and backoff is None and lifetime is None):
            wrong = f", not {', '.join(unknown)}" if unknown else ""
            raise TypeError(f"give attempts, backoff or lifetime by name{wrong}")
        return RetryTerms.of(attempts, backoff, lifetime)

    for function in cast(tuple[Any, ...], bare):  # without parentheses
        _with_policy("@retry", function, handler_marks.RETRY, terms)
    return lambda func: _with_policy("@retry", func, handler_marks.RETRY, terms)


def timeout(seconds: Pause) -> Callable[[Function], Function]:
    """Give the function below a time limit of its own, longer or shorter than the pool's `handler_timeout_seconds`.

    `seconds` may be a text such as `"5m"`. For handlers, batches and tasks in a pool, above or below their other
    decorators. Raises `TypeError` and `ValueError` that name the function.
    """

    def limit() -> float:
        return seconds_of("seconds", seconds, least=0.001)

    if isinstance(seconds, Callable):  # type: ignore[arg-type]  # without parentheses
        _with_policy("@timeout", seconds, handler_marks.TIMEOUT, limit)
    return lambda func: _with_policy("@timeout", func, handler_marks.TIMEOUT, limit)


def keep(time: Pause) -> Callable[[Function], Function]:
    """Say for how long a message is kept that the function below has handled, in place of the setting `keep`; 0: not.

    `time` is in seconds, or a text such as `"7d"`. What is kept can be looked at, and replayed. For handlers, batches
    and tasks, above or below their other decorators. Raises `TypeError` and `ValueError` that name the function.
    """

    def seconds() -> float:
        return seconds_of("time", time)

    if isinstance(time, Callable):  # type: ignore[arg-type]  # without parentheses
        _with_policy("@keep", time, handler_marks.KEEP, seconds)
    return lambda func: _with_policy("@keep", func, handler_marks.KEEP, seconds)


def bounce_to(soft: Callable[[Any], object], hard: Callable[[Any], object]) -> Callable[[Function], Function]:
    """Send bounces to `soft` or `hard`, whose result is the handler's, and other messages to the function below.

    Stands below `@route`. Both functions take the message alone. Raises `TypeError` if they can't be called, or would
    not run, and on a function that takes a `@batch`.
    """
    for name, function in (("soft", soft), ("hard", hard)):
        if not callable(function):
            raise TypeError(f"bounce_to({name}={function!r}): give a function that takes the message")
        if never_runs(function):
            raise TypeError(f"bounce_to({name}={function!r}): no call runs its body: give a plain function")

    def decorate(func: Function) -> Function:
        if handler_marks.batch_of(func) is not None:
            raise TypeError(
                f"@bounce_to looks at one message, and {handler_marks.full_name(func)} takes a @batch"
            )

        @functools.wraps(func)
        def handler(message: Any, *arguments: Any, **captures: Any) -> object:
            if message.is_bounce():
                if message.bounce.is_hard():
                    return hard(message)
                if message.bounce.is_soft():
                    return soft(message)
            return func(message, *arguments, **captures)

        handler_marks.mark_takes_one_message(handler)
        return cast(Function, handler)

    return decorate


def state_key_generator(func: KeyFunction) -> KeyFunction:
    """Let `func(module_name, message)` make the key of the states of its module, for example one key per list."""
    Router.HANDLERS[handler_marks.module_of(func)] = func
    return func


def _with_policy(decorator: str, function: Any, mark: str, value: Callable[[], object]) -> Any:
    """Mark the function with the value; what is wrong with it is reported together with the function."""
    name = f"{decorator} on {handler_marks.full_name(function)}"
    try:
        if hasattr(function, mark):
            raise TypeError("it stands there twice: keep one of them")
        handler_marks.mark_policy(function, mark, value())
    except AttributeError as fault:  # a method, or a function written in C
        raise TypeError(f"{name}: it goes on the functions of a module ({fault})") from None
    except (TypeError, ValueError) as fault:
        raise type(fault)(f"{name}: {fault}") from None
    return function


def _register(function: Function, regexes: tuple[str, ...]) -> Function:
    chosen = function
    if _is_method(function):
        chosen = _refusing_function(function)
        handler_marks.add_fault(chosen, f"{place_of(function)}: {_method_text(function)}")
    if handler_marks.batch_of(function) is not None and not handler_marks.is_stateless(function):
        raise TypeError(
            f"{handler_marks.full_name(function)} is a state, and takes one sender's message at a time: "
            "put @stateless between @route and @batch"
        )
    for regex in regexes:
        Router.register_route(regex, chosen)
        handler_marks.add_route(chosen, regex)
    return chosen


def _below_the_route(decorator: str, function: Handler) -> None:
    if handler_marks.routes_of(function):
        raise TypeError(
            f"{decorator} stands above the route of {handler_marks.full_name(function)}: put it below"
        )


def _is_method(function: Handler) -> bool:
    """Whether the function was defined in a class's body; while that runs, only the qualified name shows it."""
    outer, _, _ = getattr(function, "__qualname__", "").rpartition(".")
    return bool(outer) and not outer.endswith("<locals>")


def _method_text(function: Handler) -> str:
    return f"{function.__qualname__} is a method: @route goes on the functions of a module"


def _refusing_function(function: Function) -> Function:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise TypeError(_method_text(function))

    refuse.__name__, refuse.__qualname__ = function.__name__, function.__qualname__
    refuse.__module__ = function.__module__
    return refuse  # type: ignore[return-value]  # takes and refuses whatever the method would take
