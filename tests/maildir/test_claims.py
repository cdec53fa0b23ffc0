"""Claiming, and what ends a claim."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from maildefer.errors import (
    ClaimLost,
    ClaimRefused,
    EntryMalformed,
    EntryTooLarge,
    NoSpace,
    PermissionRefused,
    QueueError,
    QueueMissing,
    StorageFault,
    UseAfterFork,
    storage_fault,
)
from maildefer.maildir import names, reasons
from maildefer.maildir.claims import Claim, Claimer
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.names import EntryName
from maildefer.maildir.push import Pusher
from maildefer.maildir.upkeep import leases
from maildefer.maildir.upkeep.leases import Lease
from tests.support.queues import DATA, FAULTS, LABEL, START, FakeSlots, World, everywhere, put, somebody_else

Claimed = Callable[[], Claim]


@pytest.fixture
def other(tmp_path: Path, world: World) -> Layout:
    layout = create_queue(str(tmp_path / "other"), system=world.system)
    world.forget()
    return layout


def waiting(layout: Layout, name: str) -> str:
    return put(layout.new, name)


def taken(claimer: Claimer, name: str) -> Claim:
    claim = claimer.claim(name)
    assert claim is not None
    return claim


# Claiming


@pytest.mark.invariant(2)
def test_a_claim_is_one_rename_and_nothing_else(claimer: Claimer, layout: Layout, world: World) -> None:
    claim = taken(claimer, waiting(layout, "1.x"))
    assert [(call.what, *call.arguments) for call in world.calls] == [
        ("rename", f"{layout.new}/1.x", f"{layout.cur}/{claim.name}")
    ]


@pytest.mark.invariant(3)
def test_a_claimed_name_tells_lease_process_and_number(
    claimer: Claimer, layout: Layout, lease: Lease
) -> None:
    first, second = taken(claimer, waiting(layout, "1.x")), taken(claimer, waiting(layout, "2.x"))
    assert first.name == f"1.x,a=1:1,{lease.name}.4711.1"
    assert second.name == f"2.x,a=1:1,{lease.name}.4711.2"


@pytest.mark.invariant(3)
def test_two_claimers_of_one_entry_have_different_destinations_and_one_gets_it(
    layout: Layout, lease: Lease, world: World
) -> None:
    waiting(layout, "1.x")
    world.pid = 17
    first = Claimer(layout, FakeSlots(), lease=lease.name, host=LABEL, system=world.system)
    world.pid = 18
    second = Claimer(layout, FakeSlots(), lease=lease.name, host=LABEL, system=world.system)
    claims = [first.claim("1.x"), second.claim("1.x")]
    assert claims[1] is None
    destinations = [call.arguments[1] for call in world.asked("rename")]
    assert len(set(destinations)) == 2


@pytest.mark.invariant(5)
@pytest.mark.parametrize(
    ("name", "attempt", "crashes", "held"),
    [
        ("X", 1, 0, "X,a=1"),
        ("X,S=7", 1, 0, "X,S=7,a=1"),
        ("X,a=4,c=2,n=9", 5, 2, "X,a=5,c=2,n=9"),
        ("X,n=9", 1, 0, "X,a=1,n=9"),
        ("X,c=2,n=1", 1, 2, "X,a=1,c=2,n=1"),
        ("X:2,S", 1, 0, "X,a=1"),
        ("X,a=1:2,S", 2, 0, "X,a=2"),
        ("X,d=1700000000", 1, 0, "X,a=1"),
        ("with space\nand newline", 1, 0, "with space\nand newline,a=1"),
        ("\x1b[31m\x7f", 1, 0, "\x1b[31m\x7f,a=1"),
        ("\udcff\udcfe", 1, 0, "\udcff\udcfe,a=1"),
        ("ünïcode", 1, 0, "ünïcode,a=1"),
    ],
)
def test_the_attempt_is_charged_by_the_claim_itself(
    claimer: Claimer, layout: Layout, lease: Lease, name: str, attempt: int, crashes: int, held: str
) -> None:
    claim = taken(claimer, waiting(layout, name))
    assert claim.name == f"{held}:1,{lease.name}.4711.1"
    assert (claim.attempt, claim.crashes) == (attempt, crashes)
    assert os.listdir(layout.cur) == [claim.name]
    assert claim.key == EntryName.parse(claim.name).key


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "\udcff" * 255, "12:30:00.mail", "X,a=0", ":2,S"])
def test_a_foreign_name_that_cannot_carry_the_suffix_gets_a_fresh_key_first(
    claimer: Claimer, layout: Layout, name: str
) -> None:
    claim = taken(claimer, waiting(layout, name))
    assert claim.key.endswith(f".{LABEL}")
    assert claim.read() == DATA
    claim.defer(60)
    assert list(everywhere(layout).values()) == [DATA]


@pytest.mark.invariant(2)
def test_entries_whose_names_differ_only_after_a_colon_are_never_made_one(
    claimer: Claimer, layout: Layout
) -> None:
    for name in ("12:30:00", "12:45:00", "12", "12,a=0", "12,a=00"):
        put(layout.new, name, name.encode())
    claims = [taken(claimer, name) for name in sorted(os.listdir(layout.new))]
    for claim in claims:
        claim.release()
    claims = [taken(claimer, name) for name in sorted(os.listdir(layout.new))]
    for claim in claims:
        claim.bury("no route")
    assert sorted(everywhere(layout).values()) == [b"12", b"12,a=0", b"12,a=00", b"12:30:00", b"12:45:00"]


@pytest.mark.invariant(3)
def test_what_may_be_held_is_published_before_the_claim_is_sent(
    claimer: Claimer, layout: Layout, slots: FakeSlots, world: World
) -> None:
    seen: list[dict[int, tuple[int, str]]] = []
    world.before("rename", lambda: seen.append(dict(slots.held)))
    claim = taken(claimer, waiting(layout, "1.x"))
    assert seen == [{0: (1, claim.name)}]


@pytest.mark.invariant(10)
def test_a_name_that_is_gone_costs_one_call_and_no_error(
    claimer: Claimer, layout: Layout, slots: FakeSlots, world: World
) -> None:
    assert claimer.claim("1.gone") is None
    assert len(world.calls) == 1
    assert slots.held == {}


@pytest.mark.parametrize("seconds", [0.0, 0.09])
def test_a_quick_lost_race_is_not_looked_into(claimer: Claimer, world: World, seconds: float) -> None:
    world.take("rename", seconds)
    assert claimer.claim("1.gone") is None
    assert world.asked("listdir") == []


@pytest.mark.invariant(3)
def test_a_slow_lost_race_is_looked_into_by_a_fresh_listing(
    claimer: Claimer, layout: Layout, slots: FakeSlots, world: World
) -> None:
    world.take("rename", 0.1)
    assert claimer.claim("1.gone") is None
    assert [(call.what, *call.arguments) for call in world.calls[1:]] == [
        ("utime", layout.cur),
        ("listdir", layout.cur),
    ]
    assert slots.held == {}


def test_on_a_local_filesystem_a_lost_race_is_never_looked_into(
    layout: Layout, lease: Lease, slots: FakeSlots, world: World
) -> None:
    claimer = Claimer(layout, slots, lease=lease.name, host=LABEL, local=True, system=world.system)
    world.forget()
    world.take("rename", 60)
    assert claimer.claim("1.gone") is None
    assert len(world.calls) == 1


@pytest.mark.invariant(3)
@pytest.mark.parametrize("fault", [errno.ENOENT, errno.EIO, errno.ESTALE, errno.EINTR, errno.ETIMEDOUT])
def test_a_claim_whose_reply_was_lost_is_ours(
    claimer: Claimer, layout: Layout, slots: FakeSlots, world: World, fault: int
) -> None:
    world.lose_reply("rename", fault)
    world.take("rename", 1.0)
    claim = taken(claimer, waiting(layout, "1.x"))
    assert list(slots.held.values()) == [(1, claim.name)]
    assert claim.read() == DATA
    claim.ack()
    assert everywhere(layout) == {}
    assert slots.held == {}


@pytest.mark.invariant(3)
def test_a_claim_is_not_ours_because_somebody_elses_is_there(
    claimer: Claimer, layout: Layout, world: World
) -> None:
    waiting(layout, "1.x")
    theirs = f"{layout.cur}/1.x,a=1:1,{LABEL}-18-abcdef012345.18.1"
    world.before("rename", lambda: os.rename(f"{layout.new}/1.x", theirs))
    world.take("rename", 1.0)
    assert claimer.claim("1.x") is None


@pytest.mark.parametrize("fault", [errno.EIO, errno.ESTALE, errno.EINTR, errno.ETIMEDOUT])
def test_a_doubtful_claim_that_did_not_happen_is_a_fault(
    claimer: Claimer, layout: Layout, slots: FakeSlots, world: World, fault: int
) -> None:
    world.refuse("rename", fault)
    with pytest.raises(StorageFault):
        claimer.claim(waiting(layout, "1.x"))
    assert everywhere(layout) == {"new/1.x": DATA}
    assert slots.held == {}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_refused_claim_names_the_fault_and_leaves_the_entry_where_it_was(
    claimer: Claimer, layout: Layout, slots: FakeSlots, world: World, fault: int
) -> None:
    world.refuse("rename", fault)
    with pytest.raises(type(storage_fault("", OSError(fault, "")))) as error:
        claimer.claim(waiting(layout, "1.x"))
    assert error.value.remedy in str(error.value)
    assert everywhere(layout) == {"new/1.x": DATA}
    assert slots.held == {}


def test_a_look_that_fails_counts_as_not_ours_and_the_audit_finds_the_claim(
    claimer: Claimer, layout: Layout, slots: FakeSlots, world: World
) -> None:
    world.lose_reply("rename", errno.EIO)
    world.refuse("listdir", errno.EIO)
    with pytest.raises(StorageFault):
        claimer.claim(waiting(layout, "1.x"))
    assert slots.held == {}, "so that the audit takes it back"
    assert [name.partition("/")[0] for name in everywhere(layout)] == ["cur"]


def test_a_claim_that_lands_late_is_nobodys_until_the_audit(
    claimer: Claimer, layout: Layout, slots: FakeSlots, world: World
) -> None:
    world.hold("rename", errno.EIO)
    with pytest.raises(StorageFault):
        claimer.claim(waiting(layout, "1.x"))
    assert world.land() == []
    [name] = os.listdir(layout.cur)
    assert name in slots.published
    assert slots.held == {}


def test_claims_after_a_new_lease_are_made_under_it_and_older_ones_keep_theirs(
    claimer: Claimer, layout: Layout, lease: Lease
) -> None:
    old = taken(claimer, waiting(layout, "1.x"))
    claimer.serve_under(f"{LABEL}-4711-ffff")
    new = taken(claimer, waiting(layout, "2.x"))
    assert claimer.lease == f"{LABEL}-4711-ffff"
    assert lease.name in old.name
    assert f":1,{LABEL}-4711-ffff.4711." in new.name


# Reading


@pytest.mark.invariant(9)
def test_a_claim_reads_the_bytes_as_they_were_pushed(claimed: Callable[[bytes], Claim]) -> None:
    data = random.Random(1).randbytes(200_000)
    assert claimed(data).read() == data


def test_an_entry_that_is_gone_when_it_is_read_is_a_lost_claim(
    claimed: Claimed, layout: Layout, slots: FakeSlots
) -> None:
    claim = claimed()
    os.unlink(f"{layout.cur}/{claim.name}")
    with pytest.raises(ClaimLost):
        claim.read()
    assert slots.held == {}


def test_a_claim_tells_key_and_attempt(claimer: Claimer, layout: Layout, world: World) -> None:
    claim = taken(claimer, waiting(layout, "1700000000.M1.h,S=22,a=2,n=3"))
    assert claim.key == "1700000000.M1.h,S=22"
    assert claim.began == world.uptime
    assert claim.entry == EntryName(key="1700000000.M1.h,S=22", attempts=3, returns=3)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/etc/passwd", path)])
def test_what_is_no_file_is_claimed_found_malformed_and_buried(
    claimer: Claimer, layout: Layout, make: Callable[[str], None]
) -> None:
    make(f"{layout.new}/thing")
    claim = taken(claimer, "thing")
    with pytest.raises(EntryMalformed) as fault:
        claim.read()
    claim.bury(str(fault.value))
    assert os.listdir(layout.dead_new) == ["thing,n=1"]
    assert os.listdir(layout.cur) == []


def test_an_empty_file_is_an_empty_message(claimer: Claimer, layout: Layout) -> None:
    put(layout.new, "empty", b"")
    assert taken(claimer, "empty").read() == b""


def test_a_file_of_fifty_megabytes_is_read_whole_or_refused_unread(
    claimer: Claimer, layout: Layout, world: World
) -> None:
    with open(f"{layout.new}/big", "wb") as file:
        file.truncate(50 << 20)
    claim = taken(claimer, "big")
    world.forget()
    with pytest.raises(EntryTooLarge) as fault:
        claim.read(49 << 20)
    assert (fault.value.size_bytes, fault.value.limit_bytes) == (50 << 20, 49 << 20)
    assert len(world.asked("read")) == 1
    assert len(claim.read()) == 50 << 20


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_an_unreadable_file_is_a_named_fault_and_can_be_released(public_path: Path) -> None:
    layout = create_queue(f"{public_path}/q")
    for directory in (layout.path, layout.new, layout.cur):
        os.chmod(directory, 0o777)
    put(layout.new, "secret")
    os.chmod(f"{layout.new}/secret", 0o600)
    with somebody_else():
        claim = taken(Claimer(layout, FakeSlots(), lease=f"{LABEL}-1-abcd", host=LABEL), "secret")
        with pytest.raises(PermissionRefused, match="permission to read this file"):
            claim.read()
        claim.release()
    assert os.listdir(layout.new) == ["secret,n=1"]


# Settling

SETTLES: dict[str, tuple[Callable[[Claim, Layout], object], str]] = {
    "ack": (lambda claim, other: claim.ack(), ""),
    "ack and keep": (
        lambda claim, other: claim.ack(keep_seconds=60.0),
        ".done/new/{key},a=4,c=1,n=6,d=1700000060",
    ),
    "release": (lambda claim, other: claim.release(), "new/{key},a=3,c=1,n=6"),
    "postpone": (lambda claim, other: claim.postpone(60), ".later/new/{key},a=3,c=1,n=6,d=1700000060"),
    "defer": (lambda claim, other: claim.defer(60), ".later/new/{key},a=4,c=1,n=6,d=1700000060"),
    "defer a failure": (
        lambda claim, other: claim.defer(60, failed=True),
        ".later/new/{failed},a=4,c=1,n=6,d=1700000060",
    ),
    "bury": (lambda claim, other: claim.bury("no route"), ".dead/new/{buried},n=6"),
    "bury a failure": (
        lambda claim, other: claim.bury("given up", failed=True),
        ".dead/new/{buried},n=6",
    ),
    "handoff": (lambda claim, other: claim.handoff(other), "OTHER/new/{handed},c=1,n=6"),
}
WAITING = "1700000000.M1.h,S=22,f=2,h=7,a=3,c=1,n=5"
KEY = "1700000000.M1.h,S=22"


@pytest.fixture
def held(claimer: Claimer, layout: Layout, other: Layout, world: World) -> Claim:
    os.makedirs(layout.done_new)
    claim = taken(claimer, waiting(layout, WAITING))
    world.forget()
    return claim


def all_entries(layout: Layout, other: Layout) -> dict[str, bytes]:
    return everywhere(layout) | {f"OTHER/{name}": data for name, data in everywhere(other).items()}


def expected(settle: str) -> dict[str, bytes]:
    where = SETTLES[settle][1]
    names = {
        "key": f"{KEY},f=2,h=7",
        "failed": f"{KEY},f=3,h=7",
        "handed": f"{KEY},h=8",
        "buried": f"{KEY},h=7",
    }
    return {where.format(**names): DATA} if where else {}


@pytest.mark.parametrize("settle", SETTLES)
@pytest.mark.invariant(2)
def test_each_settle_is_one_rename_or_the_unlink_and_leads_where_the_design_says(
    held: Claim, layout: Layout, other: Layout, slots: FakeSlots, world: World, settle: str
) -> None:
    SETTLES[settle][0](held, other)
    assert all_entries(layout, other) == expected(settle)
    moves = [call for call in world.asked("rename", "unlink") if held.name in call.arguments[0]]
    assert len(moves) == 1
    assert slots.held == {}


@pytest.mark.invariant(4)
@pytest.mark.parametrize("settle", [settle for settle in SETTLES if settle != "ack"])
def test_each_settle_leaves_a_name_of_the_next_generation(
    held: Claim, layout: Layout, other: Layout, settle: str
) -> None:
    SETTLES[settle][0](held, other)
    [name] = all_entries(layout, other)
    assert EntryName.parse(name.rpartition("/")[2]).returns == 6


@pytest.mark.parametrize("settle", ["ack", "release", "postpone", "defer", "handoff"])
def test_only_push_and_the_reason_of_a_burial_pay_for_fsync(
    held: Claim, other: Layout, world: World, settle: str
) -> None:
    SETTLES[settle][0](held, other)
    assert len(world.calls) == 1


@pytest.mark.parametrize("settle", SETTLES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_refused_settle_names_the_fault_keeps_the_claim_and_can_be_repeated(
    held: Claim, layout: Layout, other: Layout, slots: FakeSlots, world: World, settle: str, fault: int
) -> None:
    world.refuse("unlink" if settle == "ack" else "rename", fault, where=f"/{held.name}")
    with pytest.raises(type(storage_fault("", OSError(fault, "")))) as error:
        SETTLES[settle][0](held, other)
    assert error.value.remedy in str(error.value)
    assert everywhere(layout) == {f"cur/{held.name}": DATA}
    assert len(slots.held) == 1
    SETTLES[settle][0](held, other)
    assert all_entries(layout, other) == expected(settle)


@pytest.mark.invariant(7)
@pytest.mark.parametrize("settle", SETTLES)
def test_a_claim_is_settled_once(held: Claim, other: Layout, world: World, settle: str) -> None:
    SETTLES[settle][0](held, other)
    world.forget()
    for again in SETTLES.values():
        with pytest.raises(QueueError, match="settled already"):
            again[0](held, other)
    assert world.calls == []


@pytest.mark.parametrize("settle", SETTLES)
def test_a_claim_cannot_be_settled_in_a_forked_child(
    held: Claim, claimer: Claimer, layout: Layout, other: Layout, world: World, settle: str
) -> None:
    claimer.stale = True
    with pytest.raises(UseAfterFork, match="parent"):
        SETTLES[settle][0](held, other)
    assert world.calls == []


def test_a_postponed_or_deferred_claim_tells_its_new_name(claimed: Claimed, layout: Layout) -> None:
    assert {claimed().defer(5), claimed().postpone(5)} == set(os.listdir(layout.later_new))


@pytest.mark.parametrize("settle", SETTLES)
@pytest.mark.parametrize("fault", [errno.ENOENT, errno.EIO, errno.ESTALE, errno.EINTR, errno.ETIMEDOUT])
def test_a_settle_whose_reply_was_lost_is_done(
    held: Claim, layout: Layout, other: Layout, slots: FakeSlots, world: World, settle: str, fault: int
) -> None:
    world.lose_reply("unlink" if settle == "ack" else "rename", fault, where=f"/{held.name}")
    SETTLES[settle][0](held, other)
    assert all_entries(layout, other) == expected(settle)
    assert slots.held == {}


@pytest.mark.parametrize("settle", SETTLES)
def test_a_settle_is_done_though_the_entry_has_moved_on_from_its_destination(
    held: Claim, layout: Layout, other: Layout, world: World, settle: str
) -> None:
    def move_on() -> None:
        for name in list(all_entries(layout, other)):
            os.unlink(f"{layout.path}/{name}".replace(f"{layout.path}/OTHER", other.path))

    what = "unlink" if settle == "ack" else "rename"
    world.lose_reply(what, errno.ENOENT, where=f"/{held.name}")
    world.after(what, move_on, where=f"/{held.name}")
    SETTLES[settle][0](held, other)
    assert all_entries(layout, other) == {}


@pytest.mark.invariant(7)
@pytest.mark.parametrize("settle", SETTLES)
def test_a_lost_claim_cannot_be_settled(
    held: Claim, layout: Layout, other: Layout, slots: FakeSlots, lease: Lease, settle: str
) -> None:
    assert leases.fence(layout, lease.name, lease.beat)
    os.rename(f"{layout.cur}/{held.name}", f"{layout.new}/{KEY},a=4,c=2,n=6")
    with pytest.raises(ClaimLost):
        SETTLES[settle][0](held, other)
    assert all_entries(layout, other) == {f"new/{KEY},a=4,c=2,n=6": DATA}
    assert slots.held == {}


@pytest.mark.invariant(7)
@pytest.mark.parametrize("settle", SETTLES)
def test_a_lost_claim_that_another_has_taken_is_left_to_him(
    held: Claim, layout: Layout, other: Layout, lease: Lease, settle: str
) -> None:
    assert leases.fence(layout, lease.name, lease.beat)
    theirs = f"{KEY},a=5,c=2,n=6:1,other-000000-1-abcd.1.1"
    os.rename(f"{layout.cur}/{held.name}", f"{layout.cur}/{theirs}")
    with pytest.raises(ClaimLost):
        SETTLES[settle][0](held, other)
    assert all_entries(layout, other) == {f"cur/{theirs}": DATA}


def test_a_settle_under_a_fenced_lease_that_nobody_took_back_yet_still_counts(
    held: Claim, layout: Layout, other: Layout, lease: Lease
) -> None:
    assert leases.fence(layout, lease.name, lease.beat)
    held.ack()
    assert all_entries(layout, other) == {}


def test_our_lease_hidden_from_one_listing_by_a_beat_is_still_seen(
    held: Claim, layout: Layout, other: Layout, lease: Lease, world: World
) -> None:
    world.hide(f"{lease.name}.0")
    world.after("listdir", world.hidden.clear, where="/leases")
    world.lose_reply("rename", errno.ENOENT, where=f"/{held.name}")
    held.defer(60)
    assert all_entries(layout, other) == expected("defer")


def test_a_settle_that_cannot_be_looked_into_keeps_the_claim(
    held: Claim, layout: Layout, slots: FakeSlots, world: World
) -> None:
    world.refuse("unlink", errno.EIO)
    world.refuse("listdir", errno.EIO)
    with pytest.raises(StorageFault):
        held.ack()
    assert len(slots.held) == 1
    held.ack()
    assert slots.held == {}


def test_a_settle_is_never_judged_by_stat(held: Claim, world: World) -> None:
    world.lose_reply("rename", errno.ENOENT)
    held.release()
    assert world.asked("lstat", "fstat", "open") == []


@pytest.mark.parametrize(
    ("settle", "folder"),
    [("defer", ".later"), ("postpone", ".later"), ("bury", ".dead"), ("ack and keep", ".done")],
)
def test_a_missing_folder_of_ours_is_made_again(
    held: Claim, layout: Layout, other: Layout, world: World, settle: str, folder: str
) -> None:
    os.makedirs(layout.done_new, exist_ok=True)
    os.rename(f"{layout.path}/{folder}", f"{layout.path}-away")
    SETTLES[settle][0](held, other)
    assert all_entries(layout, other) == expected(settle)


def test_a_folder_that_cannot_be_made_again_is_a_named_fault_and_keeps_the_claim(
    held: Claim, layout: Layout, slots: FakeSlots, world: World
) -> None:
    os.rename(f"{layout.path}/.later", f"{layout.path}-away")
    world.refuse("mkdir", errno.ENOSPC)
    with pytest.raises(NoSpace):
        held.defer(60)
    assert len(slots.held) == 1
    held.defer(60)
    assert slots.held == {}


def test_a_missing_new_is_made_again_by_a_release(held: Claim, layout: Layout, other: Layout) -> None:
    os.rmdir(layout.new)
    held.release()
    assert all_entries(layout, other) == expected("release")


def test_a_handoff_to_a_queue_that_is_not_there_keeps_the_claim(
    held: Claim, layout: Layout, slots: FakeSlots, tmp_path: Path
) -> None:
    with pytest.raises(QueueMissing, match="nowhere"):
        held.handoff(Layout(f"{tmp_path}/nowhere"))
    assert everywhere(layout) == {f"cur/{held.name}": DATA}
    held.bury("no such queue")
    assert list(everywhere(layout)) == [f".dead/new/{KEY},h=7,n=6"]


def test_a_handoff_across_filesystems_is_told_and_keeps_the_claim(
    held: Claim, layout: Layout, other: Layout, slots: FakeSlots, world: World
) -> None:
    world.refuse("rename", errno.EXDEV)
    with pytest.raises(OSError, match="cross-device"):
        held.handoff(other)
    assert len(slots.held) == 1
    assert everywhere(layout) == {f"cur/{held.name}": DATA}


def test_a_handed_off_entry_keeps_its_key_and_its_crashes_and_begins_its_attempts_anew(
    held: Claim, other: Layout
) -> None:
    held.handoff(other)
    [name] = os.listdir(other.new)
    assert EntryName.parse(name) == EntryName(key=KEY, handoffs=8, crashes=1, returns=6)


@pytest.mark.invariant(4)
@pytest.mark.parametrize("settle", [settle for settle in SETTLES if settle not in ("ack", "ack and keep")])
def test_a_late_copy_of_an_old_claim_finds_nothing_after_a_return(
    claimer: Claimer, layout: Layout, other: Layout, world: World, settle: str
) -> None:
    waiting(layout, WAITING)
    world.hold("rename", errno.EIO)
    with pytest.raises(StorageFault):
        claimer.claim(WAITING)
    SETTLES[settle][0](taken(claimer, WAITING), other)
    [where] = all_entries(layout, other)
    if where.startswith(".later"):  # promoted meanwhile
        entry = EntryName.parse(where.rpartition("/")[2])
        os.rename(f"{layout.path}/{where}", f"{layout.new}/{entry.returned().waiting()}")
    before = all_entries(layout, other)
    assert world.land() == [errno.ENOENT]
    assert all_entries(layout, other) == before


@pytest.mark.invariant(4)
def test_a_late_copy_of_an_old_settle_finds_nothing_after_a_reclaim_and_a_new_claim(
    held: Claim, claimer: Claimer, layout: Layout, other: Layout, world: World
) -> None:
    world.hold("unlink", errno.EIO)
    with pytest.raises(StorageFault):
        held.ack()
    held.release()
    taken(claimer, os.listdir(layout.new)[0])
    assert world.land() == [errno.ENOENT]
    assert list(all_entries(layout, other).values()) == [DATA]


@pytest.mark.invariant(9)
@pytest.mark.parametrize("settle", [settle for settle in SETTLES if settle != "ack"])
def test_no_settle_changes_a_byte(
    claimed: Callable[[bytes], Claim], layout: Layout, other: Layout, settle: str
) -> None:
    data = bytes(range(256)) * 300 + b"\r\n.\r\n\0"
    os.makedirs(layout.done_new)
    SETTLES[settle][0](claimed(data), other)
    assert list(all_entries(layout, other).values()) == [data]


def test_a_due_time_goes_by_the_mounts_clock(
    layout: Layout, slots: FakeSlots, lease: Lease, world: World
) -> None:
    claimer = Claimer(
        layout, slots, lease=lease.name, host=LABEL, mount_time=lambda: START + 3600.25, system=world.system
    )
    name = taken(claimer, waiting(layout, "X")).defer(60)
    assert name == "X,a=1,n=1,d=1700003661"
    assert os.listdir(layout.later_new) == [name]


@pytest.mark.parametrize("seconds", [float("inf"), 1e300, -1e300, float("nan")])
def test_a_due_time_out_of_reason_is_brought_within_it(
    claimer: Claimer, layout: Layout, seconds: float
) -> None:
    name = taken(claimer, waiting(layout, "X")).defer(seconds)
    assert EntryName.parse(name).due in (1, names.MAX_DUE)
    assert EntryName.parse(name).key == "X"


def test_an_abandoned_claim_stays_where_it_is_for_the_audit(
    held: Claim, layout: Layout, slots: FakeSlots
) -> None:
    held.abandon()
    assert slots.held == {}
    assert list(everywhere(layout)) == [f"cur/{held.name}"]
    with pytest.raises(QueueError):
        held.ack()


# Burying


@pytest.mark.invariant(1)
def test_the_reason_of_a_burial_is_durable_before_the_entry_moves(
    held: Claim, layout: Layout, world: World
) -> None:
    dead = held.bury("no route", handler="post", error="x")
    order = [str(call) for call in world.asked("fsync", "rename")]
    assert [call.partition(" ")[0] for call in order] == ["fsync", "rename", "fsync", "rename"]
    assert order[1].endswith(f"{KEY},n=6.json")
    assert order[2] == "fsync dead"
    assert order[3].endswith(f"-> {dead}")
    found = reasons.read_reason(layout, EntryName.parse(dead))
    assert (found["reason"], found["handler"], found["attempts"], found["host"]) == (
        "no route",
        "post",
        4,
        LABEL,
    )


def test_an_entry_buried_twice_has_two_reasons(claimer: Claimer, layout: Layout) -> None:
    dead = taken(claimer, waiting(layout, "X")).bury("first")
    os.rename(f"{layout.dead_new}/{dead}", f"{layout.new}/X,n=2")
    again = taken(claimer, "X,n=2").bury("second")
    told = [reasons.read_reason(layout, EntryName.parse(name))["reason"] for name in (dead, again)]
    assert told == ["first", "second"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("what", ["open", "write", "fsync"])
def test_a_reason_that_cannot_be_written_keeps_the_claim(
    held: Claim, layout: Layout, slots: FakeSlots, world: World, what: str, fault: int
) -> None:
    world.refuse(what, fault)
    with pytest.raises(type(storage_fault("", OSError(fault, "")))):
        held.bury("no route")
    assert everywhere(layout) == {f"cur/{held.name}": DATA}
    assert len(slots.held) == 1


def test_a_message_goes_all_the_way_byte_for_byte(pusher: Pusher, claimer: Claimer, layout: Layout) -> None:
    key = pusher.push(lambda stem: [DATA])
    claim = taken(claimer, key)
    assert claim.read() == DATA
    claim.ack()
    assert everywhere(layout) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_a_directory_of_another_user_cannot_be_claimed_and_stays_where_it_is(public_path: Path) -> None:
    """rename(2): a directory that changes its parent must itself be writable."""
    layout = create_queue(f"{public_path}/q")
    for directory in (layout.path, layout.new, layout.cur):
        os.chmod(directory, 0o777)
    os.mkdir(f"{layout.new}/dir", 0o755)
    with somebody_else(), pytest.raises(ClaimRefused) as raised:
        Claimer(layout, FakeSlots(), lease=f"{LABEL}-1-abcd", host=LABEL).claim("dir")
    assert str(raised.value).startswith(
        f"{layout.new}/dir: Permission denied: if it is another user's directory,"
    )
    assert os.listdir(layout.new) == ["dir"]


def test_an_entry_in_new_that_is_not_due_is_postponed_and_not_claimed(
    claimer: Claimer, layout: Layout, world: World, slots: FakeSlots
) -> None:
    """A pusher that may write to `tmp/` and `new/` only has put it there."""
    name = waiting(layout, "1.x,d=1700000060")
    assert claimer.claim(name) is None
    assert list(everywhere(layout)) == [".later/new/1.x,n=1,d=1700000060"]
    assert slots.held == {}


def test_an_entry_in_new_that_is_due_is_claimed(claimer: Claimer, layout: Layout, world: World) -> None:
    name = waiting(layout, "1.x,d=1700000060")
    world.pass_time(60)
    claim = taken(claimer, name)
    assert claim.entry == EntryName(key="1.x", attempts=1)
    claim.release()
    assert list(everywhere(layout)) == ["new/1.x,n=1"]


def test_a_claimer_goes_by_the_mounts_time(
    layout: Layout, slots: FakeSlots, lease: Lease, world: World
) -> None:
    late = Claimer(
        layout, slots, lease=lease.name, host=LABEL, mount_time=lambda: START + 60, system=world.system
    )
    assert late.claim(waiting(layout, "1.x,d=1700000060")) is not None


def test_postponing_that_the_filesystem_refuses_is_a_fault(
    claimer: Claimer, layout: Layout, world: World
) -> None:
    name = waiting(layout, "1.x,d=1700000060")
    world.refuse("rename", errno.EACCES)
    with pytest.raises(PermissionRefused):
        claimer.claim(name)
    assert list(everywhere(layout)) == [f"new/{name}"]
