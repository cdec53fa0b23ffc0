"""Replacing emptied folders that have grown."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from maildefer.maildir.layout import Layout
from maildefer.maildir.push import Pusher
from maildefer.maildir.system import SYSTEM
from maildefer.maildir.upkeep import grown
from maildefer.maildir.upkeep.grown import GROWN_BYTES, replace_grown
from maildefer.maildir.upkeep.sweep import Sweeper
from tests.support.queues import DATA, LABEL, START, World, everywhere, put

LONG = "x" * 200


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each folder had grown."""
    monkeypatch.setattr(grown, "GROWN_BYTES", 0)


def inode(path: str) -> int:
    return os.stat(path).st_ino


def test_a_folder_that_has_grown_is_replaced_once_it_is_empty(layout: Layout) -> None:
    names = [f"{layout.new}/{number}.{LONG}" for number in range(2 * GROWN_BYTES // 200)]
    for name in names:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    size = os.stat(layout.new).st_size
    if size < GROWN_BYTES:
        pytest.skip("folders of this filesystem do not tell their size")
    assert replace_grown(layout) == {}, "it is full"
    for name in names:
        os.unlink(name)
    if os.stat(layout.new).st_size < GROWN_BYTES:
        pytest.skip("folders of this filesystem shrink")
    before = inode(layout.new)
    assert replace_grown(layout) == {layout.new: size}
    assert inode(layout.new) != before
    assert os.stat(layout.new).st_size < GROWN_BYTES
    assert replace_grown(layout) == {}
    assert os.listdir(layout.tmp) == []


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("name", ["1.x", ".nfs0001"])
def test_a_folder_with_any_name_in_it_stays(layout: Layout, name: str) -> None:
    put(layout.new, name)
    before = inode(layout.new)
    assert set(replace_grown(layout)) == {layout.later_new}
    assert inode(layout.new) == before
    assert os.listdir(layout.new) == [name]


@pytest.mark.usefixtures("any_size")
def test_an_entry_that_comes_after_the_look_keeps_its_folder(layout: Layout, world: World) -> None:
    world.before("rename", lambda: put(layout.new, "1.x"))
    assert set(replace_grown(layout, system=world.system)) == {layout.later_new}
    assert everywhere(layout) == {"new/1.x": DATA}
    assert os.listdir(layout.tmp) == []


@pytest.mark.usefixtures("any_size")
def test_a_lost_reply_is_no_fault(layout: Layout, world: World) -> None:
    world.lose_reply("rename", errno.ENOENT, where="new")
    assert set(replace_grown(layout, system=world.system)) == {layout.new, layout.later_new}
    assert os.listdir(layout.tmp) == []


@pytest.mark.usefixtures("any_size")
def test_a_push_whose_folder_is_replaced_meanwhile_gets_there(layout: Layout, world: World) -> None:
    pusher = Pusher(layout, host=LABEL, system=world.system)
    pusher.push(lambda stem: [DATA])
    os.unlink(f"{layout.new}/{os.listdir(layout.new)[0]}")
    world.refuse("rename", errno.ENOENT)  # as of a folder that is not there any more
    world.before("rename", lambda: replace_grown(layout))
    key = pusher.push(lambda stem: [DATA])
    assert everywhere(layout) == {f"new/{key}": DATA}


@pytest.mark.usefixtures("any_size")
def test_the_fresh_folder_has_the_rights_of_the_old_one(layout: Layout) -> None:
    os.chmod(layout.new, 0o3751)
    before = os.stat(layout.new)
    assert layout.new in replace_grown(layout)
    after = os.stat(layout.new)
    assert stat.S_IMODE(after.st_mode) == 0o3751
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)


@pytest.mark.usefixtures("any_size")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_another_users_folder_stays(layout: Layout) -> None:
    os.chown(layout.new, 12345, -1)
    assert set(replace_grown(layout)) == {layout.later_new}
    assert os.stat(layout.new).st_uid == 12345
    assert os.listdir(layout.tmp) == []


@pytest.mark.usefixtures("any_size")
def test_a_folder_with_attributes_of_its_own_stays(layout: Layout) -> None:
    try:
        os.setxattr(layout.new, "user.kept", b"yes")
    except OSError:
        pytest.skip("no extended attributes here")
    assert set(replace_grown(layout)) == {layout.later_new}
    assert os.getxattr(layout.new, "user.kept") == b"yes"


@pytest.mark.usefixtures("any_size")
def test_a_link_in_a_folders_place_is_not_followed(layout: Layout, tmp_path: os.PathLike[str]) -> None:
    away = f"{os.fspath(tmp_path)}/away"
    os.rename(layout.new, away)
    os.symlink(away, layout.new)
    with pytest.raises(NotADirectoryError):
        replace_grown(layout)
    assert os.path.isdir(away)


@pytest.mark.usefixtures("any_size")
def test_what_a_killed_process_leaves_is_swept(layout: Layout, world: World) -> None:
    os.mkdir(f"{layout.tmp}/.fresh-1-0123456789abcdef")
    sweeper = Sweeper(layout, system=SYSTEM)
    os.utime(f"{layout.tmp}/.fresh-1-0123456789abcdef", (START, START))
    sweeper.sweep(START + 40 * 3600)
    sweeper._first_seen = dict.fromkeys(sweeper._first_seen, -1e6)
    sweeper.sweep(START + 40 * 3600)
    assert os.listdir(layout.tmp) == []
