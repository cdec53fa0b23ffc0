"""The decorators `@concurrency` and `@rate`, and the check of their keys before a pool starts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from maildefer.handling import handler_marks
from maildefer.handling.handler_marks import Handler
from maildefer.handling.limits import limit as limits
from maildefer.handling.limits.limit import Key, Limit

Function = TypeVar("Function", bound=Handler)


def concurrency(count: int, *, key: Key = None) -> Callable[[Function], Function]:
    """Run the function below at most `count` times at a time, on all hosts together; with `key`, for each value of it.

    `key` is the name of a capture of the route, or of a parameter of the task; or a function that is called with what
    the handler gets. A message that must wait is postponed, uncharged. Above or below the other decorators. Raises
    `ValueError` and `TypeError` that name the function.
    """

    def made() -> Limit:
        return limits.at_a_time(count, key)

    if callable(count):  # without parentheses
        _limited("@concurrency", count, made)
    return lambda func: _limited("@concurrency", func, made)


def rate(limit: str, *, key: Key = None) -> Callable[[Function], Function]:
    """Start the function below at most so many times in any such period, on all hosts together: `"30/min"`, `"5/s"`.

    `key` and the rest are as for `concurrency`.
    """

    def made() -> Limit:
        return limits.in_a_period(limit, key)

    if callable(limit):  # without parentheses
        _limited("@rate", limit, made)
    return lambda func: _limited("@rate", func, made)


def _limited(decorator: str, function: Any, made: Callable[[], Limit]) -> Any:
    """Mark the function with one limit more; what is wrong with it is reported together with the function."""
    name = f"{decorator} on {handler_marks.full_name(function)}"
    try:
        limit, others = made(), limits.limits_of(function)
        limit = replace(limit, label=_label(limit, others))
        if any((o.label, o.period_seconds) == (limit.label, limit.period_seconds) for o in others):
            raise TypeError("it stands there twice: keep one of them")
        handler_marks.mark_policy(function, handler_marks.LIMITS, (*others, limit))
    except AttributeError as fault:  # a method, or a function written in C
        raise TypeError(f"{name}: it goes on the functions of a module ({fault})") from None
    except (TypeError, ValueError) as fault:
        raise type(fault)(f"{name}: {fault}") from None
    return function


def _label(limit: Limit, others: Sequence[Limit]) -> str:
    """A limit is known by its key's name on all hosts; one by a function, by its place among the limits too."""
    if limit.key is None or isinstance(limit.key, str):
        return limit.key or ""
    return f"{getattr(limit.key, '__name__', '')}#{len(others)}"


def key_fault(function: Handler, captures: Sequence[str]) -> str | None:
    """What is wrong with the key of a limit of the function, given the captures of its route; None if nothing is."""
    task = handler_marks.task_of(function)
    given, what = (captures, "its route has the captures") if task is None else (task.parameters, "it has")
    for limit in limits.limits_of(function):
        if limit.key is not None and handler_marks.batch_of(function) is not None:
            return f"is a @batch, whose messages have many keys: limit it without a key ({limit})"
        if isinstance(limit.key, str) and limit.key not in given:
            known = ", ".join(given) or "none"
            return f"is limited to {limit}, and nothing gives it {limit.key}: {what} {known}"
        if callable(limit.key) and (why := _misfit(limit.key, given, is_task=task is not None)):
            return f"is limited to {limit}, and that can't be called with what it gets: {why}"
    return None


def _misfit(key: Callable[..., object], given: Sequence[str], *, is_task: bool) -> str | None:
    try:
        signature = inspect.signature(key)
    except (TypeError, ValueError):  # written in C
        return None
    try:
        signature.bind(*(() if is_task else (None,)), **dict.fromkeys(given))
    except TypeError as fault:
        return str(fault)
    return None
