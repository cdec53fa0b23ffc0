"""An operator's moves back to `new/`: their doubtful replies, and names that only another writer can have made."""

from __future__ import annotations

import errno
import os

import pytest

from maildefer.errors import EntryNotFound, StorageFault
from maildefer.maildir.layout import Layout
from maildefer.maildir.operator import entries
from tests.support.queues import DATA, FAULTS, World, everywhere, put


def dead(layout: Layout, name: str = "1.x,f=3,h=4,a=5,c=2,n=7") -> entries.FoundEntry:
    return entries.FoundEntry("dead", layout.dead_new, put(layout.dead_new, name))


@pytest.mark.invariant(2)
@pytest.mark.invariant(4)
def test_a_requeue_is_one_rename_a_generation_on_with_its_counters_anew(layout: Layout, world: World) -> None:
    assert entries.requeue(layout, dead(layout), system=world.system) == "1.x,n=8"
    assert everywhere(layout) == {"new/1.x,n=8": DATA}
    assert [call.what for call in world.calls] == ["rename"]


@pytest.mark.parametrize("fault", [errno.ENOENT, errno.EIO, errno.ESTALE, errno.EINTR])
def test_a_requeue_whose_reply_was_lost_is_done(layout: Layout, world: World, fault: int) -> None:
    world.lose_reply("rename", fault)
    assert entries.requeue(layout, dead(layout), system=world.system) == "1.x,n=8"


def test_a_requeue_of_what_is_gone_says_so(layout: Layout, world: World) -> None:
    found = dead(layout)
    os.unlink(found.path)
    with pytest.raises(EntryNotFound):
        entries.requeue(layout, found, system=world.system)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_refused_requeue_is_named_and_leaves_the_dead_letter(
    layout: Layout, world: World, fault: int
) -> None:
    world.refuse("rename", fault)
    with pytest.raises(StorageFault):
        entries.requeue(layout, dead(layout), system=world.system)
    assert list(everywhere(layout)) == [".dead/new/1.x,f=3,h=4,a=5,c=2,n=7"]


@pytest.mark.parametrize("name", ["x" * 255, "12:30:00"])
def test_a_dead_letter_of_any_name_can_be_requeued(layout: Layout, world: World, name: str) -> None:
    back = entries.requeue(layout, dead(layout, name), system=world.system)
    assert everywhere(layout) == {f"new/{back}": DATA}


def test_a_deferred_entry_that_is_released_keeps_its_attempts(layout: Layout, world: World) -> None:
    name = put(layout.later_new, "1.x,f=3,h=4,a=5,c=2,n=7,d=2000000000")
    found = entries.FoundEntry("deferred", layout.later_new, name)
    assert entries.release_deferred(layout, found, system=world.system) == "1.x,f=3,h=4,a=5,c=2,n=8"
