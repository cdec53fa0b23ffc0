"""The event loop that a thread keeps for async handlers."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

import pytest

from maildefer.errors import HandlerTimedOut
from maildefer.handling.calls import event_loop
from maildefer.handling.calls.event_loop import finished, outside, within_limit

VARIABLE: ContextVar[str] = ContextVar("variable", default="unset")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    event_loop.close()


async def loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_a_thread_keeps_its_loop_from_one_message_to_the_next() -> None:
    async def bound() -> asyncio.Queue[str]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        await queue.put("kept")
        return queue

    queue = finished(bound())
    assert finished(queue.get()) == "kept"
    assert finished(loop()) is finished(loop())


def test_each_thread_has_a_loop_of_its_own() -> None:
    loops = [finished(loop())]
    thread = threading.Thread(target=lambda: loops.append(finished(loop())))
    thread.start()
    thread.join()
    assert loops[0] is not loops[1]


def test_what_is_not_awaitable_comes_back_as_it_is() -> None:
    for result in (None, "text", [1]):
        assert finished(result) is result


def test_a_coroutine_sees_its_callers_context_and_its_values_end_with_it() -> None:
    async def look() -> str:
        seen = VARIABLE.get()
        VARIABLE.set("inside")
        return seen

    finished(look())
    VARIABLE.set("outside")
    assert finished(look()) == "outside"
    assert VARIABLE.get() == "outside"


def test_what_a_handler_leaves_behind_goes_on_with_the_next_and_is_cancelled_at_the_end() -> None:
    steps = []

    async def behind() -> None:
        try:
            while True:
                steps.append("step")
                await asyncio.sleep(0)
        finally:
            steps.append("cancelled")

    async def leave() -> asyncio.Task[None]:
        return asyncio.create_task(behind())

    left = finished(leave())  # a reference, as asyncio asks for
    finished(asyncio.sleep(0))
    assert len(steps) >= 2
    assert set(steps) == {"step"}
    event_loop.close()
    assert steps[-1] == "cancelled"
    assert left.cancelled()
    assert finished(asyncio.sleep(0, "a new loop")) == "a new loop"


def test_the_end_waits_for_no_thread_and_not_long_for_what_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "CANCEL_GRACE_SECONDS", 0.01)
    ended, cancelled = threading.Event(), threading.Event()

    async def stubborn() -> None:
        while not ended.is_set():
            try:
                await asyncio.to_thread(ended.wait)
            except asyncio.CancelledError:
                cancelled.set()

    async def leave() -> asyncio.Task[None]:
        return asyncio.create_task(stubborn())

    left = finished(leave())
    finished(asyncio.sleep(0))
    event_loop.close()
    assert cancelled.is_set()
    ended.set()
    assert not left.done()
    left._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio would tell


def test_an_exception_leaves_the_loop_sound() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    kept = finished(loop())
    with pytest.raises(SystemExit):
        finished(leave())
    assert finished(loop()) is kept


def test_an_exit_in_a_task_of_its_own_ends_the_handler_as_well() -> None:
    steps = []

    async def leave() -> None:
        raise SystemExit(3)

    async def handler() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(leave())
                await asyncio.Event().wait()
        finally:
            steps.append("ended")

    with pytest.raises(SystemExit):
        finished(handler())
    assert steps == ["ended"]
    assert finished(asyncio.sleep(0, "sound")) == "sound"


def test_a_handler_that_stops_the_loop_does_not_go_on_later() -> None:
    steps = []

    async def handler() -> None:
        asyncio.get_running_loop().stop()
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            steps.append("went on")
        finally:
            steps.append("ended")

    with pytest.raises(RuntimeError, match="stopped before"):
        finished(handler())
    assert steps == ["ended"]
    assert finished(asyncio.sleep(0, "sound")) == "sound"


def test_a_loop_that_is_made_for_a_message_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    finished(loop())
    assert caplog.records == []
    assert logging.getLogger("asyncio").level == logging.NOTSET


@pytest.mark.slow
def test_a_call_within_a_running_loop_says_that_it_can_not_wait() -> None:
    async def inner() -> None: ...

    async def outer() -> None:
        finished(inner(), name="m.HANDLER")

    with pytest.raises(RuntimeError, match=r"^m\.HANDLER can't be run to its end where an event loop runs"):
        asyncio.run(outer())
    gc.collect()  # the coroutine was closed: else a warning, which is an error


def test_a_function_that_runs_a_loop_of_its_own_can_be_called_on_a_loop() -> None:
    async def outer() -> list[asyncio.AbstractEventLoop]:
        own = outside(lambda: asyncio.run(loop()))()
        await asyncio.sleep(0)
        return [own, asyncio.get_running_loop()]

    own, outer_loop = asyncio.run(outer())
    assert own is not outer_loop


def test_a_function_that_fails_leaves_the_loop_running() -> None:
    async def outer() -> asyncio.AbstractEventLoop:
        with pytest.raises(ZeroDivisionError):
            outside(lambda: 1 / 0)()
        return asyncio.get_running_loop()

    assert asyncio.run(outer())


# Time limits


def test_at_its_time_limit_it_is_cancelled_and_what_it_waited_for_is_told() -> None:
    ended = []

    async def waiting() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")

    with pytest.raises(
        HandlerTimedOut, match=r"m\.HANDLER was cancelled at its time limit of 0\.01 s"
    ) as raised:
        finished(waiting(), 0.01, "m.HANDLER")
    assert ended == ["cleaned up"]
    assert isinstance(raised.value.__cause__, TimeoutError)
    assert isinstance(raised.value.__cause__.__cause__, asyncio.CancelledError)


def test_what_returns_all_the_same_has_its_result() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        return "done"

    assert finished(stubborn(), 0.01) == "done"


def test_a_timeout_of_its_own_stays_one() -> None:
    async def impatient() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    for limit in (None, 60.0):
        with pytest.raises(TimeoutError) as raised:
            finished(impatient(), limit)
        assert not isinstance(raised.value, HandlerTimedOut)


def test_without_a_limit_it_is_only_awaited() -> None:
    assert asyncio.run(within_limit(asyncio.sleep(0, "done"), None, "")) == "done"


# Forks


def watched(one: asyncio.AbstractEventLoop) -> int:
    """How many descriptors its epoll watches: the socket by which threads wake it, at least."""
    descriptor = one._selector.fileno()  # type: ignore[attr-defined]
    return Path(f"/proc/self/fdinfo/{descriptor}").read_text().count("tfd:")


@pytest.mark.slow
def test_a_forked_child_has_a_loop_of_its_own_and_leaves_the_parents_alone() -> None:
    parents = finished(loop())
    before, child = watched(parents), os.fork()
    if child == 0:
        status = 1
        try:
            warnings.simplefilter("ignore")
            made = finished(asyncio.to_thread(lambda: "own"))
            status = 0 if made == "own" and finished(loop()) is not parents else 2
            event_loop._parents.clear()
            del parents
            gc.collect()  # the end of a process deletes the parent's loop as well
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert watched(parents) == before > 0
    assert finished(asyncio.to_thread(lambda: "parent's"), 20.0) == "parent's"
