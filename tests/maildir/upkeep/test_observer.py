"""Watching the others' leases: who is silent, who is dead, whose claims have no owner."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from maildefer.maildir.layout import Format, Layout
from maildefer.maildir.upkeep import leases
from maildefer.maildir.upkeep.leases import Lease, LeaseHolder
from maildefer.maildir.upkeep.observer import LONGEST_ALLOWANCE_SECONDS, LeaseObserver
from tests.support.queues import World, holder, put

FORMAT = Format(beat_seconds=5, ttl_seconds=45)
THEIRS = "other-000000-9-abcd"


class Watcher:
    """An observer whose own lease beats well, unless told otherwise; it looks once every beat interval."""

    def __init__(self, layout: Layout, lease: Lease, world: World, format: Format = FORMAT) -> None:
        self.world = world
        self.dead: set[int] = set()
        self.format = format
        self.last_good_beat = world.uptime
        self.observer = LeaseObserver(
            layout, format, lambda: lease.name, lambda holder: holder.pid in self.dead, system=world.system
        )

    def look(self) -> list[str]:
        return self.observer.look(self.last_good_beat)

    def watch(self, seconds: float, *, beating: bool = True, step: float | None = None) -> list[str]:
        """Look for so long; what was fenced."""
        fenced: list[str] = []
        end = self.world.uptime + seconds
        while self.world.uptime < end:
            self.world.pass_time(min(step or self.format.beat_seconds, end - self.world.uptime))
            if beating:
                self.last_good_beat = self.world.uptime
            fenced += self.look()
        return fenced


@pytest.fixture
def theirs(layout: Layout, world: World) -> Lease:
    return Lease.join(layout, THEIRS, holder(pid=9, host="other-000000"), system=world.system)


@pytest.fixture
def watcher(layout: Layout, lease: Lease, theirs: Lease, world: World) -> Watcher:
    watcher = Watcher(layout, lease, world)
    watcher.look()
    return watcher


def test_a_lease_unchanged_for_the_ttl_is_fenced(watcher: Watcher, layout: Layout) -> None:
    assert watcher.watch(44.9) == []
    assert watcher.watch(0.1) == [THEIRS]
    assert os.listdir(layout.fenced) == [f"{THEIRS}.0"]
    assert watcher.watch(100) == []


def test_only_a_lease_that_was_seen_to_beat_lives_for_sure(watcher: Watcher, theirs: Lease) -> None:
    assert watcher.observer.beating() == []
    watcher.watch(20)
    assert watcher.observer.beating() == []
    theirs.renew()
    watcher.watch(5)
    assert [(lease, held.host) for lease, held in watcher.observer.beating()] == [(THEIRS, "other-000000")]
    assert watcher.watch(60) == [THEIRS]
    assert watcher.observer.beating() == []


@pytest.mark.invariant(6)
def test_a_lease_that_beats_is_never_fenced(watcher: Watcher, theirs: Lease) -> None:
    for _ in range(30):
        assert watcher.watch(40) == []
        theirs.renew()


def test_the_own_lease_is_never_fenced(watcher: Watcher, lease: Lease, theirs: Lease, layout: Layout) -> None:
    theirs.leave()
    assert watcher.watch(200) == []
    assert os.listdir(layout.leases) == [f"{lease.name}.0"]


def test_the_wall_clock_does_not_matter(watcher: Watcher, world: World) -> None:
    world.seconds += 1e6
    assert watcher.watch(40) == []
    world.seconds -= 2e6
    assert watcher.watch(5) == [THEIRS]


def test_the_ttl_is_the_queues_own(layout: Layout, lease: Lease, theirs: Lease, world: World) -> None:
    watcher = Watcher(layout, lease, world, Format(beat_seconds=0.6, ttl_seconds=6))
    watcher.look()
    assert watcher.watch(5.9) == []
    assert watcher.watch(0.1) == [THEIRS]


def test_the_time_counts_from_when_it_was_seen_first(
    layout: Layout, lease: Lease, theirs: Lease, world: World
) -> None:
    world.pass_time(1000)
    watcher = Watcher(layout, lease, world)
    watcher.look()
    assert watcher.watch(44) == []


@pytest.mark.invariant(6)
def test_a_beat_between_the_listing_and_the_fence_saves_the_lease(
    watcher: Watcher, theirs: Lease, world: World
) -> None:
    assert watcher.watch(44) == []
    world.before("rename", lambda: os.rename(theirs.path, f"{theirs.path[:-1]}1"), where="/fenced/")
    assert watcher.watch(1) == []
    assert watcher.watch(44) == []


def test_a_lease_is_not_fenced_if_the_server_was_away_since_the_listing(
    watcher: Watcher, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_folder = leases.is_folder

    def hang(*given: object, **options: object) -> bool:
        world.pass_time(FORMAT.ttl_seconds)
        return is_folder(*given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(leases, "is_folder", hang)
    assert watcher.watch(FORMAT.ttl_seconds) == [], "the owner was silent because the server was"
    monkeypatch.undo()
    assert watcher.watch(FORMAT.ttl_seconds - 1) == [], "all silences are counted anew"
    assert watcher.watch(2 * FORMAT.ttl_seconds) == [THEIRS]


def test_two_observers_fence_a_lease_once(layout: Layout, lease: Lease, theirs: Lease, world: World) -> None:
    first, second = Watcher(layout, lease, world), Watcher(layout, lease, world)
    first.look()
    second.look()
    fenced = []
    for _ in range(10):
        fenced += first.watch(2.5) + second.watch(2.5)
    assert fenced == [THEIRS]


def test_a_lease_hidden_from_one_listing_starts_anew(watcher: Watcher, world: World) -> None:
    assert watcher.watch(40) == []
    world.hide(f"{THEIRS}.0")
    watcher.watch(1)
    world.hidden.clear()
    assert watcher.watch(45) == []
    assert watcher.watch(5) == [THEIRS]


# Our own silence


@pytest.mark.invariant(6)
def test_nobody_is_late_while_our_own_beats_fail(watcher: Watcher) -> None:
    assert watcher.watch(600, beating=False) == []


def test_all_timers_start_anew_once_our_own_last_beat_is_older_than_two_intervals(watcher: Watcher) -> None:
    assert watcher.watch(30) == []
    assert watcher.watch(11, beating=False) == []
    assert watcher.watch(45) == []
    assert watcher.watch(5) == [THEIRS]


def test_a_beat_of_ours_that_is_two_intervals_old_changes_nothing(watcher: Watcher) -> None:
    assert watcher.watch(35) == []
    assert watcher.watch(10, beating=False) == [THEIRS]


def test_after_a_stall_we_wait_for_as_long_as_it_was(watcher: Watcher) -> None:
    assert watcher.watch(100, beating=False) == []
    assert watcher.watch(100) == []
    assert watcher.watch(10) == [THEIRS]


def test_but_for_no_longer_than_five_minutes(watcher: Watcher) -> None:
    assert watcher.watch(3000, beating=False) == []
    assert watcher.watch(LONGEST_ALLOWANCE_SECONDS) == []
    assert watcher.watch(10) == [THEIRS]


def test_a_stall_never_shortens_a_long_ttl(layout: Layout, lease: Lease, theirs: Lease, world: World) -> None:
    watcher = Watcher(layout, lease, world, Format(beat_seconds=60, ttl_seconds=900))
    watcher.look()
    assert watcher.watch(200, beating=False) == []
    assert watcher.watch(890) == []


def test_the_patience_of_a_stall_ends_with_it(watcher: Watcher, layout: Layout, world: World) -> None:
    watcher.watch(100, beating=False)
    assert watcher.watch(120) == [THEIRS]
    Lease.join(layout, "later-000000-9-abcd", holder(), system=world.system)
    watcher.look()
    assert watcher.watch(44) == []
    assert watcher.watch(2) == ["later-000000-9-abcd"]


@pytest.mark.invariant(6)
def test_an_observer_that_was_frozen_starts_anew_even_if_it_beats_before_it_looks(watcher: Watcher) -> None:
    """Two hosts frozen together: ours beats first, and must not fence the other for the time of the freeze."""
    watcher.world.pass_time(300)
    watcher.last_good_beat = watcher.world.uptime
    assert watcher.look() == []
    assert watcher.watch(299) == []
    assert watcher.watch(6) == [THEIRS]


def test_a_look_that_is_somewhat_late_is_no_freeze(watcher: Watcher) -> None:
    assert watcher.watch(45, step=22.5) == [THEIRS]
    assert watcher.observer.others == []


def test_a_beat_seen_costs_no_reading(watcher: Watcher, theirs: Lease, world: World) -> None:
    theirs.renew()
    world.forget()
    watcher.watch(5)
    assert [call.what for call in world.asked("utime", "listdir", "read")] == ["utime", "listdir"]


def test_a_listing_that_fails_is_an_error(watcher: Watcher, world: World) -> None:
    world.refuse("listdir", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        watcher.look()


# The same host


def test_a_holder_known_dead_is_fenced_at_once(watcher: Watcher) -> None:
    watcher.dead.add(9)
    assert watcher.look() == [THEIRS]


def test_even_while_our_own_beats_fail(watcher: Watcher) -> None:
    watcher.watch(100, beating=False)
    watcher.dead.add(9)
    assert watcher.look() == [THEIRS]


@pytest.mark.invariant(6)
def test_a_lease_that_another_keeper_took_over_is_not_fenced_for_the_first_ones_death(
    watcher: Watcher, layout: Layout, theirs: Lease
) -> None:
    Lease.take_over(layout, THEIRS, holder(pid=10))
    watcher.dead.add(9)
    assert watcher.look() == []


def test_an_unreadable_lease_is_only_fenced_by_time(
    layout: Layout, lease: Lease, theirs: Lease, world: World
) -> None:
    with open(theirs.path, "wb"):
        pass
    watcher = Watcher(layout, lease, world)
    watcher.dead.add(9)
    assert watcher.watch(40) == []
    assert watcher.watch(10) == [THEIRS]


def test_a_holder_that_could_not_be_read_is_read_at_its_next_beat(
    layout: Layout, lease: Lease, theirs: Lease, world: World
) -> None:
    world.refuse("read", errno.EIO)
    watcher = Watcher(layout, lease, world)
    watcher.look()
    theirs.renew()
    watcher.dead.add(9)
    assert watcher.look() == [THEIRS]


def test_the_others_are_told(watcher: Watcher, theirs: Lease) -> None:
    assert watcher.observer.others == [THEIRS]
    theirs.leave()
    watcher.look()
    assert watcher.observer.others == []


# Whose claims may be taken back


@pytest.mark.invariant(6)
def test_a_live_lease_is_not_abandoned(watcher: Watcher) -> None:
    assert watcher.observer.abandoned([THEIRS]) == set()


def test_a_lease_missing_from_two_quick_listings_is(watcher: Watcher, theirs: Lease, world: World) -> None:
    theirs.leave()
    world.forget()
    assert watcher.observer.abandoned([THEIRS, "gone-000000-1-abcd"]) == {THEIRS, "gone-000000-1-abcd"}
    assert [call.what for call in world.asked("utime", "listdir")] == ["utime", "listdir", "utime", "listdir"]


@pytest.mark.invariant(6)
@pytest.mark.parametrize("hidden_in", [1, 2])
def test_a_lease_that_a_beat_hides_from_one_listing_is_not(
    watcher: Watcher, world: World, layout: Layout, hidden_in: int
) -> None:
    def hide() -> None:
        world.hidden.add(f"{THEIRS}.0")

    if hidden_in == 1:
        hide()
        world.after("listdir", world.hidden.clear)
    else:
        world.after("listdir", hide)
    assert watcher.observer.abandoned([THEIRS]) == set()


@pytest.mark.invariant(6)
@pytest.mark.parametrize(("first", "second"), [(2.5, 0.0), (0.0, 2.5), (1.25, 1.25)])
def test_two_listings_that_take_half_a_beat_interval_prove_nothing(
    watcher: Watcher, theirs: Lease, world: World, first: float, second: float
) -> None:
    theirs.leave()
    world.take("listdir", first)
    world.after("listdir", lambda: world.take("listdir", second))
    assert watcher.observer.abandoned([THEIRS]) == set()


def test_just_under_half_a_beat_interval_is_enough(watcher: Watcher, theirs: Lease, world: World) -> None:
    theirs.leave()
    world.take("listdir", 1.2, times=2)
    assert watcher.observer.abandoned([THEIRS]) == {THEIRS}


@pytest.mark.invariant(6)
def test_the_own_lease_is_never_abandoned_though_it_is_not_listed(watcher: Watcher, lease: Lease) -> None:
    lease.leave()
    assert watcher.observer.abandoned([lease.name]) == set()


def test_nothing_is_listed_if_there_are_no_others_claims(
    watcher: Watcher, lease: Lease, world: World
) -> None:
    world.forget()
    assert watcher.observer.abandoned([lease.name]) == set()
    assert world.calls == []


@pytest.mark.parametrize("which", [0, 1])
def test_a_listing_that_fails_proves_nothing(
    watcher: Watcher, theirs: Lease, world: World, which: int
) -> None:
    theirs.leave()
    fail: Callable[[], None] = lambda: world.refuse("listdir", errno.EIO)  # noqa: E731
    if which:
        world.after("listdir", fail)
    else:
        fail()
    with pytest.raises(OSError, match="Input/output"):
        watcher.observer.abandoned([THEIRS])


def test_a_fence_whose_reply_was_lost_has_ended_the_lease(
    watcher: Watcher, layout: Layout, world: World
) -> None:
    watcher.watch(44)
    world.lose_reply("rename", errno.ENOENT)
    assert watcher.watch(1) == [], "somebody did it"
    assert not any(name.startswith(THEIRS) for name in os.listdir(layout.leases))
    assert watcher.observer.abandoned([THEIRS]) == {THEIRS}


def test_holders_are_plain_facts() -> None:
    assert isinstance(holder(), LeaseHolder)
    assert leases.LeaseHolder.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_a_lease_that_can_not_be_ended_holds_up_no_other_and_is_tried_after_a_pause(
    watcher: Watcher, layout: Layout, world: World
) -> None:
    Lease.join(layout, "zzz-000000-9-abcd", holder(pid=9), system=world.system)
    watcher.look()
    watcher.watch(44)
    world.refuse("rename", errno.EPERM, where=THEIRS, times=2)
    assert watcher.watch(1) == ["zzz-000000-9-abcd"]
    assert watcher.watch(1) == []
    assert watcher.watch(1) == []
    assert watcher.watch(1) == [THEIRS]


def test_a_fenced_lease_takes_its_status_file_along(watcher: Watcher, layout: Layout) -> None:
    put(layout.status, f"{THEIRS}.json")
    put(layout.status, "another-000000-9-abcd.json")
    assert watcher.watch(45) == [THEIRS]
    assert os.listdir(layout.status) == ["another-000000-9-abcd.json"]
    assert f"{THEIRS}.json" in os.listdir(layout.fenced)


def test_a_status_file_that_can_not_be_moved_does_not_keep_the_lease_from_its_end(
    watcher: Watcher, layout: Layout, world: World
) -> None:
    put(layout.status, f"{THEIRS}.json")
    world.refuse("rename", errno.EACCES, where="/status/")
    assert watcher.watch(45) == [THEIRS]
