"""The order of names by priority: the higher first, and none starves."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from maildefer.maildir import names, scan
from maildefer.maildir.drafts.entry import Planned
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName
from maildefer.maildir.push import Pusher
from maildefer.maildir.scan import Listing, NamesByPriority
from maildefer.maildir.system import SYSTEM
from tests.support.queues import put

HIGH, NORMAL, LOW = range(3)


def pushed(layout: Layout, priority: str, **more: int) -> str:
    return Pusher(layout, host="h-0a1b2c").push(
        Planned(compose=lambda stem: [b"x"], priority=priority, **more)
    )


@pytest.mark.parametrize(("priority", "part"), [("high", ",p=high"), ("normal", ""), ("low", ",p=low")])
def test_the_priority_is_a_part_of_the_key_which_every_transition_carries(
    layout: Layout, priority: str, part: str
) -> None:
    key = pushed(layout, priority)
    assert key.endswith(f"{part},S=1")
    assert os.listdir(layout.new) == [key]
    assert scan.priority_of(key) == priority
    entry = EntryName.parse(key)
    assert entry.key == key
    later = entry.deferred(2**31, failures=1)
    assert EntryName.parse(later).key == key
    assert scan.priority_of(EntryName.parse(later).returned().claimed("h-1-abcdef.1.1")) == priority
    assert names.pushed_by_us_at(key) is not None


def test_an_entry_for_later_has_both_parts(layout: Layout) -> None:
    key = pushed(layout, "high", due=2**31)
    assert names.pushed_by_us_at(key) is not None
    assert names.first_name(key) != key
    assert scan.priority_of(key) == "high"


@pytest.mark.parametrize("priority", ["", "urgent", "High", "1", ",p=high", 1, None])
def test_what_is_no_priority_is_refused(priority: str) -> None:
    with pytest.raises(ValueError, match="give one of high, normal, low"):
        Planned(compose=lambda stem: [b"x"], priority=priority)


@pytest.mark.parametrize(
    "name", ["1.x", "1.x,p=", "1.x,p=9,S=1", "1.x,p=high", "1.x,p=highest,S=1", ",p=", "p=high,"]
)
def test_a_name_of_others_that_says_nothing_we_know_is_normal(name: str) -> None:
    assert scan.rank(name) == NORMAL


def test_a_push_with_a_priority_leaves_a_mark_and_others_do_not(layout: Layout) -> None:
    pushed(layout, "normal")
    assert scan.PRIORITY_MARK not in os.listdir(layout.control)
    pushed(layout, "low")
    pushed(layout, "low")
    assert scan.PRIORITY_MARK in os.listdir(layout.control)


class Endless:
    """Listings of ranks with so many names each, or without an end; a look takes no time."""

    def __init__(self, *counts: int | None) -> None:
        self.now = 0.0
        self.looks = [0, 0, 0]
        self._counts = list(counts)
        self._number = 0

    def listed(self, rank: int) -> Iterator[list[str]]:
        self.looks[rank] += 1
        while (left := self._counts[rank]) is None or left:
            if left is not None:
                self._counts[rank] = left - 1
            self._number += 1
            yield [f"{self._number}.x{('high', 'normal', 'low')[rank]}"]

    def ordered(self) -> NamesByPriority:
        return NamesByPriority(self.listed, lambda: self.now)


def ranks(taken: list[str]) -> list[int]:
    return [("high", "normal", "low").index(name.partition("x")[2]) for name in taken]


def test_of_eight_names_one_is_normal_and_one_low_however_many_high_ones_there_are() -> None:
    taken = ranks(Endless(None, None, None).ordered().take(80))
    for first in range(73):
        eight = taken[first : first + 8]
        assert [eight.count(rank) for rank in (HIGH, NORMAL, LOW)] == [6, 1, 1]


def test_a_low_one_is_among_the_first_eight_names_of_an_endless_supply_of_others() -> None:
    assert LOW in ranks(Endless(None, None, 1).ordered().take(8))
    assert LOW in ranks(Endless(0, None, 1).ordered().take(8))
    assert NORMAL in ranks(Endless(None, 1, 0).ordered().take(8))


def test_high_ones_come_before_all_others_but_those() -> None:
    taken = ranks(Endless(20, 20, 20).ordered().take(60))
    assert taken[:3] == [HIGH] * 3
    assert [rank for rank in taken if rank != HIGH][-15:] == [LOW] * 15
    assert taken.index(HIGH) == 0
    assert max(index for index, rank in enumerate(taken) if rank == HIGH) < 28


def test_an_empty_rank_is_listed_again_after_a_pause_and_at_once_when_nothing_else_is_left() -> None:
    endless = Endless(0, 30, 0)
    ordered = endless.ordered()
    ordered.take(30)
    assert endless.looks == [1, 1, 1]
    endless.now += 2.0
    assert ordered.take(1) == []
    assert ordered.take(1, look=False) == []
    assert endless.looks[HIGH] == 2
    assert ordered.take(1) == []
    assert endless.looks[HIGH] == 3


def test_a_high_one_that_comes_amid_a_long_backlog_is_the_next_after_a_look(layout: Layout) -> None:
    for number in range(scan.CHUNK + 50):
        put(layout.new, f"{number:05}.x,S=1")
    now = [0.0]
    listing = Listing(layout.new, lambda: True, lambda: now[0])
    walk = listing.names()
    first = [next(walk) for _ in range(5)]
    assert all(scan.rank(name) == NORMAL for name in first)
    put(layout.new, "99999.x,p=high,S=1")
    now[0] += 2.0
    assert "99999.x,p=high,S=1" in [next(walk) for _ in range(2)]


def test_a_listing_without_priorities_is_read_once_and_in_its_own_order(layout: Layout) -> None:
    known = {put(layout.new, f"{number:05}.x,S=1") for number in range(20)}
    listing = Listing(layout.new, lambda: False, lambda: 0.0)
    assert list(listing.names()) == sorted(known)


def test_a_listing_goes_by_priority_as_soon_as_a_name_has_one(layout: Layout) -> None:
    for number in range(20):
        put(layout.new, f"{number:05}.x,p=low,S=1")
    put(layout.new, "00000.y,S=1")
    put(layout.new, "99999.x,p=high,S=1")
    listing = Listing(layout.new, lambda: False, SYSTEM.boottime)
    assert [scan.rank(name) for name in listing.names()] == [HIGH, NORMAL, *([LOW] * 20)]


def test_a_listing_ends_though_nobody_can_claim_what_it_shows(layout: Layout) -> None:
    put(layout.new, "1.x,p=high,S=1")
    listing = Listing(layout.new, lambda: False, lambda: 0.0)
    for _ in range(3):
        assert len(list(listing.names())) == 1
