"""A dead letter that a mail reader has moved back holds its unique key before it is claimed, or is buried again."""

from __future__ import annotations

import os

import pytest

from maildefer.errors import StorageFault
from maildefer.maildir import reasons
from maildefer.maildir.claims import Claim, Claimer
from maildefer.maildir.layout import Layout
from maildefer.maildir.markers.markers import Markers
from maildefer.maildir.names import EntryName, owner_of
from maildefer.maildir.operator import entries
from maildefer.maildir.upkeep.leases import Lease
from tests.maildir.markers.conftest import die_at, survives
from tests.maildir.markers.test_markers import held, push
from tests.support.queues import DATA, LABEL, FakeSlots, World, everywhere, put


@pytest.fixture
def buried(markers: Markers, claimer: Claimer, layout: Layout) -> str:
    """The name of a dead letter of order-17."""
    claim = claimer.claim(push(markers).key)
    assert claim is not None
    name = claim.bury("no such order", failed=True)
    assert held(layout) == []
    return name


def move(layout: Layout, name: str, to: str | None = None) -> str:
    """As a mail reader does, which keeps the name, or most of it."""
    os.rename(f"{layout.dead_new}/{name}", f"{layout.new}/{to or name}")
    return to or name


def taken(claimer: Claimer, name: str) -> Claim:
    claim = claimer.claim(name)
    assert claim is not None
    return claim


@pytest.mark.invariant(12)
@pytest.mark.parametrize("more", ["", ":2,S", ",U=7:2,"])
def test_it_holds_its_key_from_its_claim_to_its_end(
    layout: Layout, claimer: Claimer, markers: Markers, buried: str, more: str
) -> None:
    claim = taken(claimer, move(layout, buried, buried + more))
    assert not (found := push(markers)).is_new
    assert found.key == claim.key
    assert (claim.attempt, claim.entry.failures) == (1, 0)
    claim.ack()
    assert held(layout) == []
    assert push(markers).is_new


@pytest.mark.invariant(12)
def test_where_another_entry_has_the_key_it_is_buried_again_and_says_so(
    layout: Layout, claimer: Claimer, markers: Markers, buried: str
) -> None:
    other = push(markers).key
    assert claimer.claim(move(layout, buried)) is None
    [again] = os.listdir(layout.dead_new)
    dead = EntryName.parse(again)
    assert dead.returns == EntryName.parse(buried).returns + 1
    assert other in str(reasons.read_reason(layout, dead)["reason"])
    assert everywhere(layout) == {f".dead/new/{again}": DATA, f"new/{other}": DATA}
    assert held(layout) == [other]
    taken(claimer, other).ack()
    assert entries.requeue(layout, entries.find(layout, dead.key, ("dead",)))


def test_an_entry_that_was_handed_on_has_no_key_in_this_queue(
    layout: Layout, claimer: Claimer, markers: Markers
) -> None:
    key = push(markers).key
    os.unlink(f"{layout.new}/{key}")
    put(layout.new, f"{key.replace('R', 'Rf')},h=1,n=2")
    assert claimer.claim(f"{key.replace('R', 'Rf')},h=1,n=2") is not None
    assert held(layout) == [key]


@pytest.mark.parametrize("is_held", [True, False])
def test_while_its_key_can_not_be_held_it_is_given_back(
    layout: Layout,
    claimer: Claimer,
    slots: FakeSlots,
    markers: Markers,
    world: World,
    buried: str,
    is_held: bool,
) -> None:
    if is_held:
        push(markers)
    name = move(layout, buried)
    world.refuse("rename" if is_held else "mkdir", 28, where=layout.reasons if is_held else layout.tmp)
    with pytest.raises(StorageFault):
        claimer.claim(name)
    assert slots.held == {}, "so that the audit returns it"
    assert [owner_of(one) is not None for one in os.listdir(layout.cur)] == [True]


@pytest.mark.invariant(10)
def test_what_has_ended_long_ago_holds_nothing(layout: Layout, claimer: Claimer, markers: Markers) -> None:
    """A listing that shows it still is a hint."""
    key = push(markers).key
    taken(claimer, key).release()
    taken(claimer, f"{key},n=1").ack()
    assert claimer.claim(f"{key},n=1") is None
    assert held(layout) == []
    assert push(markers).is_new


@pytest.mark.invariant(12)
@pytest.mark.parametrize("is_held", [True, False])
@pytest.mark.slow
def test_a_worker_that_is_killed_at_any_call_loses_nothing_and_lets_one_run_at_a_time(
    layout: Layout, lease: Lease, is_held: bool
) -> None:
    for calls in range(1, 100):
        name, markers = f"order-{calls}", Markers(layout, host=LABEL)
        entry = EntryName(key=push(markers, name).key)
        calm = Claimer(layout, FakeSlots(), lease=lease.name, host=LABEL)
        moved = move(layout, taken(calm, entry.key).bury("x"))
        other = push(markers, name).key if is_held else None
        dying = World(tokens=1000 * calls)
        claimer = Claimer(layout, FakeSlots(), lease=lease.name, host=LABEL, system=dying.system)
        die_at(dying, calls)
        survived = survives(lambda claimer=claimer, moved=moved: claimer.claim(moved))  # type: ignore[misc]
        if survived and other is None:
            assert push(markers, name).key == entry.key
        other = other or (push(markers, name).key if calls % 2 else None)
        for claimed in os.listdir(layout.cur):  # as the next keeper does
            if EntryName.parse(claimed).key == entry.key:
                back = EntryName.parse(claimed).returned(crashes=1).waiting()
                os.rename(f"{layout.cur}/{claimed}", f"{layout.new}/{back}")
        [found] = [
            one for one in everywhere(layout) if EntryName.parse(one.rpartition("/")[2]).key == entry.key
        ]
        folder, _, at = found.rpartition("/")
        again = calm.claim(at) if folder == "new" else None
        if other in (None, entry.key):
            assert again is not None
            assert push(markers, name).key == entry.key
        else:
            assert again is None
            assert push(markers, name).key == other
        if survived:
            break
    assert survived
    assert calls > 3
