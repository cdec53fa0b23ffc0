"""The threads in which async handlers have work done, as by `asyncio.to_thread`. No cancellation ends a thread.

So an attempt that has failed, as at its time limit, lasts until its threads have ended, too: the next one never runs
beside them, and a worker in which one goes on is ended as any that goes on after its cancellation. What a handler that
returns leaves behind is no part of its message. asyncio is imported at the first use: see `event_loop`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

T = TypeVar("T")

_MOST_THREADS: Final = 64  # asyncio's own, the CPUs and four, are too few for many messages in flight
_of_attempt: Final[ContextVar[set[Future[Any]] | None]] = ContextVar("maildefer_threads", default=None)


def handler_threads() -> ThreadPoolExecutor:
    """Make the default executor of a loop for handlers; it notes to which attempt each call belongs."""
    from concurrent.futures import ThreadPoolExecutor  # see above

    class HandlerThreads(ThreadPoolExecutor):
        def submit(self, function: Callable[..., T], /, *arguments: Any, **named: Any) -> Future[T]:
            future = super().submit(function, *arguments, **named)
            if (own := _of_attempt.get()) is not None:
                own.add(future)
                future.add_done_callback(own.discard)
            return future

    return HandlerThreads(_MOST_THREADS, thread_name_prefix="asyncio")


async def with_threads(awaitable: Awaitable[T]) -> T:
    """Await what a handler does; where that fails or is cancelled, its threads as well."""
    own: set[Future[Any]] = set()
    _of_attempt.set(own)
    try:
        return await awaitable
    except GeneratorExit:  # closed: nothing can be awaited
        raise
    except BaseException as fault:
        if own:
            fault = await _ended(own, fault)
        raise fault


async def _ended(own: set[Future[Any]], fault: BaseException) -> BaseException:
    """Wait until they have ended; a cancellation meanwhile is the fault from then on."""
    import asyncio  # see above

    left = {asyncio.wrap_future(each) for each in list(own)}
    while left:
        try:
            done, left = await asyncio.wait(left)
        except asyncio.CancelledError as cancelled:
            fault = cancelled
        else:
            for each in done:
                _ = each.cancelled() or each.exception()  # else asyncio tells that nobody asked
    return fault
