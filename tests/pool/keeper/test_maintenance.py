"""A keeper's chores in one queue, round by round, with one lasting fault: all the others are done as if it were not.

Each story runs with the fault and without it.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from maildefer import events
from maildefer.handling.project.settings import PoolSettings
from maildefer.host.identity import HostIdentity
from maildefer.maildir.layout import Format, Layout, create_queue
from maildefer.maildir.names import EntryName
from maildefer.maildir.upkeep.leases import Lease
from maildefer.pool.chore_faults import ChoreFaults
from maildefer.pool.context import PoolContext, QueueOfPool
from maildefer.pool.keeper.maintenance import Maintenance
from maildefer.pool.keeper.mount_time import MountTime
from maildefer.pool.messages import RequestReceived, from_keeper, pair, receive
from maildefer.pool.scoreboard import Header, ProcessKind, QueueState, QueueWord, Scoreboard, SlotWord, State
from tests.support.queues import LABEL, START, World, everywhere, holder, put

OWN = f"{LABEL}-1-aaaa"
THEIRS = "other-000000-9-abcd"
BEAT, TTL = 5.0, 45.0


class Life:
    """In the place of a heartbeat that goes well."""

    def __init__(self, queue: QueueOfPool, world: World, board: Scoreboard) -> None:
        self.queue = queue
        self.mount_time = MountTime(board, 0, queue.layout, queue.name, world.system)
        self.lease = OWN
        self.format = Format(beat_seconds=BEAT, ttl_seconds=TTL)
        self.last_good_beat = world.uptime
        self.joined = self.left = threading.Event()


class House:
    """The chores of a queue; another host holds a lease there, and is silent from now on."""

    def __init__(self, layout: Layout, world: World) -> None:
        self.layout, self.world = layout, world
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.freed: list[int] = []
        self.board = Scoreboard(1, 4)
        queue = QueueOfPool(name="run/queue", layout=layout)
        self.orders = pair()
        self.shared = PoolContext(
            settings=PoolSettings(project="/", module="", queues={}, router_defaults={}, max_crashes=5),
            project="/",
            pidfile="",
            host=HostIdentity(label=LABEL, boot_id="x", pid_namespace="p"),
            queues=(queue,),
            board=self.board,
            offers=(),
            keeper=self.orders,
            deferrals=pair(),
            not_paused=-1,
            supervisor=1,
        )
        self.board.words[self.board.queue(0) + QueueWord.STATE] = QueueState.SERVED
        Lease.join(layout, OWN, holder(), system=world.system)
        Lease.join(layout, THEIRS, holder(host="other-000000"), system=world.system)
        self.life = life = Life(queue, world, self.board)
        self.maintenance = Maintenance(
            self.shared, 0, cast(Any, life), self.freed.append, system=world.system
        )

    def close(self) -> None:
        for end in (*self.orders, *self.shared.deferrals):
            end.close()

    def run(self, seconds: float) -> int:
        """Rounds for so long, each when the one before says; how many there were."""
        end, rounds = self.world.uptime + seconds, 0
        while self.world.uptime < end:
            self.life.last_good_beat = self.world.uptime
            self.maintenance._round()
            rounds += 1
            self.world.pass_time(min(max(self.maintenance._until_next(), 0.01), end - self.world.uptime))
        return rounds

    def dead_worker(self, slot: int, *entries: str) -> None:
        """One of ours has died with these in hand."""
        base, pid = self.board.slot(slot), 100 + slot
        self.board.words[Header.USED] = max(self.board.words[Header.USED], slot + 1)
        self.board.words[base + SlotWord.PID] = pid
        self.board.words[base + SlotWord.KIND] = ProcessKind.WORKER
        self.board.words[base + SlotWord.STATE] = State.DEAD_CHARGED
        for seq, entry in enumerate(entries, 1):
            put(self.layout.cur, EntryName.parse(entry).claimed(f"{OWN}.{pid}.{seq}"))
            self.board.words[base + SlotWord.HELD + seq] = seq
        self.maintenance.reclaim_slot(slot)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [facts for event, facts in self.told if event == name]

    def faults(self) -> dict[str, str]:
        return {fault.chore: fault.error for fault in ChoreFaults(self.board, 0).read_faults()}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def layout(tmp_path: Path, world: World) -> Layout:
    return create_queue(f"{tmp_path}/queue", system=world.system)


@pytest.fixture
def house(layout: Layout, world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    house = House(layout, world)
    monkeypatch.setattr(events, "emit", lambda event, **facts: house.told.append((event, facts)))
    yield house
    house.close()


def no_fault(house: House) -> None:
    """The control run."""


def no_requests_folder(house: House) -> None:
    os.rmdir(house.layout.requests_done)
    os.rmdir(house.layout.requests)


def no_folder_of_what_was_requested(house: House) -> None:
    os.rmdir(house.layout.requests_done)


def later_not_writable(house: House) -> None:
    house.world.refuse("rename", errno.EPERM, where="/.later/new/", times=10**9)


def later_not_readable(house: House) -> None:
    house.world.refuse("scandir", errno.EACCES, where="/.later/new", times=10**9)


def stuck_deferred(house: House) -> None:
    put(house.layout.later_new, "0.stuck,n=1,d=1")
    house.world.refuse("rename", errno.EPERM, where="/.later/new/0.stuck", times=10**9)


def stuck_name_in_cur(house: House) -> None:
    put(house.layout.cur, EntryName.parse("0.stuck").claimed("gone-000000-1-dead.1.1"))
    house.world.refuse("rename", errno.EPERM, where="/cur/0.stuck", times=10**9)


def stuck_foreign_name_in_cur(house: House) -> None:
    put(house.layout.cur, "0.stuck:2,S")
    house.world.refuse("rename", errno.EPERM, where="/cur/0.stuck", times=10**9)


def later_cur_not_readable(house: House) -> None:
    house.world.refuse("utime", errno.EIO, where="/.later/cur", times=10**9)


def later_cur_is_a_file(house: House) -> None:
    os.rmdir(house.layout.later_cur)
    put(os.path.dirname(house.layout.later_cur), "cur")


def burial_on_a_full_disk(house: House) -> None:
    house.world.refuse("write", errno.ENOSPC, times=10**9)
    house.dead_worker(0, "0.stuck,a=4,c=4,n=4")


def reclaimed_burial_on_a_full_disk(house: House) -> None:
    house.world.refuse("write", errno.ENOSPC, times=10**9)
    put(house.layout.cur, EntryName.parse("0.stuck,c=4").claimed("gone-000000-1-dead.1.1"))


def request_that_can_not_be_consumed(house: House) -> None:
    put(house.layout.requests, f"{OWN}.reload")
    house.world.refuse("rename", errno.EPERM, where=f"/{OWN}.reload", times=10**9)


def no_tmp(house: House) -> None:
    os.rmdir(house.layout.tmp)


def no_cur(house: House) -> None:
    os.rmdir(house.layout.cur)


def no_status_folder(house: House) -> None:
    os.rmdir(house.layout.status)


def status_can_not_be_written(house: House) -> None:
    house.world.refuse("rename", errno.EDQUOT, where="/status/", times=10**9)


def a_dead_lease_that_can_not_be_ended(house: House) -> None:
    Lease.join(house.layout, "aaaa-000000-9-abcd", holder(host="aaaa-000000"), system=house.world.system)
    house.world.refuse("rename", errno.EPERM, where="/leases/aaaa", times=10**9)


def a_folder_among_the_leases(house: House) -> None:
    os.mkdir(f"{house.layout.leases}/dir.7")


FAULTS: list[Callable[[House], None]] = [
    no_fault,
    no_requests_folder,
    no_folder_of_what_was_requested,
    later_not_readable,
    stuck_deferred,
    stuck_name_in_cur,
    stuck_foreign_name_in_cur,
    later_cur_not_readable,
    later_cur_is_a_file,
    burial_on_a_full_disk,
    reclaimed_burial_on_a_full_disk,
    request_that_can_not_be_consumed,
    no_tmp,
    no_cur,
    no_status_folder,
    status_can_not_be_written,
    a_dead_lease_that_can_not_be_ended,
]
ALL = pytest.mark.parametrize("fault", [*FAULTS, later_not_writable])


@ALL
def test_a_silent_host_is_fenced_and_its_claims_are_taken_back(
    house: House, fault: Callable[[House], None]
) -> None:
    fault(house)
    house.run(1.0)
    put(house.layout.cur, EntryName.parse("1.x").claimed(f"{THEIRS}.9.1"))
    house.run(TTL + 2 * BEAT)
    assert [facts["lease"] for facts in house.events("lease.fenced")] == [THEIRS]
    assert "new/1.x,a=1,c=1,n=1" in everywhere(house.layout)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault is not later_not_readable])
def test_another_hosts_due_entry_is_promoted(house: House, fault: Callable[[House], None]) -> None:
    fault(house)
    house.run(2 * BEAT)
    put(house.layout.later_new, f"1.x,n=1,d={int(START) + 20}")
    house.run(40.0)
    assert [facts["key"] for facts in house.events("entry.promoted")] == ["1.x"]


@ALL
def test_a_request_through_the_mount_is_answered(house: House, fault: Callable[[House], None]) -> None:
    fault(house)
    house.run(2 * BEAT)
    put(house.layout.requests, f"{OWN}.pause")
    house.run(2 * BEAT)
    assert list(receive(house.shared.keeper[0], from_keeper)) == [RequestReceived(verb="pause")]
    assert os.listdir(house.layout.requests_done) == [f"{OWN}.pause"]


def test_a_request_is_its_name_and_nothing_in_it_is_read(house: House) -> None:
    """Whatever lies there: only names of our lease with one of four verbs are asked for."""
    house.run(2 * BEAT)
    requests = house.layout.requests
    for name in (f"{OWN}.format", f"{OWN}.", f"{THEIRS}.stop", "stop", f"{OWN}.stop.stop", "x" * 250):
        put(requests, name)
    os.mkfifo(f"{requests}/{OWN}.pause")
    with open(f"{requests}/{OWN}.resume", "wb") as file:
        file.truncate(1 << 40)
    os.symlink("/etc/passwd", f"{requests}/{OWN}.reload")
    house.run(2 * BEAT)
    asked = list(receive(house.shared.keeper[0], from_keeper))
    assert sorted(each.verb for each in asked if isinstance(each, RequestReceived)) == [
        "pause",
        "reload",
        "resume",
    ]
    assert len(asked) == 3
    assert os.path.islink(f"{house.layout.requests_done}/{OWN}.reload")


@ALL
def test_a_dead_workers_claims_are_taken_back_and_its_slot_is_freed(
    house: House, fault: Callable[[House], None]
) -> None:
    fault(house)
    house.run(2 * BEAT)
    house.dead_worker(2, "1.x")
    house.run(1.0)
    assert house.freed == [2]
    assert "new/1.x,a=1,c=1,n=1" in everywhere(house.layout)


@ALL
@pytest.mark.slow
def test_the_keeper_does_not_spin(house: House, fault: Callable[[House], None]) -> None:
    """A round at each beat, and some for what is tried again."""
    fault(house)
    assert house.run(600.0) <= 600 / BEAT + 60


@ALL
def test_the_mount_tells_how_it_stands(house: House, fault: Callable[[House], None]) -> None:
    if fault in (burial_on_a_full_disk, reclaimed_burial_on_a_full_disk, status_can_not_be_written):
        pytest.skip("there is no room for a status file")
    fault(house)
    house.run(2 * BEAT)
    with open(f"{house.layout.status}/{OWN}.json", "rb") as file:
        assert json.load(file)["lease"] == OWN


@pytest.mark.parametrize(
    ("fault", "chore", "event", "entry"),
    [
        (later_not_readable, "list deferred", "listing.failed", None),
        (stuck_deferred, "promote", "promotion.failed", "0.stuck,n=1,d=1"),
        (stuck_name_in_cur, "reclaim", "reclaim.failed", "0.stuck"),
        (stuck_foreign_name_in_cur, "return", "return.failed", "0.stuck:2,S"),
        (later_cur_not_readable, "return", "return.failed", None),
        (later_cur_is_a_file, "return", "return.failed", None),
        (burial_on_a_full_disk, "take back", "takeback.failed", "slot 0"),
        (reclaimed_burial_on_a_full_disk, "reclaim", "reclaim.failed", "0.stuck"),
        (request_that_can_not_be_consumed, "requests", "request.failed", f"{OWN}.reload"),
        (status_can_not_be_written, "status", "status.failed", None),
        (a_dead_lease_that_can_not_be_ended, "fence", "fence.failed", "aaaa-000000-9-abcd"),
        (a_folder_among_the_leases, "fence", "fence.failed", "dir"),
    ],
)
def test_a_chore_that_fails_says_so_under_its_own_event_once_and_in_the_status(
    house: House, fault: Callable[[House], None], chore: str, event: str, entry: str | None
) -> None:
    fault(house)
    house.run(3 * TTL)
    told = house.events(event)
    assert len(told) == 1
    assert (entry or "") in told[0].get("entry", "")
    assert ("entry" in told[0]) == bool(entry)
    assert "/" not in told[0].get("entry", ""), "a name, by whatever chore"
    assert chore in house.faults()
    house.world.rules.clear()
    if fault is later_cur_is_a_file:
        os.unlink(house.layout.later_cur)
    if fault is a_folder_among_the_leases:
        assert "dir" not in [told["lease"] for told in house.events("lease.fenced")]
        os.rmdir(f"{house.layout.leases}/dir.7")
    house.run(60.0)
    assert house.faults() == {}
    assert {"queue": "run/queue", "chore": chore} in house.events("chore.recovered")
    assert house.events("beat.failed") == []


@pytest.mark.parametrize(
    "fault", [no_fault, no_requests_folder, no_folder_of_what_was_requested, no_tmp, no_cur]
)
def test_a_folder_of_ours_is_made_again_without_a_word(house: House, fault: Callable[[House], None]) -> None:
    fault(house)
    house.run(60.0)
    assert house.faults() == {}
    assert [event for event, _ in house.told if event.endswith(".failed")] == []
    for path in (house.layout.requests_done, house.layout.tmp, house.layout.cur):
        assert os.path.isdir(path)


def test_leases_that_can_not_be_listed_are_looked_for_every_two_beats(house: House) -> None:
    house.world.refuse("utime", errno.EIO, where="/leases", times=10**9)
    tries: list[float] = []
    house.world.before("utime", lambda: tries.append(house.world.uptime), where="/leases", times=10**9)
    house.run(120.0)
    gaps = [later - sooner for sooner, later in pairwise(tries)]
    assert max(gaps) <= 2 * BEAT + 0.1
    assert len(house.events("fence.failed")) == 1


def test_a_burial_that_waits_for_room_is_done_within_half_a_minute_of_it(house: House) -> None:
    burial_on_a_full_disk(house)
    house.run(600.0)
    assert house.freed == []
    house.world.rules.clear()
    house.run(30.0)
    assert house.freed == [0]
    assert ".dead/new/0.stuck,n=5" in everywhere(house.layout)


def test_a_dead_slot_that_waits_is_not_tried_again_with_each_other_death(house: House) -> None:
    burial_on_a_full_disk(house)
    house.run(60.0)
    house.world.forget()
    for slot in (1, 2):
        house.dead_worker(slot)
        house.maintenance.reclaim_slot(0)
        house.run(0.1)
    assert house.freed == [1, 2]
    assert house.world.asked("write") == []


def test_what_waits_to_be_taken_back_is_free_where_our_lease_is_gone(house: House) -> None:
    burial_on_a_full_disk(house)
    house.run(10.0)
    house.maintenance._dead_slots.clear_all()
    assert house.freed == [0]
    assert house.maintenance._dead_slots.next_at() > 10**9


@pytest.mark.parametrize(("home", "left"), [(1, 0), (2, 1)])
def test_its_tokens_are_forgotten_where_the_lease_that_is_gone_is_the_one_they_lie_under(
    house: House, home: int, left: int
) -> None:
    """`home` is 1 + the queue in which they lie; this one is the first."""
    house.dead_worker(0)
    house.board.words[house.board.slot(0) + SlotWord.TOKENS] = 1
    house.board.words[Header.TOKENS] = home
    house.maintenance._dead_slots.clear_all()
    assert house.board.words[house.board.slot(0) + SlotWord.TOKENS] == left


def test_a_status_file_of_a_lease_that_was_fenced_is_taken_away_by_the_next(house: House) -> None:
    house.run(BEAT)
    house.life.lease = f"{LABEL}-1-bbbb"
    house.run(2 * BEAT)
    assert os.listdir(house.layout.status) == [f"{LABEL}-1-bbbb.json"]


def test_the_status_file_tells_which_chore_fails(house: House) -> None:
    stuck_deferred(house)
    house.run(3 * BEAT)
    with open(f"{house.layout.status}/{OWN}.json", "rb") as file:
        [fault] = json.load(file)["faults"]
    assert fault["chore"] == "promote"
    assert fault["entries"] == 1
    assert START <= fault["since"] <= START + BEAT
    assert fault["error"] == "0.stuck,n=1,d=1: Operation not permitted"
