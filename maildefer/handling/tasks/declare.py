"""The decorator `@task`: makes a task of a function, and a handler for its calls."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Never, ParamSpec, TypeVar, overload

from maildefer.handling import handler_marks
from maildefer.handling.periodic.schedule import CatchUp
from maildefer.handling.project.settings import loaded_settings
from maildefer.handling.routes import Router
from maildefer.handling.tasks.task import Task

if TYPE_CHECKING:
    from datetime import timedelta

P = ParamSpec("P")
R = TypeVar("R")


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    queue: str | None = None,
    every: str | float | timedelta | None = None,
    cron: str | None = None,
    tz: str | None = None,
    catch_up: CatchUp = "last",
    overlap: bool = True,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(
    function: Any = None,
    /,
    *,
    queue: str | None = None,
    every: str | float | timedelta | None = None,
    cron: str | None = None,
    tz: str | None = None,
    catch_up: CatchUp = "last",
    overlap: bool = True,
    **unknown: Never,
) -> Any:
    """Make a task of a function: `@task`, or `@task(queue="run/slow")`, in a module that the queue lists.

    With `every="1h"`, or `cron="15 3 * * *"` and `tz="Europe/Berlin"` (else UTC), the pools that serve the queue push a
    call without arguments at each of these times, once for all hosts. `catch_up` says which calls are made up for after
    no pool ran for a while: the "last" one, "all" (100 at most), or "none". Without `overlap`, none is pushed while the
    last one has not ended.

    The function's result is lost; its exceptions are treated as any handler's. A call may be made more than once, as
    any message may be handled more than once. Raises TypeError for methods and generators, ValueError for a schedule
    that is none or never comes, and, where settings are loaded, ConfigurationError for a queue that they don't list.
    """
    if not (function is None or callable(function)):
        raise TypeError(f"@task({function!r}): name what it is: queue=, every= or cron=")
    if unknown:
        raise TypeError(
            f"task() got an unexpected keyword argument {next(iter(unknown))!r}: give queue, every, cron, tz, catch_up "
            "or overlap; @retry, @timeout, @concurrency and @rate say the rest"
        )
    schedule = {"every": every, "cron": cron, "tz": tz, "catch_up": catch_up, "overlap": overlap}
    if function is None:
        return lambda given: _register(Task(given, queue, **schedule))
    return _register(Task(function, queue))


def _register(made: Task[P, R]) -> Task[P, R]:
    function = made.function
    if (settings := loaded_settings()) is not None:
        made.check(settings)

    def handler(message: Any) -> Awaitable[None] | None:
        return made.handle(message)

    handler.__name__ = handler.__qualname__ = function.__name__
    handler.__module__ = function.__module__
    handler_marks.mark_stateless(handler)
    if made.periodic is not None:
        handler_marks.mark_scheduled(handler, made)
    handler_marks.mark_handled_by(made, handler)
    handler_marks.mark_task(handler, made)
    regex = f"^{re.escape(made.address)}$"
    handler_marks.add_route(handler, regex)
    Router.register_route(regex, handler)
    return made
