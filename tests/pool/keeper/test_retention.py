"""Dead letters are deleted for their age, by the mount's time, and no others."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from maildefer import events
from maildefer.maildir import durable, reasons
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.names import EntryName
from maildefer.maildir.operator import entries
from maildefer.maildir.upkeep import grown
from maildefer.pool.keeper import retention
from maildefer.pool.keeper.retention import QueueSweeper
from tests.support.queues import START, World, leave_synced

DAY = 86400.0


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def layout(tmp_path: Path, world: World) -> Layout:
    return create_queue(str(tmp_path / "queue"))


@pytest.fixture
def deleted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    keys: list[str] = []
    monkeypatch.setattr(events, "emit", lambda event, **facts: keys.append(facts["key"]))
    return keys


def sweeper(layout: Layout, world: World, seconds: float | None = 30 * DAY) -> QueueSweeper:
    kept = {} if seconds is None else {"run/queue": seconds}
    context: Any = SimpleNamespace(
        queues=[SimpleNamespace(name="run/queue", layout=layout)],
        all_queues=tuple,
        ended_claims=set(),
        settings=SimpleNamespace(dead_retention=kept),
    )
    return QueueSweeper(context, 0, world.system)


def bury(layout: Layout, number: int, *, pushed: float, buried: float, folder: str = "dead_new") -> str:
    key = f"{int(pushed)}.M{number}P1Q1R0.h,S=3"
    path = Path(getattr(layout, folder), key)
    path.write_text("x\n\n")
    reason = Path(reasons.reason_path(layout, EntryName.parse(key)))
    reason.write_text("{}")
    os.utime(reason, (buried, buried))
    return key


def test_what_was_buried_longer_ago_goes_with_its_reason_and_what_was_not_stays(
    layout: Layout, world: World, deleted: list[str]
) -> None:
    old = bury(layout, 1, pushed=START - 50 * DAY, buried=START - 31 * DAY)
    read = bury(layout, 2, pushed=START - 50 * DAY, buried=START - 31 * DAY, folder="dead_cur")
    kept = [
        bury(layout, 3, pushed=START - 50 * DAY, buried=START - 29 * DAY),  # it was old when it was buried
        bury(layout, 4, pushed=START - DAY, buried=START - 31 * DAY),  # a clock was wrong
    ]
    sweeper(layout, world).do_pass(START)
    assert sorted(deleted) == sorted([old, read])
    assert sorted(os.listdir(layout.dead_new) + os.listdir(layout.dead_cur)) == sorted(kept)
    assert len(os.listdir(layout.reasons)) == 2


def test_without_a_setting_nothing_goes(layout: Layout, world: World, deleted: list[str]) -> None:
    bury(layout, 1, pushed=START - 5000 * DAY, buried=START - 4000 * DAY)
    sweeper(layout, world, None).do_pass(START)
    assert (deleted, len(os.listdir(layout.dead_new))) == ([], 1)


def test_without_its_reason_an_entry_is_as_old_as_its_last_rename(
    layout: Layout, world: World, deleted: list[str]
) -> None:
    key = bury(layout, 1, pushed=START - 50 * DAY, buried=0)
    os.unlink(reasons.reason_path(layout, EntryName.parse(key)))
    moved = os.lstat(f"{layout.dead_new}/{key}").st_ctime
    swept = sweeper(layout, world)
    swept.do_pass(moved + 29 * DAY)
    assert deleted == []
    swept.do_pass(moved + 31 * DAY)
    assert deleted == [key]


def test_a_pass_deletes_so_many_and_the_next_one_the_rest(
    layout: Layout, world: World, deleted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_MOST_DELETED", 2)
    for number in range(5):
        bury(layout, number, pushed=START - 50 * DAY, buried=START - 40 * DAY)
    swept = sweeper(layout, world)
    lengths = []
    for _ in range(3):
        swept.do_pass(START)
        lengths.append(len(deleted))
    assert lengths == [2, 4, 5]


def test_what_another_host_has_deleted_or_is_a_directory_holds_up_nothing(
    layout: Layout, world: World, deleted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(layout.dead_new, "1.strange").mkdir()
    keys = {bury(layout, number, pushed=START - 50 * DAY, buried=START - 40 * DAY) for number in range(3)}
    found = list(entries.list_entries(layout, "dead"))
    os.unlink(found[1].path)
    monkeypatch.setattr(entries, "list_entries", lambda *args, **more: iter(found))
    monkeypatch.setattr(QueueSweeper, "_buried_at", lambda self, found: 0.0)
    sweeper(layout, world).do_pass(START)
    assert set(deleted) == keys - {found[1].key}
    assert os.path.isdir(f"{layout.dead_new}/1.strange")


def keep(layout: Layout, name: str, folder: str = "done_new") -> str:
    os.makedirs(getattr(layout, folder), exist_ok=True)
    Path(getattr(layout, folder), name).write_text("x")
    return name


def test_what_was_kept_goes_when_its_time_is_over_whatever_the_settings_say(
    layout: Layout, world: World, deleted: list[str]
) -> None:
    until = int(START)
    keep(layout, f"1.a,n=1,d={until}")
    keep(layout, f"1.b,n=1,d={until - 1}:2,S", "done_cur")
    stay = [keep(layout, f"1.c,n=1,d={until + 1}"), keep(layout, "1.d,n=1"), keep(layout, "a readers own:2,")]
    sweeper(layout, world, None).do_pass(START)
    assert sorted(os.listdir(layout.done_new)) == sorted(stay)
    assert (os.listdir(layout.done_cur), deleted) == ([], [])
    sweeper(layout, world, None).do_pass(START + 2)
    assert len(os.listdir(layout.done_new)) == 2


def test_of_what_was_kept_a_pass_deletes_so_many(
    layout: Layout, world: World, deleted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_MOST_DELETED", 2)
    for number in range(3):
        keep(layout, f"1.{number},n=1,d=1")
    swept = sweeper(layout, world)
    swept.do_pass(START)
    assert len(os.listdir(layout.done_new)) == 1
    swept.do_pass(START)
    assert os.listdir(layout.done_new) == []


def test_an_emptied_folder_that_has_grown_is_replaced_and_told_of(
    layout: Layout, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(events, "emit", lambda event, **facts: told.append((event, facts)))
    monkeypatch.setattr(grown, "GROWN_BYTES", 1)
    before, size = os.stat(layout.new).st_ino, os.stat(layout.new).st_size
    Path(layout.later_new, "1.x,n=1,d=1700000001").touch()
    sweeper(layout, world, seconds=None).do_pass(START)
    assert told == [("folder.replaced", {"queue": "run/queue", "folder": "new", "size_bytes": size})]
    assert os.stat(layout.new).st_ino != before


def test_what_pushes_with_one_sync_have_left_is_moved_or_removed_and_told(
    layout: Layout, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, object] = {}
    monkeypatch.setattr(events, "emit", lambda event, **facts: told.update({event: facts}))
    monkeypatch.setattr(durable, "keeps_order", lambda device: True)
    whole, torn = leave_synced(layout), leave_synced(layout, written=b"")
    sweeper(layout, world).do_pass(START)
    assert told == {
        "push.recovered": {"queue": "run/queue", "key": whole},
        "push.torn": {"queue": "run/queue", "key": torn},
    }
    assert (os.listdir(layout.new), os.listdir(layout.synced)) == ([whole], [])
