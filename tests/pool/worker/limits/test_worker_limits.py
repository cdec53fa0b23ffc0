"""A worker's slots of limits: all or none, over all workers, and how long a message that has none is postponed."""

from __future__ import annotations

import errno
import math
import os
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from maildefer.errors import StorageFault
from maildefer.handling.limits.limit import Limit, LimitUse, in_a_period
from maildefer.handling.outcomes import ACKED, Buried, Deferred, Outcome, Postponed, Reject
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.push import Pusher
from maildefer.maildir.upkeep.tokens import slots_of
from maildefer.pool.scoreboard import Header, QueueState, QueueWord, Scoreboard, SlotWord
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.worker.limits.gate import LimitGate
from maildefer.pool.worker.limits.waiting_line import WaitingLine, number_of
from maildefer.pool.worker.limits.worker_limits import WorkerLimits
from maildefer.pool.worker.queue_view import QueueView
from tests.support.queues import LABEL, World

LEASE = f"{LABEL}-1-0badcafe"
ONE = LimitUse(Limit(1), "m.one")
TWO = LimitUse(Limit(2), "m.two")
RATE = LimitUse(in_a_period("3/min", "domain"), "m.send", "example.org")


@dataclass
class Host:
    layout: Layout
    world: World
    board: Scoreboard = field(default_factory=lambda: Scoreboard(1, 8))
    released: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.board.set_lease(0, LEASE)
        base = self.board.queue(0)
        self.board.words[base + QueueWord.STATE] = QueueState.SERVED
        self.board.words[base + QueueWord.CLAIM_UNTIL] = (1 << 63) - 1

    def worker(self, slot: int, lifetime_seconds: float = math.inf) -> WorkerLimits:
        slots = ScoreboardSlot(self.board, slot)
        self.world.pid = 100 + slot
        home = QueueView("home", self.layout, 0, self.board, slots, LABEL)
        home.claimer.mount_time = lambda: self.world.seconds
        return WorkerLimits(
            home,
            self.board,
            slot,
            slots,
            self.released.append,
            lifetime_seconds=lifetime_seconds,
            places=4,
            draw=lambda least, most: most,
            system=self.world.system,
        )

    def pass_time(self, seconds: float) -> None:
        self.world.uptime += seconds
        self.world.seconds += seconds

    def key(self, age: float) -> str:
        return f"{int(self.world.seconds - age)}.M000001P1Q1R0123456789abcdef.host,S=1"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(create_queue(str(tmp_path / "home")), World())


def test_so_many_workers_get_a_slot_and_the_next_when_one_is_released(host: Host) -> None:
    first, second, third = host.worker(0), host.worker(1), host.worker(2)
    host.world.pid = 100
    assert first.take_slots([TWO], None) is None
    host.world.pid = 101
    assert second.take_slots([TWO], None) is None
    host.world.pid = 102
    assert third.take_slots([TWO], None) is not None
    host.world.pid = 101
    second.release_slots()
    host.world.pid = 102
    assert third.take_slots([TWO], None) is None
    assert host.board.words[Header.TOKENS] == 1, "the keeper knows that there are tokens"


def test_a_message_that_gets_one_slot_and_not_the_other_holds_none(host: Host) -> None:
    first, second = host.worker(0), host.worker(1)
    host.world.pid = 100
    assert first.take_slots([ONE], None) is None
    host.world.pid = 101
    assert second.take_slots([TWO, ONE], None) is not None
    assert len(os.listdir(f"{host.layout.limits}/held")) == 1
    base = host.board.slot(1)
    assert host.board.words[base + SlotWord.TOKENS] == 0


def test_a_slot_of_a_rate_that_was_taken_in_vain_is_returned(host: Host) -> None:
    worker = host.worker(0)
    other = LimitUse(in_a_period("1/min", None), "m.other")
    assert worker.take_slots([other], None) is None
    worker.release_slots()
    for _ in range(5):
        assert worker.take_slots([RATE, other], None) is not None
    host.pass_time(6)
    assert [start(worker) for _ in range(4)] == [True, True, True, False]


@pytest.mark.slow
def test_two_limits_of_a_message_that_share_a_slot_by_their_hash_get_on(host: Host) -> None:
    twin = next(
        use
        for use in (LimitUse(Limit(1), f"m.f{number}") for number in range(1_000_000))
        if slots_of(use.name, 1) == slots_of(ONE.name, 1)
    )
    worker = host.worker(0)
    assert worker.take_slots([ONE, twin], None) is None
    worker.release_slots()
    assert os.listdir(f"{host.layout.limits}/held") == []


def test_the_handlers_time_limit_does_not_run_meanwhile(host: Host) -> None:
    worker = host.worker(0)
    deadline = host.board.slot(0) + SlotWord.DEADLINE
    host.board.words[deadline] = 5_000_000_000
    host.world.take("listdir", 3.0)
    assert worker.take_slots([ONE], None) is None
    assert host.board.words[deadline] == 8_000_000_000


def test_a_slot_of_a_rate_that_is_used_too_late_is_taken_anew(host: Host) -> None:
    worker = host.worker(0)
    assert worker.take_ahead([RATE]) is None
    host.pass_time(1.0)
    assert worker.take_slots([RATE], None) is None, "another one, and the first is returned"
    worker.release_slots()
    assert [start(worker) for _ in range(3)] == [True, True, False]


DOWN = LimitUse(Limit(0, key="domain", label="b.example", closes=True), "m.send", "b.example")
OTHER = LimitUse(Limit(0, key="domain", label="c.example", closes=True), "m.send", "c.example")
IS_DOWN = Deferred("refused", is_down=True)


def test_when_a_destination_is_down_its_messages_wait_until_it_is_tried_by_one(
    host: Host, told: list[dict[str, Any]]
) -> None:
    first, second = host.worker(0), host.worker(1)
    host.world.pid = 100
    assert first.take_slots([DOWN, TWO], None) is None
    ended = first.release_slots(IS_DOWN)
    assert isinstance(ended, Postponed), "and so uncharged"
    assert (ended.reason, round(ended.seconds, 3)) == ("refused", 66 * 1.25)
    waits = second.take_slots([DOWN, TWO], None)
    assert waits is not None
    assert (waits.reason, waits.limit) == ("b.example is down", ended.limit)
    assert os.listdir(f"{host.layout.limits}/held") == []
    host.pass_time(waits.seconds)
    assert first.take_slots([DOWN], None) is None
    assert second.take_slots([DOWN], None) is not None, "one message tries it"
    assert isinstance(again := first.release_slots(IS_DOWN), Postponed)
    assert again.seconds == pytest.approx(132 * 1.25)
    assert [line["event"] for line in told] == ["destination.closed"] * 2
    assert host.released == []


@pytest.mark.parametrize("outcome", [ACKED, Deferred("451 later"), Buried("550 no")])
def test_a_destination_that_answers_anything_is_open_and_more_of_what_waits_is_promoted(
    host: Host, told: list[dict[str, Any]], outcome: Outcome
) -> None:
    worker, other = host.worker(0), host.worker(1)
    worker.take_slots([DOWN], None)
    worker.release_slots(IS_DOWN)
    host.pass_time(70)
    assert worker.take_slots([DOWN], None) is None
    assert worker.release_slots(outcome) is outcome
    assert [line["event"] for line in told] == ["destination.closed", "destination.opened"]
    assert host.released == [number_of(DOWN.name)] * 2
    host.pass_time(3)
    assert other.take_slots([DOWN], None) is None


def test_one_that_has_just_answered_is_not_down_but_has_too_many_connections(
    host: Host, told: list[dict[str, Any]]
) -> None:
    worker = host.worker(0)
    worker.take_slots([DOWN], None)
    worker.release_slots(ACKED)
    worker.take_slots([DOWN], None)
    ended = worker.release_slots(IS_DOWN)
    assert isinstance(ended, Postponed)
    assert ended.seconds <= 5
    assert told == []
    assert worker.take_slots([DOWN], None) is None


def test_a_trial_whose_message_gets_no_other_slot_or_never_comes_is_left_to_others(host: Host) -> None:
    first, second = host.worker(0), host.worker(1)
    first.take_slots([DOWN], None)
    first.release_slots(IS_DOWN)
    host.pass_time(70)
    host.world.pid = 101
    assert second.take_slots([ONE], None) is None
    host.world.pid = 100
    assert first.take_slots([DOWN, ONE], None) is not None
    assert first.take_ahead([DOWN]) is None
    host.world.pid = 101
    assert second.take_ahead([DOWN]) == 2.0, "looked for again in a moment"
    host.world.pid = 100
    first.release_ahead()
    assert first.take_slots([DOWN], None) is None
    first.release_slots(None)
    host.pass_time(2)
    host.world.pid = 101
    assert second.take_slots([DOWN], None) is None


class Untried(Reject):
    is_untried = True


def test_a_message_that_was_given_up_untried_opens_nothing_and_leaves_the_trial_to_others(host: Host) -> None:
    first, second = host.worker(0), host.worker(1)
    first.take_slots([DOWN], None)
    first.release_slots(IS_DOWN)
    host.pass_time(70)
    assert first.take_slots([DOWN], None) is None
    first.release_slots(Buried("no address", fault=Untried("no address")))
    assert os.listdir(f"{host.layout.control}/closed") != []
    assert second.take_slots([DOWN], None) is None
    assert first.take_slots([DOWN], None) is not None, "the other one tries it"


def test_a_destination_has_no_more_than_its_share_of_a_worker_where_there_are_others(host: Host) -> None:
    first = host.worker(0)
    second, third = first.beside(), first.beside()
    assert first.take_slots([DOWN], None) is None
    assert second.take_slots([DOWN], None) is None
    assert third.take_slots([OTHER], None) is None, "another destination"
    third.release_slots(ACKED)
    host.pass_time(5)  # it is slow, and so not waited for
    waits = third.take_slots([DOWN], host.key(10))
    assert waits is not None
    assert (round(waits.seconds), waits.tried) == (10, False)
    second.release_slots(ACKED)
    assert host.released == [number_of(DOWN.name)] * 2
    assert third.take_slots([DOWN], None) is None
    alone = LimitUse(Limit(0, label="mail.example:25", closes=True), "m.send")
    for _ in range(5):
        assert first.beside().take_slots([alone], None) is None, "there is no other"


def test_what_has_waited_for_its_lifetime_goes_on_to_be_given_up_and_opens_nothing(host: Host) -> None:
    worker = host.worker(0, lifetime_seconds=3600)
    for _ in range(5):
        assert worker.take_slots([DOWN], host.key(7200)) is None
        worker.release_slots(IS_DOWN)
        assert worker.take_slots([DOWN], host.key(1800)) is not None, "it has time left"
        host.pass_time(60 * 2**5)
    assert worker.take_slots([DOWN], None) is None
    worker.release_slots(IS_DOWN)
    assert worker.take_slots([DOWN], host.key(7200)) is None
    given_up = Buried("given up")
    assert worker.release_slots(given_up) is given_up
    assert worker.take_slots([DOWN], host.key(1800)) is not None
    assert worker.take_ahead([DOWN], name=host.key(7200)) is None
    worker.release_ahead()
    assert worker.take_ahead([DOWN], name=host.key(1800)) == 2.0
    host.pass_time(7200)
    assert worker.take_slots([DOWN], host.key(7200)) is None
    worker.release_slots(given_up)
    assert os.listdir(f"{host.layout.control}/closed") != [], "though it was due"


def start(worker: WorkerLimits, use: LimitUse = RATE) -> bool:
    """Whether a message has begun, and ended."""
    if worker.take_slots([use], None) is not None:
        return False
    worker.release_slots()
    return True


# Before `home` is joined


def unjoin(host: Host) -> None:
    host.board.words[host.board.queue(0) + QueueWord.STATE] = 0


def join(host: Host) -> None:
    host.board.words[host.board.queue(0) + QueueWord.STATE] = QueueState.SERVED


@pytest.mark.parametrize("use", [ONE, RATE])
def test_the_first_message_waits_until_the_queue_of_the_slots_is_joined(
    use: LimitUse, host: Host, told: list[dict[str, Any]]
) -> None:
    worker, looks = host.worker(0), list[float]()
    unjoin(host)

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        host.pass_time(seconds)
        if len(looks) == 20:
            join(host)

    object.__setattr__(worker._system, "sleep", sleep)
    assert worker.take_slots([use], host.key(0)) is None
    assert len(looks) == 20
    assert told == []


@pytest.mark.parametrize("use", [ONE, RATE])
def test_without_the_queue_of_the_slots_it_is_postponed_and_no_limit_is_told_to_be_reached(
    use: LimitUse, host: Host, told: list[dict[str, Any]]
) -> None:
    worker = host.worker(0)
    unjoin(host)
    began = host.world.uptime
    waits = []
    for _ in range(3):
        postponed = worker.take_slots([use], host.key(100))
        assert postponed is not None
        waits.append((postponed.seconds, round(host.world.uptime - began, 1)))
    assert waits == [(1.0, 2.0)] * 3, "it waits once, and is tried again soon"
    assert "home has no lease" in postponed.reason
    assert worker.take_ahead([use]) == 0.0
    assert told == []
    join(host)
    assert worker.take_slots([use], host.key(100)) is None


def test_where_the_lease_is_late_only_slots_at_a_time_have_to_wait(host: Host) -> None:
    """A slot of a rate is taken for good, whoever takes it; that it is free depends on the time."""
    worker = host.worker(0)
    assert start(worker, ONE)
    host.board.words[host.board.queue(0) + QueueWord.CLAIM_UNTIL] = 0
    assert start(worker, RATE)
    began = host.world.uptime
    assert worker.take_slots([ONE], host.key(0)) is not None
    assert host.world.uptime == began


# How long


def test_the_longer_it_has_waited_the_longer_it_is_postponed(host: Host) -> None:
    holder, worker = host.worker(0), host.worker(1)
    host.world.pid = 100
    assert holder.take_slots([ONE], None) is None
    host.world.pid = 101
    waits = []
    for age in (0, 10, 3000):
        postponed = worker.take_slots([ONE], host.key(age))
        assert postponed is not None
        waits.append(postponed.seconds)
    assert waits == [2, 10, 60]
    foreign = worker.take_slots([ONE], "what another program wrote")
    assert foreign is not None
    assert foreign.seconds == 2


def test_for_a_rate_each_is_told_a_turn_of_its_own(host: Host) -> None:
    worker = host.worker(0)
    assert [start(worker) for _ in range(3)] == [True] * 3
    found = [worker.take_slots([RATE], host.key(0)) for _ in range(4)]
    waits = [postponed.seconds for postponed in found if postponed is not None]
    assert 60 < waits[0] < 62
    assert [round(later - first) for first, later in pairwise(waits)] == [20, 20, 20]
    turns = [postponed.turn - host.world.uptime for postponed in found if postponed is not None]
    assert turns == pytest.approx(waits), "to the millisecond, not to the second"


def test_hosts_that_share_a_queue_share_the_turns(host: Host) -> None:
    host.board.words[host.board.queue(0) + QueueWord.HOSTS] = 2
    worker = host.worker(0)
    for _ in range(3):
        start(worker)
    first, second = (worker.take_slots([RATE], host.key(0)) for _ in range(2))
    assert first is not None
    assert second is not None
    assert round(second.seconds - first.seconds) == 40


def test_a_line_is_an_estimate_and_nobody_waits_for_hours_at_once(host: Host) -> None:
    worker = host.worker(0)
    for _ in range(3):
        start(worker)
    waits = [worker.take_slots([RATE], host.key(0)) for _ in range(100)]
    assert max(postponed.seconds for postponed in waits if postponed is not None) == 600


def test_the_log_tells_once_of_many_that_wait(host: Host, told: list[dict[str, Any]]) -> None:
    workers = [host.worker(slot) for slot in range(3)]
    for _ in range(20):
        for worker in workers:
            worker.take_slots([RATE], host.key(0))
    [line] = [line for line in told if line["event"] == "limit.reached"]
    assert (line["handler"], line["limit"], line["key"]) == ("m.send", "3 in 1m by domain", "example.org")


def test_a_release_is_told_only_where_something_waits_here(host: Host) -> None:
    holder, worker = host.worker(0), host.worker(1)
    host.world.pid = 100
    holder.take_slots([ONE], None)
    holder.release_slots()
    assert host.released == []
    holder.take_slots([ONE], None)
    host.world.pid = 101
    worker.take_slots([ONE], host.key(0))
    host.world.pid = 100
    holder.release_slots()
    assert host.released == [number_of(ONE.name)]


def test_a_quick_handlers_slot_is_waited_for_and_not_all_the_time(host: Host) -> None:
    holder, worker = host.worker(0), host.worker(1)
    host.world.pid = 101
    worker.take_slots([ONE], None)
    host.pass_time(0.01)
    worker.release_slots()
    host.world.pid = 100
    holder.take_slots([ONE], None)
    host.world.pid = 101
    began = host.world.uptime
    assert worker.take_slots([ONE], host.key(0)) is not None
    assert 0.09 < host.world.uptime - began < 0.12
    began = host.world.uptime
    assert worker.take_slots([ONE], host.key(0)) is not None
    assert host.world.uptime == began, "others' messages come first now"
    host.pass_time(1)
    host.world.take("listdir", 0.0, where="/limits/")

    def release() -> None:
        host.world.pid = 100
        holder.release_slots()
        host.world.pid = 101

    host.world.before("listdir", lambda: None, where="/limits/")
    host.world.after("utime", release, where="/limits/")
    assert worker.take_slots([ONE], host.key(0)) is None


# Lines of limits


def test_limits_that_share_a_word_do_not_share_a_line(host: Host) -> None:
    line = WaitingLine(host.board, system=host.world.system)
    first, second = 1, 1 + 256
    assert line.join(first, least_seconds=1000, spacing_seconds=1) == (1000, True)
    assert line.join(second, least_seconds=1, spacing_seconds=1) == (1, True)
    assert not line.is_empty(first)
    host.pass_time(2)
    assert line.is_empty(second)
    assert line.join(first, least_seconds=1, spacing_seconds=1) == (999, False)


def test_where_all_words_are_others_nobody_is_told_to_wait_longer(host: Host) -> None:
    line = WaitingLine(host.board, system=host.world.system)
    for number in range(4):
        line.join(1 + 256 * number, least_seconds=1000, spacing_seconds=1)
    assert line.join(1 + 256 * 4, least_seconds=1, spacing_seconds=1) == (1, False)


# The gate


def test_a_gate_opens_with_a_slot_and_is_closed_longer_each_time_without(host: Host) -> None:
    holder, worker = host.worker(0), host.worker(1)
    pauses: list[float] = []
    gate = LimitGate(worker, [ONE], lambda names, seconds: pauses.append(seconds), raise_it)
    host.world.pid = 100
    holder.take_slots([ONE], None)
    host.world.pid = 101
    assert all(gate.holds(["a"]) for _ in range(8))
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.02, 1.0)
    host.world.pid = 100
    holder.release_slots()
    host.world.pid = 101
    assert not gate.holds(["a"])
    assert worker.take_slots([ONE], None) is None, "the message gets what the gate has taken"
    worker.release_slots()
    assert os.listdir(f"{host.layout.limits}/held") == []


def raise_it(fault: StorageFault, name: str) -> None:
    raise fault


def test_a_fault_of_the_mount_closes_the_gate_for_a_while_and_the_queue_is_told(host: Host) -> None:
    told, held = list[str](), list[float]()
    gate = LimitGate(
        host.worker(0),
        [ONE],
        lambda names, seconds: held.append(seconds),
        lambda fault, name: told.append(f"{name}: {type(fault).__name__}"),
    )
    host.world.refuse("listdir", errno.EIO, where="/limits/")
    assert gate.holds(["a", "b"])
    assert (told, held) == (["a: MountFault"], [1.0])


def test_what_a_gate_took_for_nothing_is_released(host: Host) -> None:
    worker = host.worker(0)
    gate = LimitGate(worker, [ONE, RATE], lambda names, seconds: None, raise_it)
    assert not gate.holds(["a"])
    gate.leave()
    assert os.listdir(f"{host.layout.limits}/held") == []
    host.pass_time(6)
    assert [start(worker) for _ in range(4)] == [True, True, True, False]
    assert Pusher(host.layout, host=LABEL).push(lambda stem: [b"x"])
