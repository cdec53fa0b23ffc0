"""Settling doubtful replies by fresh listings; the table of the design, row by row, where its own module has none."""

from __future__ import annotations

import errno
import os

import pytest

from maildefer.maildir import doubt
from maildefer.maildir.layout import Layout
from maildefer.maildir.upkeep.leases import Lease
from tests.support.queues import World, put


def test_a_fresh_listing_changes_the_directory_first(layout: Layout, world: World) -> None:
    put(layout.cur, "X")
    assert doubt.fresh_listing(layout.cur, world.system) == ["X"]
    assert [call.what for call in world.calls] == ["utime", "listdir"]


@pytest.mark.parametrize("fault", [errno.EIO, errno.ESTALE, errno.EINTR, errno.ENOSPC, errno.ENOENT])
@pytest.mark.invariant(10)
def test_a_directory_whose_change_failed_is_not_believed(layout: Layout, world: World, fault: int) -> None:
    put(layout.cur, "X")
    world.refuse("utime", fault, times=100)
    with pytest.raises(OSError, match=os.strerror(fault)):
        doubt.fresh_listing(layout.cur, world.system)


@pytest.mark.parametrize("what", ["utime", "listdir"])
def test_a_look_at_a_directory_that_is_stale_for_a_moment_is_repeated(
    layout: Layout, world: World, what: str
) -> None:
    """After a lost reply an NFS client knows a new folder by two names; looks fail while its other processes rename."""
    put(layout.cur, "X")
    world.refuse(what, errno.ESTALE, times=20)
    assert doubt.fresh_listing(layout.cur, world.system) == ["X"]
    assert [call.what for call in world.calls][-2:] == ["utime", "listdir"]


@pytest.mark.parametrize("fault", [errno.EROFS, errno.EPERM, errno.EACCES])
def test_a_directory_that_may_not_be_changed_is_listed_all_the_same(
    layout: Layout, world: World, fault: int
) -> None:
    put(layout.cur, "X")
    world.refuse("utime", fault)
    assert doubt.fresh_listing(layout.cur, world.system) == ["X"]


@pytest.mark.parametrize("fault", ["ENOENT", "EIO", "ESTALE", "EINTR", "ETIMEDOUT"])
def test_these_replies_are_doubtful(fault: str) -> None:
    assert getattr(errno, fault) in doubt.DOUBTFUL


@pytest.mark.parametrize("fault", ["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "ENAMETOOLONG", "EXDEV"])
def test_these_replies_are_certain(fault: str) -> None:
    assert getattr(errno, fault) not in doubt.DOUBTFUL


def test_only_the_whole_name_counts(layout: Layout, world: World) -> None:
    put(layout.cur, "X,a=1:1,host-1-ab.1.1")
    assert not doubt.is_listed(layout.cur, "X", world.system)
    assert not doubt.is_listed(layout.cur, "X,a=1:1,host-1-ab.1.11", world.system)
    assert doubt.is_listed(layout.cur, "X,a=1:1,host-1-ab.1.1", world.system)


def test_a_lease_seen_twice_in_a_listing_is_at_its_later_beat(
    layout: Layout, lease: Lease, world: World
) -> None:
    world.show(layout.leases, f"{lease.name}.3")
    world.show(layout.leases, f"{lease.name}.2")
    assert doubt.live_leases(layout, world.system) == {lease.name: 3}


def test_what_is_no_lease_is_passed_over(layout: Layout, world: World) -> None:
    for name in ("README", ".nfs0001", "x.tmp"):
        put(layout.leases, name)
    assert doubt.live_leases(layout, world.system) == {}


def test_a_lease_hidden_from_one_listing_is_live(layout: Layout, lease: Lease, world: World) -> None:
    world.hide(f"{lease.name}.0")
    world.after("listdir", world.hidden.clear)
    assert doubt.lease_is_live(layout, lease.name, world.system)


def test_a_lease_missing_from_two_listings_is_not(layout: Layout, lease: Lease, world: World) -> None:
    os.unlink(lease.path)
    assert not doubt.lease_is_live(layout, lease.name, world.system)
    assert len(world.asked("listdir")) == 2
