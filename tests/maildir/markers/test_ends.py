"""Each end of an entry frees its marker, leaves evidence before, and frees no other's."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from maildefer.errors import (
    ClaimLost,
    EntryMalformed,
    MaildeferError,
    PermissionRefused,
    StorageFault,
    UniqueKeyHeld,
)
from maildefer.maildir.claims import Claim, Claimer
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.markers import ends
from maildefer.maildir.markers.markers import Markers
from maildefer.maildir.names import EntryName
from maildefer.maildir.operator import entries
from maildefer.maildir.pop import pop_entry
from maildefer.maildir.upkeep.leases import Lease
from tests.maildir.markers.conftest import die_at, survives
from tests.maildir.markers.test_markers import age, held, place_of, push
from tests.support.queues import DATA, LABEL, FakeSlots, World, everywhere


@pytest.fixture
def claim(markers: Markers, claimer: Claimer, world: World) -> Claim:
    """A claim of an entry that was pushed as order-17."""
    claim = claimer.claim(push(markers).key)
    assert claim is not None
    world.forget()
    return claim


def bury(claim: Claim) -> None:
    claim.bury("no such order")


def hand_off(claim: Claim) -> None:
    claim.handoff(create_queue(f"{claim._claimer.layout.path}-other"))


ENDS: dict[str, Callable[[Claim], object]] = {
    "ack": Claim.ack,
    "ack and keep": lambda claim: claim.ack(keep_seconds=60.0),
    "bury": bury,
    "hand off": hand_off,
}
GOES_ON: dict[str, Callable[[Claim], object]] = {
    "release": Claim.release,
    "postpone": lambda claim: claim.postpone(1),
    "defer": lambda claim: claim.defer(1),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_push_is_accepted_again_after_each_end(
    claim: Claim, markers: Markers, layout: Layout, end: Callable[[Claim], object]
) -> None:
    end(claim)
    assert not os.path.exists(place_of(layout))
    assert push(markers).is_new


@pytest.mark.parametrize("go_on", GOES_ON.values(), ids=GOES_ON)
def test_no_push_is_accepted_while_an_entry_goes_on(
    claim: Claim, markers: Markers, go_on: Callable[[Claim], object]
) -> None:
    go_on(claim)
    assert push(markers).key == claim.key


def passed_through(layout: Layout) -> list[tuple[str, str]]:
    """The syncs of the folders through which an entry may have gone."""
    return [("fsync", folder) for folder in (layout.later_new, layout.new, layout.cur)]


def test_an_ack_is_durable_before_the_marker_goes(
    claim: Claim, layout: Layout, world: World, order_kept: bool
) -> None:
    claim.ack()
    place, ended = place_of(layout), f"{place_of(layout)}/{claim.key}.ended"
    changes = [(call.what, *call.arguments) for call in world.asked("rename", "fsync", "unlink", "rmdir")]
    assert changes == [
        ("rename", f"{layout.cur}/{claim.name}", ended),
        *([] if order_kept else passed_through(layout)),
        ("fsync", place),
        ("unlink", f"{place}/{claim.key}"),
        ("unlink", ended),
        ("rmdir", place),
    ]


def test_a_burial_is_durable_before_the_marker_goes(
    claim: Claim, layout: Layout, world: World, order_kept: bool
) -> None:
    bury(claim)
    changes = [(call.what, call.arguments[0]) for call in world.asked("rename", "fsync", "unlink", "rmdir")]
    assert changes[changes.index(("rename", f"{layout.cur}/{claim.name}")) :] == [
        ("rename", f"{layout.cur}/{claim.name}"),
        *([] if order_kept else passed_through(layout)),
        ("fsync", layout.dead_new),
        ("unlink", f"{place_of(layout)}/{claim.key}"),
        ("rmdir", place_of(layout)),
    ]


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.slow
def test_a_worker_that_is_killed_at_any_call_of_an_end_leaves_at_most_one_entry_and_no_block(
    layout: Layout, lease: Lease, end: Callable[[Claim], object]
) -> None:
    for calls in range(1, 100):
        name = f"order-{calls}"
        markers = Markers(layout, host=LABEL)
        key = push(markers, name).key
        dying = World(tokens=1000 * calls)
        claimer = Claimer(layout, FakeSlots(), lease=lease.name, host=LABEL, system=dying.system)
        claim = claimer.claim(key)
        assert claim is not None
        die_at(dying, calls)
        survived = survives(lambda claim=claim: end(claim))  # type: ignore[misc]
        ended = not os.path.exists(f"{layout.cur}/{claim.name}")
        marked = push(markers, name)
        if end is Claim.ack:
            assert marked.is_new == ended, f"killed before call {calls}"
        elif not ended:
            assert not marked.is_new
        age(layout, 46, name)
        marked = push(markers, name)
        unended = [
            path
            for path in everywhere(layout)
            if path.startswith(("new/", "cur/")) and f"{marked.key}" in path
        ]
        assert len(unended) == 1
        assert marked.key == key or ended
        if survived:
            break
    assert calls > 4


def test_a_lost_reply_to_the_rename_of_an_ack_is_settled_as_any(
    claim: Claim, markers: Markers, layout: Layout, world: World
) -> None:
    world.lose_reply("rename", errno.ENOENT, where=".ended")
    claim.ack()
    assert [path for path in everywhere(layout) if path.startswith("cur/")] == []
    assert push(markers).is_new


def test_an_ack_finds_a_marker_whose_folder_this_client_has_looked_up_in_vain(
    claim: Claim, markers: Markers, layout: Layout, world: World
) -> None:
    world.refuse("rename", errno.ENOENT, where=".ended")
    claim.ack()
    renames = world.asked("rename", "utime")
    assert [call.what for call in renames][:3] == ["rename", "utime", "rename"]
    assert renames[1].arguments == (f"{layout.control}/unique",)
    assert not os.path.exists(place_of(layout))
    assert push(markers).is_new


def test_an_ack_without_a_marker_unlinks_the_entry(claim: Claim, layout: Layout) -> None:
    os.unlink(f"{place_of(layout)}/{claim.key}")
    os.rmdir(place_of(layout))
    claim.ack()
    assert everywhere(layout) == {}
    assert not os.path.exists(place_of(layout))


def test_an_ack_of_an_entry_that_was_reclaimed_is_lost_and_frees_nothing(
    claim: Claim, markers: Markers, layout: Layout, lease: Lease
) -> None:
    os.rename(f"{layout.cur}/{claim.name}", f"{layout.new}/{claim.key},a=1,c=1,n=1")
    lease.leave()
    with pytest.raises(ClaimLost):
        claim.ack()
    assert push(markers).key == claim.key


def test_an_ack_that_is_refused_holds_the_claim_and_the_marker(
    claim: Claim, markers: Markers, world: World
) -> None:
    world.refuse("rename", errno.EACCES, where=".ended")
    with pytest.raises(PermissionRefused):
        claim.ack()
    assert push(markers).key == claim.key
    claim.ack()
    assert push(markers).is_new


def test_a_late_unlink_of_a_marker_frees_no_later_one(
    claim: Claim, markers: Markers, layout: Layout, world: World
) -> None:
    world.hold("unlink", errno.EIO, where=f"/{claim.key}")
    claim.ack()
    second = push(markers)
    assert second.is_new
    assert world.land() == [errno.ENOENT]
    assert push(markers).key == second.key


def test_an_end_beside_another_entrys_marker_leaves_that(
    claim: Claim, markers: Markers, layout: Layout
) -> None:
    os.unlink(f"{place_of(layout)}/{claim.key}")  # by hand
    second = push(markers)
    claim.ack()
    assert held(layout) == [second.key]
    assert push(markers).key == second.key


@pytest.mark.parametrize("folder", ["new", ".later/new"])
def test_deleting_an_entry_frees_its_marker(markers: Markers, layout: Layout, folder: str) -> None:
    key = push(markers).key
    os.rename(f"{layout.new}/{key}", f"{layout.path}/{folder}/{key}")
    entries.delete(layout, entries.find(layout, key))
    assert everywhere(layout) == {}
    assert push(markers).is_new


def test_clearing_the_queue_frees_all_markers(markers: Markers, layout: Layout) -> None:
    for name in ("a", "b"):
        push(markers, name)
    assert entries.clear(layout, "waiting") == 2
    assert os.listdir(f"{layout.control}/unique") == []


def test_popping_an_entry_frees_its_marker(markers: Markers, layout: Layout) -> None:
    key = push(markers).key
    popped = pop_entry(layout, entries.find(layout, key), host=LABEL)
    assert popped is not None
    assert push(markers).key == key
    assert popped.unlink()
    assert not popped.unlink()
    assert push(markers).is_new


def test_a_directory_with_the_name_of_an_entry_is_left_where_it_is(markers: Markers, layout: Layout) -> None:
    key = push(markers).key
    os.unlink(f"{layout.new}/{key}")
    os.mkdir(f"{layout.new}/{key}")
    with pytest.raises(EntryMalformed):
        entries.delete(layout, entries.find(layout, key))
    assert os.path.isdir(f"{layout.new}/{key}")


def dead(claim: Claim, layout: Layout) -> entries.FoundEntry:
    return entries.find(layout, claim.key, ("dead",))


def test_a_requeue_takes_the_marker_again(claim: Claim, markers: Markers, layout: Layout) -> None:
    bury(claim)
    name = entries.requeue(layout, dead(claim, layout))
    assert held(layout) == [name]
    assert push(markers).key == claim.key
    assert [path for path in everywhere(layout) if claim.key in path] == [f"new/{name}"]


def test_a_requeue_says_which_key_holds_the_marker(claim: Claim, markers: Markers, layout: Layout) -> None:
    bury(claim)
    second = push(markers)
    with pytest.raises(UniqueKeyHeld, match=second.key):
        entries.requeue(layout, dead(claim, layout))
    assert f".dead/new/{claim.key},n=1" in everywhere(layout)
    assert held(layout) == [second.key]


def test_a_requeue_of_a_burial_that_could_not_free_its_marker_takes_it_over(
    claim: Claim, markers: Markers, layout: Layout, world: World
) -> None:
    world.refuse("unlink", errno.EIO, where="/unique/")
    bury(claim)
    assert held(layout) == [claim.key]
    name = entries.requeue(layout, dead(claim, layout))
    assert held(layout) == [name]


@pytest.mark.parametrize("call", ["fsync", "unlink"])
def test_a_requeue_that_can_not_free_the_marker_of_the_burial_is_refused(
    claim: Claim, layout: Layout, world: World, call: str
) -> None:
    """That of the burial may still be under way: it would free the key while the requeued entry has not ended."""
    world.refuse("unlink", errno.EIO, where="/unique/")
    bury(claim)
    failing = World()
    failing.refuse(call, errno.EIO, where="/unique/" if call == "unlink" else "/.dead/")
    with pytest.raises(StorageFault):
        entries.requeue(layout, dead(claim, layout), system=failing.system)
    assert [path for path in everywhere(layout) if claim.key in path and ".dead/" in path]
    assert entries.requeue(layout, dead(claim, layout)) in held(layout)


def test_a_late_free_of_a_burial_leaves_the_marker_of_the_requeue(
    claim: Claim, markers: Markers, layout: Layout
) -> None:
    before = claim.entry
    bury(claim)
    name = entries.requeue(layout, dead(claim, layout))
    ends.free_marker_of(layout, before, layout.dead_new, system=World().system)
    assert held(layout) == [name]


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_requeued_entry_frees_its_marker_at_its_next_end(
    claim: Claim, claimer: Claimer, layout: Layout, end: Callable[[Claim], object]
) -> None:
    bury(claim)
    again = claimer.claim(entries.requeue(layout, dead(claim, layout)))
    assert again is not None
    end(again)
    assert not os.path.exists(place_of(layout))


@pytest.mark.slow
def test_a_requeue_that_is_killed_at_any_call_is_finished_by_whoever_finds_its_marker(
    layout: Layout, lease: Lease
) -> None:
    for calls in range(1, 100):
        name = f"order-{calls}"
        markers = Markers(layout, host=LABEL)
        claimer = Claimer(layout, FakeSlots(), lease=lease.name, host=LABEL)
        claim = claimer.claim(push(markers, name).key)
        assert claim is not None
        bury(claim)
        dying = World(tokens=1000 * calls)
        die_at(dying, calls)
        survived = survives(lambda: entries.requeue(layout, dead(claim, layout), system=dying.system))  # noqa: B023
        had_marker = any(file.endswith("n=2") for file in held(layout, name))
        marked = push(markers, name)
        assert marked.is_new != had_marker
        paths = [path for path in everywhere(layout) if path.startswith("new/") and marked.key in path]
        assert len(paths) == 1
        dead_now = [path for path in everywhere(layout) if path.startswith(".dead/") and claim.key in path]
        assert len(dead_now) == (0 if had_marker else 1)
        if survived:
            break
    assert calls > 8


def test_deleting_a_dead_letter_frees_the_marker_that_its_burial_could_not(
    claim: Claim, markers: Markers, layout: Layout, world: World
) -> None:
    world.refuse("unlink", errno.EIO, where="/unique/")
    bury(claim)
    entries.delete(layout, dead(claim, layout))
    assert push(markers).is_new


def test_deleting_a_dead_letter_leaves_the_marker_of_another_entry(
    claim: Claim, markers: Markers, layout: Layout
) -> None:
    bury(claim)
    second = push(markers)
    entries.delete(layout, dead(claim, layout))
    assert held(layout) == [second.key]
    assert everywhere(layout) == {f"new/{second.key}": DATA}


def test_whoever_claims_a_returned_entry_changes_the_time_of_its_marker_before(
    claim: Claim, claimer: Claimer, layout: Layout, world: World
) -> None:
    claim.release()
    age(layout, 3600)
    before = os.stat(f"{place_of(layout)}/{claim.key}").st_mtime
    world.forget()
    assert claimer.claim(f"{claim.key},n=1") is not None
    assert os.stat(f"{place_of(layout)}/{claim.key}").st_mtime > before + 3000
    asked = [call.what for call in world.calls]
    assert asked.index("utime") < asked.index("rename")


@pytest.mark.invariant(8)
def test_no_claim_is_sent_if_the_touch_took_longer_than_a_claim_may_be_sent(
    claim: Claim, layout: Layout, lease: Lease, world: World
) -> None:
    claim.release()
    silent = Claimer(
        layout, FakeSlots(), lease=lease.name, host=LABEL, may_claim=lambda: False, system=world.system
    )
    assert silent.claim(f"{claim.key},n=1") is None
    assert f"new/{claim.key},n=1" in everywhere(layout)


def test_an_entry_whose_marker_cannot_be_touched_is_not_claimed(
    claim: Claim, claimer: Claimer, layout: Layout, world: World
) -> None:
    claim.release()
    world.refuse("utime", errno.EIO, where=f"/{claim.key}")
    with pytest.raises(MaildeferError):
        claimer.claim(f"{claim.key},n=1")
    assert f"new/{claim.key},n=1" in everywhere(layout)


def test_a_first_claim_and_every_plain_entry_pay_no_call(
    markers: Markers, claimer: Claimer, layout: Layout, world: World
) -> None:
    key = push(markers).key
    world.forget()
    assert claimer.claim(key) is not None
    assert [call.what for call in world.calls] == ["rename"]
    plain = EntryName(key="1.M000001P1Q1R0000000000000001.h,S=1", returns=1).waiting()
    with open(f"{layout.new}/{plain}", "wb") as file:
        file.write(b".")
    world.forget()
    claim = claimer.claim(plain)
    assert claim is not None
    claim.ack()
    assert [call.what for call in world.calls] == ["rename", "unlink"]
