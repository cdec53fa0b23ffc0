"""Pushes that take one sync, and what a power cut leaves of them."""

from __future__ import annotations

import errno
import os
from binascii import crc32
from collections.abc import Sequence
from pathlib import Path

import pytest

from maildefer.errors import NoSpace
from maildefer.maildir import durable, names
from maildefer.maildir.drafts import synced
from maildefer.maildir.drafts.entry import Draft
from maildefer.maildir.drafts.placer import DraftPlacer
from maildefer.maildir.drafts.synced import SyncedDrafts
from maildefer.maildir.journal_file import boot_name
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.push import Planned, Pusher
from tests.support.queues import DATA, LABEL, START, World, everywhere, leave_synced


@pytest.fixture(autouse=True)
def ordered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The filesystem keeps the order of changes, whichever it is."""
    monkeypatch.setattr(durable, "keeps_order", lambda device: True)


@pytest.fixture
def layout(tmp_path: Path, world: World) -> Layout:
    layout = create_queue(str(tmp_path / "queue"), system=world.system)
    os.mkdir(layout.synced)
    world.forget()
    return layout


def push(pusher: Pusher) -> str:
    return pusher.push(lambda stem: [DATA])


def recovered(layout: Layout, world: World, mount_time: float = 0.0) -> dict[str, bool]:
    """What is reported of each key."""
    told: dict[str, bool] = {}
    synced.recover(layout, told.__setitem__, mount_time=mount_time, system=world.system)
    return told


@pytest.mark.invariant(1)
def test_data_and_name_are_durable_before_the_entry_is_seen(
    pusher: Pusher, world: World, layout: Layout
) -> None:
    key = push(pusher)
    draft = f"{layout.synced}/{key}.{crc32(DATA):08x}.{boot_name()}"
    assert [(call.what, *call.arguments) for call in world.calls] == [
        ("open", draft),
        ("write", draft),
        ("fsync", draft),
        ("rename", draft, f"{layout.new}/{key}"),
        ("close", draft),
    ]


def test_one_sync_does_for_what_is_due_later(pusher: Pusher, world: World, layout: Layout) -> None:
    key = pusher.push(Planned(compose=lambda stem: [DATA], due=int(START) + 60))
    assert list(everywhere(layout)) == [f".later/new/{names.first_name(key)}"]
    assert all("synced" in call.arguments[0] for call in world.asked("fsync"))


@pytest.mark.invariant(1)
def test_two_syncs_are_made_where_no_order_is_kept(
    world: World, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "keeps_order", lambda device: False)
    key = push(Pusher(layout, host=LABEL, system=world.system))
    assert [call.arguments for call in world.asked("fsync")] == [(f"{layout.tmp}/{key}",), (layout.new,)]


def test_two_syncs_are_made_where_a_front_end_shares_the_queue(layout: Layout) -> None:
    os.chmod(layout.path, 0o3710)
    drafts = SyncedDrafts(layout, DraftPlacer(layout))
    assert (drafts.path_of("1.x,S=1", b"x"), drafts.are_durable(["1.x,S=1"])) == ("", False)


@pytest.mark.invariant(1)
def test_a_large_entrys_folder_is_synced(pusher: Pusher, world: World, layout: Layout) -> None:
    """It was made in `tmp/`, as its checksum was not known; here in one batch with another."""

    def large(stem: str) -> Draft:
        draft = pusher.draft()
        draft.append(DATA)
        return draft

    keys = pusher.push_all([large, lambda stem: [DATA]])
    assert sorted(everywhere(layout)) == sorted(f"new/{key}" for key in keys)
    assert world.asked("fsync")[-1].arguments == (layout.new,)
    world.forget()
    push(pusher)
    assert len(world.asked("fsync")) == 1, "none is owed any more"


@pytest.mark.invariant(1)
@pytest.mark.parametrize("what", ["write", "fsync", "rename", "open"])
def test_nothing_is_left_if_any_step_fails(pusher: Pusher, world: World, layout: Layout, what: str) -> None:
    world.refuse(what, errno.ENOSPC)
    with pytest.raises(NoSpace):
        push(pusher)
    assert everywhere(layout) == {}
    assert os.listdir(layout.synced) == []


@pytest.mark.invariant(1)
def test_pushes_go_on_with_two_syncs_where_the_folder_is_gone(
    pusher: Pusher, world: World, layout: Layout
) -> None:
    push(pusher)
    os.rmdir(layout.synced)
    world.forget()
    key = push(pusher)
    assert [call.arguments for call in world.asked("fsync")] == [(f"{layout.tmp}/{key}",), (layout.new,)]


@pytest.mark.invariant(1)
def test_pushes_go_on_with_two_syncs_where_the_folder_may_not_be_written_to(
    pusher: Pusher, world: World, layout: Layout
) -> None:
    world.refuse("open", errno.EACCES, where=layout.synced)
    key = push(pusher)
    assert [call.arguments for call in world.asked("fsync")] == [(f"{layout.tmp}/{key}",), (layout.new,)]


@pytest.mark.invariant(1)
@pytest.mark.parametrize("due", [None, 1_700_000_060])
def test_what_was_synced_before_a_power_cut_is_moved_to_where_it_waits(
    layout: Layout, world: World, due: int | None
) -> None:
    key = leave_synced(layout, due=due)
    assert recovered(layout, world) == {key: True}
    place = f"new/{key}" if due is None else f".later/new/{key},d={due}"
    assert everywhere(layout) == {place: DATA}
    assert os.listdir(layout.synced) == []
    assert recovered(layout, world) == {}


@pytest.mark.invariant(1)
@pytest.mark.parametrize(
    "torn", [b"", DATA[:-1], bytes(len(DATA)), DATA[:4] + bytes(len(DATA) - 4), DATA + DATA]
)
def test_what_is_torn_is_removed(layout: Layout, world: World, torn: bytes) -> None:
    whole, key = leave_synced(layout), leave_synced(layout, written=torn)
    assert recovered(layout, world) == {whole: True, key: False}
    assert everywhere(layout) == {f"new/{whole}": DATA}
    assert os.listdir(layout.synced) == []


def test_what_may_be_being_pushed_stays_for_a_minute(layout: Layout, world: World) -> None:
    key = leave_synced(layout, boot=boot_name())
    written = os.stat(f"{layout.synced}/{os.listdir(layout.synced)[0]}").st_mtime
    assert recovered(layout, world, written + 59) == {}
    assert recovered(layout, world, written + 61) == {key: True}


def test_another_hosts_boot_says_nothing(
    layout: Layout, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        durable, "keeps_order", lambda device: False
    )  # a mount, of which it may be the server
    leave_synced(layout)
    assert recovered(layout, world) == {}


@pytest.mark.parametrize("is_left", [True, False])
def test_a_push_goes_on_whose_entry_is_taken_for_left(
    pusher: Pusher, layout: Layout, world: World, is_left: bool
) -> None:
    def take() -> None:
        [draft] = os.listdir(layout.synced)
        if is_left:
            synced.recover(layout, mount_time=float("inf"))
        else:
            os.unlink(f"{layout.synced}/{draft}")

    world.before("rename", take)
    key = push(pusher)
    assert everywhere(layout) == {f"new/{key}": DATA}


def test_what_fails_stays_and_holds_up_nothing(layout: Layout, world: World) -> None:
    keys = [leave_synced(layout) for _ in range(3)]
    world.refuse("read", errno.EIO, where=keys[1])
    with pytest.raises(OSError, match="Input/output"):
        recovered(layout, world)
    assert sorted(everywhere(layout)) == sorted(f"new/{key}" for key in (keys[0], keys[2]))
    assert recovered(layout, world) == {keys[1]: True}


def test_what_is_not_ours_stays(layout: Layout, world: World) -> None:
    others: Sequence[str] = ("x", "1.x,S=1.00000000.00000000", f"{LABEL}.{LABEL}")
    for name in others:
        with open(f"{layout.synced}/{name}", "x"):
            pass
    assert recovered(layout, world) == {}
    assert sorted(os.listdir(layout.synced)) == sorted(others)


def test_a_link_in_the_folders_place_is_not_followed(layout: Layout, world: World, tmp_path: Path) -> None:
    leave_synced(layout)
    os.rename(layout.synced, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", layout.synced)
    with pytest.raises(NotADirectoryError):
        recovered(layout, world)
    assert everywhere(layout) == {}
    push(Pusher(layout, host=LABEL, system=world.system))
    assert len(os.listdir(tmp_path / "elsewhere")) == 1
