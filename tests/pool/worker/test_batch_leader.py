from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from maildefer.maildir.system import boottime
from maildefer.pool.messages import pair
from maildefer.pool.scoreboard import Header, ProcessKind, Scoreboard, SlotWord, State
from maildefer.pool.worker.batch_leader import BatchLeader
from maildefer.pool.worker.offers import Offers, channel

QUEUE = 1
WORKERS = 3


class Host:
    """Live workers of one board, each with its view of who gathers."""

    def __init__(self) -> None:
        self.board = Scoreboard(2, 8)
        self.board.words[Header.USED] = WORKERS
        self.sockets: list[socket.socket] = []
        self.ends = self.keep(pair())
        self.offers = [self.offer() for _ in range(WORKERS)]
        for slot in range(WORKERS):
            base = self.board.slot(slot)
            self.board.words[base + SlotWord.KIND], self.board.words[base + SlotWord.STATE] = (
                ProcessKind.WORKER,
                State.IDLE,
            )
        self.workers = [self.worker(slot) for slot in range(WORKERS)]

    def worker(self, slot: int) -> BatchLeader:
        return BatchLeader(self.board, slot, QUEUE, self.ends, self.offers[slot])

    def offer(self) -> Offers:
        waker, gate = self.keep(pair())
        return Offers([self.keep(channel())[1]], waker.fileno(), gate.fileno())

    def keep(self, ends: tuple[socket.socket, socket.socket]) -> tuple[socket.socket, socket.socket]:
        self.sockets += ends
        return ends


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    for end in host.sockets:
        end.close()


def soon() -> float:
    return boottime() + 60


def test_what_is_passed_on_wakes_the_one_who_gathers_and_nobody_else(host: Host) -> None:
    one, other, third = host.workers
    one.begin_leading(soon())
    assert other.is_other_leading()
    assert other.pass_on("1.k")
    assert [offers.is_any() for offers in host.offers] == [True, False, False]
    assert third.receive_name() is None
    assert (one.receive_name(), one.receive_name()) == ("1.k", None)


def test_nobody_is_another_to_himself_or_before_anybody_gathers(host: Host) -> None:
    one, other, _ = host.workers
    assert not other.is_other_leading()
    one.begin_leading(soon())
    assert not one.is_other_leading()


def test_a_second_one_does_not_begin_beside_the_first(host: Host) -> None:
    one, other, _ = host.workers
    assert one.begin_leading(soon())
    assert not other.begin_leading(soon())
    assert (other.is_other_leading(), one.is_other_leading()) == (True, False)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (SlotWord.DEADLINE, 1),
        (SlotWord.STATE, State.DEAD_CHARGED),
        (SlotWord.STATE, State.STARTING),
        (SlotWord.KIND, ProcessKind.FREE),
    ],
)
def test_nothing_is_passed_on_to_one_in_a_handler_or_one_that_died(host: Host, word: int, value: int) -> None:
    one, other, _ = host.workers
    one.begin_leading(soon())
    host.board.words[host.board.slot(0) + word] = value
    assert not other.is_other_leading()
    other.begin_leading(soon())
    host.board.words[host.board.slot(0) + word] = {
        SlotWord.DEADLINE: 0,
        SlotWord.KIND: ProcessKind.WORKER,
    }.get(word, State.IDLE)
    assert one.is_other_leading(), "the other one has taken over"


def test_nothing_is_passed_on_when_the_batch_is_due(host: Host) -> None:
    one, other, _ = host.workers
    one.begin_leading(boottime() - 0.001)
    assert not other.is_other_leading()


def test_the_successor_in_a_slot_is_not_taken_for_the_one_who_gathered_there(host: Host) -> None:
    host.workers[0].begin_leading(soon())
    host.board.clear_slot(0)
    base = host.board.slot(0)
    host.board.words[base + SlotWord.KIND], host.board.words[base + SlotWord.STATE] = (
        ProcessKind.WORKER,
        State.IDLE,
    )
    assert not host.workers[1].is_other_leading()


def test_of_two_that_begin_at_once_at_most_one_goes_on(host: Host) -> None:
    one, other, _ = host.workers
    base = host.board.slot(0)
    host.board.words[base + SlotWord.GATHERS_UNTIL] = int(soon() * 1e9)
    host.board.words[base + SlotWord.GATHERS] = 1 << QUEUE  # it has said so, and has not looked yet
    assert not other.begin_leading(soon())
    assert not one.is_other_leading(), "the other one has taken it back"
    assert one.begin_leading(soon())


def test_each_queue_has_its_own(host: Host) -> None:
    one, other, _ = host.workers
    elsewhere = BatchLeader(host.board, 0, 0, host.keep(pair()), host.offers[0])
    assert elsewhere.begin_leading(soon())
    assert not other.is_other_leading()
    assert one.begin_leading(soon())
    elsewhere.end_leading()
    assert other.is_other_leading()


def test_after_its_end_nothing_is_taken(host: Host) -> None:
    one, other, _ = host.workers
    one.begin_leading(soon())
    other.pass_on("1.k")
    one.end_leading()
    assert not other.is_other_leading()
    assert (one.receive_name(), host.offers[0].is_any()) == (None, False)
    other.begin_leading(soon())
    assert other.receive_name() == "1.k", "the next one has it"


def test_who_cannot_be_passed_more_is_let_be(host: Host) -> None:
    one, other, _ = host.workers
    one.begin_leading(soon())
    passed = 0
    while other.pass_on(f"{passed}.k"):
        passed += 1
    assert passed >= 10
    assert one.receive_name() == "0.k"
    assert other.pass_on("again")
