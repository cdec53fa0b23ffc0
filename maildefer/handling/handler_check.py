"""Finds mistakes in a handler before the first message comes for it.

A call with one message and the captures of a route has to fit the function, whatever decorators stand above it, and
has to run its body. No function is called for the check.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from inspect import CO_ASYNC_GENERATOR, CO_GENERATOR, CO_ITERABLE_COROUTINE, Parameter
from types import CodeType, FunctionType, MethodType
from typing import Any, Final

from maildefer.errors import ConfigurationError
from maildefer.handling import handler_marks
from maildefer.handling.handler_marks import MOST_DECORATORS, Handler
from maildefer.handling.limits.declare import key_fault

_NEVER_RUNS: Final = CO_GENERATOR | CO_ASYNC_GENERATOR


def check(table: Iterable[tuple[re.Pattern[str], Sequence[Handler]]]) -> None:
    """Raise ConfigurationError, with file and line, for the first route that is wrong, or wrong for its handler."""
    for pattern, functions in table:
        tasks = [task for task in map(handler_marks.task_of, functions) if task is not None]
        if len(tasks) > 1:
            raise ConfigurationError(
                f"{place_of(tasks[1])}: a second @task of the name of the one at {place_of(tasks[0])}: "
                "both would be called for each call: rename one of them"
            )
        for function in functions:
            check_handler(function, tuple(pattern.groupindex))


def check_handler(function: Handler, captures: Sequence[str]) -> None:
    """Check one function and the captures of one of its routes. Raises ConfigurationError with file and line."""
    for fault in handler_marks.faults_of(function):
        raise ConfigurationError(fault)
    if never_runs(function):
        raise ConfigurationError(
            f"{place_of(function)}: {handler_marks.full_name(function)} is a generator, whose body no call "
            "runs: make it a plain function, or an `async def` without `yield`"
        )
    if (wrong := key_fault(function, captures)) is not None:
        place = place_of(handler_marks.task_of(function) or function)
        raise ConfigurationError(f"{place}: {handler_marks.full_name(function)} {wrong}")
    if handler_marks.batch_of(function) is not None:
        captures = ()  # each message has its own
    if (misfit := _misfit(function, captures)) is not None:
        given = ", ".join(captures) if captures else "no captures"
        raise ConfigurationError(
            f"{place_of(function)}: {handler_marks.full_name(function)} {misfit}: its route gives it the message and "
            f"{given}; make parameters and captures the same"
        )


def never_runs(function: object) -> bool:
    """Whether a call makes a generator, as far as the function's code shows, whose body nobody runs."""
    while isinstance(function, partial | MethodType):
        function = function.func if isinstance(function, partial) else function.__func__
    code = _code_of(function)
    flags = 0 if code is None else code.co_flags
    return bool(flags & _NEVER_RUNS) and not flags & CO_ITERABLE_COROUTINE


def place_of(function: object) -> str:
    """File and line of the function beneath its decorators."""
    *_, innermost = handler_marks.layers(function)
    code = _code_of(innermost)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else "?"


def _code_of(function: object) -> CodeType | None:
    """The code that a call runs; None for a function that is written in C."""
    if not isinstance(function, FunctionType):
        function = getattr(type(function), "__call__", None)  # noqa: B004  # the method itself is wanted
    return getattr(function, "__code__", None)


def _misfit(function: Callable[..., Any], captures: Sequence[str]) -> str | None:
    """The reason why a call with one message and these captures can't succeed; None if it can, or may.

    A decorator that takes any arguments, and passes all of them on, is looked through. One that may add arguments of
    its own may supply what is missing beneath it, so nothing is reported as missing there.
    """
    supplied = False
    for _ in range(MOST_DECORATORS):
        try:
            signature = inspect.signature(function, follow_wrapped=False)
        except (TypeError, ValueError):  # written in C, or a __signature__ that is none
            return None
        if (why := _refusal(signature, captures, supplied=supplied)) is not None:
            return why
        inner = getattr(function, "__wrapped__", None)
        if not callable(inner) or not _takes_anything(signature) or hasattr(function, "__signature__"):
            return None
        words = set(_words(function))
        captures = [name for name in captures if name not in words]  # the decorator may keep what it names
        supplied = supplied or not _passes_arguments_on(function, inner)
        function = inner
    return None


def _refusal(signature: inspect.Signature, captures: Sequence[str], *, supplied: bool) -> str | None:
    try:
        if supplied:
            signature.bind_partial(**dict.fromkeys(captures))
        else:
            signature.bind(None, **dict.fromkeys(captures))
    except TypeError as fault:
        return f"can't be called: {fault}"
    return None


def _takes_anything(signature: inspect.Signature) -> bool:
    return any(parameter.kind is Parameter.VAR_KEYWORD for parameter in signature.parameters.values())


def _words(function: object) -> Iterator[str]:
    """All names and texts in the function's code."""
    code = getattr(function, "__code__", None)
    if code is None:
        return
    yield from (*code.co_varnames, *code.co_names, *code.co_freevars)
    constants = list(code.co_consts)
    while constants:
        constant = constants.pop()
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, tuple | frozenset):
            constants += constant


def _passes_arguments_on(wrapper: Callable[..., Any], inner: object) -> bool:
    """Whether each call of `inner` in the wrapper's source passes on its own arguments, with nothing more."""
    if not isinstance(wrapper, FunctionType):
        return False
    held = zip(wrapper.__code__.co_freevars, wrapper.__closure__ or (), strict=True)
    try:
        names = {name for name, cell in held if cell.cell_contents is inner}
        defined = ast.parse(textwrap.dedent(inspect.getsource(wrapper.__code__))).body[0]
    except (ValueError, OSError, SyntaxError, IndexError):  # a cell without contents; no source
        return False
    if not isinstance(defined, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    own = {argument.arg for argument in (*defined.args.posonlyargs, *defined.args.args)}
    rest = {argument.arg for argument in (defined.args.vararg, defined.args.kwarg) if argument is not None}
    calls = [node for node in ast.walk(defined) if isinstance(node, ast.Call) and _name(node.func) in names]
    uses = [node for node in ast.walk(defined) if _name(node) in rest]
    passed = sum(len(call.args) - len(_plain(call)) + len(call.keywords) for call in calls)
    return bool(calls) and len(uses) == passed and all(_is_passing_on(call, own, rest) for call in calls)


def _is_passing_on(call: ast.Call, own: set[str], rest: set[str]) -> bool:
    plain = _plain(call)
    starred = [argument.value for argument in call.args if isinstance(argument, ast.Starred)]
    return (
        len(plain) <= 1
        and all(_name(argument) in own for argument in plain)
        and all(_name(argument) in rest for argument in starred)
        and all(keyword.arg is None and _name(keyword.value) in rest for keyword in call.keywords)
    )


def _plain(call: ast.Call) -> list[ast.expr]:
    return [argument for argument in call.args if not isinstance(argument, ast.Starred)]


def _name(node: ast.AST) -> str | None:
    return node.id if isinstance(node, ast.Name) else None
