"""Taking an entry at most once: what its faults leave behind. `tests/test_queue.py` has the rest."""

from __future__ import annotations

import errno
import os

import pytest

from maildefer.errors import MountFault, StaleHandle
from maildefer.maildir import pop
from maildefer.maildir.layout import Layout
from maildefer.maildir.operator import entries
from tests.support.queues import LABEL, START, World, put


def take(layout: Layout, world: World) -> pop.Popped | None:
    return pop.pop_entry(layout, entries.oldest(layout)[0], host=LABEL, system=world.system)


@pytest.mark.invariant(3)
@pytest.mark.parametrize("reply", [errno.EIO, errno.ENOENT, errno.ESTALE])
def test_a_lost_reply_is_settled_by_a_look(layout: Layout, world: World, reply: int) -> None:
    """ENOENT is what the repetition of a request is told that was carried out the first time."""
    put(layout.new, "X")
    world.lose_reply("rename", reply)
    popped = take(layout, world)
    assert popped is not None
    assert popped.unlink()


def test_an_entry_that_somebody_else_has_taken_is_not_handed_out(layout: Layout, world: World) -> None:
    name = put(layout.new, "X")
    world.before("rename", lambda: os.rename(f"{layout.new}/{name}", f"{layout.cur}/X,a=1:1,other.1.1"))
    assert take(layout, world) is None


@pytest.mark.parametrize("call", ["utime", "listdir"])
def test_a_look_that_fails_is_a_named_fault(layout: Layout, world: World, call: str) -> None:
    put(layout.new, "X")
    world.lose_reply("rename", errno.EIO)
    world.refuse(call, errno.ESTALE, times=100)
    with pytest.raises(StaleHandle):
        take(layout, world)


def test_what_can_be_neither_read_nor_put_back_is_a_named_fault(layout: Layout, world: World) -> None:
    put(layout.new, "X")
    popped = take(layout, world)
    assert popped is not None
    world.refuse("open", errno.EIO)
    world.refuse("rename", errno.EIO)
    with pytest.raises(MountFault):
        popped.read()
    assert len(os.listdir(layout.cur)) == 1  # a keeper returns it


def test_an_entry_in_new_that_is_not_due_is_not_popped(layout: Layout, world: World) -> None:
    put(layout.new, "1.x,d=1700000060")
    world.after("write", lambda: [os.utime(file.path, (START, START)) for file in os.scandir(layout.tmp)])
    (found,) = entries.list_entries(layout, "waiting")
    assert pop.pop_entry(layout, found, host=LABEL, system=world.system) is None
    world.after("write", lambda: [os.utime(file.path, (START + 60,) * 2) for file in os.scandir(layout.tmp)])
    popped = pop.pop_entry(layout, found, host=LABEL, system=world.system)
    assert popped is not None
    assert popped.unlink()


def test_a_mount_whose_time_cannot_be_told_is_a_named_fault(layout: Layout, world: World) -> None:
    put(layout.new, "1.x,d=1700000060")
    (found,) = entries.list_entries(layout, "waiting")
    world.refuse("open", errno.EIO)
    with pytest.raises(MountFault):
        pop.pop_entry(layout, found, host=LABEL, system=world.system)
    assert os.listdir(layout.new) == ["1.x,d=1700000060"]
