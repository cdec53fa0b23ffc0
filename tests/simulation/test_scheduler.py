"""Threads on simulated time, which hand over to one another."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from greenlet import GreenletExit

from tests.simulation.scheduler import Process, Scheduler

Told = list[tuple[str, float]]


def ticking(
    scheduler: Scheduler, name: str, seconds: float, told: Told, times: int = 3
) -> Callable[[], None]:
    def live() -> None:
        for _ in range(times):
            scheduler.sleep(seconds)
            told.append((name, scheduler.now))

    return live


def after(scheduler: Scheduler, process: Process, seconds: float, deed: Callable[[], object]) -> None:
    """A thread of that process does it, and sleeps on."""

    def live() -> None:
        scheduler.sleep(seconds)
        deed()
        scheduler.sleep(50)

    scheduler.start(process, "doer", live)


def two(told: Told) -> tuple[Scheduler, Process, Process]:
    """Threads that must hand over to each other all the time."""
    scheduler, first, second = Scheduler(0), Process("first", 1), Process("second", 2)
    scheduler.start(first, "a", ticking(scheduler, "a", 2, told))
    scheduler.start(second, "b", ticking(scheduler, "b", 3, told))
    return scheduler, first, second


def test_threads_run_in_the_order_in_which_they_are_due() -> None:
    told: Told = []
    scheduler, _, _ = two(told)
    scheduler.run_to(100)
    assert told == [("a", 2), ("b", 3), ("a", 4), ("b", 6), ("a", 6), ("b", 9)]
    assert scheduler.thread is None


def test_nothing_runs_past_the_limit() -> None:
    told: Told = []
    scheduler, _, _ = two(told)
    scheduler.run_to(4)
    assert told == [("a", 2), ("b", 3)]
    assert scheduler.now == 4


def test_whether_to_go_on_is_asked_between_one_thread_and_the_next() -> None:
    told: Told = []
    scheduler, _, _ = two(told)
    assert scheduler.run(lambda: len(told) == 3)
    assert told == [("a", 2), ("b", 3), ("a", 4)]


def test_what_is_due_outside_all_threads_comes_in_its_turn() -> None:
    told: Told = []
    scheduler, _, _ = two(told)
    scheduler.at(3.5, lambda: told.append(("-", scheduler.now)))
    scheduler.run_to(4.5)
    assert told == [("a", 2), ("b", 3), ("-", 3.5), ("a", 4)]


def test_a_frozen_process_goes_on_when_it_thaws() -> None:
    told: Told = []
    scheduler, first, second = two(told)
    after(scheduler, second, 3.5, lambda: setattr(first, "frozen_until", 8.0))
    scheduler.run_to(100)
    assert told == [("a", 2), ("b", 3), ("b", 6), ("a", 8), ("b", 9), ("a", 10)]


def test_a_process_that_has_died_does_not_run_again() -> None:
    told: Told = []
    scheduler, first, second = two(told)
    after(scheduler, second, 3.5, lambda: setattr(first, "alive", False))
    scheduler.run_to(100)
    assert told == [("a", 2), ("b", 3), ("b", 6), ("b", 9)]


def test_a_sleep_that_was_ended_does_not_end_again() -> None:
    told: Told = []
    scheduler, first, second = two(told)
    sleeper = scheduler.start(first, "s", ticking(scheduler, "s", 5, told))
    after(scheduler, second, 3.5, lambda: scheduler.wake(sleeper))
    scheduler.run_to(10)
    assert told == [("a", 2), ("b", 3), ("s", 3.5), ("a", 4), ("b", 6), ("a", 6), ("s", 8.5), ("b", 9)]


def test_a_killed_thread_ends_where_it_sleeps_and_one_that_has_not_begun_never_does() -> None:
    told: Told = []
    scheduler, first, _ = two(told)

    def live() -> None:
        try:
            scheduler.sleep(50)
        except GreenletExit:
            told.append(("killed", scheduler.now))
            raise

    scheduler.start(first, "c", live)
    scheduler.start(first, "d", live, after=70)
    scheduler.at(3.5, lambda: scheduler.kill(first))
    scheduler.run_to(100)
    assert told == [("a", 2), ("b", 3), ("killed", 3.5), ("b", 6), ("b", 9)]
    assert not first.threads


def test_a_thread_can_kill_another_process_and_goes_on() -> None:
    told: Told = []
    scheduler, first, second = two(told)

    def kill() -> None:
        scheduler.sleep(3.5)
        scheduler.kill(first)
        told.append(("killer", scheduler.now))

    scheduler.start(second, "k", kill)
    scheduler.run_to(100)
    assert told == [("a", 2), ("b", 3), ("killer", 3.5), ("b", 6), ("b", 9)]


def test_whatever_a_thread_raises_ends_the_schedule() -> None:
    told: Told = []
    scheduler, _, second = two(told)

    def fail() -> None:
        scheduler.sleep(4.5)
        raise LookupError

    scheduler.start(second, "f", fail)
    with pytest.raises(LookupError):
        scheduler.run_to(100)
    assert told == [("a", 2), ("b", 3), ("a", 4)]
