"""When jobs go to the writer, and how many together."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maildefer.intake.writer.batcher import MAX_WAIT_SECONDS, WriterBatcher


def local(threads: int = 4) -> WriterBatcher[int]:
    return WriterBatcher(threads=threads, local=True)


def mounted(threads: int = 4) -> WriterBatcher[int]:
    return WriterBatcher(threads=threads, local=False)


def add(batcher: WriterBatcher[int], *jobs: int, now: float = 0.0) -> None:
    for job in jobs:
        batcher.add_job(job, now=now)


def sent(batcher: WriterBatcher[int], *, now: float = 0.0) -> list[list[int]]:
    """All that is to be sent now."""
    batches = []
    while batch := batcher.next_batch(now=now):
        batches.append(batch)
    return batches


def test_what_comes_first_is_sent_at_once() -> None:
    for batcher in (local(), mounted()):
        add(batcher, 1)
        assert sent(batcher) == [[1]]
        assert sent(batcher) == []


def test_on_a_disk_what_comes_meanwhile_goes_together_when_the_batch_ends() -> None:
    batcher = local()
    add(batcher, 1)
    sent(batcher)
    add(batcher, 2, 3)
    add(batcher, 4)
    assert sent(batcher) == []
    batcher.end_batch()
    assert sent(batcher) == [[2, 3, 4]]


def test_on_a_mount_all_are_under_way_at_the_same_time() -> None:
    batcher = mounted()
    for job in (1, 2, 3):
        add(batcher, job)
        assert sent(batcher) == [[job]]


def test_on_a_mount_many_that_wait_are_spread_over_the_threads_that_are_free() -> None:
    batcher = mounted(threads=4)
    add(batcher, 0)
    sent(batcher)
    add(batcher, *range(1, 9))
    assert sent(batcher) == [[1, 2, 3], [4, 5, 6], [7, 8]]
    add(batcher, 9, 10)
    assert sent(batcher) == []
    batcher.end_batch()
    assert sent(batcher) == [[9, 10]]


def test_a_second_batch_is_worth_it_once_enough_wait() -> None:
    batcher = local()
    add(batcher, 0)
    sent(batcher)
    add(batcher, *range(1, 16))
    assert sent(batcher) == []
    add(batcher, 16)
    assert sent(batcher) == [list(range(1, 17))]


def test_a_batch_is_not_so_large_that_who_came_first_waits_for_all() -> None:
    batcher = local()
    add(batcher, *range(150))
    assert [len(batch) for batch in sent(batcher)] == [64, 64, 22]


def test_a_batch_is_no_larger_than_there_is_room_for() -> None:
    for batcher in (local(), mounted(threads=1)):
        add(batcher, 1, 2, 3)
        assert batcher.next_batch(now=0.0, most=0) == []
        assert batcher.next_batch(now=0.0, most=2) == [1, 2]
        batcher.end_batch()
        assert batcher.next_batch(now=0.0) == [3]


def test_no_more_batches_are_out_than_there_are_threads() -> None:
    for batcher in (local(threads=2), mounted(threads=2)):
        add(batcher, *range(200))
        assert len(sent(batcher)) == 2
        add(batcher, *range(200))
        assert sent(batcher, now=1000.0) == []
        batcher.end_batch()
        assert len(sent(batcher)) == 1


def test_a_batch_that_does_not_end_is_waited_for_only_so_long() -> None:
    batcher = local(threads=2)
    add(batcher, 1)
    sent(batcher)
    add(batcher, 2, now=5.0)
    add(batcher, 3, now=5.009)
    assert batcher.due == (due := 5.0 + MAX_WAIT_SECONDS)
    assert sent(batcher, now=5.0099) == []
    assert sent(batcher, now=due) == [[2, 3]]


def test_nothing_is_due_where_nothing_waits() -> None:
    batcher = local()
    add(batcher, 1)
    sent(batcher)
    assert batcher.due is None


def test_nothing_is_due_while_all_threads_are_at_work() -> None:
    batcher = local(threads=1)
    add(batcher, 1, 2)
    sent(batcher)
    add(batcher, 3)
    assert batcher.due is None


def rate(batcher: WriterBatcher[int], connections: int, seconds: Callable[[int, int], float]) -> float:
    """Messages a second of so many clients, each of which sends its next one when it is told of the last.

    `seconds`: that a batch of so many takes when so many are under way.
    """
    now, done, number = 0.0, 0, 0
    out: list[tuple[float, int, list[int]]] = []
    add(batcher, *range(connections))
    while done < 3000:
        for batch in sent(batcher, now=now):
            number += 1
            heapq.heappush(out, (now + seconds(len(batch), len(out) + 1), number, batch))
        if batcher.due is not None and now < batcher.due < out[0][0]:
            now = batcher.due
            continue
        now, _, batch = heapq.heappop(out)
        batcher.end_batch()
        done += len(batch)
        add(batcher, *batch, now=now)
    return done / now


def test_a_disk_gets_large_batches() -> None:
    """2 ms for each batch and a tenth for each message, and nothing gained by two at a time."""
    best = 32 / (0.002 + 0.0032)
    assert rate(local(32), 32, lambda jobs, beside: (0.002 + 0.0001 * jobs) * beside) > 0.8 * best


def test_a_mount_has_all_threads_at_work() -> None:
    """12 ms for each message, one after the other in a batch, and as many batches at a time as there are."""
    best = 32 / 0.012
    assert rate(mounted(32), 32, lambda jobs, beside: 0.012 * jobs) > 0.9 * best


@given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(0, 0.02), st.booleans()), max_size=60),
    st.integers(1, 5),
    st.booleans(),
)
@pytest.mark.slow
def test_every_job_is_sent_once_and_in_order(
    steps: list[tuple[int, float, bool]], threads: int, is_local: bool
) -> None:
    batcher = WriterBatcher[int](threads=threads, local=is_local)
    now, added, out = 0.0, 0, 0
    jobs: list[int] = []
    for count, pause, ends in [*steps, *[(0, 1.0, True)] * (50 * len(steps))]:
        add(batcher, *range(added, added + count), now=now)
        added += count
        batches = sent(batcher, now=now)
        jobs += [job for batch in batches for job in batch]
        out += len(batches)
        assert out <= threads
        now += pause
        if ends and out:
            batcher.end_batch()
            out -= 1
    assert jobs == list(range(added))
