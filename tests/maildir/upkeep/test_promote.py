"""Promoting deferred entries when they are due."""

from __future__ import annotations

import errno
import os
from itertools import pairwise

import pytest

from maildefer.maildir.layout import Layout
from maildefer.maildir.upkeep import promote as later
from maildefer.maildir.upkeep.failed_moves import FailedMoves
from maildefer.maildir.upkeep.promote import Promoter
from tests.support.queues import DATA, START, World, everywhere, put


@pytest.fixture
def refusals(world: World) -> FailedMoves:
    return FailedMoves(system=world.system)


@pytest.fixture
def promoter(layout: Layout, refusals: FailedMoves, world: World) -> Promoter:
    return Promoter(layout, refusals=refusals, system=world.system)


def deferred(layout: Layout, name: str) -> str:
    return put(layout.later_new, name)


def test_what_is_due_goes_back_to_new_a_generation_on_and_without_its_due_time(
    promoter: Promoter, layout: Layout, world: World
) -> None:
    deferred(layout, "1.x,a=2,c=1,n=3,d=1700000000")
    promoter.relist()
    world.forget()
    assert promoter.promote(START) == ["1.x"]
    assert promoter._known == set()
    assert everywhere(layout) == {"new/1.x,a=2,c=1,n=4": DATA}
    assert [call.what for call in world.calls] == ["rename"]


def test_nothing_is_promoted_before_it_is_due(promoter: Promoter, layout: Layout) -> None:
    deferred(layout, "1.x,n=1,d=1700000001")
    promoter.relist()
    assert promoter.next_due() == 1_700_000_001
    assert promoter.promote(START + 0.999) == []
    assert promoter.promote(START + 1) == ["1.x"]
    assert promoter.next_due() is None


def test_the_earliest_are_promoted_first(promoter: Promoter, layout: Layout) -> None:
    for due in (5, 3, 9, 1):
        deferred(layout, f"{due}.x,n=1,d={due}")
    promoter.relist()
    assert promoter.promote(6) == ["1.x", "3.x", "5.x"]


def test_an_entry_without_a_due_time_is_due_at_once(promoter: Promoter, layout: Layout) -> None:
    deferred(layout, "1.x")
    promoter.relist()
    assert promoter.promote(START) == ["1.x"]


def test_a_defer_of_this_host_is_heard_of_without_a_listing(
    promoter: Promoter, layout: Layout, world: World
) -> None:
    promoter.note_deferred(deferred(layout, "1.x,a=1,n=1,d=1700000000"))
    assert promoter.promote(START) == ["1.x"]
    assert world.asked("scandir", "listdir") == []


def test_a_name_heard_twice_or_heard_and_listed_is_promoted_once(promoter: Promoter, layout: Layout) -> None:
    name = deferred(layout, "1.x,a=1,n=1,d=1700000000")
    promoter.relist()
    promoter.note_deferred(name)
    promoter.note_deferred(name)
    assert promoter.promote(START) == ["1.x"]


@pytest.mark.invariant(10)
def test_a_name_that_another_host_has_promoted_costs_one_call(promoter: Promoter, layout: Layout) -> None:
    name = deferred(layout, "1.x,n=1,d=1700000000")
    promoter.relist()
    os.unlink(f"{layout.later_new}/{name}")
    assert promoter.promote(START) == []
    assert promoter.next_due() is None


@pytest.mark.invariant(4)
def test_a_late_copy_of_a_promotion_finds_nothing_after_the_next_defer(
    promoter: Promoter, layout: Layout, world: World
) -> None:
    deferred(layout, "1.x,a=1,n=1,d=1700000000")
    promoter.relist()
    world.hold("rename", errno.EIO)
    assert promoter.promote(START) == []
    world.pass_time(1.0)
    assert promoter.promote(START) == ["1.x"]
    os.rename(f"{layout.new}/1.x,a=1,n=2", f"{layout.later_new}/1.x,a=2,n=3,d=1700000000")
    assert world.land() == [errno.ENOENT]


def test_a_promotion_that_is_refused_stays_known_and_is_tried_again(
    promoter: Promoter, refusals: FailedMoves, layout: Layout, world: World
) -> None:
    deferred(layout, "1.x,n=1,d=1700000000")
    promoter.relist()
    world.refuse("rename", errno.ENOSPC)
    assert promoter.promote(START) == []
    assert refusals.unreported() == [("1.x,n=1,d=1700000000", "No space left on device")]
    world.pass_time(1.0)
    assert promoter.promote(START) == ["1.x"]
    assert len(refusals) == 0


def test_one_that_can_not_be_promoted_holds_up_no_other(
    promoter: Promoter, layout: Layout, world: World
) -> None:
    for due in range(3):
        deferred(layout, f"{due}.x,n=1,d={due + 1}")
    promoter.relist()
    world.refuse("rename", errno.EPERM, where="/0.x", times=99)
    assert promoter.promote(START) == ["1.x", "2.x"]


def test_one_that_can_not_be_promoted_is_tried_after_pauses_that_grow_however_often_it_is_listed(
    promoter: Promoter, refusals: FailedMoves, layout: Layout, world: World
) -> None:
    name = deferred(layout, "1.x,n=1,d=1700000000")
    world.refuse("rename", errno.EPERM, times=99)
    promoter.relist()
    tries = []
    for _ in range(1000):  # for a hundred seconds
        world.forget()
        promoter.note_deferred(name)
        promoter.relist()
        promoter.promote(world.seconds)
        tries += [world.uptime for _ in world.asked("rename")]
        world.pass_time(0.1)
    assert [round(later - sooner) for sooner, later in pairwise(tries)] == [1, 2, 4, 8, 16, 30, 30]
    assert promoter.next_due() is None
    assert refusals.next_at() > world.uptime, "nor is it due before"


def test_of_one_that_somebody_else_has_moved_nothing_is_remembered(
    promoter: Promoter, refusals: FailedMoves, layout: Layout, world: World
) -> None:
    name = deferred(layout, "1.x,n=1,d=1700000000")
    promoter.relist()
    world.refuse("rename", errno.EPERM)
    promoter.promote(START)
    os.unlink(f"{layout.later_new}/{name}")
    world.pass_time(60)
    promoter.relist()
    assert len(refusals) == 0


def test_where_all_are_refused_it_is_not_they_and_the_rest_is_not_tried(
    promoter: Promoter, layout: Layout, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(later, "IN_A_ROW", most := 32)
    for number in range(100):
        deferred(layout, f"{number:03}.x,n=1,d=1700000000")
    promoter.relist()
    world.forget()
    world.refuse("rename", errno.EROFS, times=999)
    with pytest.raises(OSError, match="Read-only"):
        promoter.promote(START)
    assert len(world.asked("rename")) == most
    world.rules.clear()
    assert len(promoter.promote(START)) == 100 - most
    world.pass_time(1.0)
    assert len(promoter.promote(START)) == most


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "12:30:00"])
def test_a_name_too_foreign_to_promote_gets_a_fresh_key_and_holds_up_nobody(
    promoter: Promoter, layout: Layout, name: str
) -> None:
    deferred(layout, name)
    deferred(layout, "1.x,n=1,d=1700000000")
    promoter.relist()
    assert len(promoter.promote(START)) == 2
    assert len(os.listdir(layout.new)) == 2


def test_a_missing_folder_is_an_empty_one(promoter: Promoter, layout: Layout) -> None:
    os.rename(f"{layout.path}/.later", f"{layout.path}-away")
    promoter.relist()
    assert promoter.promote(START) == []


def test_a_listing_takes_a_hundredth_of_the_time_at_most(promoter: Promoter, world: World) -> None:
    world.take("scandir", 0.5)
    promoter.relist()
    for wait, listings in ((49.0, 1), (0.6, 2)):
        world.pass_time(wait)
        promoter.relist()
        assert len(world.asked("scandir")) == listings


def test_a_quick_listing_is_repeated_after_a_second_a_slow_one_after_a_minute(
    promoter: Promoter, world: World
) -> None:
    promoter.relist()
    world.pass_time(0.9)
    promoter.relist()
    assert len(world.asked("scandir")) == 1
    world.pass_time(0.2)
    world.take("scandir", 30.0)
    promoter.relist()
    world.pass_time(31.0)
    promoter.relist()
    assert len(world.asked("scandir")) == 3


def test_memory_is_bounded_and_what_did_not_fit_comes_with_the_next_listing(
    promoter: Promoter, layout: Layout, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(later, "HEAP", 3)
    for due in range(1, 11):
        deferred(layout, f"{due}.x,n=1,d={due}")
    promoter.relist()
    for due in range(11, 21):
        promoter.note_deferred(deferred(layout, f"{due}.x,n=1,d={due}"))
    assert len(promoter._heap) == len(promoter._known) <= 6
    promoted = []
    for _ in range(7):
        promoted += promoter.promote(100)
        world.pass_time(61)
        promoter.relist()
    assert sorted(promoted) == sorted(f"{due}.x" for due in range(1, 21))


def test_very_many_that_are_due_at_once_are_promoted_without_a_pause_and_by_one_listing(
    promoter: Promoter, layout: Layout, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(later, "HEAP", 10)
    for number in range(105):
        deferred(layout, f"{number}.x,n=1,d=1700000000")
    promoted = []
    for _ in range(11):
        promoter.relist(START)
        assert len(promoter._heap) <= 20
        promoted += promoter.promote(START)
    assert len(set(promoted)) == 105
    assert len(world.asked("scandir")) == 1


def test_where_more_come_due_than_are_held_the_next_listing_is_not_waited_for(
    promoter: Promoter, layout: Layout, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(later, "HEAP", 10)
    for number in range(100):
        deferred(layout, f"{number}.x,n=1,d={int(START) + 1 + number}")
    world.take("scandir", 0.2)
    promoter.relist(START)
    late = []
    for _ in range(110):
        world.pass_time(1.0)
        for key in promoter.promote(world.seconds):
            late.append(world.seconds - START - 1 - int(key.removesuffix(".x")))
        promoter.relist(world.seconds)
    assert len(late) == 100
    assert max(late) < 3, "the length of a listing alone would allow one each 20 seconds"


def test_a_near_due_time_is_heard_of_while_many_later_ones_are_held(
    promoter: Promoter, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(later, "HEAP", 3)
    for number in range(10):
        promoter.note_deferred(deferred(layout, f"{number}.x,n=1,d=1700009999"))
    promoter.note_deferred(deferred(layout, "near.x,n=1,d=1700000000"))
    assert promoter.promote(START) == ["near.x"]


@pytest.mark.invariant(10)
def test_a_name_that_a_listing_misses_is_promoted_later(
    promoter: Promoter, layout: Layout, world: World
) -> None:
    name = deferred(layout, "1.x,n=1,d=1700000000")
    world.hide(name)
    promoter.relist()
    assert promoter.promote(START) == []
    world.hidden.clear()
    world.pass_time(60)
    promoter.relist()
    assert promoter.promote(START) == ["1.x"]
