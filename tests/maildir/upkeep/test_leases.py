"""A supervisor's sign of life: join, beat, take over, leave, fence."""

from __future__ import annotations

import errno
import os

import pytest

from maildefer.errors import LeaseFenced, NoSpace, StorageFault
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import lease_name
from maildefer.maildir.upkeep import leases
from maildefer.maildir.upkeep.leases import Lease
from tests.support.queues import FAULTS, LABEL, World, everywhere, holder


def beats(layout: Layout) -> list[str]:
    return sorted(os.listdir(layout.leases))


def test_a_lease_is_joined_durably_at_beat_zero(layout: Layout, world: World) -> None:
    lease = Lease.join(layout, lease_name(LABEL, world.system), holder(), system=world.system)
    assert beats(layout) == [f"{lease.name}.0"]
    draft = world.calls[0].arguments[0]
    assert draft.startswith(f"{layout.tmp}/")
    assert [(call.what, *call.arguments) for call in world.asked("fsync", "rename")] == [
        ("fsync", draft),
        ("rename", draft, lease.path),
        ("fsync", layout.leases),
    ]


def test_a_lease_tells_who_holds_it(layout: Layout, lease: Lease) -> None:
    assert leases.read_holder(layout, lease.name, 0) == holder()


@pytest.mark.parametrize("what", ["open", "write", "fsync", "rename"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_join_that_is_refused_is_a_named_fault_and_leaves_nothing(
    layout: Layout, world: World, what: str, fault: int
) -> None:
    world.refuse(what, fault)
    with pytest.raises(StorageFault):
        Lease.join(layout, f"{LABEL}-1-abcd", holder(), system=world.system)
    assert beats(layout) == []
    assert everywhere(layout) == {}


def test_a_join_whose_reply_was_lost_can_be_repeated_under_the_same_name(
    layout: Layout, world: World
) -> None:
    world.lose_reply("rename", errno.EIO)
    with pytest.raises(StorageFault):
        Lease.join(layout, f"{LABEL}-1-abcd", holder(), system=world.system)
    Lease.join(layout, f"{LABEL}-1-abcd", holder(), system=world.system)
    assert beats(layout) == [f"{LABEL}-1-abcd.0"]


def test_a_beat_is_one_rename_to_the_next_number(layout: Layout, lease: Lease, world: World) -> None:
    lease.renew()
    lease.renew()
    assert beats(layout) == [f"{lease.name}.2"]
    assert [call.what for call in world.calls] == ["rename", "rename"]


@pytest.mark.parametrize("fault", [errno.ENOENT, errno.EIO, errno.ESTALE, errno.EINTR, errno.ETIMEDOUT])
def test_a_beat_whose_reply_was_lost_is_good(layout: Layout, lease: Lease, world: World, fault: int) -> None:
    world.lose_reply("rename", fault)
    lease.renew()
    lease.renew()
    assert beats(layout) == [f"{lease.name}.2"]


@pytest.mark.parametrize("fault", [errno.EIO, errno.ESTALE, errno.EINTR])
def test_a_beat_that_did_not_happen_is_a_fault_and_the_next_one_is_good(
    layout: Layout, lease: Lease, world: World, fault: int
) -> None:
    world.refuse("rename", fault)
    with pytest.raises(StorageFault) as error:
        lease.renew()
    assert error.value.errno == fault
    assert beats(layout) == [f"{lease.name}.0"]
    lease.renew()
    assert beats(layout) == [f"{lease.name}.1"]


def test_a_beat_that_lands_late_is_seen_by_the_next_one(layout: Layout, lease: Lease, world: World) -> None:
    world.hold("rename", errno.EIO)
    with pytest.raises(StorageFault):
        lease.renew()
    assert world.land() == []
    lease.renew()
    lease.renew()
    assert beats(layout) == [f"{lease.name}.2"]


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_refused_beat_is_a_named_fault_and_needs_no_look(
    layout: Layout, lease: Lease, world: World, fault: int
) -> None:
    world.refuse("rename", fault)
    with pytest.raises(StorageFault):
        lease.renew()
    assert world.asked("listdir") == []
    assert lease.beat == 0


def test_neither_beat_in_the_listing_means_fenced(layout: Layout, lease: Lease) -> None:
    lease.renew()
    assert leases.fence(layout, lease.name, 1)
    with pytest.raises(LeaseFenced) as error:
        lease.renew()
    assert error.value.lease == lease.name
    assert beats(layout) == []


def test_a_beat_hidden_from_one_listing_is_not_taken_for_fenced(
    layout: Layout, lease: Lease, world: World
) -> None:
    world.lose_reply("rename", errno.ENOENT)
    world.hide(f"{lease.name}.1")
    world.after("listdir", world.hidden.clear)
    lease.renew()
    assert lease.beat == 1


@pytest.mark.parametrize("listed", [0, 1])
def test_a_listing_that_shows_no_later_beat_is_no_good_beat(
    layout: Layout, lease: Lease, world: World, listed: int
) -> None:
    lease.renew()
    assert leases.fence(layout, lease.name, 1)
    world.show(layout.leases, f"{lease.name}.{listed}")  # stale
    with pytest.raises(StorageFault, match="yet listed") as error:
        lease.renew()
    assert error.value.errno == errno.EIO
    assert lease.beat == 1


def test_a_look_that_fails_leaves_the_beat_unknown(layout: Layout, lease: Lease, world: World) -> None:
    world.lose_reply("rename", errno.EIO)
    world.refuse("listdir", errno.EIO)
    with pytest.raises(StorageFault):
        lease.renew()
    lease.renew()
    assert beats(layout) == [f"{lease.name}.1"]


def test_a_keeper_goes_on_with_the_lease_of_one_that_died(layout: Layout, lease: Lease) -> None:
    lease.renew()
    taken = Lease.take_over(layout, lease.name, holder(keeper_pid=3))
    assert taken.beat == 1
    assert leases.read_holder(layout, lease.name, 1) == holder(keeper_pid=3)
    assert taken.renew()
    assert beats(layout) == [f"{lease.name}.2"]


@pytest.mark.invariant(8)
def test_a_dead_keepers_late_beat_is_no_beat_of_its_successor(
    layout: Layout, lease: Lease, world: World
) -> None:
    world.hold("rename", errno.EIO)
    with pytest.raises(StorageFault):
        lease.renew()
    taken = Lease.take_over(layout, lease.name, holder(keeper_pid=3), system=world.system)
    assert world.land() == []  # and nobody knows when
    assert not taken.renew()
    assert taken.renew()
    assert beats(layout) == [f"{lease.name}.2"]


def test_a_lease_that_is_gone_cannot_be_taken_over(layout: Layout, lease: Lease) -> None:
    assert leases.fence(layout, lease.name, 0)
    with pytest.raises(LeaseFenced):
        Lease.take_over(layout, lease.name, holder())


def test_a_lease_hidden_from_one_listing_can_be_taken_over(
    layout: Layout, lease: Lease, world: World
) -> None:
    world.hide(f"{lease.name}.0")
    world.after("listdir", world.hidden.clear)
    assert Lease.take_over(layout, lease.name, holder(), system=world.system).beat == 0


def test_a_full_disk_does_not_keep_a_keeper_from_saying_so(
    layout: Layout, lease: Lease, world: World
) -> None:
    world.refuse("write", errno.ENOSPC)
    with pytest.raises(NoSpace):
        Lease.take_over(layout, lease.name, holder(), system=world.system)
    assert beats(layout) == [f"{lease.name}.0"]


def test_a_clean_leave_removes_the_lease_and_may_be_repeated(layout: Layout, lease: Lease) -> None:
    lease.renew()
    lease.leave()
    lease.leave()
    assert beats(layout) == []


@pytest.mark.invariant(6)
def test_a_beat_in_between_makes_the_fence_fail(layout: Layout, lease: Lease) -> None:
    lease.renew()
    assert not leases.fence(layout, lease.name, 0)
    assert beats(layout) == [f"{lease.name}.1"]
    lease.renew()


def test_a_fence_moves_the_very_beat_that_was_seen(layout: Layout, lease: Lease, world: World) -> None:
    lease.renew()
    assert leases.fence(layout, lease.name, 1, system=world.system)
    assert os.listdir(layout.fenced) == [f"{lease.name}.1"]
    assert not leases.fence(layout, lease.name, 1, system=world.system), "somebody did it"


def test_a_fence_works_without_its_folder(layout: Layout, lease: Lease) -> None:
    os.rmdir(layout.fenced)
    assert leases.fence(layout, lease.name, 0)
    assert beats(layout) == []


def test_a_folder_is_no_lease_and_is_left_where_it_is(layout: Layout) -> None:
    os.mkdir(f"{layout.leases}/dir.7")
    with pytest.raises(IsADirectoryError, match="no lease: remove it"):
        leases.fence(layout, "dir", 7)
    assert beats(layout) == ["dir.7"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"host": 1}', "[" * 60_000, "\0" * 10])
def test_a_holder_that_cannot_be_read_is_none(layout: Layout, lease: Lease, text: str) -> None:
    with open(lease.path, "w", encoding="utf-8") as file:
        file.write(text)
    assert leases.read_holder(layout, lease.name, 0) is None


def test_a_holder_whose_file_is_gone_is_none(layout: Layout, lease: Lease) -> None:
    assert leases.read_holder(layout, lease.name, 7) is None


def test_lease_names_differ_between_processes_and_times(world: World) -> None:
    assert lease_name(LABEL, world.system) != lease_name(LABEL, world.system)


def test_a_lease_that_another_keeper_has_beaten_further_is_followed(layout: Layout, lease: Lease) -> None:
    os.rename(lease.path, f"{layout.leases}/{lease.name}.5")
    lease.renew()
    assert lease.beat == 5
    lease.renew()
    assert beats(layout) == [f"{lease.name}.6"]


def test_a_leave_that_is_refused_is_a_named_fault(layout: Layout, lease: Lease, world: World) -> None:
    world.refuse("unlink", errno.EROFS)
    with pytest.raises(StorageFault):
        lease.leave()
    lease.leave()
    assert beats(layout) == []


def test_no_descriptor_is_left_open(layout: Layout, lease: Lease, world: World) -> None:
    before = len(os.listdir("/proc/self/fd"))
    Lease.take_over(layout, lease.name, holder())
    leases.read_holder(layout, lease.name, 0)
    assert len(os.listdir("/proc/self/fd")) == before
