from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maildefer.errors import MountFault
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.push import Pusher
from maildefer.pool.messages import pair
from maildefer.pool.scoreboard import Header, ProcessKind, Scoreboard, SlotWord, State
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.worker import batch_leader
from maildefer.pool.worker.batch_leader import BatchCalls, BatchLeader, LeadersSeat
from maildefer.pool.worker.claim_slots import GatheredClaim, GatheredSlots, GatheringClaimer
from maildefer.pool.worker.conversation_locks import ConversationLocks
from maildefer.pool.worker.offers import Offers, channel
from tests.support.host_locks import HostLocks

WORKERS = 3
LEASE = "host-1-abcdef"


class Host:
    """Live workers of one board, each with its view of who leads."""

    def __init__(self) -> None:
        self.board = Scoreboard(2, 8)
        self.board.words[Header.USED] = WORKERS
        self.locks: Any = HostLocks()
        self.sockets: list[socket.socket] = []
        self.ends = self.keep(pair())
        self.channel = self.keep(channel())
        self.offers = [self.offer() for _ in range(WORKERS)]
        for slot in range(WORKERS):
            base = self.board.slot(slot)
            self.board.words[base + SlotWord.KIND] = ProcessKind.WORKER
            self.board.words[base + SlotWord.STATE] = State.IDLE
        self.workers = [
            BatchLeader(1, self.ends, self.locks.of(slot), self.offers[slot]) for slot in range(WORKERS)
        ]

    def offer(self) -> Offers:
        waker, gate = self.keep(pair())
        offers = Offers([self.channel[1]], gate.fileno())
        offers.begin_waiting(waker.fileno())
        return offers

    def keep(self, ends: tuple[socket.socket, socket.socket]) -> tuple[socket.socket, socket.socket]:
        self.sockets += ends
        return ends

    def claims(self, layout: Layout, slot: int) -> tuple[GatheringClaimer, GatheredSlots]:
        free = GatheredSlots.all_places(self.board, slot)
        slots = GatheredSlots(self.board, slot, ScoreboardSlot(self.board, slot), 0, free)
        claimer = GatheringClaimer(layout, slots, lease=LEASE, host="test", kind=GatheredClaim)
        claimer._owner = f"{LEASE}.{100 + slot}."  # as a process of its own has it
        return claimer, slots


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    for end in host.sockets:
        end.close()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create_queue(str(tmp_path / "queue"))


def pushed(layout: Layout, count: int = 1) -> list[str]:
    return [Pusher(layout, host="test").push(lambda stem: [b"Subject: x\n\n"]) for _ in range(count)]


def test_what_is_passed_on_wakes_the_leader_and_nobody_else(host: Host) -> None:
    one, other, third = host.workers
    assert one.begin_leading()
    assert not other.begin_leading()
    assert other.pass_name(1, "1.k")
    assert [offers.is_any() for offers in host.offers] == [True, False, False]
    assert not third.is_leading
    assert (one.receive(), one.receive()) == ((1, 0.0, "1.k"), None)


def test_a_leader_that_dies_leads_no_longer(host: Host) -> None:
    one, other, _ = host.workers
    one.begin_leading()
    host.locks.end(0)
    assert other.begin_leading()


def test_what_was_passed_on_to_a_leader_that_has_ended_is_the_next_ones(host: Host) -> None:
    one, other, _ = host.workers
    one.begin_leading()
    other.pass_name(0, "1.k")
    one.end_leading()
    assert not host.offers[0].is_any()
    assert other.begin_leading()
    assert other.receive() == (0, 0.0, "1.k")


def test_a_leader_with_more_than_it_can_take_is_passed_no_more(host: Host) -> None:
    one, other, _ = host.workers
    one.begin_leading()
    passed = 0
    while other.pass_name(0, f"{passed}.k"):
        passed += 1
    assert passed >= 10
    assert one.receive() == (0, 0.0, "0.k")
    assert other.pass_name(0, "again")


@pytest.mark.invariant(3)
@pytest.mark.invariant(5)
def test_a_claim_that_is_passed_on_is_the_leaders_alone_and_charged_once(host: Host, layout: Layout) -> None:
    [key] = pushed(layout)
    (first, _), (second, _) = host.claims(layout, 0), host.claims(layout, 1)
    claim = first.claim(key)
    assert isinstance(claim, GatheredClaim)
    one, other, _ = host.workers
    other.begin_leading()
    assert one.pass_claim(0, claim, 17.25)
    received = other.receive()
    assert received is not None
    assert received[:2] == (0, 17.25)
    taken = second.claim(received[2])
    assert taken is not None
    assert (taken.key, taken.attempt, taken.entry.attempts, taken.entry.returns) == (key, 1, 1, 0)
    assert second.claim(received[2]) is None, "a name that is passed on twice"
    taken.ack()
    assert layout_is_empty(layout)


@pytest.mark.invariant(6)
@pytest.mark.parametrize(
    "path",
    [
        "cur/k,a=1:1,other-1-abcdef.100.1",
        "cur/k:2,S",
        "new/k,a=1:1,LEASE.100.1",
        "cur/../k,a=1:1,LEASE.100.1",
    ],
)
def test_only_a_claim_under_ones_own_lease_is_taken_over(host: Host, layout: Layout, path: str) -> None:
    claimer, slots = host.claims(layout, 0)
    path, free = path.replace("LEASE", LEASE), len(slots.free)
    with open(f"{layout.path}/{path}", "xb"):
        pass
    assert claimer.claim(path) is None
    assert os.path.exists(f"{layout.path}/{path}")
    assert len(slots.free) == free


def test_a_claim_that_is_passed_on_is_shown_until_it_is_taken_over(
    host: Host, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(batch_leader, "boottime", lambda: now)
    (first, _), (second, _) = host.claims(layout, 0), host.claims(layout, 1)
    one = host.workers[0]
    names = []
    for key in pushed(layout, 2):
        claim = first.claim(key)
        assert isinstance(claim, GatheredClaim)
        names.append(f"cur/{claim.name}")
        one.pass_claim(0, claim, now)
    assert host.board.gathered(0) == 2
    assert second.claim(names[0]) is not None
    now += 1
    assert (one.settle_passed(), one.passes, host.board.gathered(0)) == (0, True, 2)
    now += 1
    assert (one.settle_passed(), one.passes, host.board.gathered(0)) == (1, False, 0)
    assert second.claim(names[1]) is None, "it is released"
    assert len(layout_names(layout.new)) == 1


def test_half_of_the_workers_may_leave_their_offers_to_the_others(host: Host) -> None:
    seats: list[LeadersSeat] = [
        LeadersSeat(host.locks.of(slot), host.offers[slot]) for slot in range(WORKERS)
    ]
    host.channel[0].send(b"name")
    for seat in seats:
        seat.take(host.board)
    assert [seat.is_taken for seat in seats] == [True, False, False]
    assert [offers.is_any() for offers in host.offers] == [False, True, True]
    assert host.offers[0].take_offer() is None
    seats[1].take(host.board)
    seats[0].leave()
    seats[1].take(host.board)
    assert [seat.is_taken for seat in seats] == [False, False, False], "it has asked"
    seats[1].leave()
    seats[1].take(host.board)
    assert [seat.is_taken for seat in seats] == [False, True, False]
    assert host.offers[0].take_offer() == (0, ["name"])


class Tokens(ConversationLocks):
    """Of the mount; `free` says what is to be had."""

    def __init__(self, *, free: bool = True, fault: bool = False) -> None:
        self.free, self.fault, self.taken = free, fault, []  # type: ignore[var-annotated]

    def try_token(self, conversation: str) -> bool:
        if self.fault:
            raise MountFault("tokens", OSError(5, "no"))
        self.taken += [conversation] if self.free else []
        return self.free

    def take_token(self, conversation: str) -> bool:
        return self.try_token(conversation)

    def release_token(self, conversation: str) -> None:
        self.taken.remove(conversation)


def test_one_call_of_a_function_at_a_time_on_a_host() -> None:
    locks: Any = HostLocks()
    one, other = BatchCalls(locks.of(1), None), BatchCalls(locks.of(2), None)
    assert one.take_token("batch m.F")
    assert not other.take_token("batch m.F")
    assert other.take_token("batch m.G")
    one.release_token("batch m.F")
    assert other.take_token("batch m.F")


def test_an_exclusive_call_needs_the_clusters_token_and_keeps_none_that_it_cannot_use() -> None:
    locks: Any = HostLocks()
    tokens = Tokens()
    calls = BatchCalls(locks.of(1), tokens)
    assert calls.take_token("exclusive batch m.F")
    assert (len(locks.held), tokens.taken) == (1, ["exclusive batch m.F"])
    calls.release_token("exclusive batch m.F")
    assert (locks.held, tokens.taken) == ({}, [])
    tokens.free = False
    assert not calls.take_token("exclusive batch m.F")
    tokens.fault = True
    with pytest.raises(MountFault):
        calls.take_token("exclusive batch m.F")
    assert locks.held == {}


def test_a_conversations_token_is_a_conversations() -> None:
    locks: Any = HostLocks()
    tokens = Tokens()
    calls = BatchCalls(locks.of(1), tokens)
    assert calls.take_token("['k', 'ann@example.org']")
    assert (locks.held, tokens.taken) == ({}, ["['k', 'ann@example.org']"])
    calls.release_token("['k', 'ann@example.org']")
    assert tokens.taken == []
    assert BatchCalls(locks.of(1), None).take_token("['k', 'ann@example.org']"), "one process needs none"


def layout_names(folder: str) -> list[str]:
    return os.listdir(folder)


def layout_is_empty(layout: Layout) -> bool:
    return not layout_names(layout.new) and not layout_names(layout.cur)
