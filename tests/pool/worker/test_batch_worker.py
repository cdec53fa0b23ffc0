from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from maildefer.errors import MountFault
from maildefer.handling.calls.step import HandlerStep
from maildefer.handling.handler_marks import BatchTerms
from maildefer.handling.outcomes import ACKED, Outcome
from maildefer.host.working_directory import WorkingDirectory
from maildefer.maildir.claims import Claimer
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.push import Pusher
from maildefer.pool.messages import pair
from maildefer.pool.scoreboard import (
    BATCH_CHANNELS,
    IN_HANDLER,
    Header,
    ProcessKind,
    Scoreboard,
    SlotWord,
    State,
)
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.worker import batch_group, batch_leader, batch_worker
from maildefer.pool.worker.batch_worker import BatchWorker
from maildefer.pool.worker.offers import Offers, channel
from tests.support.host_locks import HostLocks

LEASE = "host-1-abcdef"
LINGER = 5.0


class Host:
    """A host whose workers are objects here: each acts when the test says so, and `now` is the boot clock."""

    def __init__(self, layout: Layout, *, workers: int = 4, alone: bool = False, **terms: Any) -> None:
        self.layout = layout
        self.now = 1000.0
        self.calls: list[tuple[int, list[bytes]]] = []
        self.in_call: Callable[[], None] = lambda: None
        self.terms = BatchTerms(**{"limit": 100, "linger_seconds": LINGER, **terms})
        self.alone = alone
        self.board = Scoreboard(1, workers + 2)
        self.board.words[Header.USED] = workers
        self.locks = HostLocks()
        self.sockets: list[Any] = []
        self.gathering = tuple(self.keep(pair()) for _ in range(BATCH_CHANNELS))
        self.offered = self.keep(channel())
        self.workers = [self.worker(slot) for slot in range(workers)]

    def keep(self, ends: Any) -> Any:
        self.sockets += ends
        return ends

    def worker(self, slot: int) -> Any:
        base = self.board.slot(slot)
        self.board.words[base + SlotWord.KIND] = ProcessKind.WORKER
        self.board.words[base + SlotWord.STATE] = State.IDLE
        worker: Any = BatchWorker.__new__(BatchWorker)
        worker._shared = SimpleNamespace(
            board=self.board,
            locks=self.locks.of(slot),
            gathering=self.gathering,
            settings=SimpleNamespace(max_crashes=5),
        )
        worker._words, worker._base, worker._slot = self.board.words, base, ScoreboardSlot(self.board, slot)
        worker._stopping = worker._forked = False
        worker._attempts_left, worker._limit_bytes, worker._timeout_ns = -1, 1 << 20, 1 << 60
        worker.directory = WorkingDirectory()
        waker, gate = self.keep(pair())
        worker._offers = Offers([self.offered[1]], gate.fileno())
        worker._offers.begin_waiting(waker.fileno())
        worker._log = SimpleNamespace(add=lambda *line, **facts: None, flush=lambda: None)
        worker._settler = None
        claimer = Claimer(self.layout, worker._slot, lease="", host="test")
        view = SimpleNamespace(
            index=0,
            name="q",
            claimer=claimer,
            may_claim=lambda: True,
            set_aside={},
            is_set_aside=lambda name: False,
            note_acked=lambda key: None,
            note_settled=lambda key: None,
        )
        worker._queues = [view]
        worker._attempts = [worker._attempts_at(view, self.dispatcher(slot))]
        worker._tokens(None)
        worker._begin_gathering(slot, {(0, "m.F"): self.alone})
        view.claimer.serve_under(LEASE)
        view.claimer._owner = f"{LEASE}.{100 + slot}."  # as a process of its own has it
        return worker

    def dispatcher(self, slot: int) -> Any:
        step = HandlerStep(print, "m.F", "m", "F", True, False, self.terms, print)

        def dispatch_batch(step: HandlerStep, messages: list[Any]) -> list[Outcome]:
            self.calls.append((slot, [message.Data for message in messages]))
            self.in_call()
            return [ACKED] * len(messages)

        def batch_for(message: Any) -> HandlerStep | None:
            return None if b"single" in message.Data else step

        def dispatch(message: Any) -> tuple[Outcome, str]:
            self.calls.append((slot, [message.Data]))
            self.in_call()
            return ACKED, "m.ALONE"

        return SimpleNamespace(
            batch_for=batch_for, dispatch_batch=dispatch_batch, dispatch=dispatch, keeps={}
        )

    def push(self, count: int = 1, body: bytes = b"batch") -> list[str]:
        pusher = Pusher(self.layout, host="test")
        return [pusher.push(lambda stem: [b"Subject: x\n\n" + body]) for _ in range(count)]

    def offer(self, slot: int, *names: str) -> None:
        """That worker takes an offer of these names."""
        worker = self.workers[slot]
        for name in names:
            worker._attempt(worker._queues[0], name, worker._attempts[0].read)

    def look(self) -> None:
        """Each worker is idle, and looks."""
        for worker in self.workers:
            worker._update_groups(idle=True)

    def sizes(self) -> list[int]:
        return [len(messages) for _, messages in self.calls]

    def gathered(self) -> list[int]:
        return [self.board.gathered(slot) for slot in range(len(self.workers))]

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.look()


Begin = Callable[..., Host]


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    hosts: list[Host] = []

    def make(**facts: Any) -> Host:
        hosts.append(Host(create_queue(str(tmp_path / "queue")), **facts))
        for module in (batch_group, batch_leader, batch_worker):
            monkeypatch.setattr(module, "boottime", lambda: hosts[0].now)
        return hosts[0]

    yield make
    for end in hosts[0].sockets:
        end.close()


def test_one_call_has_what_all_workers_have_found_within_the_linger(begin: Begin) -> None:
    host = begin()
    for slot in (1, 0, 2, 3, 0, 1):
        host.offer(slot, *host.push())
        host.look()
    assert host.sizes() == []
    host.wait(LINGER)
    assert host.sizes() == [6]
    assert host.calls[0][0] == 1, "the one that found the first leads"
    assert os.listdir(host.layout.cur) == os.listdir(host.layout.new) == []


def test_a_full_batch_is_called_at_once_and_the_rest_begins_another(begin: Begin) -> None:
    host = begin(limit=4)
    for number in range(10):
        host.offer(number % 4, *host.push())
        host.look()
    assert host.sizes() == [4, 4]
    host.wait(LINGER)
    assert host.sizes() == [4, 4, 2]


def test_where_a_queue_is_for_one_function_names_are_passed_on_unclaimed(begin: Begin) -> None:
    host = begin(alone=True)
    host.offer(0, *host.push())
    host.offer(1, *host.push())
    assert (len(os.listdir(host.layout.new)), host.gathered()) == (1, [1, 0, 0, 0])
    host.look()
    assert host.gathered() == [2, 0, 0, 0]


def test_what_is_for_other_handlers_is_handled_at_once_by_whoever_finds_it(begin: Begin) -> None:
    host = begin()
    host.offer(0, *host.push())
    host.offer(1, *host.push(body=b"single"))
    assert [slot for slot, _ in host.calls] == [1]


def test_a_leader_leaves_offers_to_the_others_where_there_are_enough(begin: Begin) -> None:
    host = begin()
    host.offer(0, *host.push())
    host.offered[0].send(b"name")
    assert [worker._offers.is_any() for worker in host.workers] == [False, True, True, True]
    assert host.workers[0]._state_while_waiting() == State.BUSY, (
        "else the scout would offer one name at a time"
    )
    host.wait(LINGER)
    assert host.workers[0]._offers.is_any()


def test_the_only_worker_of_a_host_goes_on_with_its_other_work(begin: Begin) -> None:
    host = begin(workers=1)
    host.offer(0, *host.push())
    host.offered[0].send(b"name")
    assert host.workers[0]._offers.is_any()
    host.offer(0, *host.push(body=b"single"), *host.push())
    host.wait(LINGER)
    assert host.sizes() == [1, 2]


def test_calls_do_not_overlap_and_the_next_one_is_gathered_meanwhile(begin: Begin) -> None:
    host = begin(limit=3)
    seen: list[list[int]] = []

    def meanwhile() -> None:
        host.in_call = lambda: None
        host.offer(1, *host.push(7))
        host.now += LINGER
        host.workers[1]._update_groups(idle=True)
        seen.append(host.sizes())
        seen.append(host.gathered())

    host.in_call = meanwhile
    host.offer(0, *host.push(3))
    assert seen == [[3], [3, 7, 0, 0]]
    for _ in range(3):
        host.wait(1)
    assert host.sizes() == [3, 3, 3, 1]


def test_calls_may_overlap_where_the_function_says_so(begin: Begin) -> None:
    host = begin(limit=3, overlap=True)
    seen: list[list[int]] = []

    def meanwhile() -> None:
        host.in_call = lambda: None
        host.offer(1, *host.push(3))
        seen.append(host.sizes())

    host.in_call = meanwhile
    host.offer(0, *host.push(3))
    assert seen == [[3, 3]]


def test_what_was_passed_on_as_the_call_began_is_in_the_next_one(begin: Begin) -> None:
    host = begin()
    host.offer(0, *host.push())

    def meanwhile() -> None:
        host.in_call = lambda: None
        leader = host.workers[1]._leader_of[0, "m.F"]
        assert leader.begin_leading()
        leader.end_leading()

    host.in_call = meanwhile
    late = host.workers[1]
    late._attempt_or_gather(late._queues[0], *host.push())
    assert late._leader_of[0, "m.F"].pass_claim(0, *late._groups[0, "m.F", 0].claims, host.now)
    late._groups.clear()
    host.now += LINGER
    host.workers[0]._handle_group((0, "m.F", 0))
    assert host.sizes() == [1]
    host.look()
    host.wait(LINGER)
    assert host.sizes() == [1, 1]
    host.wait(2)
    assert (host.gathered(), os.listdir(host.layout.cur)) == ([0] * 4, [])


def test_what_is_passed_on_has_waited_since_it_was_claimed(begin: Begin) -> None:
    """A worker that leads, and then has another message in hand, passes on what it has gathered."""
    host = begin()
    host.offer(0, *host.push())
    host.now += 3

    def meanwhile() -> None:
        host.in_call = lambda: None
        host.offer(1, *host.push())

    host.in_call = meanwhile
    host.offer(0, *host.push(body=b"single"))
    host.look()
    assert host.workers[1]._leader_of[0, "m.F"].is_leading
    assert host.sizes() == [1]
    host.wait(LINGER - 3)
    assert host.sizes() == [1, 2]


def test_the_messages_of_a_leader_that_dies_are_another_leaders(begin: Begin) -> None:
    host = begin()
    host.offer(0, *host.push())
    host.locks.end(0)
    host.offer(1, *host.push())
    host.workers[1]._update_groups(idle=True)
    assert host.workers[1]._leader_of[0, "m.F"].is_leading


def test_without_a_linger_each_worker_calls_with_what_it_has(begin: Begin) -> None:
    host = begin(linger_seconds=0.0)
    host.offer(0, *host.push(2))
    host.offer(1, *host.push(1))
    assert host.gathered() == [2, 1, 0, 0]
    host.look()
    assert host.sizes() == [2, 1]


def test_a_worker_with_no_room_waits_until_the_call_has_ended(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = begin(limit=2)
    worker = host.workers[0]
    del worker._free_places[3:]
    host.locks.of(1).try_lock(batch_leader._number_of("batch m.F"))
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        host.now += seconds
        if len(slept) == 3:
            host.locks.end(1)

    monkeypatch.setattr(time, "sleep", sleep)
    host.offer(0, *host.push(3))
    assert (host.sizes(), slept) == ([], [])
    host.offer(0, *host.push(1))
    assert (host.sizes(), len(slept)) == ([2, 2], 3)


def test_a_worker_that_is_to_end_does_not_wait_for_room(begin: Begin) -> None:
    host = begin()
    host.workers[0]._free_places.clear()
    host.workers[0]._stopping = True
    host.offer(0, *host.push(1))
    assert host.gathered() == [0] * 4


def test_an_exclusive_call_is_asked_for_again_and_a_fault_of_the_mount_is_not_its_messages(
    begin: Begin,
) -> None:
    host = begin(exclusive=True, linger_seconds=0.0)
    answers: list[object] = [MountFault("tokens", OSError(errno.EIO, "no")), False, True]

    def take(token: str) -> bool:
        assert token == "exclusive batch m.F"
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return bool(answer)

    worker = host.workers[0]
    worker._calls.take_token, worker._calls.release_token = take, lambda token: answers.append("released")
    host.offer(0, *host.push())
    for _ in range(6):
        host.wait(0.13)
    assert (answers, host.sizes()) == (["released"], [1])
    assert worker._wait_limit_seconds() is None


def test_a_worker_sleeps_no_longer_than_until_its_first_batch_is_due(begin: Begin) -> None:
    host = begin()
    assert host.workers[0]._wait_limit_seconds() is None
    host.offer(0, *host.push())
    host.now += 1
    assert host.workers[0]._wait_limit_seconds() == LINGER - 1


def test_what_a_handler_had_not_begun_with_is_not_marked_after_a_fault(begin: Begin) -> None:
    host = begin()
    worker = host.workers[0]
    host.offer(0, *host.push())
    [claim] = worker._groups[0, "m.F", 0].claims
    seen: list[int] = []

    def refuse(message: object) -> None:
        seen.extend(
            (host.board.words[worker._base + SlotWord.DEADLINE], host.board.words[claim.place] & IN_HANDLER)
        )
        raise MountFault("tokens", OSError(errno.EIO, "no token"))

    with pytest.raises(MountFault):
        worker._run_marked(worker._gathered_slots[0], refuse, "message", [claim])
    assert all(seen)
    assert host.board.words[worker._base + SlotWord.DEADLINE] == 0
    assert host.board.words[claim.place] & IN_HANDLER == 0


def test_what_was_gathered_or_passed_on_is_given_back_in_a_drain_and_let_go_where_that_fails(
    begin: Begin,
) -> None:
    """A claim that stays on the board would be taken for one in hand, and never be reclaimed."""
    host = begin()
    host.offer(1, *host.push(2))
    host.offer(0, *host.push())
    assert host.workers[0]._leader_of[0, "m.F"].passes
    host.board.words[Header.DRAINING] = 1
    [first, _] = host.workers[1]._groups[0, "m.F", 0].claims
    os.unlink(f"{host.layout.cur}/{first.name}")
    for worker in host.workers[:2]:
        worker._stopping = True
        worker.serve()
    assert host.gathered() == [0] * 4
    assert (len(os.listdir(host.layout.new)), os.listdir(host.layout.cur)) == (2, [])
    assert host.board.words[host.workers[0]._base + SlotWord.RELEASED] == 1
