from __future__ import annotations

import random

import pytest

from maildefer.pool.worker.in_flight.company import Company

CONCURRENCY = 40


class Blind(Company):
    """A planted bug: whatever was charged runs in any company."""

    def has_room_for(self, crashes: int, messages: int = 1) -> bool:
        return super().has_room_for(0, messages)

    def join(self, crashes: int, messages: int = 1) -> None:
        super().join(0, messages)

    def leave(self, crashes: int, messages: int = 1) -> None:
        super().leave(0, messages)


class Pool:
    """Workers that begin messages as their company allows, in a random order of all that may happen."""

    def __init__(self, kind: type[Company], max_crashes: int, seed: int, *, workers: int = 2) -> None:
        self.random = random.Random(seed)
        self.kind, self.max_crashes = kind, max_crashes
        self.crashes = dict.fromkeys(range(120), 0)
        self.killers = set(self.random.sample(range(120), 3))
        self.waiting = list(self.crashes)
        self.buried: set[int] = set()
        self.companies = [kind(CONCURRENCY, max_crashes) for _ in range(workers)]
        self.in_flight: list[list[int]] = [[] for _ in range(workers)]

    def run(self) -> None:
        for _ in range(20_000):
            if not self.waiting and not any(self.in_flight):
                return
            worker = self.random.randrange(len(self.companies))
            self.begin(worker) if self.random.random() < 0.7 else self.end(worker)
        raise AssertionError("it came to no end")

    def begin(self, worker: int) -> None:
        """Begin the oldest that waits, and no other: what must have less company is not passed over."""
        if self.waiting and self.companies[worker].has_room_for(self.crashes[self.waiting[0]]):
            message = self.waiting.pop(0)
            self.companies[worker].join(self.crashes[message])
            self.in_flight[worker].append(message)

    def end(self, worker: int) -> None:
        on = self.in_flight[worker]
        if not on:
            return
        message = self.random.choice(on)
        if message not in self.killers:
            on.remove(message)
            self.companies[worker].leave(self.crashes[message])
            return
        self.in_flight[worker], self.companies[worker] = [], self.kind(CONCURRENCY, self.max_crashes)
        for charged in on:
            self.crashes[charged] += 1
            if self.crashes[charged] >= self.max_crashes:
                self.buried.add(charged)
            else:
                self.waiting.append(charged)


@pytest.mark.parametrize("max_crashes", [1, 2, 3, 5])
def test_of_all_that_is_in_flight_with_killers_only_they_are_buried(max_crashes: int) -> None:
    for seed in range(20):
        pool = Pool(Company, max_crashes, seed)
        pool.run()
        assert pool.buried == pool.killers, seed


def test_where_the_charged_run_in_any_company_sound_ones_are_buried() -> None:
    pools = [Pool(Blind, 3, seed) for seed in range(5)]
    for pool in pools:
        pool.run()
    assert any(pool.buried > pool.killers for pool in pools)


@pytest.mark.parametrize(
    ("max_crashes", "sizes"), [(1, [1]), (2, [100, 1]), (3, [100, 10, 1]), (5, [100, 22, 5, 1, 1])]
)
def test_each_crash_makes_the_company_smaller_and_the_last_one_leaves_none(
    max_crashes: int, sizes: list[int]
) -> None:
    for crashes, size in enumerate(sizes):
        company = Company(100, max_crashes)
        company.join(crashes)
        count = 1
        while company.has_room_for(0):
            company.join(0)
            count += 1
        assert count == size


def test_what_was_charged_waits_until_few_enough_are_in_flight() -> None:
    company = Company(100, 5)
    for _ in range(30):
        company.join(0)
    left = 30
    while not company.has_room_for(1):
        company.leave(0)
        left -= 1
    assert left == 21


def test_a_batch_counts_with_its_messages_beside_what_was_charged() -> None:
    company = Company(100, 5)
    company.join(0, 500)
    assert company.has_room_for(0)
    assert not company.has_room_for(1)
    company.leave(0, 500)
    company.join(1)
    assert company.has_room_for(0, 21)
    assert not company.has_room_for(0, 22)


def test_a_batch_that_was_charged_is_alone() -> None:
    company = Company(10, 5)
    assert company.has_room_for(1, 63)
    company.join(1, 63)
    assert not company.has_room_for(0)
