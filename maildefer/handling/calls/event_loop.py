"""The event loop that a thread keeps for what `async def` handlers return.

It is kept so that clients that are bound to a loop live on from message to message; tasks that a handler leaves behind
go on whenever the loop runs, and are cancelled at its end. asyncio is imported at the first use: 6 MB, which a pool
without such handlers does not need.
"""

from __future__ import annotations

import atexit
import os
import select
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import wraps
from inspect import isawaitable, iscoroutine
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from maildefer.errors import HandlerTimedOut
from maildefer.handling.calls.threads import handler_threads, with_threads

if TYPE_CHECKING:
    import asyncio

P = ParamSpec("P")
T = TypeVar("T")

CANCEL_GRACE_SECONDS: Final = 5.0
"""How long a handler that was cancelled at its time limit has to end; then its worker is killed."""

_runners: Final[dict[int, asyncio.Runner]] = {}  # by thread; that of an ended thread goes to its successor
_parents: Final[list[asyncio.Runner]] = []  # of the process from which this one was forked


def finished(result: object, limit_seconds: float | None = None, name: str = "") -> Any:
    """What a function has returned; where that is awaitable, its result, for which this thread's loop runs."""
    if result is None or not isawaitable(result):
        return result
    import asyncio  # see above

    try:
        refuse_running_loop(name or "an async function")
    except RuntimeError:
        if iscoroutine(result):
            result.close()
        raise
    loop, main = runner().get_loop(), within_limit(result, limit_seconds, name)
    try:
        return runner().run(main, context=copy_context())
    except (SystemExit, KeyboardInterrupt, RuntimeError):
        # asyncio lets out the first two of any task, and the last is of `loop.stop()`: the handler's own task stays.
        for one in asyncio.all_tasks(loop):
            if one.get_coro() is main:
                one.cancel()
                with suppress(BaseException):
                    loop.run_until_complete(one)
        raise


def refuse_running_loop(name: str) -> None:
    """Raise RuntimeError where a loop runs, in which this thread's can't be run."""
    import asyncio  # see above

    if asyncio._get_running_loop() is not None:
        raise RuntimeError(
            f"{name} can't be run to its end where an event loop runs already: "
            "call what delivers the message from a function that is not async, as by asyncio.to_thread"
        )


async def within_limit(awaitable: Awaitable[T], seconds: float | None, name: str) -> T:
    """Await it, and cancel it at the time limit. Raises HandlerTimedOut, unless it returns all the same."""
    if seconds is None:
        return await with_threads(awaitable)
    import asyncio  # see above

    try:
        async with asyncio.timeout(seconds) as limit:
            return await with_threads(awaitable)
    except TimeoutError as fault:
        if limit.expired():
            raise HandlerTimedOut(name, seconds) from fault
        raise


def outside(function: Callable[P, T]) -> Callable[P, T]:
    """Let the function be called on a loop as if none ran: it may run one of its own, as by `asyncio.run`."""

    @wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> T:
        return called_outside(function, *arguments, **named)

    return call


def called_outside(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call it as `outside` says."""
    import asyncio  # see above

    running = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        return function(*arguments, **named)
    finally:
        asyncio._set_running_loop(running)


def runner() -> asyncio.Runner:
    """Return this thread's, made at the first call, and again in a forked child."""
    thread = threading.get_ident()
    if thread not in _runners:
        import asyncio  # see above

        if not _runners and not _parents:
            atexit.register(close)
            os.register_at_fork(after_in_child=_leave_to_parent)
        _runners[thread] = made = asyncio.Runner()
        with _without_a_line():
            made.get_loop().set_default_executor(handler_threads())
    return _runners[thread]


def has_loop() -> bool:
    """Whether this thread's loop was made."""
    return threading.get_ident() in _runners


@contextmanager
def _without_a_line() -> Iterator[None]:
    """Without what asyncio logs of its selector, which would be a line of the message that is handled."""
    import logging  # asyncio has it

    logger = logging.getLogger("asyncio")
    before = logger.level
    logger.setLevel(max(before, logging.INFO))
    try:
        yield
    finally:
        logger.setLevel(before)


def close() -> None:
    """Close the loops of all threads: what still runs there is cancelled. A further message has a new one."""
    while _runners:
        _, ended = _runners.popitem()
        with suppress(RuntimeError):  # its thread is in it
            ended.get_loop().run_until_complete(_cancel_all())
            ended.get_loop().close()  # and not the runner, which would wait for threads without end


async def _cancel_all() -> None:
    import asyncio  # see above

    left = asyncio.all_tasks() - {asyncio.current_task()}
    for one in left:
        one.cancel()
    if left:
        await asyncio.wait(left, timeout=CANCEL_GRACE_SECONDS)
    await asyncio.get_running_loop().shutdown_asyncgens()


def _leave_to_parent() -> None:
    """In a forked child: never touch the parent's loops, whose epoll both have, not even when they are deleted."""
    for one in _runners.values():
        if (selector := getattr(one.get_loop(), "_selector", None)) is not None:
            with select.epoll() as own:
                os.dup2(own.fileno(), selector.fileno(), inheritable=False)
    _parents.extend(_runners.values())
    _runners.clear()
