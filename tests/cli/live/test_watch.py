from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from maildefer.cli import status_survey
from maildefer.cli.live import watch as watching
from maildefer.cli.live.history import History
from maildefer.cli.live.watch import Watch
from maildefer.host import bounded_async
from maildefer.host.bounded_async import call_bounded
from maildefer.host.bounded_call import TimedOut
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.push import Pusher
from maildefer.maildir.upkeep.closures import Closures
from maildefer.queue import Queue
from tests.support.queues import DATA


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take more than a second for a look; one that is to hang has less."""
    for module in (status_survey, watching):
        monkeypatch.setattr(module, "SECONDS", 60.0)


def watch_of(*queues: str) -> Watch:
    return Watch(list, list(queues), History(step_seconds=60.0, length=10))


def once(watch: Watch, times: int = 1) -> None:
    async def look() -> None:
        for _ in range(times):
            await watch.look()
            await asyncio.sleep(0)

    asyncio.run(look())


def hang(monkeypatch: pytest.MonkeyPatch, look: Callable[..., Any] = lambda *_: time.sleep(60)) -> None:
    monkeypatch.setattr(status_survey, "read_queue_status", look)
    monkeypatch.setattr(watching, "SECONDS", 0.2)


def test_a_look_shows_what_the_queue_holds_and_notes_it(queue: Layout) -> None:
    Queue(queue.path).push(DATA, sender="a@b.example", recipient="c@d.example")
    watch = watch_of(queue.path)
    once(watch)
    [row] = watch.overview.queues
    assert row.counts is not None
    assert row.counts.waiting == 1
    assert watch.overview.problems == (f"{row.name}: nobody serves it, and 1 entry waits",)
    assert watch.history.means(watch.overview.at, f"waiting {queue.path}")[-1] == 1.0


@pytest.mark.parametrize("jump_seconds", [-3600.0, 3600.0, 1e9])
def test_a_clock_that_jumps_leaves_the_history_as_it_is(
    queue: Layout, monkeypatch: pytest.MonkeyPatch, jump_seconds: float
) -> None:
    watch, wall = watch_of(queue.path), time.time

    async def look() -> None:
        await watch.look()
        monkeypatch.setattr(time, "time", lambda: wall() + jump_seconds)
        Pusher(queue, host="h").push(lambda stem: [DATA])
        watch._next_look = 0.0
        await watch.look()
        assert watch._looking is not None
        await watch._looking
        await watch.look()

    asyncio.run(look())
    means = watch.history.means(watch.overview.at, f"waiting {queue.path}")
    assert 0 < max(mean for mean in means if not math.isnan(mean)) <= 1
    [row] = watch.overview.queues
    assert row.counts is not None
    assert (row.counts.oldest_seconds or 0.0) >= 0


def test_destinations_that_are_down_are_named(queue: Layout) -> None:
    Closures(queue, now=time.time).close("mx.example:25", "421 too busy")
    watch = watch_of(queue.path)
    once(watch)
    [row] = watch.overview.queues
    assert "mx.example:25 is down for" in row.notes[-1]
    assert row.notes[-1].endswith(": 421 too busy")


def test_a_mount_that_hangs_is_said_to_be_unknown(queue: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    hang(monkeypatch)
    watch = watch_of(queue.path)
    once(watch)
    [row] = watch.overview.queues
    assert row.counts is None
    assert "hangs" in row.notes[0]
    assert watch.version == 1


def test_no_queue_is_looked_at_while_an_earlier_look_at_it_hangs_in_the_kernel(
    queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[object] = []

    async def late(job: object, seconds: float) -> TimedOut:
        begun.append(job)
        return TimedOut(seconds, 1)

    monkeypatch.setattr(bounded_async, "call_bounded", late)
    monkeypatch.setattr(watching, "_WATCHED_SECONDS", 0.0)
    monkeypatch.setattr(bounded_async, "hangs_still", lambda _: True)
    watch = watch_of(queue.path)
    once(watch, times=5)
    assert len(begun) == 1
    assert watch.overview.queues[0].counts is None


def test_the_queues_are_looked_at_the_more_rarely_the_longer_it_takes(
    queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[object] = []
    bounded = call_bounded

    async def slow(job: Callable[[], Any], seconds: float) -> Any:
        begun.append(job)
        await asyncio.sleep(0.2)
        return await bounded(job, seconds)

    monkeypatch.setattr(bounded_async, "call_bounded", slow)
    monkeypatch.setattr(watching, "_WATCHED_SECONDS", 0.0)
    once(watch_of(queue.path), times=10)
    assert len(begun) == 1


def test_all_who_wait_get_each_news_and_cause_no_look_of_their_own(queue: Layout) -> None:
    watch = watch_of(queue.path)

    async def run() -> list[int]:
        waiting = [asyncio.create_task(watch.next(0)) for _ in range(20)]
        await asyncio.sleep(0)
        await watch.look()
        return await asyncio.gather(*waiting)

    assert asyncio.run(run()) == [1] * 20
    assert watch.version == 1


def test_queues_are_in_the_order_in_which_they_are_given(queue: Layout) -> None:
    other = create_queue(f"{queue.path}-a")
    for given in ([queue.path, other.path], [other.path, queue.path]):
        watch = watch_of(*given)
        once(watch)
        assert [row.path for row in watch.overview.queues] == given
