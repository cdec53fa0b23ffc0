"""Taking back what nobody holds: audit, reclaim, return."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from maildefer.errors import ClaimLost, StorageFault
from maildefer.maildir import names, reasons
from maildefer.maildir.claims import Claim, Claimer
from maildefer.maildir.layout import Format, Layout
from maildefer.maildir.names import EntryName, Owner
from maildefer.maildir.reasons import Death
from maildefer.maildir.upkeep import leases, reclaim
from maildefer.maildir.upkeep.failed_moves import FailedMoves
from maildefer.maildir.upkeep.leases import Lease
from maildefer.maildir.upkeep.observer import LeaseObserver
from maildefer.maildir.upkeep.reclaim import OwnerState, Reclaimed, Reclaimer
from tests.support.queues import DATA, LABEL, FakeSlots, World, everywhere, holder, put

Claimed = Callable[[], Claim]
THEIRS = "other-000000-9-abcd"
GRACE = 45.0


class Keeper:
    """A keeper's recovery of one queue, and what its board says."""

    def __init__(self, layout: Layout, lease: Lease, world: World, max_crashes: int = 5) -> None:
        self.board: dict[tuple[int, int], OwnerState] = {}
        self.asked: list[Owner] = []
        self.observer = LeaseObserver(
            layout, Format(), lambda: lease.name, lambda holder: False, system=world.system
        )
        self.refusals, self.returns = FailedMoves(system=world.system), FailedMoves(system=world.system)
        self.reclaimer = Reclaimer(
            layout,
            self.observer,
            own=lambda: lease.name,
            look=lambda: self._state_of,
            host=LABEL,
            max_crashes=max_crashes,
            grace_seconds=GRACE,
            refusals=self.refusals,
            returns=self.returns,
            system=world.system,
        )

    def _state_of(self, owner: Owner) -> OwnerState:
        self.asked.append(owner)
        return self.board.get((owner.pid, owner.seq), "held")

    def scan(self) -> Reclaimed:
        return self.reclaimer.scan_deferred(self.reclaimer.scan())


@pytest.fixture
def keeper(layout: Layout, lease: Lease, world: World) -> Keeper:
    return Keeper(layout, lease, world)


@pytest.fixture
def theirs(layout: Layout, world: World) -> Lease:
    lease = Lease.join(layout, THEIRS, holder(pid=9), system=world.system)
    world.forget()
    return lease


def claimed_by(layout: Layout, lease: str, name: str, pid: int = 9, seq: int = 1) -> str:
    return put(layout.cur, EntryName.parse(name).claimed(f"{lease}.{pid}.{seq}"))


# The audit of one's own claims


@pytest.mark.invariant(6)
def test_a_claim_that_a_worker_is_on_is_left_to_it(keeper: Keeper, claimed: Claimed, layout: Layout) -> None:
    claim = claimed()
    assert not keeper.scan()
    assert list(everywhere(layout)) == [f"cur/{claim.name}"]
    claim.ack()


def test_a_claim_that_its_living_worker_is_not_on_is_released_uncharged(
    keeper: Keeper, claimed: Claimed, layout: Layout
) -> None:
    claim = claimed()
    keeper.board[4711, 1] = "alive"
    taken = keeper.scan()
    assert taken == Reclaimed(released=[claim.key])
    assert everywhere(layout) == {f"new/{claim.key},n=1": DATA}


@pytest.mark.invariant(5)
def test_a_claim_of_a_dead_worker_is_reclaimed_and_charged(
    keeper: Keeper, claimed: Claimed, layout: Layout
) -> None:
    claim = claimed()
    keeper.board[4711, 1] = "dead"
    assert keeper.scan() == Reclaimed(reclaimed=[claim.key])
    assert everywhere(layout) == {f"new/{claim.key},a=1,c=1,n=1": DATA}


@pytest.mark.invariant(6)
def test_the_board_is_read_after_the_listing(
    keeper: Keeper, claimer: Claimer, layout: Layout, world: World
) -> None:
    """The other way round, a claim made in between would be released under its worker."""
    put(layout.new, "1.x")
    keeper.board[4711, 1] = "alive"

    def claim() -> None:
        assert keeper.asked == []
        keeper.board[4711, 1] = "held"
        claimer.claim("1.x")

    world.before("open", claim, where="/cur")  # btrfs lists what was there when the folder was opened
    assert not keeper.scan()
    assert [owner.seq for owner in keeper.asked] == [1]


def test_a_claim_that_was_given_up_and_landed_late_is_found_by_the_audit(
    keeper: Keeper, claimer: Claimer, slots: FakeSlots, layout: Layout, world: World
) -> None:
    put(layout.new, "1.x")
    world.hold("rename", errno.EIO)
    with pytest.raises(StorageFault):
        claimer.claim("1.x")
    assert not keeper.scan()
    world.land()
    keeper.board[4711, 1] = "held" if slots.held else "alive"
    assert keeper.scan() == Reclaimed(released=["1.x"])
    assert everywhere(layout) == {"new/1.x,n=1": DATA}


def test_a_claim_settled_between_listing_and_audit_is_nobodys_loss(
    keeper: Keeper, claimed: Claimed, layout: Layout, world: World
) -> None:
    claim = claimed()
    keeper.board[4711, 1] = "alive"
    world.after("listdir", claim.ack, where="/cur")
    assert not keeper.scan()
    assert everywhere(layout) == {}


@pytest.mark.invariant(4)
def test_an_audit_that_comes_late_does_not_touch_the_next_claim(
    keeper: Keeper, claimed: Claimed, claimer: Claimer, layout: Layout, world: World
) -> None:
    claim = claimed()
    keeper.board[4711, 1] = "alive"

    def move_on() -> None:
        claim.release()
        claimer.claim(f"{claim.key},n=1")

    world.after("listdir", move_on, where="/cur")
    assert not keeper.scan()
    assert [EntryName.parse(name).attempts for name in os.listdir(layout.cur)] == [1]


# The dead worker


def test_only_the_dead_workers_claims_are_taken_back(keeper: Keeper, lease: Lease, layout: Layout) -> None:
    claimed_by(layout, lease.name, "1.x", pid=17)
    other = claimed_by(layout, lease.name, "2.x", pid=18)
    stranger = claimed_by(layout, THEIRS, "3.x", pid=17)
    assert keeper.reclaimer.reclaim_claims_of(17, charged=True) == Reclaimed(reclaimed=["1.x"])
    assert set(everywhere(layout)) == {"new/1.x,a=1,c=1,n=1", f"cur/{other}", f"cur/{stranger}"}


@pytest.mark.parametrize(
    ("name", "most", "charged", "folder"),
    [
        ("1.x,a=1", 2, True, "new"),
        ("1.x,a=2,c=1", 2, True, "dead"),
        ("1.x,f=1,a=2", 2, True, "dead"),
        ("1.x,a=2,c=1", 0, True, "new"),
        ("1.x,a=2,c=2", 2, False, "new"),
    ],
)
def test_a_death_that_a_handler_is_sure_to_have_caused_counts_by_its_policy(
    keeper: Keeper, lease: Lease, layout: Layout, name: str, most: int, charged: bool, folder: str
) -> None:
    claimed_by(layout, lease.name, name, pid=17)
    death = Death(how="by its time limit of 1 s", handler="m.HANDLE", most_failures=most)
    moved = keeper.reclaimer.reclaim_claims_of(17, charged=charged, death=death)
    assert len(os.listdir(layout.new if folder == "new" else layout.dead_new)) == 1
    for reason in moved.buried.values():
        assert reason.endswith("by its time limit of 1 s in m.HANDLE: @retry allows 2")
    assert bool(moved.buried) == (folder == "dead")


def test_what_was_killed_for_a_drain_is_not_charged(keeper: Keeper, lease: Lease, layout: Layout) -> None:
    claimed_by(layout, lease.name, "1.x,a=2,n=4", pid=17)
    assert keeper.reclaimer.reclaim_claims_of(17, charged=False) == Reclaimed(released=["1.x"])
    assert list(everywhere(layout)) == ["new/1.x,a=2,n=5"]


# Other owners' claims


@pytest.mark.invariant(6)
def test_claims_under_a_live_lease_are_left_alone(
    keeper: Keeper, theirs: Lease, layout: Layout, world: World
) -> None:
    claimed_by(layout, THEIRS, "1.x")
    for _ in range(5):
        assert not keeper.scan()
        world.pass_time(100)
    assert keeper.asked == [], "the board knows only our own workers"


def test_claims_without_a_lease_are_reclaimed_and_charged(
    keeper: Keeper, theirs: Lease, layout: Layout
) -> None:
    claimed_by(layout, THEIRS, "1.x,a=1,n=2", seq=1)
    claimed_by(layout, THEIRS, "2.x", seq=2)
    assert leases.fence(layout, THEIRS, 0)
    taken = keeper.scan()
    assert sorted(taken.reclaimed) == ["1.x", "2.x"]
    assert set(everywhere(layout)) == {"new/1.x,a=2,c=1,n=3", "new/2.x,a=1,c=1,n=1"}


def test_reclaiming_goes_on_for_ever_since_a_zombies_claim_can_land_after_its_fence(
    keeper: Keeper, theirs: Lease, layout: Layout, world: World
) -> None:
    assert leases.fence(layout, THEIRS, 0)
    assert not keeper.scan()
    world.pass_time(86400 * 365)
    claimed_by(layout, THEIRS, "1.x")
    assert keeper.scan() == Reclaimed(reclaimed=["1.x"])


@pytest.mark.invariant(6)
def test_both_listings_of_the_leases_begin_after_the_claim_was_seen(
    keeper: Keeper, theirs: Lease, layout: Layout, world: World
) -> None:
    claimed_by(layout, THEIRS, "1.x")
    theirs.leave()
    world.forget()
    keeper.scan()
    listed = [call.arguments[0] for call in world.asked("listdir")]
    assert listed[:3] == [layout.cur, layout.leases, layout.leases]


def test_two_keepers_reclaim_at_once_and_the_crash_is_charged_once(
    keeper: Keeper, theirs: Lease, layout: Layout, world: World
) -> None:
    claimed_by(layout, THEIRS, "1.x")
    theirs.leave()
    other = Lease.join(layout, "third-000000-3-abcd", holder(), system=world.system)
    second = Keeper(layout, other, world)
    world.before("rename", second.scan, where="/new/")
    assert not keeper.scan(), "somebody did it"
    assert list(everywhere(layout)) == ["new/1.x,a=1,c=1,n=1"]


@pytest.mark.parametrize("fault", [errno.ENOENT, errno.EIO])
def test_a_reclaim_whose_reply_was_lost_needs_no_answer(
    keeper: Keeper, theirs: Lease, layout: Layout, world: World, fault: int
) -> None:
    claimed_by(layout, THEIRS, "1.x")
    theirs.leave()
    world.lose_reply("rename", fault)
    keeper.scan()
    world.pass_time(1.0)
    keeper.scan()
    assert list(everywhere(layout)) == ["new/1.x,a=1,c=1,n=1"]
    assert len(keeper.refusals) == 0


@pytest.mark.invariant(7)
def test_the_owner_of_a_reclaimed_claim_cannot_settle_it(
    keeper: Keeper, layout: Layout, world: World, theirs: Lease
) -> None:
    zombie = Claimer(layout, FakeSlots(), lease=THEIRS, host="other-000000", system=world.system)
    put(layout.new, "1.x")
    claim = zombie.claim("1.x")
    assert claim is not None
    assert leases.fence(layout, THEIRS, 0)
    keeper.scan()
    with pytest.raises(ClaimLost):
        claim.ack()
    assert list(everywhere(layout)) == ["new/1.x,a=1,c=1,n=1"]


# The crash limit


@pytest.mark.invariant(5)
def test_a_poison_entry_is_buried_at_the_crash_limit_with_its_reason_first(
    keeper: Keeper, theirs: Lease, layout: Layout, world: World
) -> None:
    claimed_by(layout, THEIRS, "1.x,a=4,c=4,n=4")
    theirs.leave()
    world.forget()
    taken = keeper.scan()
    why = f"its worker died 5 times while handling it, at last with all of {THEIRS}, whose lease has ended"
    assert taken == Reclaimed(buried={"1.x": why})
    assert everywhere(layout) == {".dead/new/1.x,n=5": DATA}
    assert [str(call).partition("->")[2] for call in world.asked("rename")] == [
        " 1.x,n=5.json",
        " 1.x,n=5",
    ]
    reason = reasons.read_reason(layout, EntryName.parse("1.x,a=5,c=5,n=5"))
    assert reason["reason"] == why


@pytest.mark.invariant(5)
def test_an_entry_that_kills_every_worker_is_handled_max_crashes_times(
    layout: Layout, lease: Lease, world: World, claimer: Claimer
) -> None:
    keeper = Keeper(layout, lease, world, max_crashes=3)
    put(layout.new, "1.x")
    attempts = []
    while waiting := os.listdir(layout.new):
        claim = claimer.claim(waiting[0])
        assert claim is not None
        attempts.append((claim.attempt, claim.crashes))
        claim.abandon()
        keeper.reclaimer.reclaim_claims_of(4711, charged=True)
    assert attempts == [(1, 0), (2, 1), (3, 2)]
    assert os.listdir(layout.dead_new) == ["1.x,n=3"]


def test_an_uncharged_take_back_never_buries(keeper: Keeper, lease: Lease, layout: Layout) -> None:
    claimed_by(layout, lease.name, "1.x,c=4", pid=17)
    assert keeper.reclaimer.reclaim_claims_of(17, charged=False) == Reclaimed(released=["1.x"])


def test_one_that_cannot_be_buried_on_a_full_disk_does_not_keep_the_others_waiting(
    keeper: Keeper, theirs: Lease, layout: Layout, world: World
) -> None:
    for number in range(4):
        claimed_by(layout, THEIRS, f"{number}.x,c={4 * (number % 2)}".removesuffix(",c=0"), seq=number)
    theirs.leave()
    world.refuse("write", errno.ENOSPC, times=2)
    keeper.scan()
    assert sorted(os.listdir(layout.new)) == ["0.x,a=1,c=1,n=1", "2.x,a=1,c=1,n=1"]
    assert len(os.listdir(layout.cur)) == len(keeper.refusals) == 2
    assert [error for _, error in keeper.refusals.unreported()] == ["No space left on device"] * 2
    world.forget()
    assert not keeper.scan().buried
    assert world.asked("write", "rename") == [], "each waits for its pause"
    world.pass_time(1.0)
    assert len(keeper.scan().buried) == 2
    assert len(keeper.refusals) == 0


def test_a_missing_folder_of_the_dead_is_made_for_the_next_scan(
    keeper: Keeper, theirs: Lease, layout: Layout
) -> None:
    claimed_by(layout, THEIRS, "1.x,c=4")
    theirs.leave()
    os.rename(f"{layout.path}/.dead", f"{layout.path}-away")
    keeper.scan()
    keeper.scan()
    assert os.listdir(layout.dead_new) == ["1.x,n=1"]


# What mail readers moved


def test_looking_at_a_queue_with_a_mail_reader_does_not_empty_it(
    keeper: Keeper, layout: Layout, world: World
) -> None:
    put(layout.cur, "1.x:2,S")
    assert not keeper.scan()
    world.pass_time(GRACE - 0.1)
    assert not keeper.scan()
    world.pass_time(0.1)
    assert keeper.scan() == Reclaimed(returned=["1.x"])
    assert everywhere(layout) == {"new/1.x,n=1": DATA}


def test_the_grace_begins_anew_for_a_name_that_was_gone(keeper: Keeper, layout: Layout, world: World) -> None:
    put(layout.cur, "1.x:2,")
    keeper.scan()
    os.rename(f"{layout.cur}/1.x:2,", f"{layout.cur}/1.x:2,S")
    world.pass_time(GRACE)
    assert not keeper.scan()
    world.pass_time(GRACE)
    assert keeper.scan() == Reclaimed(returned=["1.x"])


@pytest.mark.invariant(4)
@pytest.mark.parametrize(
    ("name", "back"),
    [
        ("1.x", "1.x,n=1"),
        ("1.x,a=2,c=1,n=7:2,RS", "1.x,a=2,c=1,n=8"),
        ("1.x,S=7:2,", "1.x,S=7,n=1"),
        ("1.x:1,pop-17-abcd", "1.x,n=1"),
        ("1.x:1,unknown", "1.x,n=1"),
    ],
)
def test_what_a_reader_or_a_crashed_pop_left_goes_back_a_generation_on(
    keeper: Keeper, layout: Layout, world: World, name: str, back: str
) -> None:
    put(layout.cur, name)
    keeper.scan()
    world.pass_time(GRACE)
    keeper.scan()
    assert everywhere(layout) == {f"new/{back}": DATA}


def test_a_deferred_entry_that_a_reader_opened_keeps_its_due_time(
    keeper: Keeper, layout: Layout, world: World
) -> None:
    put(layout.later_cur, "1.x,a=1,n=1,d=1700009999:2,S")
    put(layout.later_cur, "2.x:2,S")
    keeper.scan()
    world.pass_time(GRACE)
    keeper.scan()
    assert set(everywhere(layout)) == {".later/new/1.x,a=1,n=2,d=1700009999", "new/2.x,n=1"}


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "12:30:00.mail", "X,a=0", ":2,S"])
def test_a_name_too_foreign_to_return_gets_a_fresh_key_and_never_stops_the_scan(
    keeper: Keeper, layout: Layout, world: World, name: str
) -> None:
    put(layout.cur, name)
    put(layout.cur, "zz.x:2,S")
    keeper.scan()
    world.pass_time(GRACE)
    assert len(keeper.scan().returned) == 2
    assert len(os.listdir(layout.new)) == 2
    assert "zz.x,n=1" in os.listdir(layout.new)


def test_one_that_cannot_be_returned_does_not_keep_the_others(
    keeper: Keeper, layout: Layout, world: World
) -> None:
    for number in range(3):
        put(layout.cur, f"{number}.x:2,S")
    keeper.scan()
    world.pass_time(GRACE)
    world.refuse("rename", errno.EACCES)
    keeper.scan()
    assert len(os.listdir(layout.new)) == 2
    assert len(keeper.returns) == 1
    world.pass_time(1.0)
    assert len(keeper.scan().returned) == 1


def test_a_take_back_that_can_not_move_one_claim_moves_the_others_and_says_so(
    keeper: Keeper, lease: Lease, layout: Layout, world: World
) -> None:
    for seq in range(3):
        claimed_by(layout, lease.name, f"{seq}.x", pid=17, seq=seq)
    world.refuse("rename", errno.EACCES)
    taken = Reclaimed()
    with pytest.raises(OSError, match="Permission"):
        keeper.reclaimer.reclaim_claims_of(17, charged=True, moved=taken)
    assert len(taken.reclaimed) == 2
    keeper.reclaimer.reclaim_claims_of(17, charged=True, moved=taken)
    assert sorted(taken.reclaimed) == ["0.x", "1.x", "2.x"]


def test_a_folder_of_the_deferred_that_can_not_be_read_leaves_the_claims_alone(
    keeper: Keeper, theirs: Lease, layout: Layout, world: World
) -> None:
    claimed_by(layout, THEIRS, "1.x")
    theirs.leave()
    world.refuse("listdir", errno.EACCES, where="/.later/cur", times=9)
    assert keeper.reclaimer.scan().reclaimed == ["1.x"]
    with pytest.raises(OSError, match="Permission"):
        keeper.reclaimer.scan_deferred()


def test_a_name_that_is_gone_before_its_return_is_not_told_as_returned(
    keeper: Keeper, layout: Layout, world: World
) -> None:
    put(layout.cur, "1.x:2,S")
    keeper.scan()
    world.pass_time(GRACE)
    world.after("listdir", lambda: os.unlink(f"{layout.cur}/1.x:2,S"), where="/cur")
    assert not keeper.scan()


def test_directories_links_and_fifos_are_returned_as_well_to_be_buried_by_a_worker(
    keeper: Keeper, layout: Layout, world: World
) -> None:
    os.mkdir(f"{layout.cur}/dir")
    os.mkfifo(f"{layout.cur}/fifo")
    os.symlink("/etc/passwd", f"{layout.cur}/link")
    keeper.scan()
    world.pass_time(GRACE)
    assert sorted(keeper.scan().returned) == ["dir", "fifo", "link"]
    assert sorted(os.listdir(layout.new)) == ["dir,n=1", "fifo,n=1", "link,n=1"]


def test_dotted_names_are_nobodys_entries(keeper: Keeper, layout: Layout, world: World) -> None:
    put(layout.cur, ".nfs0001")
    keeper.scan()
    world.pass_time(GRACE)
    assert not keeper.scan()


def test_a_missing_folder_of_the_deferred_does_not_stop_the_scan(
    keeper: Keeper, theirs: Lease, layout: Layout
) -> None:
    os.rename(f"{layout.path}/.later", f"{layout.path}-away")
    claimed_by(layout, THEIRS, "1.x")
    theirs.leave()
    assert keeper.scan() == Reclaimed(reclaimed=["1.x"])


def test_memory_stays_bounded_however_much_a_reader_moved(
    keeper: Keeper, layout: Layout, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclaim, "_MOST_FOREIGN", 3)
    for number in range(10):
        put(layout.cur, f"{number}.x:2,S")
    returned = []
    for _ in range(8):
        returned += keeper.scan().returned
        assert all(len(watched) <= 3 for watched in keeper.reclaimer._foreign.values())
        world.pass_time(GRACE)
    assert sorted(returned) == sorted(f"{number}.x" for number in range(10))


@pytest.mark.invariant(10)
def test_a_name_that_a_listing_misses_costs_time_and_one_that_is_not_there_costs_nothing(
    keeper: Keeper, theirs: Lease, layout: Layout, world: World
) -> None:
    name = claimed_by(layout, THEIRS, "1.x")
    theirs.leave()
    world.hide(name)
    world.show(layout.cur, EntryName.parse("2.x").claimed(f"{THEIRS}.9.2"))
    assert not keeper.scan()
    world.hidden.clear()
    world.show(layout.cur, name)  # twice
    assert keeper.scan() == Reclaimed(reclaimed=["1.x"])
    assert list(everywhere(layout)) == ["new/1.x,a=1,c=1,n=1"]


def test_a_listing_that_fails_ends_the_scan(keeper: Keeper, world: World) -> None:
    world.refuse("listdir", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        keeper.scan()


@pytest.mark.invariant(9)
def test_no_return_changes_a_byte(keeper: Keeper, theirs: Lease, layout: Layout) -> None:
    data = bytes(range(256)) * 100
    put(layout.cur, EntryName.parse("1.x,c=4").claimed(f"{THEIRS}.9.1"), data)
    put(layout.cur, EntryName.parse("2.x").claimed(f"{THEIRS}.9.1"), data)
    theirs.leave()
    keeper.scan()
    assert list(everywhere(layout).values()) == [data, data]


def test_a_scan_that_took_anything_back_is_true() -> None:
    for taken in (Reclaimed(reclaimed=["1.x"]), Reclaimed(released=["1.x"]), Reclaimed(returned=["1.x"])):
        assert taken
    assert Reclaimed(buried={"1.x": "it died"})
    assert not Reclaimed()


def test_owners_are_told_apart_by_lease_process_and_number() -> None:
    name = EntryName(key="1.x").claimed(f"{THEIRS}.9.12")
    assert names.owner_of(name) == Owner(THEIRS, 9, 12)
