"""Looks in children: shared, in time, and one child at most where a mount hangs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from maildefer.host import bounded_call
from maildefer.host.bounded_async import call_bounded
from maildefer.host.bounded_call import CallFailed, TimedOut
from maildefer.host.identity import pid_exists
from maildefer.monitoring.looks import SharedLook


def hang() -> None:
    while True:
        signal.pause()


def look(function: Callable[[], Any], seconds: float = 30.0, every_seconds: float = 0.0) -> SharedLook:
    return SharedLook(function, seconds, every_seconds)


def run(main: Any) -> Any:
    return asyncio.run(asyncio.wait_for(main, 60))


def test_a_call_runs_elsewhere_and_the_loop_goes_on():
    async def main() -> tuple[object, int]:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        found = await call_bounded(lambda: (os.getppid(), "x" * 3_000_000), 60)
        counting.cancel()
        return found, turns

    (parent, text), turns = run(main())
    assert (parent, len(text)) == (os.getpid(), 3_000_000)
    assert turns > 1


def test_what_a_call_raises_is_its_result():
    found = run(call_bounded(lambda: 1 // 0, 60))
    assert isinstance(found, CallFailed)
    assert isinstance(found.error, ZeroDivisionError)


def test_a_call_that_hangs_is_ended_and_reaped():
    async def main() -> None:
        found = await call_bounded(hang, 0.05)
        assert found == TimedOut(0.05)
        while bounded_call.hangs_still(found):
            await asyncio.sleep(0)
        assert not pid_exists(found.child)

    run(main())


def test_all_who_ask_at_once_share_one_look_and_its_answer_holds_for_a_while():
    async def main() -> list[Any]:
        shared: Any = look(os.getpid, every_seconds=60.0)  # of the child
        first = await asyncio.gather(*(shared.result() for _ in range(100)))
        return [*first, await shared.result()]

    found = run(main())
    assert (len(found), len(set(found))) == (101, 1)


def test_who_is_not_patient_gets_what_was_known_before():
    async def main() -> list[Any]:
        shared: Any = look(lambda: "first")
        known = await shared.result()
        shared._look, shared._seconds = hang, 0.2
        return [known, await shared.result(0.01), await shared.result()]

    assert run(main()) == ["first", "first", TimedOut(0.2)]


def test_beside_a_child_that_cannot_be_killed_no_other_is_made(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        shared = look(hang, 0.05)
        with monkeypatch.context() as patch:
            patch.setattr(os, "kill", lambda pid, signum: None)  # as in D state
            first = await shared.result()
            assert isinstance(first, TimedOut)
            for _ in range(3):
                assert await shared.result() is first
        os.kill(first.child, signal.SIGKILL)
        while bounded_call.hangs_still(first):
            await asyncio.sleep(0)
        assert await shared.result() is not first

    run(main())


def test_where_no_child_can_be_made_the_look_has_failed_and_the_next_one_is_made(
    monkeypatch: pytest.MonkeyPatch,
):
    async def main() -> None:
        shared: Any = look(lambda: "found")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fork", lambda: (_ for _ in ()).throw(OSError("EAGAIN")))
            assert isinstance(await shared.result(), CallFailed)
        assert await shared.result() == "found"

    run(main())
