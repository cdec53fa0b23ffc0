"""Slots of rates: so many starts in any period, whoever takes them, and whatever is lost, late or dead."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable

import pytest

from maildefer.errors import MountFault, NoSpace, StorageFault
from maildefer.maildir.layout import Layout
from maildefer.maildir.upkeep.rates import RateGrant, RateOf, RateSlots, RateSweeper
from maildefer.maildir.upkeep.sweep import Sweeper
from tests.support.queues import World

RATE = RateOf("workers.sending.send example.org", 3, 60.0)
Make = Callable[[], RateSlots]


@pytest.fixture
def make(layout: Layout, world: World) -> Make:
    """The slots as one more process takes them."""
    return lambda: RateSlots(layout, now=lambda: world.seconds, system=world.system)


def pass_time(world: World, seconds: float) -> None:
    world.seconds += seconds
    world.uptime += seconds


def slots(layout: Layout, rate: RateOf = RATE) -> list[str]:
    return sorted(os.listdir(f"{layout.rates}/{rate.folder}"))


def takes(process: RateSlots, rate: RateOf = RATE) -> bool:
    return isinstance(process.take_slot(rate), RateGrant)


def test_so_many_starts_are_granted_and_then_it_says_when_the_next_one_may_be(
    make: Make, world: World
) -> None:
    process = make()
    assert [takes(process) for _ in range(3)] == [True] * 3
    wait = process.take_slot(RATE)
    assert isinstance(wait, float)
    assert 60 < wait < 62
    pass_time(world, wait)
    assert takes(process)


def test_all_processes_share_them(make: Make, world: World) -> None:
    first, second = make(), make()
    assert [takes(one) for one in (first, second, first, second, first)] == [True, True, True, False, False]
    pass_time(world, 62)
    assert [takes(one) for one in (second, first, second, second, first)] == [True, True, True, False, False]


def test_another_key_has_its_own(make: Make) -> None:
    process = make()
    other = RateOf("workers.sending.send example.net", 3, 60.0)
    assert [takes(process) for _ in range(4)] == [True, True, True, False]
    assert [takes(process, other) for _ in range(4)] == [True, True, True, False]


def test_the_slots_of_a_key_are_made_all_at_once(make: Make, layout: Layout) -> None:
    takes(make())
    assert [name.partition(",")[0] for name in slots(layout)] == ["0", "1", "2"]
    assert not any(name.startswith(".rates") for name in os.listdir(layout.tmp))


def test_their_files_are_durable_before_they_can_be_seen(make: Make, world: World) -> None:
    takes(make())
    asked = [call for call in world.asked("fsync", "rename") if "/tmp/.rates" in call.arguments[0]]
    assert [call.what for call in asked] == ["fsync", "rename"]


@pytest.mark.invariant(10)
def test_slots_that_a_listing_overlooked_are_not_made_again(make: Make, layout: Layout, world: World) -> None:
    assert [takes(one) for one in (make(), make(), make())] == [True] * 3
    world.refuse("listdir", errno.ENOENT, where=f"/rates/{RATE.folder}")
    assert not takes(make())
    assert len(slots(layout)) == 3


def test_a_full_disk_leaves_no_half_made_slots(make: Make, layout: Layout, world: World) -> None:
    process = make()
    world.refuse("open", errno.ENOSPC, where="2,d=")
    with pytest.raises(NoSpace):
        process.take_slot(RATE)
    assert not os.path.exists(f"{layout.rates}/{RATE.folder}")
    assert takes(process)


@pytest.mark.invariant(4)
def test_no_name_of_a_slot_comes_back(make: Make, layout: Layout, world: World) -> None:
    process, seen = make(), list[str]()
    for _ in range(4):
        seen += slots(layout) if seen else []
        assert [takes(process) for _ in range(3)] == [True] * 3
        seen += slots(layout)
        pass_time(world, 62)
    taken = {name for name in seen if name.partition(",d=")[2]}
    assert len(taken) == len(set(seen))


def test_a_start_costs_one_rename_while_the_last_listing_has_free_slots(make: Make, world: World) -> None:
    process = make()
    takes(process)
    world.forget()
    takes(process)
    assert [call.what for call in world.calls] == ["rename"]


def test_who_knows_that_none_is_free_asks_nobody(make: Make, world: World) -> None:
    process = make()
    assert [takes(process) for _ in range(4)] == [True, True, True, False]
    world.forget()
    assert not takes(process)
    assert world.calls == []


def test_what_others_let_have_back_is_found_within_seconds(make: Make, world: World) -> None:
    first, second = make(), make()
    grants = [first.take_slot(RATE) for _ in range(3)]
    assert not takes(second)
    assert isinstance(grants[0], RateGrant)
    first.return_slot(grants[0])
    pass_time(world, 6)
    assert takes(second)
    assert not takes(second)


@pytest.mark.invariant(3)
def test_of_two_that_take_the_same_slot_one_gets_it(make: Make, world: World) -> None:
    rate = RateOf("one at a time", 1, 60.0)
    first, second = make(), make()
    takes(first, rate)
    pass_time(world, 62)
    took: list[bool] = []
    world.before("rename", lambda: took.append(takes(second, rate)), where="/rates/")
    took.append(takes(first, rate))
    assert took == [True, False]


@pytest.mark.parametrize("fault", [errno.EIO, errno.ESTALE, errno.EINTR])
def test_a_lost_reply_is_settled_by_a_look(fault: int, make: Make, world: World) -> None:
    process = make()
    takes(process)
    world.lose_reply("rename", fault, where="/rates/")
    assert takes(process)
    assert [takes(process), takes(process)] == [True, False]


def test_new_slots_that_are_stale_after_a_lost_reply_are_looked_at_again(make: Make, world: World) -> None:
    """An NFS client knows their folder by its old name, too; looks fail while its other processes rename."""
    world.lose_reply("rename", errno.EIO, where="/rates/")
    world.refuse("listdir", errno.ESTALE, where="/rates/", times=20)
    assert takes(make())


def test_a_refused_rename_is_raised(make: Make, world: World) -> None:
    process = make()
    takes(process)
    world.refuse("rename", errno.EIO, where="/rates/")
    with pytest.raises(MountFault, match="rates"):
        process.take_slot(RATE)


@pytest.mark.invariant(4)
def test_a_rename_that_lands_late_takes_no_slot_of_anybody_else(
    make: Make, layout: Layout, world: World
) -> None:
    first, second = make(), make()
    takes(first)
    world.hold("rename", errno.EIO, where="/rates/")
    with pytest.raises(MountFault):
        first.take_slot(RATE)
    assert [takes(second), takes(second), takes(second)] == [True, True, False]
    before = slots(layout)
    assert world.land() == [errno.ENOENT]
    assert slots(layout) == before


def test_a_slot_that_took_too_long_is_wasted_since_its_next_start_would_come_too_soon(
    make: Make, world: World
) -> None:
    process = make()
    takes(process)
    world.take("rename", 5.0, where="/rates/")
    world.after("rename", lambda: pass_time(world, 0), where="/rates/")
    assert takes(process), "the next one is good"
    assert not takes(process), "and one is wasted"


def test_a_clock_that_was_set_back_blocks_no_slot_for_longer(make: Make, world: World) -> None:
    world.seconds += 86_400
    assert [takes(make()) for _ in range(3)] == [True] * 3
    world.seconds -= 86_400
    assert takes(make())


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[pytest.mark.slow] * (seed > 1)) for seed in range(8)]
)
def test_no_window_of_a_period_has_more_starts_than_the_rate(
    seed: int, make: Make, layout: Layout, world: World
) -> None:
    """Eight processes, some of which die, with lost replies and sweeps: judged by the times of all starts."""
    draw = random.Random(seed)
    rate = RateOf("judged", *((5, 30.0), (30, 60.0))[seed % 2])
    processes, starts = [make() for _ in range(8)], list[float]()
    sweeper = RateSweeper(layout, system=world.system)
    until = world.seconds + 8000
    while world.seconds < until:
        pass_time(world, draw.expovariate(1.0) if draw.random() < 0.999 else draw.uniform(0, 1500))
        number = draw.randrange(8)
        if draw.random() < 0.1:
            world.lose_reply("rename", draw.choice((errno.EIO, errno.ESTALE)), where="/rates/")
        if draw.random() < 0.05:
            processes[number] = make()
        if draw.random() < 0.02:
            sweeper.sweep(world.seconds)
        try:
            taken = processes[number].take_slot(rate)
        except StorageFault:
            continue
        finally:
            world.rules.clear()
        if isinstance(taken, RateGrant):
            if draw.random() < 0.1:
                processes[number].return_slot(taken)
            else:
                starts.append(world.seconds)
    assert len(starts) > 300, "it grants what it may"
    windows = zip(starts, starts[rate.starts :], strict=False)
    assert all(later - first > rate.period_seconds for first, later in windows)


# Sweeping


def test_a_folder_of_which_all_slots_are_free_is_removed_and_made_again(
    make: Make, layout: Layout, world: World
) -> None:
    process, sweeper = make(), RateSweeper(layout, system=world.system)
    takes(process)
    assert sweeper.sweep(world.seconds) == 0
    pass_time(world, 700)
    assert sweeper.sweep(world.seconds) == 1
    assert os.listdir(layout.rates) == []
    assert [takes(process) for _ in range(4)] == [True, True, True, False]


def test_a_start_in_the_midst_of_a_sweep_counts(make: Make, layout: Layout, world: World) -> None:
    process, sweeper = make(), RateSweeper(layout, system=world.system)
    takes(process)
    pass_time(world, 700)
    took: list[bool] = []
    world.before("rename", lambda: took.append(takes(process)), where="/rates/")
    assert sweeper.sweep(world.seconds) == 0
    assert took == [True]
    assert sum(takes(make()) for _ in range(5)) <= 2
    pass_time(world, 301)
    assert [takes(process) for _ in range(4)] == [True, True, True, False]


@pytest.mark.invariant(4)
def test_a_late_copy_of_a_removal_removes_no_later_folder(make: Make, layout: Layout, world: World) -> None:
    process, sweeper = make(), RateSweeper(layout, system=world.system)
    takes(process)
    pass_time(world, 700)
    sweeper.sweep(world.seconds)
    [draft] = [name for name in os.listdir(layout.tmp) if name.startswith(".rates")]
    assert takes(process)
    with pytest.raises(OSError, match="not empty"):
        os.rename(f"{layout.rates}/{RATE.folder}", f"{layout.tmp}/{draft}")


def test_the_sweep_of_a_queue_sweeps_its_rates_too(make: Make, layout: Layout, world: World) -> None:
    sweeper = Sweeper(layout, system=world.system)
    assert sweeper.sweep(world.seconds) == 0
    takes(make())
    pass_time(world, 700)
    assert sweeper.sweep(world.seconds) == 1
    assert os.listdir(layout.rates) == []


def test_what_was_removed_leaves_the_drafts_in_time(make: Make, layout: Layout, world: World) -> None:
    process, sweeper = make(), RateSweeper(layout, system=world.system)
    takes(process)
    pass_time(world, 700)
    sweeper.sweep(world.seconds)
    drafts = Sweeper(layout, system=world.system)
    drafts.sweep(2e9 + world.seconds)
    world.uptime += 7200
    drafts.sweep(2e9 + world.seconds)
    assert not any(name.startswith(".rates") for name in os.listdir(layout.tmp))
