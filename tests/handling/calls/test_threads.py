"""Threads of async handlers: an attempt that failed lasts until they have ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from maildefer.errors import HandlerTimedOut
from maildefer.handling.calls import event_loop
from maildefer.handling.calls.event_loop import finished

Steps = list[str]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    event_loop.close()


def ends_after(begun: threading.Event, steps: Steps) -> Callable[[], None]:
    """For a thread: it ends a turn of this loop after what it waits for, if the loop makes turns until then."""
    loop, turned = asyncio.get_running_loop(), threading.Event()

    def work() -> None:
        begun.wait(60)
        loop.call_soon_threadsafe(turned.set)
        if turned.wait(60):
            steps.append("thread ended")
            raise OSError("for nobody")

    return work


async def begun_in_a_thread(
    work: Callable[[], None], create_task: Callable[..., asyncio.Task[None]] = asyncio.create_task
) -> asyncio.Task[None]:
    """A call that has begun: one that has not is cancelled with its task, and no thread goes on."""
    begun = threading.Event()

    def call() -> None:
        begun.set()
        work()

    task = create_task(asyncio.to_thread(call))
    await asyncio.sleep(0)
    assert begun.wait(60)
    return task


def test_a_handler_that_is_cancelled_ends_with_its_threads() -> None:
    steps: Steps = []
    cancelled = threading.Event()

    async def handler() -> None:
        try:
            await (await begun_in_a_thread(ends_after(cancelled, steps)))
        finally:
            asyncio.get_running_loop().call_later(0.02, cancelled.set)

    with pytest.raises(HandlerTimedOut, match=r"m\.HANDLER was cancelled at its time limit"):
        finished(handler(), 0.01, "m.HANDLER")
    assert steps == ["thread ended"]


def test_a_handler_that_fails_ends_with_the_threads_of_its_tasks() -> None:
    steps: Steps = []
    failed = threading.Event()

    async def fail() -> None:
        failed.set()
        raise ZeroDivisionError

    async def handler() -> None:
        async with asyncio.TaskGroup() as group:
            await begun_in_a_thread(ends_after(failed, steps), group.create_task)
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        finished(handler())
    assert steps == ["thread ended"]


def test_a_limit_that_comes_while_threads_end_is_told_when_they_have() -> None:
    steps: Steps = []
    over = threading.Event()

    async def handler() -> None:
        work = await begun_in_a_thread(ends_after(over, steps))
        asyncio.get_running_loop().call_later(0.02, over.set)
        work.cancel()
        raise ZeroDivisionError

    with pytest.raises(HandlerTimedOut):
        finished(handler(), 0.01)
    assert steps == ["thread ended"]


def test_what_a_handler_that_returns_leaves_in_a_thread_holds_up_nobody() -> None:
    go_on = threading.Event()

    async def handler() -> asyncio.Task[bool]:
        left = asyncio.create_task(asyncio.to_thread(go_on.wait, 60))
        await asyncio.sleep(0)
        return left

    left = finished(handler())
    assert not left.done()
    go_on.set()
    assert finished(left)


def test_many_may_wait_in_threads_at_the_same_time() -> None:
    together = threading.Barrier(40)

    async def handler() -> None:
        await asyncio.gather(*(asyncio.to_thread(together.wait, 60) for _ in range(40)))

    finished(handler())
