"""Clearing away what crashes left."""

from __future__ import annotations

import errno
import os
import time

import pytest

from maildefer.maildir import reasons
from maildefer.maildir.layout import Layout
from maildefer.maildir.markers.markers import Markers
from maildefer.maildir.markers.names import hash_of
from maildefer.maildir.names import EntryName
from maildefer.maildir.upkeep import sweep
from maildefer.maildir.upkeep.leases import Lease
from maildefer.maildir.upkeep.sweep import KEPT_SECONDS, WATCHED_SECONDS, Sweeper
from tests.support.queues import LABEL, START, World, everywhere, put

UNIQUE = ".maildefer/unique"
LONG_AGO = START - KEPT_SECONDS - 1


@pytest.fixture
def sweeper(layout: Layout, world: World) -> Sweeper:
    return Sweeper(layout, system=world.system)


def old(path: str, when: float = LONG_AGO) -> str:
    if not os.path.lexists(path):
        with open(path, "xb"):
            pass
    os.utime(path, (when, when))
    return path


def watched(sweeper: Sweeper, world: World, mount_time: float = START) -> int:
    """Sweep, watch for the hour, sweep; how many were removed by the second sweep."""
    assert sweeper.sweep(mount_time) == 0
    world.pass_time(WATCHED_SECONDS)
    return sweeper.sweep(mount_time)


def test_an_old_draft_that_was_watched_for_an_hour_is_removed(
    sweeper: Sweeper, layout: Layout, world: World
) -> None:
    old(f"{layout.tmp}/x")
    assert sweeper.sweep(START) == 0
    world.pass_time(WATCHED_SECONDS - 1)
    assert sweeper.sweep(START) == 0
    world.pass_time(1)
    assert sweeper.sweep(START) == 1
    assert everywhere(layout) == {}


@pytest.mark.parametrize(
    ("age", "removed"), [(36 * 3600 - 1, 0), (36 * 3600 + 1, 1)]
)  # as Maildir's writers do
def test_a_draft_is_old_after_36_hours_of_the_mounts_time(
    sweeper: Sweeper, layout: Layout, world: World, age: float, removed: int
) -> None:
    old(f"{layout.tmp}/x", START - age)
    assert watched(sweeper, world) == removed


def test_neither_clock_alone_removes_a_draft(sweeper: Sweeper, layout: Layout, world: World) -> None:
    old(f"{layout.tmp}/new", START)
    assert watched(sweeper, world, START) == 0
    assert sweeper.sweep(START + 1e9) == 1, "the mount's time and the watching together"


def test_a_name_that_was_gone_is_watched_anew(sweeper: Sweeper, layout: Layout, world: World) -> None:
    old(f"{layout.tmp}/x")
    sweeper.sweep(START)
    os.unlink(f"{layout.tmp}/x")
    sweeper.sweep(START)
    old(f"{layout.tmp}/x")
    world.pass_time(WATCHED_SECONDS)
    assert sweeper.sweep(START) == 0


def test_entries_leases_and_states_are_never_swept(
    sweeper: Sweeper, layout: Layout, lease: Lease, world: World
) -> None:
    for directory in (
        layout.new,
        layout.cur,
        layout.later_new,
        layout.dead_new,
        layout.states,
        layout.tokens,
    ):
        old(f"{directory}/x")
    old(lease.path)
    old(layout.format)
    assert watched(sweeper, world) == 0


def test_fenced_leases_and_answered_requests_are_kept_for_a_week(
    sweeper: Sweeper, layout: Layout, world: World
) -> None:
    for directory in (layout.fenced, layout.requests_done):
        old(f"{directory}/old")
        old(f"{directory}/new", START - KEPT_SECONDS + 10)
    assert watched(sweeper, world) == 2
    assert os.listdir(layout.fenced) == os.listdir(layout.requests_done) == ["new"]


def test_a_request_stays_while_its_lease_lives_and_goes_where_nobody_will_answer(
    sweeper: Sweeper, layout: Layout, lease: Lease, world: World
) -> None:
    old(f"{layout.requests}/{lease.name}.stop")
    old(f"{layout.requests}/gone-000000-1-abcd.stop")
    assert watched(sweeper, world) == 1
    assert set(os.listdir(layout.requests)) == {f"{lease.name}.stop", "done"}


def test_the_status_of_a_live_lease_stays_and_of_a_gone_one_goes(
    sweeper: Sweeper, layout: Layout, lease: Lease, world: World
) -> None:
    old(f"{layout.status}/{lease.name}.json")
    old(f"{layout.status}/gone-000000-1-abcd.json")
    assert watched(sweeper, world) == 1
    assert os.listdir(layout.status) == [f"{lease.name}.json"]


@pytest.mark.parametrize("folder", ["dead_new", "dead_cur"])
def test_a_reason_stays_with_its_dead_letter_and_goes_a_week_after_it(
    sweeper: Sweeper, layout: Layout, world: World, folder: str
) -> None:
    dead = EntryName(key="1.x", attempts=1, returns=3)
    reasons.write_reason(layout, dead, "no route", {}, host=LABEL, system=world.system)
    old(reasons.reason_path(layout, dead))
    info = ":2,S" if folder == "dead_cur" else ""
    put(getattr(layout, folder), dead.waiting() + info)
    assert watched(sweeper, world) == 0
    os.unlink(f"{getattr(layout, folder)}/{dead.waiting()}{info}")
    assert watched(sweeper, world) == 1
    assert os.listdir(layout.reasons) == []


def test_the_reason_of_an_earlier_burial_goes_though_the_entry_was_buried_again(
    sweeper: Sweeper, layout: Layout, world: World
) -> None:
    old(f"{layout.reasons}/1.x,n=1.json")
    old(f"{layout.reasons}/1.x,n=3.json")
    put(layout.dead_new, "1.x,a=1,n=3")
    assert watched(sweeper, world) == 1
    assert os.listdir(layout.reasons) == ["1.x,n=3.json"]


def test_the_draft_of_a_control_folder_is_removed_whole(
    sweeper: Sweeper, layout: Layout, world: World
) -> None:
    draft = f"{layout.tmp}/.maildefer-1-abcd"
    os.makedirs(f"{draft}/requests/done")
    old(f"{draft}/format")
    old(draft)
    assert watched(sweeper, world) == 1
    assert os.listdir(layout.tmp) == []


def test_a_link_is_removed_and_not_what_it_points_to(sweeper: Sweeper, layout: Layout, world: World) -> None:
    os.symlink(layout.new, f"{layout.tmp}/link")
    os.utime(f"{layout.tmp}/link", (LONG_AGO, LONG_AGO), follow_symlinks=False)
    put(layout.new, "X")
    assert watched(sweeper, world) == 1
    assert list(everywhere(layout)) == ["new/X"]


def test_one_file_that_cannot_be_removed_does_not_keep_the_others(
    sweeper: Sweeper, layout: Layout, world: World
) -> None:
    for name in ("a", "b", "c"):
        old(f"{layout.tmp}/{name}")
    sweeper.sweep(START)
    world.pass_time(WATCHED_SECONDS)
    world.refuse("unlink", errno.EACCES)
    assert sweeper.sweep(START) == 2
    assert sweeper.sweep(START) == 1


@pytest.mark.parametrize("what", ["listdir", "lstat"])
def test_faults_are_passed_over(sweeper: Sweeper, layout: Layout, world: World, what: str) -> None:
    old(f"{layout.tmp}/x")
    world.refuse(what, errno.EIO, times=100)
    assert watched(sweeper, world) == 0


def test_a_sweep_is_bounded(
    sweeper: Sweeper, layout: Layout, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_MOST", 3)
    for number in range(10):
        old(f"{layout.tmp}/{number}")
    removed = [watched(sweeper, world)]
    assert len(sweeper._first_seen) <= 12
    while os.listdir(layout.tmp):
        sweeper.sweep(START)
        world.pass_time(WATCHED_SECONDS)
        removed.append(sweeper.sweep(START))
        assert removed[-1]
    assert sum(removed) <= 10


def test_what_dovecot_keeps_in_a_queue_is_never_swept(sweeper: Sweeper, layout: Layout, world: World) -> None:
    """It takes every folder with a dot for a mailbox, ours too."""
    for folder in ("", "/.later", "/.dead", "/.maildefer"):
        for name in ("dovecot-uidlist", "dovecot.index.log", "dovecot.index.cache"):
            old(f"{layout.path}{folder}/{name}")
    for name in ("cur", "new", "tmp"):
        os.mkdir(f"{layout.path}/.maildefer/{name}")
    before = sorted(os.walk(layout.path))
    assert watched(sweeper, world) == 0
    assert sorted(os.walk(layout.path)) == before


def unended(layout: Layout) -> set[str]:
    return {path for path in everywhere(layout) if path.startswith(("new/", "cur/", ".later/"))}


def place_of(layout: Layout, name: str) -> str:
    return f"{layout.path}/{UNIQUE}/{hash_of(name)}"


def push_marked(layout: Layout, name: str) -> str:
    return Markers(layout, host=LABEL).push(name, lambda stem: [b"x"]).key


def make_older(layout: Layout, name: str, seconds: float) -> None:
    """Make a marker's folder, and the marker in it, older."""
    place = place_of(layout, name)
    for path in (*(f"{place}/{file}" for file in os.listdir(place)), place):
        since = os.stat(path).st_mtime - seconds
        os.utime(path, (since, since))


def test_a_marker_whose_entry_has_ended_is_removed_after_36_hours(sweeper: Sweeper, layout: Layout) -> None:
    for name in ("by hand", "by a worker that was killed", "waiting", "fresh"):
        push_marked(layout, name)
    keys = {
        name: os.listdir(place_of(layout, name))[0] for name in ("by hand", "by a worker that was killed")
    }
    os.unlink(f"{layout.new}/{keys['by hand']}")
    killed = keys["by a worker that was killed"]
    os.rename(f"{layout.new}/{killed}", f"{place_of(layout, 'by a worker that was killed')}/{killed}.ended")
    for name in ("by hand", "by a worker that was killed", "waiting"):
        make_older(layout, name, 37 * 3600)
    before = unended(layout)
    assert sweeper.sweep(time.time()) == 2
    assert set(os.listdir(f"{layout.path}/{UNIQUE}")) == {hash_of("waiting"), hash_of("fresh")}
    assert unended(layout) == before
    assert sweeper.sweep(time.time() + 36 * 3600 - 60) == 0, "what was seen alive is left alone for as long"


def test_a_sweep_carries_out_a_push_that_was_killed_after_its_marker_was_made(
    sweeper: Sweeper, layout: Layout
) -> None:
    key = push_marked(layout, "order-17")
    os.rename(f"{layout.new}/{key}", f"{place_of(layout, 'order-17')}/{key}.draft")
    make_older(layout, "order-17", 37 * 3600)
    assert sweeper.sweep(time.time()) == 0
    assert unended(layout) == {f"new/{key}"}
    assert os.listdir(place_of(layout, "order-17")) == [key]


def test_a_markers_folder_that_a_crash_has_left_in_tmp_is_removed_and_a_late_rename_revives_nothing(
    sweeper: Sweeper, layout: Layout, world: World
) -> None:
    draft = f"{layout.tmp}/.marker-1-0a1b"
    os.mkdir(draft)
    for name in ("K,q=0123456789abcdef,S=1", "K,q=0123456789abcdef,S=1.draft"):
        put(draft, name)
    old(draft)
    seen: list[list[str]] = []
    world.before("unlink", lambda: seen.append(sorted(os.listdir(draft))), where=".marker-", times=9)
    assert watched(sweeper, world) == 1
    assert os.listdir(layout.tmp) == []
    key = "K,q=0123456789abcdef,S=1"
    assert seen == [[key, f"{key}.ended"], [f"{key}.ended"]], "at each moment it is one whose entry has ended"


def test_answers_are_looked_at_once_a_minute_and_more_often_while_there_are_some_to_remove(
    sweeper: Sweeper, layout: Layout, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps: list[float] = []
    monkeypatch.setattr(Sweeper, "sweep", lambda self, mount_time: sweeps.append(mount_time) or 0)
    for number in range(250):
        path = f"{layout.control}/idempotency/3f/3f{number:030x}"
        os.makedirs(path)
        os.utime(path, (0, 0))
    waits = []
    for _ in range(40):
        sweeper.do_pass(START)
        waits.append(sweeper.wait_seconds)
        world.pass_time(sweeper.wait_seconds)
    assert waits == [3.0] * 3 + [60.0] * 37
    assert len(sweeps) == 3, "these are every fifteen minutes"
