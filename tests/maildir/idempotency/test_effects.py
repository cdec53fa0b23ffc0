"""An effect is new once, interrupted until it is ended, and then done for good, whatever dies, is lost or late."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
from pathlib import Path

import pytest

from maildefer.errors import MaildeferError, MountFault, NoSpace, StaleHandle
from maildefer.maildir.idempotency import effects
from maildefer.maildir.idempotency.effects import Effect, EffectState, EffectSweeper
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.system import SYSTEM, System
from maildefer.maildir.upkeep.sweep import WATCHED_SECONDS, Sweeper
from tests.support.deaths import Death, Mortal
from tests.support.queues import START, World, put

NAME, OTHER = "3f" + "2a" * 15, "3f" + "2b" * 15
KEY = "1700000000.M1P2Q3R4.host,S=5"
NEW: EffectState = "new"
INTERRUPTED: EffectState = "interrupted"
DONE: EffectState = "done"
DAY = 86400.0


@pytest.fixture(autouse=True)
def _another_process() -> None:
    effects._durable.clear()


def effect(
    layout: Layout, world: World | None = None, name: str = NAME, *, system: System | None = None
) -> Effect:
    facts = f"{KEY}\0invoice".encode()
    return Effect(layout, name, facts, system=system or (world or World(tokens=1000)).system)


def record(layout: Layout, name: str = NAME) -> list[str]:
    return os.listdir(f"{layout.control}/once/{name[:2]}/{name}")


def test_an_effect_is_new_then_done_on_every_host(layout: Layout, world: World) -> None:
    first = effect(layout, world)
    assert first.begin() == NEW
    assert first.end()
    assert effect(layout).begin() == DONE
    assert effect(layout, world).begin() == DONE


def test_what_was_begun_and_not_ended_is_interrupted_until_it_is_ended(layout: Layout, world: World) -> None:
    assert effect(layout, world).begin() == NEW
    assert effect(layout, world).begin() == INTERRUPTED
    third = effect(layout)
    assert third.begin() == INTERRUPTED
    assert third.end()
    assert effect(layout, world).begin() == DONE


def test_effects_are_told_apart(layout: Layout, world: World) -> None:
    assert effect(layout, world).begin() == NEW
    assert effect(layout, world, OTHER).begin() == NEW


def test_an_owner_that_was_fenced_cannot_end_what_another_has_begun(layout: Layout, world: World) -> None:
    fenced, other = effect(layout, world), effect(layout)
    assert (fenced.begin(), other.begin()) == (NEW, INTERRUPTED)
    assert not fenced.end()
    assert effect(layout).begin() == INTERRUPTED


def test_it_can_end_what_nobody_else_has_begun(layout: Layout, world: World) -> None:
    """Its claim may be lost: what it has done is done all the same."""
    fenced = effect(layout, world)
    assert (fenced.begin(), fenced.end(), effect(layout).begin()) == (NEW, True, DONE)


@pytest.mark.parametrize(("what", "where"), [("rename", NAME), ("mkdir", ".effect-"), ("listdir", NAME)])
def test_of_two_that_begin_at_the_same_moment_one_is_first_at_most_and_only_one_can_end(
    layout: Layout, world: World, what: str, where: str
) -> None:
    mine, others = effect(layout, world), effect(layout)
    states: list[EffectState] = []
    world.before(what, lambda: states.append(others.begin()), where=where)
    states.append(mine.begin())
    assert DONE not in states
    assert states.count(NEW) <= 1
    assert [mine.end(), others.end()].count(True) == 1
    assert os.listdir(layout.tmp) == []


def test_of_two_that_go_on_with_one_at_the_same_moment_the_last_can_end(layout: Layout, world: World) -> None:
    effect(layout).begin()
    mine, others = effect(layout, world), effect(layout)
    world.before("rename", lambda: others.begin(), where=NAME)
    assert mine.begin() == INTERRUPTED
    assert (others.end(), mine.end()) == (False, True)


@pytest.mark.invariant(1)
def test_a_begin_is_on_the_disk_before_the_block_and_an_end_before_it_is_told(
    layout: Layout, world: World
) -> None:
    mine = effect(layout, world)
    mine.begin()
    asked = [
        (call.what, call.arguments[-1].removeprefix(f"{layout.control}/"))
        for call in world.asked("fsync", "rename")
    ]
    made = [place for what, place in asked if "/.effect-" in place and what == "fsync"]
    assert [what for what, _ in asked] == ["fsync"] * 4 + ["rename", "fsync"]
    assert asked[:2] == [("fsync", layout.control), ("fsync", "once")]
    assert len(made) == 2  # the file, and the folder
    assert asked[-2:] == [("rename", f"once/3f/{NAME}"), ("fsync", "once/3f")]
    world.forget()
    mine.end()
    assert [call.what for call in world.asked("fsync", "rename")] == ["rename", "fsync"]
    world.forget()
    assert effect(layout, world).begin() == DONE
    assert [call.what for call in world.asked("fsync", "rename")] == [
        "fsync"
    ]  # its maker may have died before that


@pytest.mark.parametrize("fault", [errno.EIO, errno.ENOENT, errno.ESTALE, errno.EINTR, errno.ETIMEDOUT])
def test_lost_replies_change_nothing(layout: Layout, world: World, fault: int) -> None:
    mine = effect(layout, world)
    world.lose_reply("rename", fault, where=NAME)
    assert mine.begin() == NEW
    world.lose_reply("rename", fault, where=NAME)
    assert mine.end()
    other = effect(layout, world, OTHER)
    effect(layout, name=OTHER).begin()
    world.lose_reply("rename", fault, where=OTHER)
    assert other.begin() == INTERRUPTED
    assert other.end()


@pytest.mark.parametrize("is_first", [True, False])
def test_a_look_at_a_folder_that_is_stale_for_a_moment_is_repeated(
    layout: Layout, world: World, is_first: bool
) -> None:
    """After a lost reply an NFS client knows the folder by two names; looks fail while its other processes rename."""
    if not is_first:
        effect(layout).begin()
    world.refuse("listdir", errno.ESTALE, where=NAME, times=20)
    assert effect(layout, world).begin() == (NEW if is_first else INTERRUPTED)


def test_one_that_stays_stale_is_a_fault(layout: Layout, world: World) -> None:
    world.refuse("listdir", errno.ESTALE, where=NAME, times=100)
    with pytest.raises(StaleHandle, match="mount the filesystem anew"):
        effect(layout, world).begin()


@pytest.mark.parametrize("fault", [errno.EIO, errno.ESTALE])
def test_a_begin_that_lands_late_is_interrupted(layout: Layout, world: World, fault: int) -> None:
    world.hold("rename", fault, where=NAME)
    with pytest.raises(MaildeferError):
        effect(layout, world).begin()
    assert world.land() == []
    assert effect(layout).begin() == INTERRUPTED


@pytest.mark.parametrize("fault", [errno.EIO, errno.ESTALE])
def test_an_end_that_lands_after_another_has_begun_ends_nothing(
    layout: Layout, world: World, fault: int
) -> None:
    mine = effect(layout, world)
    mine.begin()
    world.hold("rename", fault, where=NAME)
    with pytest.raises(MaildeferError):
        mine.end()
    assert effect(layout).begin() == INTERRUPTED
    assert world.land() == [errno.ENOENT]
    assert effect(layout).begin() == INTERRUPTED


@pytest.mark.parametrize(
    ("what", "where"), [("mkdir", ""), ("write", ".effect-"), ("rename", NAME), ("fsync", "once/3f")]
)
def test_a_begin_without_room_is_refused_and_can_be_begun_again(
    layout: Layout, world: World, what: str, where: str
) -> None:
    world.refuse(what, errno.ENOSPC, where=where)
    with pytest.raises(NoSpace):
        effect(layout, world).begin()
    assert os.listdir(layout.tmp) == []
    assert effect(layout, world).begin() != DONE


def test_an_end_that_is_not_on_the_disk_is_told_as_a_fault(layout: Layout, world: World) -> None:
    mine = effect(layout, world)
    mine.begin()
    world.refuse("fsync", errno.EIO, where=NAME)
    with pytest.raises(MountFault):
        mine.end()


@pytest.mark.parametrize("gone", [".maildefer/once", "tmp"])
def test_folders_that_a_clean_up_has_removed_are_made_again(layout: Layout, gone: str) -> None:
    effect(layout, name=OTHER).begin()
    shutil.rmtree(f"{layout.path}/{gone}")
    assert effect(layout).begin() == NEW


def test_a_record_that_was_removed_is_not_ended(layout: Layout, world: World) -> None:
    mine = effect(layout, world)
    mine.begin()
    shutil.rmtree(f"{layout.control}/once")
    assert not mine.end()


def test_other_things_in_its_place_are_a_fault(layout: Layout, world: World) -> None:
    os.makedirs(mine := effect(layout, world).path)
    put(mine, "notes.txt")
    with pytest.raises(MaildeferError, match="holds other things"):
        effect(layout, world).begin()
    assert os.listdir(layout.tmp) == []


def test_an_empty_folder_is_none(layout: Layout, world: World) -> None:
    os.makedirs(effect(layout, world).path)
    assert effect(layout, world).begin() == NEW


def attempt(layout: Layout, system: System, told: list[object]) -> None:
    mine = effect(layout, system=system)
    told.append(mine.begin())
    told.append(mine.end())


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("is_second", [True, False])
@pytest.mark.slow
def test_a_death_at_any_call_leaves_it_new_or_interrupted_before_its_end_and_done_after_it(
    tmp_path: Path, before: bool, is_second: bool
) -> None:
    create_queue(str(tmp_path / "queue"))
    if is_second:
        effect(Layout(str(tmp_path / "queue"))).begin()
    seen = set()
    for step in itertools.count():
        layout = Layout(str(shutil.copytree(tmp_path / "queue", tmp_path / f"queue{step}")))
        effects._durable.clear()
        told: list[object] = []
        try:
            attempt(layout, Mortal(World().system, step, before=before).system, told)
        except Death:
            pass
        else:
            break
        found = effect(layout).begin()
        seen.add((len(told), found))
        allowed = [{INTERRUPTED} if is_second else {NEW, INTERRUPTED}, {INTERRUPTED, DONE}]
        assert found in allowed[len(told)], step
        assert effect(layout).begin() == (DONE if found == DONE else INTERRUPTED), step
    assert step > (8 if is_second else 30)
    assert {state for count, state in seen if count} == {INTERRUPTED, DONE}
    assert effect(layout).begin() == DONE


@pytest.mark.slow
def test_so_it_is_after_kill_9_at_each_of_its_system_calls(tmp_path: Path) -> None:
    create_queue(str(tmp_path / "queue"))
    found: list[EffectState] = []
    for step in itertools.count():
        layout = Layout(str(shutil.copytree(tmp_path / "queue", tmp_path / f"queue{step}")))
        if (pid := os.fork()) == 0:
            mortal = Mortal(SYSTEM, step, before=False, die=lambda: os.kill(os.getpid(), signal.SIGKILL))
            attempt(layout, mortal.system, [])
            os._exit(0)
        if os.waitpid(pid, 0)[1] == 0:
            break
        found.append(effect(layout).begin())
    assert len(found) > 30
    assert [state for state, _ in itertools.groupby(found)] == [NEW, INTERRUPTED, DONE]
    assert effect(layout).begin() == DONE


# Sweeping


def old(layout: Layout, name: str = NAME) -> Path:
    effect(layout, name=name).begin()
    path = Path(effect(layout, name=name).path)
    os.utime(path, (START - 32 * DAY,) * 2)
    return path


def swept(layout: Layout, world: World, *others: Layout) -> EffectSweeper:
    return EffectSweeper(layout, lambda: others, system=world.system)


def test_the_record_of_a_message_that_is_nowhere_goes_after_a_month_and_two_looks(
    layout: Layout, world: World
) -> None:
    path, sweeper = old(layout), swept(layout, world)
    effect(layout, name=OTHER).begin()
    assert (sweeper.expire(START), sweeper.expire(START)) == (0, 1)
    assert not path.exists()
    assert record(layout, OTHER)
    assert (sweeper.expire(START), sweeper.expire(START)) == (0, 0)


@pytest.mark.parametrize("where", ["new", "cur", ".later/new", ".later/cur", ".dead/new", ".dead/cur"])
@pytest.mark.parametrize("is_others", [True, False])
def test_it_stays_while_the_message_is_anywhere_in_a_queue_of_the_project(
    layout: Layout, world: World, tmp_path: Path, where: str, is_others: bool
) -> None:
    other = create_queue(str(tmp_path / "other"))
    path, sweeper = old(layout), swept(layout, world, layout, other)
    entry = f"{(other if is_others else layout).path}/{where}/{KEY},a=1,n=2"
    Path(entry).write_bytes(b"")
    assert [sweeper.expire(START) for _ in range(3)] == [0, 0, 0]
    os.unlink(entry)
    assert [sweeper.expire(START) for _ in range(2)] == [0, 1]
    assert not path.exists()


def test_a_message_that_one_look_overlooks_keeps_its_record(layout: Layout, world: World) -> None:
    path, sweeper = old(layout), swept(layout, world)
    assert sweeper.expire(START) == 0
    put(layout.new, KEY)
    assert sweeper.expire(START) == 0
    os.unlink(f"{layout.new}/{KEY}")
    assert (sweeper.expire(START), path.exists()) == (0, True)


def test_a_record_that_is_begun_again_meanwhile_stays(layout: Layout, world: World) -> None:
    path, sweeper = old(layout), swept(layout, world)
    sweeper.expire(START)
    effect(layout).begin()
    assert (sweeper.expire(START), path.exists()) == (0, True)


def test_while_a_queue_of_the_project_is_away_none_goes(layout: Layout, world: World, tmp_path: Path) -> None:
    path = old(layout)
    sweeper = swept(layout, world, Layout(str(tmp_path / "unmounted")))
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            sweeper.expire(START)
    assert path.exists()


def test_the_keepers_sweep_does_it_and_looks_at_nothing_more_in_a_queue_without_effects(
    layout: Layout, world: World
) -> None:
    sweeper = Sweeper(layout, queues=lambda: [layout], system=world.system)
    sweeper.sweep(START)
    assert [str(call) for call in world.calls if "once" in call.arguments[0]] == ["open once"]
    path = old(layout)
    assert (sweeper.sweep(START), sweeper.sweep(START)) == (0, 1)
    assert not path.exists()


def test_a_draft_that_a_death_has_left_is_swept(layout: Layout, world: World) -> None:
    world.hold("rename", errno.EIO, where=NAME)
    with pytest.raises(MaildeferError):
        effect(layout, world).begin()
    [draft] = os.listdir(layout.tmp)
    os.utime(f"{layout.tmp}/{draft}", (START - 3 * DAY,) * 2)
    sweeper = Sweeper(layout, system=world.system)
    sweeper.sweep(START)
    world.pass_time(WATCHED_SECONDS + 1)
    sweeper.sweep(START)
    assert os.listdir(layout.tmp) == []
