"""The last instant of a periodic task: one file whose name moves on, and an entry for each instant."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from maildefer.maildir import journal
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.upkeep.sweep import DRAFT_SECONDS, WATCHED_SECONDS, Sweeper
from maildefer.maildir.upkeep.ticks import Tick, Ticks, tick_in
from tests.support.queues import DATA, LABEL, START, World, everywhere, put

FOLDER = "workers.nightly.digest@0123456789ab"
OTHER = "other-000000"


@pytest.fixture
def ticks(layout: Layout, world: World) -> Ticks:
    return Ticks(layout, host=LABEL, system=world.system)


@pytest.fixture
def others(layout: Layout, world: World) -> Ticks:
    """Another host's."""
    return Ticks(layout, host=OTHER, system=world.system)


def compose(stem: str) -> list[bytes]:
    return [DATA]


def test_what_a_keeper_pushes_is_on_record_though_it_began_before_the_journal(tmp_path: Path) -> None:
    layout = Layout(f"{tmp_path}/queue")
    ticks = Ticks(layout, host=LABEL)
    create_queue(layout.path)
    journal.begin_journal(layout)
    tick, is_ours = ticks.push(FOLDER, ticks.begin(FOLDER, 100), 200, compose)
    assert is_ours
    journal.close_journals()
    [record] = Path(layout.journal).glob("*.pushed")
    assert f" push {tick.key} ." in record.read_text()


def names(layout: Layout) -> list[str]:
    return os.listdir(f"{layout.periodic}/{FOLDER}")


def test_a_queue_without_periodic_tasks_has_no_folder_for_them(layout: Layout, ticks: Ticks) -> None:
    assert ticks.last(FOLDER) is None
    assert ticks.paused() == set()
    assert not os.path.exists(layout.periodic)


def test_a_task_begins_without_an_entry(layout: Layout, ticks: Ticks) -> None:
    assert ticks.begin(FOLDER, 100) == ticks.last(FOLDER) == Tick(instant=100, key="")
    assert everywhere(layout) == {}
    assert os.listdir(layout.tmp) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_what_root_makes_in_a_shared_queue_is_the_owners(tmp_path: Path) -> None:
    """Else the pool of the queue's user could move nothing on."""
    layout, owner = create_queue(f"{tmp_path}/shared"), 54321
    for path, mode in (
        (layout.tmp, 0o3770),
        (layout.new, 0o3770),
        (layout.control, 0o2710),
        (layout.path, 0o3710),
    ):
        os.chown(path, owner, owner)
        os.chmod(path, mode)
    ticks = Ticks(layout, host=LABEL)
    tick, _ = ticks.push(FOLDER, ticks.begin(FOLDER, 100), 110, compose)
    ticks.pause("workers.nightly.digest")
    made = [layout.periodic, f"{layout.periodic}/{FOLDER}", f"{layout.periodic}/{FOLDER}/{tick.name}"]
    made += [f"{layout.new}/{tick.key}", f"{layout.periodic}/workers.nightly.digest.paused"]
    assert {os.stat(path).st_uid for path in made} == {owner}
    assert os.stat(layout.periodic).st_mode & 0o077 == 0


def test_the_second_host_that_begins_takes_what_the_first_has(
    layout: Layout, ticks: Ticks, others: Ticks
) -> None:
    ticks.begin(FOLDER, 100)
    assert others.begin(FOLDER, 105) == Tick(instant=100, key="")
    assert os.listdir(layout.tmp) == []


@pytest.mark.parametrize("fault", [errno.EIO, errno.ENOENT, errno.ESTALE])
def test_a_begin_that_lands_when_the_task_has_moved_on_changes_nothing(
    layout: Layout, ticks: Ticks, others: Ticks, world: World, fault: int
) -> None:
    world.hold("rename", fault, where="/periodic/")
    with pytest.raises(OSError, match=r".+"):
        ticks.begin(FOLDER, 100)
    last, _ = others.push(FOLDER, others.begin(FOLDER, 101), 110, compose)
    assert world.land() in ([errno.ENOTEMPTY], [errno.EEXIST])
    assert ticks.last(FOLDER) == last


def test_an_instant_has_one_entry_of_which_the_name_tells(layout: Layout, ticks: Ticks) -> None:
    tick, is_ours = ticks.push(FOLDER, ticks.begin(FOLDER, 100), 110, compose)
    assert is_ours
    assert everywhere(layout) == {f"new/{tick.key}": DATA}
    assert names(layout) == [f"110,{tick.key}"]
    assert ticks.last(FOLDER) == tick


def test_the_entry_is_on_the_disk_before_the_name_tells_of_it_and_the_name_before_it_is_in_new(
    ticks: Ticks, world: World
) -> None:
    begun = ticks.begin(FOLDER, 100)
    world.forget()
    ticks.push(FOLDER, begun, 110, compose)
    order = [str(call) for call in world.asked("fsync", "rename")]
    key = order[1].rpartition(" -> 110,")[2]
    assert order == [
        f"fsync {key}",
        f"rename 100, -> 110,{key}",
        f"fsync {FOLDER}",
        f"rename {key} -> {key}",
        "fsync new",
    ]


def test_the_host_that_loses_discards_its_draft_and_finishes_the_winners_entry(
    layout: Layout, ticks: Ticks, others: Ticks, world: World
) -> None:
    """As where the winner is killed between its two renames."""
    begun = ticks.begin(FOLDER, 100)
    world.refuse("rename", errno.EIO, where="/new/")
    with pytest.raises(OSError, match=r".+"):
        others.push(FOLDER, begun, 110, compose)
    tick, is_ours = ticks.push(FOLDER, begun, 110, compose)
    assert not is_ours
    assert OTHER in tick.key
    assert everywhere(layout) == {f"new/{tick.key}": DATA}
    assert os.listdir(layout.tmp) == []


@pytest.mark.parametrize("fault", [errno.EIO, errno.ENOENT, errno.ESTALE, errno.EINTR])
def test_a_move_whose_reply_is_lost_is_ones_own_all_the_same(
    layout: Layout, ticks: Ticks, world: World, fault: int
) -> None:
    begun = ticks.begin(FOLDER, 100)
    world.lose_reply("rename", fault, where="/periodic/")
    tick, is_ours = ticks.push(FOLDER, begun, 110, compose)
    assert is_ours
    assert everywhere(layout) == {f"new/{tick.key}": DATA}


def test_a_move_that_lands_late_finds_its_draft(layout: Layout, ticks: Ticks, world: World) -> None:
    begun = ticks.begin(FOLDER, 100)
    world.hold("rename", errno.EIO, where="/periodic/")
    with pytest.raises(OSError, match=r".+"):
        ticks.push(FOLDER, begun, 110, compose)
    assert world.land() == []
    last = ticks.last(FOLDER)
    assert last is not None
    assert last.instant == 110
    ticks.finish(last)
    assert everywhere(layout) == {f"new/{last.key}": DATA}


def test_a_move_that_lands_after_another_hosts_finds_nothing(
    layout: Layout, ticks: Ticks, others: Ticks, world: World
) -> None:
    begun = ticks.begin(FOLDER, 100)
    world.hold("rename", errno.EIO, where="/periodic/")
    with pytest.raises(OSError, match=r".+"):
        ticks.push(FOLDER, begun, 110, compose)
    tick, _ = others.push(FOLDER, begun, 110, compose)
    following, _ = others.push(FOLDER, tick, 120, compose)
    assert world.land() == [errno.ENOENT]
    assert ticks.last(FOLDER) == following
    assert {name.partition("/")[0] for name in everywhere(layout)} >= {"new"}
    assert len(os.listdir(layout.new)) == 2


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_move_that_is_refused_leaves_no_draft(
    layout: Layout, ticks: Ticks, world: World, fault: int
) -> None:
    begun = ticks.begin(FOLDER, 100)
    world.refuse("rename", fault, where="/periodic/")
    with pytest.raises(OSError, match=r".+"):
        ticks.push(FOLDER, begun, 110, compose)
    assert os.listdir(layout.tmp) == []
    assert ticks.last(FOLDER) == begun


@pytest.mark.parametrize(
    ("what", "where"), [("utime", FOLDER), ("listdir", FOLDER), ("fsync", FOLDER), ("rename", "/new/")]
)
def test_a_fault_after_a_move_loses_no_entry(
    layout: Layout, ticks: Ticks, world: World, what: str, where: str
) -> None:
    """One that says that it was refused is not about the move."""
    begun = ticks.begin(FOLDER, 100)
    world.lose_reply("rename", errno.ENOENT, where="/periodic/")
    world.refuse(what, errno.ENOSPC, where=where)
    with pytest.raises(OSError, match=r".+"):
        ticks.push(FOLDER, begun, 110, compose)
    last = ticks.last(FOLDER)
    assert last is not None
    assert last.instant == 110
    ticks.finish(last)
    assert everywhere(layout) == {f"new/{last.key}": DATA}


def test_an_entry_that_is_handled_is_not_revived_by_who_finishes_it_again(
    layout: Layout, ticks: Ticks, others: Ticks
) -> None:
    tick, _ = ticks.push(FOLDER, ticks.begin(FOLDER, 100), 110, compose)
    os.unlink(f"{layout.new}/{tick.key}")
    others.finish(tick)
    assert everywhere(layout) == {}


def test_a_missing_new_is_no_finished_entry_and_is_made_again(layout: Layout, ticks: Ticks) -> None:
    begun = ticks.begin(FOLDER, 100)
    os.rmdir(layout.new)
    last, is_ours = ticks.push(FOLDER, begun, 110, compose)
    assert is_ours
    assert os.listdir(layout.new) == [last.key]


@pytest.mark.invariant(1)
def test_an_entry_that_its_maker_has_moved_and_not_synced_is_on_the_disk_before_the_name_goes_on(
    layout: Layout, ticks: Ticks, others: Ticks, world: World
) -> None:
    """As where the host that won is killed after its second rename."""
    begun = ticks.begin(FOLDER, 100)
    world.refuse("fsync", errno.EIO, where="/new")
    with pytest.raises(OSError, match=r".+"):
        others.push(FOLDER, begun, 110, compose)
    world.forget()
    last = ticks.last(FOLDER)
    assert last is not None
    ticks.finish(last)
    assert [str(call) for call in world.asked("fsync")] == ["fsync new"]


def test_a_listing_that_a_rename_hides_the_name_from_is_taken_again(
    layout: Layout, ticks: Ticks, world: World
) -> None:
    begun = ticks.begin(FOLDER, 100)
    world.hide(begun.name)
    world.after("listdir", world.hidden.clear, where=FOLDER)
    assert ticks.last(FOLDER) == begun


def test_other_names_in_the_folder_are_none_of_ours(layout: Layout, ticks: Ticks) -> None:
    begun = ticks.begin(FOLDER, 100)
    for name in (".nfs000000000001", "x", "1e3,", "999999999999999,", ",", "-5,"):
        put(f"{layout.periodic}/{FOLDER}", name)
    assert ticks.last(FOLDER) == begun


def test_a_folder_from_which_the_file_was_removed_begins_anew(layout: Layout, ticks: Ticks) -> None:
    os.unlink(f"{layout.periodic}/{FOLDER}/{ticks.begin(FOLDER, 100).name}")
    assert ticks.last(FOLDER) is None
    assert ticks.begin(FOLDER, 200) == ticks.last(FOLDER) == Tick(instant=200, key="")


def test_a_folder_with_other_things_is_told_as_such(layout: Layout, ticks: Ticks) -> None:
    os.makedirs(f"{layout.periodic}/{FOLDER}")
    put(f"{layout.periodic}/{FOLDER}", "notes.txt")
    with pytest.raises(FileExistsError, match="tells no instant: remove it"):
        ticks.begin(FOLDER, 100)
    assert os.listdir(layout.tmp) == []


def test_an_entry_has_ended_once_it_is_in_no_folder_from_which_it_is_handled(
    layout: Layout, ticks: Ticks
) -> None:
    tick, _ = ticks.push(FOLDER, ticks.begin(FOLDER, 100), 110, compose)
    place = f"{layout.new}/{tick.key}"
    for following in (
        f"{layout.cur}/{tick.key},a=1:1,x-1-abcd.1.1",
        f"{layout.later_new}/{tick.key},n=1,d=9",
    ):
        assert not ticks.has_ended(tick)
        os.rename(place, following)
        place = following
    assert not ticks.has_ended(tick)
    os.rename(place, f"{layout.dead_new}/{tick.key},n=2")
    assert ticks.has_ended(tick)


def test_a_pause_is_seen_by_all_hosts_until_it_is_ended(ticks: Ticks, others: Ticks) -> None:
    assert ticks.pause("workers.nightly.digest")
    assert not others.pause("workers.nightly.digest")
    assert others.paused() == {"workers.nightly.digest"}
    assert others.resume("workers.nightly.digest")
    assert not ticks.resume("workers.nightly.digest")
    assert ticks.paused() == set()


def test_what_a_crash_leaves_of_a_task_that_begins_is_swept(
    layout: Layout, ticks: Ticks, world: World
) -> None:
    world.hold("rename", errno.EIO, where="/periodic/")
    with pytest.raises(OSError, match=r".+"):
        ticks.begin(FOLDER, 100)
    (draft,) = os.listdir(layout.tmp)
    os.utime(f"{layout.tmp}/{draft}", (START, START))
    sweeper = Sweeper(layout, system=world.system)
    assert sweeper.sweep(START + DRAFT_SECONDS + 60) == 0
    world.pass_time(WATCHED_SECONDS)
    assert sweeper.sweep(START + DRAFT_SECONDS + 60) == 1
    assert os.listdir(layout.tmp) == []


@pytest.mark.parametrize("name", ["", "12", "x,y", "1_0,", "٣,", "123456789012,", "5"])
def test_a_name_of_another_form_says_nothing(name: str) -> None:
    assert tick_in(name) is None
