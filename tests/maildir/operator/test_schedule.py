"""Cancelling and rescheduling: exact about what happened, also when replies are lost and others are at work."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from maildefer.errors import EntryNotFound, MountFault
from maildefer.maildir.claims import Claim, Claimer
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.names import EntryName
from maildefer.maildir.operator import entries, schedule
from maildefer.maildir.push import Planned, Pusher
from maildefer.maildir.upkeep.promote import Promoter
from tests.support.queues import DATA, LABEL, START, World, everywhere, put

DUE = int(START) + 3600
NEW = int(START) + 60


@pytest.fixture
def deferred(pusher: Pusher, world: World) -> str:
    """The key of an entry that is due in an hour."""
    key = pusher.push(Planned(compose=lambda stem: [DATA], due=DUE))
    world.forget()
    return key


def cancel(layout: Layout, key: str, world: World) -> bool:
    return schedule.cancel(layout, key, host=LABEL, system=world.system)


def reschedule(layout: Layout, key: str, due: int | None, world: World) -> None:
    schedule.reschedule(layout, key, due, host=LABEL, system=world.system)


def test_a_deferred_entry_is_cancelled(deferred: str, layout: Layout, world: World) -> None:
    assert cancel(layout, deferred, world)
    assert everywhere(layout) == {}


def test_an_entry_pushed_for_later_is_cancelled_without_listing_all_the_others(
    deferred: str, layout: Layout, world: World
) -> None:
    cancel(layout, deferred, world)
    assert world.asked("listdir", "scandir") == []


def test_a_waiting_entry_is_cancelled(pusher: Pusher, layout: Layout, world: World) -> None:
    assert cancel(layout, pusher.push(lambda stem: [DATA]), world)
    assert everywhere(layout) == {}


def test_what_was_deferred_again_since_is_cancelled_too(deferred: str, layout: Layout, world: World) -> None:
    os.rename(
        f"{layout.later_new}/{deferred},d={DUE}", f"{layout.later_new}/{deferred},f=1,a=1,n=1,d={DUE + 9}"
    )
    assert cancel(layout, deferred, world)
    assert everywhere(layout) == {}


def test_what_a_worker_holds_is_not_cancelled(
    claimed: Callable[[], Claim], layout: Layout, world: World
) -> None:
    claim = claimed()
    assert not cancel(layout, claim.key, world)
    assert list(everywhere(layout)) == [f"cur/{claim.name}"]


def test_a_key_that_never_was_is_not_cancelled(deferred: str, layout: Layout, world: World) -> None:
    assert not cancel(layout, "1.x", world)
    assert not cancel(layout, "", world)
    assert not cancel(layout, deferred[:20], world)
    assert len(everywhere(layout)) == 1


@pytest.mark.parametrize("what", ["rename", "unlink"])
def test_a_lost_reply_does_not_hide_that_an_entry_was_cancelled(
    deferred: str, layout: Layout, world: World, what: str
) -> None:
    world.lose_reply(what, errno.ENOENT)
    assert cancel(layout, deferred, world)
    assert everywhere(layout) == {}


def test_what_was_gone_for_the_ttl_may_have_been_returned_and_handled(
    deferred: str, layout: Layout, world: World
) -> None:
    """A keeper returns to `new/` what the process has taken and not removed."""

    def return_and_handle() -> None:
        world.pass_time(46)
        (name,) = os.listdir(layout.cur)
        os.unlink(f"{layout.cur}/{name}")

    world.before("unlink", return_and_handle)
    assert not cancel(layout, deferred, world)


def test_what_a_cancel_that_died_has_taken_keeps_its_due_time(
    deferred: str, layout: Layout, world: World
) -> None:
    world.refuse("unlink", errno.EIO)
    with pytest.raises(MountFault):
        cancel(layout, deferred, world)
    (name,) = os.listdir(layout.cur)
    assert EntryName.parse(name).due == DUE


def test_an_entry_that_is_promoted_meanwhile_is_cancelled_all_the_same(
    deferred: str, layout: Layout, world: World
) -> None:
    def promote() -> None:
        os.rename(f"{layout.later_new}/{deferred},d={DUE}", f"{layout.new}/{deferred},n=1")

    world.before("rename", promote)
    assert cancel(layout, deferred, world)
    assert everywhere(layout) == {}


@pytest.mark.invariant(4)
def test_a_rescheduled_entry_has_its_next_name_and_its_counters(
    deferred: str, layout: Layout, world: World
) -> None:
    os.rename(f"{layout.later_new}/{deferred},d={DUE}", f"{layout.later_new}/{deferred},f=2,a=3,n=4,d={DUE}")
    reschedule(layout, deferred, NEW, world)
    assert list(everywhere(layout)) == [f".later/new/{deferred},f=2,a=3,n=5,d={NEW}"]


def test_what_waits_is_rescheduled_too(pusher: Pusher, layout: Layout, world: World) -> None:
    key = pusher.push(lambda stem: [DATA])
    reschedule(layout, key, NEW, world)
    assert list(everywhere(layout)) == [f".later/new/{key},n=1,d={NEW}"]


def test_what_is_rescheduled_to_now_waits(deferred: str, layout: Layout, world: World) -> None:
    reschedule(layout, deferred, None, world)
    assert list(everywhere(layout)) == [f"new/{deferred},n=1"]
    reschedule(layout, deferred, None, world)
    assert list(everywhere(layout)) == [f"new/{deferred},n=1"]


def test_what_a_worker_holds_cannot_be_rescheduled(
    claimed: Callable[[], Claim], layout: Layout, world: World
) -> None:
    claim = claimed()
    with pytest.raises(EntryNotFound):
        reschedule(layout, claim.key, NEW, world)
    assert list(everywhere(layout)) == [f"cur/{claim.name}"]


def test_a_lost_reply_to_a_reschedule_is_settled_by_looking(
    deferred: str, layout: Layout, world: World
) -> None:
    world.lose_reply("rename", errno.ENOENT)
    reschedule(layout, deferred, NEW, world)
    assert list(everywhere(layout)) == [f".later/new/{deferred},n=1,d={NEW}"]


def test_a_doubt_that_cannot_be_settled_is_a_fault(deferred: str, layout: Layout, world: World) -> None:
    world.lose_reply("rename", errno.EIO)
    world.refuse("listdir", errno.EIO, where=".later/new")
    with pytest.raises(MountFault):
        reschedule(layout, deferred, NEW, world)


def test_an_entry_that_is_claimed_meanwhile_is_not_rescheduled(
    pusher: Pusher, claimer: Claimer, layout: Layout, world: World
) -> None:
    key = pusher.push(lambda stem: [DATA])
    world.before("rename", lambda: claimer.claim(key))
    with pytest.raises(EntryNotFound):
        reschedule(layout, key, NEW, world)
    assert list(everywhere(layout)) == [f"cur/{key},a=1:1,{claimer.lease}.4711.1"]


def test_a_missing_folder_is_made_again(pusher: Pusher, layout: Layout, world: World) -> None:
    key = pusher.push(lambda stem: [DATA])
    os.rmdir(layout.later_new)
    reschedule(layout, key, NEW, world)
    assert list(everywhere(layout)) == [f".later/new/{key},n=1,d={NEW}"]


def test_an_entry_that_was_put_into_new_before_it_is_due_can_be_rescheduled_to_now(
    layout: Layout, world: World
) -> None:
    put(layout.new, f"1.x,d={DUE}")
    reschedule(layout, "1.x", None, world)
    assert list(everywhere(layout)) == ["new/1.x,n=1"]


def test_a_rescheduled_entry_is_promoted_at_its_new_time(deferred: str, layout: Layout, world: World) -> None:
    reschedule(layout, deferred, NEW, world)
    promoter = Promoter(layout, system=world.system)
    promoter.relist()
    assert promoter.promote(NEW - 1) == []
    assert promoter.promote(NEW) == [deferred]


def test_in_a_shared_queue_what_a_mail_reader_has_moved_gets_a_name_of_its_own(
    layout: Layout, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "is_shared_at", lambda path, system: True)
    put(layout.cur, "1.x,u=0123456789,n=2:2,S")
    put(layout.new, "2.x,u=0123456789,n=2")
    reschedule(layout, "1.x", NEW, world)
    reschedule(layout, "2.x", NEW, world)
    moved, waiting = sorted(
        (EntryName.parse(name) for name in os.listdir(layout.later_new)), key=lambda e: e.key
    )
    assert moved.unique not in ("", "0123456789")
    assert waiting.unique == "0123456789"


@pytest.fixture
def other(tmp_path: Path) -> Layout:
    return create_queue(str(tmp_path / "other"))


@pytest.mark.parametrize("fault", [errno.ENOENT, errno.EIO, errno.ESTALE])
def test_a_lost_reply_to_a_move_to_another_queue_is_settled_by_looking(
    layout: Layout, other: Layout, world: World, fault: int
) -> None:
    put(layout.new, "1.a")
    (found,) = entries.list_entries(layout, "waiting")
    world.lose_reply("rename", fault)
    assert schedule.move_to(layout, found, other, host=LABEL, system=world.system)
    assert os.listdir(other.new) == ["1.a,h=1,n=1"]


def test_what_another_process_has_taken_first_is_not_moved(
    layout: Layout, other: Layout, world: World
) -> None:
    put(layout.new, "1.a")
    (found,) = entries.list_entries(layout, "waiting")
    world.before("rename", lambda: os.unlink(f"{layout.new}/1.a"))
    assert not schedule.move_to(layout, found, other, host=LABEL, system=world.system)
    assert not os.listdir(other.new)


def test_what_is_held_is_promoted_by_nobody(layout: Layout, world: World) -> None:
    put(layout.new, "1.a")
    (found,) = entries.list_entries(layout, "waiting")
    assert schedule.hold(layout, found, host=LABEL, system=world.system)
    promoter = Promoter(layout, system=world.system)
    world.pass_time(30 * 365 * 86400)
    promoter.relist()
    assert promoter.promote(world.seconds) == []
    (held,) = entries.list_entries(layout, "deferred")
    assert schedule.is_held(held.entry)
    assert schedule.unhold(layout, held, now=START, host=LABEL, system=world.system)
    assert os.listdir(layout.new) == ["1.a,n=2"]


def test_what_its_handlers_have_sent_is_published_where_the_entry_is(
    layout: Layout, other: Layout, world: World
) -> None:
    put(layout.new, "1.a,o=0123456789,a=1,n=1")
    (found,) = entries.list_entries(layout, "waiting")
    assert found.entry.outputs
    assert not schedule.hold(layout, found, host=LABEL, system=world.system)
    assert not schedule.move_to(layout, found, other, host=LABEL, system=world.system)
    assert os.listdir(layout.new) == ["1.a,o=0123456789,a=1,n=1"]
