"""The keeper's threads of one queue, on simulated time: what they may end, what they take back, how they join anew."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from maildefer import events
from maildefer.errors import MountFault, UnsafeMount
from maildefer.host.identity import this_host
from maildefer.maildir.layout import Format, Layout, create_queue
from maildefer.maildir.upkeep.leases import Lease, LeaseHolder
from maildefer.pool.context import PoolContext, QueueOfPool
from maildefer.pool.keeper import maintenance
from maildefer.pool.keeper.heartbeat import Heartbeat
from maildefer.pool.keeper.keeper import Keeper
from maildefer.pool.keeper.maintenance import Maintenance
from maildefer.pool.messages import LeaveLeases, MountRefused, from_keeper, pair, receive
from maildefer.pool.scoreboard import Header, ProcessKind, QueueState, QueueWord, Scoreboard, SlotWord, State
from maildefer.pool.status_record import on_claims
from tests.support.queues import LABEL, World, put

OWN, OTHER = f"{LABEL}-1-0badcafe", "other-112233-1-0badcafe"
WORKER, SLOT = 4243, 1
BEAT_SECONDS, TTL_SECONDS = Format().beat_seconds, Format().ttl_seconds
_DEAD = 1 << 30  # no process has such a number


class Place:
    """A queue, the board of a pool that serves it, and the keeper's two threads, which tests drive themselves."""

    def __init__(self, path: Path) -> None:
        self.world = World()
        self.layout: Layout = create_queue(str(path / "queue"))
        self.board = Scoreboard(1, 3)
        self.board.words[Header.USED] = 3
        self.board.set_lease(0, OWN)
        self.words[self.board.queue(0) + QueueWord.STATE] = QueueState.SERVED
        self.words[self.board.queue(0) + QueueWord.LOCAL] = 1
        self.host = this_host()
        self.freed: list[int] = []
        self.supervisor, keeper = pair()
        deferrals = pair()
        settings: Any = SimpleNamespace(max_crashes=5, queues={"run/queue": []}, dead_retention={})
        shared = PoolContext(
            settings=settings,
            project=str(path),
            pidfile="",
            host=replace(self.host, label=LABEL),
            queues=(QueueOfPool(name="run/queue", layout=self.layout),),
            board=self.board,
            offers=(),
            keeper=(self.supervisor, keeper),
            deferrals=deferrals,
            not_paused=0,
            supervisor=1,
        )
        self._ends = (self.supervisor, keeper, *deferrals)
        self.heartbeat = Heartbeat(shared, 0, OWN, lambda index: None, system=self.world.system)
        self.heartbeat.last_good_beat = self.world.uptime
        self.maintenance = Maintenance(shared, 0, self.heartbeat, self.freed.append, system=self.world.system)
        self.maintenance._mount_files.write_status = lambda: None  # type: ignore[method-assign]

    @property
    def words(self) -> memoryview:
        return self.board.words

    def word(self, which: int) -> int:
        found: int = self.words[self.board.queue(0) + which]
        return found

    def has_a_worker(self, state: State, *, held: int = 0) -> str:
        """In its slot, on a claim of that number; the claim's name."""
        base = self.board.slot(SLOT)
        self.words[base + SlotWord.PID], self.words[base + SlotWord.KIND] = WORKER, ProcessKind.WORKER
        self.words[base + SlotWord.STATE], self.words[base + SlotWord.HELD] = state, held
        return put(self.layout.cur, f"1.x,a=1:1,{OWN}.{WORKER}.{held or 1}")

    def joins(self, lease: str, holder: LeaseHolder) -> Lease:
        return Lease.join(self.layout, lease, holder, system=self.world.system)

    def looks(self, seconds: float = BEAT_SECONDS, *, beating: bool = True) -> None:
        """So much later the tending thread has a round; by then the other one's beat has gone well, or not."""
        self.world.pass_time(seconds)
        if beating:
            self.heartbeat.last_good_beat = self.world.uptime
        self.maintenance._round()

    def leases(self) -> list[str]:
        return sorted(name.rpartition(".")[0] for name in os.listdir(self.layout.leases))

    def close(self) -> None:
        for end in self._ends:
            end.close()


class Waits:
    """In the place of the event for which a beating thread waits: passes the time, does something, at last is set."""

    def __init__(self, world: World, *deeds: Callable[[], object]) -> None:
        self._world = world
        self._deeds = list(deeds)

    def wait(self, seconds: float) -> bool:
        self._world.pass_time(seconds)
        if self._deeds:
            self._deeds.pop(0)()
            return False
        return True

    def is_set(self) -> bool:
        return False


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(events, "emit", lambda event, **facts: None)
    place = Place(tmp_path)
    yield place
    place.close()


def holder_of(place: Place, **differing: Any) -> LeaseHolder:
    """Of processes that, by their numbers alone, are dead here."""
    facts: dict[str, Any] = {
        "host": "other-112233",
        "boot_id": place.host.boot_id,
        "pid_namespace": place.host.pid_namespace,
        "pid": _DEAD,
        "start_time": 1,
        "keeper_pid": _DEAD,
        "keeper_start_time": 1,
    }
    return LeaseHolder(**{**facts, **differing})


# Whom it fences


@pytest.mark.invariant(6)
@pytest.mark.parametrize("differing", [{"boot_id": "another"}, {"pid_namespace": "pid:[1]"}, {"boot_id": ""}])
def test_another_hosts_pids_are_not_looked_up_here(place: Place, differing: dict[str, Any]) -> None:
    place.joins(OTHER, holder_of(place, **differing))
    place.looks()
    place.looks()
    assert place.leases() == [OTHER]


def test_who_is_dead_on_this_host_is_fenced_at_once(place: Place) -> None:
    place.joins(OTHER, holder_of(place))
    place.looks()
    assert place.leases() == []


@pytest.mark.invariant(6)
def test_nobody_is_fenced_for_silence_while_our_own_beats_fail(place: Place) -> None:
    """The server may answer listings, and no renames."""
    place.joins(OTHER, holder_of(place, boot_id="another"))
    place.looks()
    for _ in range(int(3 * TTL_SECONDS / BEAT_SECONDS)):
        place.looks(beating=False)
    assert place.leases() == [OTHER]
    for _ in range(int(5 * TTL_SECONDS / BEAT_SECONDS)):
        place.looks()
    assert place.leases() == []


@pytest.mark.invariant(8)
@pytest.mark.parametrize("fault", [errno.EIO, errno.EACCES, errno.ENOSPC])
def test_a_beat_that_failed_is_none_for_anybody(place: Place, fault: int) -> None:
    """Neither for what observers go by, nor for how long claims may be sent."""
    lease = place.joins(OWN, place.heartbeat._holder())
    good: list[float] = []

    def fail() -> None:
        good.append(place.heartbeat.last_good_beat)
        place.world.refuse("rename", fault, where="/leases/")

    place.heartbeat.leaving = Waits(place.world, lambda: None, fail, fail)  # type: ignore[assignment]
    place.heartbeat._keep_beating(lease)
    assert place.heartbeat.last_good_beat == good[0] == place.world.uptime - 3 * BEAT_SECONDS
    assert place.word(QueueWord.CLAIM_UNTIL) == int((good[0] + TTL_SECONDS / 2) * 1e9)


@pytest.mark.invariant(8)
def test_the_first_beat_that_succeeds_after_a_failure_counts_from_the_failed_one(place: Place) -> None:
    """It may be that one, carried out late."""
    lease = place.joins(OWN, place.heartbeat._holder())
    began = place.world.uptime
    place.heartbeat.leaving = Waits(  # type: ignore[assignment]
        place.world, lambda: place.world.refuse("rename", errno.EIO, where="/leases/"), lambda: None
    )
    place.heartbeat._keep_beating(lease)
    assert place.heartbeat.last_good_beat == began + BEAT_SECONDS


@pytest.mark.parametrize(
    ("differing", "told"),
    [
        ({"host": LABEL, "boot_id": "another"}, 1),
        ({"host": "other-112233", "boot_id": "another"}, 0),
        ({"host": LABEL, "pid": 1, "start_time": 0}, 0),  # one of our own
    ],
)
def test_another_machine_of_our_name_is_told_of_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, differing: dict[str, Any], told: int
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(events, "emit", lambda event, **facts: lines.append(event))
    monkeypatch.setattr(maintenance, "is_alive", lambda pid, start_time: True)
    lease = place.joins(f"{LABEL}-9-0badcafe", holder_of(place, **differing))
    for _ in range(4):
        lease.renew()
        place.looks()
    assert lines.count("host.duplicated") == told


# What it takes back


def test_a_dead_workers_claims_are_taken_back_before_its_slot_is_free(place: Place) -> None:
    place.has_a_worker(State.DEAD_CHARGED)
    place.maintenance.reclaim_slot(SLOT)
    place.looks()
    assert os.listdir(place.layout.new) == ["1.x,a=1,c=1,n=1"]
    assert place.freed == [SLOT]


def test_a_take_back_that_failed_keeps_the_slot_until_it_is_done(place: Place) -> None:
    """A successor in the slot, of the same pid perhaps, would seem to be on the claims that are left."""
    place.has_a_worker(State.DEAD_CHARGED)
    place.world.refuse("rename", errno.EACCES, where=place.layout.cur)
    place.maintenance.reclaim_slot(SLOT)
    place.looks(0)
    assert place.freed == []
    assert place.words[place.board.slot(SLOT) + SlotWord.STATE] == State.DEAD_CHARGED
    place.looks(60)
    assert os.listdir(place.layout.new) == ["1.x,a=1,c=1,n=1"]
    assert place.freed == [SLOT]


@pytest.mark.invariant(5)
def test_a_dead_workers_claim_is_in_hand_until_its_slot_is_free(place: Place) -> None:
    """Else the audit of claims would reclaim, and charge, what the take-back is about to give back uncharged."""
    name = place.has_a_worker(State.DEAD_UNCHARGED, held=7)
    assert on_claims(place.board)(WORKER, 7) is True
    assert on_claims(place.board)(WORKER, 8) is None
    place.looks()
    assert os.listdir(place.layout.cur) == [name]
    place.maintenance.reclaim_slot(SLOT)
    place.looks()
    assert os.listdir(place.layout.new) == ["1.x,n=1"]


# How it joins anew


@pytest.mark.invariant(7)
def test_no_lease_is_joined_anew_while_a_worker_holds_a_claim_under_the_fenced_one(place: Place) -> None:
    """It would be audited under the new lease's name, and found nobody's."""
    place.has_a_worker(State.BUSY, held=1)
    seen: list[tuple[int, str]] = []

    def look() -> None:
        seen.append((place.word(QueueWord.STATE), place.heartbeat.lease))

    def settle() -> None:
        look()
        place.words[place.board.slot(SLOT) + SlotWord.HELD] = 0

    place.heartbeat.leaving = Waits(place.world, look, look, settle)  # type: ignore[assignment]
    place.words[place.board.queue(0) + QueueWord.CLAIM_UNTIL] = 1 << 60
    place.heartbeat._drop_claims()
    assert seen == [(QueueState.FENCED, OWN)] * 3
    assert place.word(QueueWord.CLAIM_UNTIL) == 0
    assert place.word(QueueWord.STATE) == QueueState.ABSENT
    assert place.heartbeat.lease != OWN


@pytest.mark.parametrize(("seen", "pauses"), [(False, [1, 2, 4, 8, 15, 15]), (True, [1] * 6)])
def test_a_join_that_fails_is_tried_again_ever_later_and_once_a_second_where_it_was_joined_before(
    place: Place, seen: bool, pauses: list[float]
) -> None:
    """Its directory may come back at any time."""
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)

    def fail() -> None:
        raise MountFault("/q", OSError(errno.EIO, "no"))

    leaving: Any = SimpleNamespace(wait=wait, is_set=lambda: len(waited) == 6)
    place.heartbeat.leaving = leaving
    place.heartbeat._was_joined = seen
    place.heartbeat._try_to_join = fail  # type: ignore[method-assign, assignment]
    assert place.heartbeat._join() is None
    assert waited == pauses


def test_a_mount_that_is_refused_is_told_to_the_supervisor_and_not_tried_again(place: Place) -> None:
    waited: list[float | None] = []
    leaving: Any = SimpleNamespace(
        wait=lambda seconds=None: waited.append(seconds), is_set=lambda: len(waited) == 1
    )
    place.heartbeat.leaving = leaving

    def refuse() -> None:
        raise UnsafeMount("run/queue is not safe")

    place.heartbeat._try_to_join = refuse  # type: ignore[method-assign, assignment]
    assert place.heartbeat._join() is None
    assert waited == [None]
    assert list(receive(place.supervisor, from_keeper)) == [MountRefused(why="run/queue is not safe")]


def test_a_queue_that_is_joined_anew_is_not_swept_for_it(place: Place) -> None:
    swept: list[float] = []
    sweeper: Any = SimpleNamespace(do_pass=swept.append, wait_seconds=900.0)
    place.maintenance._sweeper = sweeper
    place.looks()
    place.heartbeat.format = Format(beat_seconds=BEAT_SECONDS, ttl_seconds=TTL_SECONDS)
    place.looks()
    assert swept == []
    place.looks(3600)
    assert len(swept) == 1


def test_a_new_keeper_looks_up_by_the_ttl_that_another_one_has_read(place: Place) -> None:
    """Two looks half a TTL apart count as a stopped host, and a hanging supervisor was never noticed."""
    keeper: Any = Keeper.__new__(Keeper)
    keeper._context, keeper._heartbeats = place.heartbeat._context, [place.heartbeat]
    assert keeper._check_seconds() == BEAT_SECONDS
    place.words[place.board.queue(0) + QueueWord.FORMAT_TTL] = 5000
    assert keeper._check_seconds() < 2.5


def test_a_keeper_that_is_told_to_leave_leaves_every_lease() -> None:
    keeper: Any = Keeper.__new__(Keeper)
    woken: list[int] = []
    keeper._leaving = False
    keeper._heartbeats = [SimpleNamespace(leaving=threading.Event()) for _ in range(2)]
    keeper._maintenance = [
        SimpleNamespace(wake=lambda index=index: woken.append(index)) for index in range(2)
    ]
    keeper._carry_out(LeaveLeases())
    assert keeper._leaving
    assert [line.leaving.is_set() for line in keeper._heartbeats] == [True, True]
    assert woken == [0, 1]
