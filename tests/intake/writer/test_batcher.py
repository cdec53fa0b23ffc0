"""When jobs go to the writer, and how many together."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

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
    batcher.end_batch(1, sent=0.0, now=0.0)
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
    batcher.end_batch(1, sent=0.0, now=0.0)
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
        batcher.end_batch(2, sent=0.0, now=0.0)
        assert batcher.next_batch(now=0.0) == [3]


def test_no_more_batches_are_out_than_there_are_threads() -> None:
    for batcher in (local(threads=2), mounted(threads=2)):
        add(batcher, *range(200))
        assert len(sent(batcher)) == 2
        add(batcher, *range(200))
        assert sent(batcher, now=1000.0) == []
        batcher.end_batch(64, sent=0.0, now=1000.0)
        assert len(sent(batcher, now=1000.0)) == 1


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


def written(batcher: WriterBatcher[int], *jobs: int, begin: float, end: float) -> None:
    """Have a batch written."""
    add(batcher, *jobs, now=begin)
    assert sent(batcher, now=begin) == [list(jobs)]
    batcher.end_batch(len(jobs), sent=begin, now=end)


def test_the_first_of_several_clients_waits_for_the_others() -> None:
    batcher = local()
    written(batcher, 1, 2, 3, 4, begin=0.0, end=0.002)
    add(batcher, 1, now=0.0021)
    add(batcher, 2, 3, now=0.0022)
    assert sent(batcher, now=0.0022) == []
    add(batcher, 4, now=0.0023)
    assert sent(batcher, now=0.0023) == [[1, 2, 3, 4]]


def test_company_that_does_not_come_is_waited_for_as_long_as_a_batch_takes_and_but_once() -> None:
    batcher = local()
    written(batcher, 1, 2, 3, 4, begin=0.0, end=0.002)
    add(batcher, 1, now=0.003)
    due = 0.003 + 0.002
    assert batcher.due == due
    assert sent(batcher, now=due - 0.0001) == []
    assert sent(batcher, now=due) == [[1]]
    batcher.end_batch(1, sent=due, now=0.007)
    add(batcher, 1, now=0.008)
    assert sent(batcher, now=0.008) == [[1]], "it is the only client"


def test_nobody_waits_longer_for_company_than_for_a_batch_to_end() -> None:
    batcher = local()
    written(batcher, 1, 2, begin=0.0, end=5.0)
    add(batcher, 1, now=6.0)
    assert batcher.due == 6.0 + MAX_WAIT_SECONDS


def test_who_has_waited_for_a_batch_to_end_waits_for_company_from_then_on() -> None:
    batcher = local()
    add(batcher, 1, 2, 3, 4)
    sent(batcher)
    add(batcher, 5)
    batcher.end_batch(4, sent=0.0, now=0.002)
    assert batcher.due == 0.004
    assert sent(batcher, now=0.002) == []


def test_company_that_takes_its_time_comes_while_the_others_are_written() -> None:
    batcher = local()
    written(batcher, *range(8), begin=0.0, end=0.001)
    for turn in range(8):  # each takes a little longer than the batch
        add(batcher, turn, now=0.0022 + 0.00112 * turn)
    assert len(batcher.next_batch(now=0.011)) == 8
    batcher.end_batch(8, sent=0.011, now=0.012)
    for number in range(4):
        assert sent(batcher, now=0.012) == []
        add(batcher, number, now=0.012)
    assert sent(batcher, now=0.012) == [list(range(4))]


def test_on_a_mount_nobody_waits_for_company() -> None:
    batcher = mounted()
    add(batcher, 1, 2, 3, 4)
    for batch in sent(batcher):
        batcher.end_batch(len(batch), sent=0.0, now=0.1)
    add(batcher, 1, now=0.2)
    assert sent(batcher, now=0.2) == [[1]]


def rate(
    batcher: WriterBatcher[int],
    connections: int,
    seconds: Callable[[int, int], float],
    dialog_seconds: float = 0.0,
    *,
    messages: int = 3000,
    start: float = 0.0,
) -> float:
    """Messages a second of so many clients, each of which sends its next one when it is told of the last.

    `seconds`: that a batch of so many takes when so many are under way; `dialog_seconds`: of the front end for each.
    """
    numbers = count()
    speaks_until, now, done, out = start, start, 0, 0
    events: list[
        tuple[float, int, list[int], float | None]
    ] = []  # with when the batch was sent, where one ends

    def speak(clients: list[int], now: float) -> None:
        nonlocal speaks_until
        for client in clients:
            speaks_until = max(speaks_until, now) + dialog_seconds
            heapq.heappush(events, (speaks_until, next(numbers), [client], None))

    speak(list(range(connections)), start)
    while done < messages:
        now, _, jobs, since = heapq.heappop(events)
        if since is not None:
            batcher.end_batch(len(jobs), sent=since, now=now)
            out -= 1
            done += len(jobs)
            speak(jobs, now)
        else:
            add(batcher, *jobs, now=now)
        for batch in sent(batcher, now=now):
            out += 1
            heapq.heappush(events, (now + seconds(len(batch), out), next(numbers), batch, now))
        if batcher.due is not None:
            heapq.heappush(events, (max(now, batcher.due), next(numbers), [], None))
    return done / (now - start)


def test_a_disk_gets_large_batches() -> None:
    """2 ms for each batch and a tenth for each message, and nothing gained by two at a time."""
    best = 32 / (0.002 + 0.0032)
    assert rate(local(32), 32, lambda jobs, beside: (0.002 + 0.0001 * jobs) * beside) > 0.8 * best


@pytest.mark.parametrize("connections", [2, 3, 4, 8, 16])
def test_clients_whose_messages_come_sooner_than_a_batch_is_written_share_one(connections: int) -> None:
    """10 ms for each batch, and 0.2 for what a client says: half as many where the first goes alone each time."""
    best = connections / (0.010 + 0.0002 * connections)
    assert rate(local(32), connections, lambda jobs, beside: 0.010 * beside, 0.0002) > 0.9 * best


def test_an_hour_without_messages_makes_no_difference() -> None:
    batcher = local(32)
    written(batcher, 1, begin=0.0, end=0.002)
    best = 8 / (0.010 + 0.0002 * 8)
    assert (
        rate(batcher, 8, lambda jobs, beside: 0.010 * beside, 0.0002, messages=400, start=3600.0) > 0.9 * best
    )


@pytest.mark.parametrize("connections", [2, 4, 8])
def test_other_clients_speak_while_the_messages_of_a_half_are_written(connections: int) -> None:
    """What a half says takes as long as a batch."""
    dialog = 0.002 / connections
    best = connections / 0.002
    assert rate(local(32), connections, lambda jobs, beside: 0.001 * beside, dialog) > 0.9 * best


def test_a_single_client_never_waits() -> None:
    assert rate(local(32), 1, lambda jobs, beside: 0.001, 0.0002) == pytest.approx(1 / 0.0012)


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
    now, added = 0.0, 0
    out: list[tuple[int, float]] = []
    jobs: list[int] = []
    for number, pause, ends in [*steps, *[(0, 1.0, True)] * (50 * len(steps))]:
        add(batcher, *range(added, added + number), now=now)
        added += number
        batches = sent(batcher, now=now)
        jobs += [job for batch in batches for job in batch]
        out += [(len(batch), now) for batch in batches]
        assert len(out) <= threads
        now += pause
        if ends and out:
            size, since = out.pop()
            batcher.end_batch(size, sent=since, now=now)
    assert jobs == list(range(added))
