"""A worker's side of conversation tokens: how long it waits, what the board shows, that postponements are told of."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from maildefer.handling.outcomes import Postponed
from maildefer.handling.retry import RetryPolicy
from maildefer.maildir.claims import Claim
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.push import Pusher
from maildefer.maildir.upkeep.tokens import Tokens
from maildefer.pool.scoreboard import (
    PLACES,
    Header,
    ProcessKind,
    QueueState,
    QueueWord,
    Scoreboard,
    SlotWord,
    State,
)
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.worker.conversation_locks import (
    IDLE_WAIT_SECONDS,
    WAIT_SECONDS,
    ConversationLocks,
)
from maildefer.pool.worker.queue_view import QueueView
from maildefer.pool.worker.settle import Settler
from tests.support.queues import LABEL, World

TALK = "ann"
LEASE = f"{LABEL}-1-0badcafe"
HOME = 1  # the tokens lie in the second queue


@dataclass
class Host:
    """Two workers of one board, on two queues."""

    layout: Layout
    world: World
    wanted: bool = False
    board: Scoreboard = field(default_factory=lambda: Scoreboard(2, 4))

    def __post_init__(self) -> None:
        self.board.set_lease(HOME, LEASE)
        base = self.board.queue(HOME)
        self.board.words[base + QueueWord.STATE] = QueueState.SERVED
        self.board.words[base + QueueWord.CLAIM_UNTIL] = (1 << 63) - 1

    def worker(self, slot: int) -> ConversationLocks:
        slots = ScoreboardSlot(self.board, slot)
        home = QueueView("home", self.layout, HOME, self.board, slots, LABEL)
        return ConversationLocks(home, self.board, slot, slots, lambda: self.wanted, system=self.world.system)

    def enter(self, slot: int, name: str) -> None:
        """A live worker, on that entry."""
        base = self.board.slot(slot)
        self.board.words[Header.USED] = max(self.board.words[Header.USED], slot + 1)
        self.board.words[base + SlotWord.KIND], self.board.words[base + SlotWord.STATE] = (
            ProcessKind.WORKER,
            State.BUSY,
        )
        ScoreboardSlot(self.board, slot).hint(name)

    def waits(self, slot: int, conversation: str) -> None:
        self.board.words[self.board.slot(slot) + SlotWord.WAITS_FOR] = Tokens.token_number(conversation)

    def held(self, slot: int) -> tuple[int, int]:
        """How many tokens the slot shows, and how many places."""
        base = self.board.slot(slot)
        places = self.board.words[base + SlotWord.HELD : base + SlotWord.HELD + PLACES]
        return self.board.words[base + SlotWord.TOKENS], sum(map(bool, places))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(create_queue(str(tmp_path / "home")), World())


def seconds_of(world: World, act: Callable[[], object]) -> float:
    began = world.uptime
    act()
    return world.uptime - began


def test_the_board_shows_a_token_while_it_is_held(host: Host) -> None:
    worker = host.worker(0)
    assert (host.board.words[Header.TOKENS], host.held(0)) == (0, (0, 0))
    assert worker.take_token(TALK)
    assert (host.board.words[Header.TOKENS], host.held(0)) == (1 + HOME, (1, 1))
    worker.release_token(TALK)
    assert host.held(0) == (0, 0)


def test_who_holds_a_token_holds_something_in_its_queue_and_in_no_other(host: Host) -> None:
    worker = host.worker(0)
    assert not host.board.holds_under(0, HOME)
    worker.take_token(TALK)
    assert host.board.holds_under(0, HOME)
    host.board.words[host.board.slot(0) + SlotWord.QUEUE] = 2
    assert host.board.holds_under(0, HOME)
    assert not host.board.holds_under(0, 0)


def test_a_tokens_name_does_not_hide_the_entrys(host: Host) -> None:
    worker = host.worker(0)
    ScoreboardSlot(host.board, 0).take_place(1, "entry")
    worker.take_token(TALK)
    assert host.board.name(0) == "entry"


def test_a_token_that_is_given_back_soon_is_waited_for(host: Host) -> None:
    first, second = host.worker(0), host.worker(1)
    first.take_token(TALK)
    host.wanted = True
    host.world.after("listdir", lambda: first.release_token(TALK), where="/tokens/")
    assert second.take_token(TALK)


def test_who_is_wanted_elsewhere_waits_a_moment_only(host: Host) -> None:
    first, second = host.worker(0), host.worker(1)
    first.take_token(TALK)
    host.wanted = True
    waited = seconds_of(host.world, lambda: second.take_token(TALK))
    assert WAIT_SECONDS <= waited < WAIT_SECONDS * 1.5
    assert host.held(1) == (0, 0)


def test_who_has_nothing_else_to_do_waits_longer_but_not_for_ever(host: Host) -> None:
    first, second = host.worker(0), host.worker(1)
    first.take_token(TALK)
    waited = seconds_of(host.world, lambda: second.take_token(TALK))
    assert IDLE_WAIT_SECONDS <= waited < IDLE_WAIT_SECONDS * 1.1


@pytest.mark.invariant(5)
def test_the_handlers_time_does_not_run_while_a_token_is_waited_for(host: Host) -> None:
    base, seen = host.board.slot(1), []
    assert host.worker(0).take_token(TALK)
    host.board.words[base + SlotWord.DEADLINE] = 10**9
    host.world.before("listdir", lambda: seen.append(host.board.words[base + SlotWord.DEADLINE]), times=2)
    waited = seconds_of(host.world, lambda: host.worker(1).take_token(TALK))
    assert seen == [0, 0]
    assert host.board.words[base + SlotWord.DEADLINE] - 10**9 == pytest.approx(waited * 1e9, rel=0.01)


def test_a_free_token_is_not_waited_for(host: Host) -> None:
    assert seconds_of(host.world, lambda: host.worker(0).take_token(TALK)) == 0


@pytest.mark.invariant(8)
def test_without_a_good_beat_no_token_is_taken(host: Host) -> None:
    host.wanted = True
    host.board.words[host.board.queue(HOME) + QueueWord.CLAIM_UNTIL] = 0
    assert not host.worker(0).take_token(TALK)
    assert not os.path.exists(f"{host.layout.tokens}/held")


def test_the_keeper_is_told_of_what_is_postponed(host: Host) -> None:
    """Else it would hear of it only when it lists `.later/` again, which is seldom."""
    told: list[str] = []

    def note(claim: Claim, name: str, postponed: Postponed | None) -> None:
        told.append(name)

    settler = Settler(policy=RetryPolicy(), layouts={}, host=LABEL, deferred=note)
    name = Pusher(host.layout, host=LABEL).push(lambda stem: [b"x"])
    serving = QueueView("home", host.layout, HOME, host.board, ScoreboardSlot(host.board, 0), LABEL)
    assert serving.may_claim()
    claim = serving.claimer.claim(name)
    assert claim is not None
    word = settler.settle(
        claim, Postponed(1.0, "its token is taken"), "", None, lambda message, outcome: None
    )
    assert word == "postponed"
    assert told == os.listdir(host.layout.later_new)


def test_the_oldest_entry_that_waits_for_a_token_is_the_next_to_get_it(host: Host) -> None:
    for slot, name in enumerate(["1.a", "3.c", "2.b"]):
        host.enter(slot, name)
    younger, older = host.worker(1), host.worker(2)
    host.waits(2, TALK)
    assert not younger.take_token(TALK), "it is free, and another's turn"
    host.waits(2, "bob")
    assert younger.take_token(TALK), "nobody else waits for it"
    younger.release_token(TALK)
    host.waits(1, TALK)
    assert older.take_token(TALK), "who is older does not wait for who is younger"


def test_nobody_waits_for_a_worker_that_died_while_it_waited(host: Host) -> None:
    for slot, name in enumerate(["1.a", "2.b"]):
        host.enter(slot, name)
    host.waits(0, TALK)
    assert not host.worker(1).take_token(TALK)
    host.board.words[host.board.slot(0) + SlotWord.STATE] = State.DEAD_UNCHARGED
    assert host.worker(1).take_token(TALK)


def test_a_message_of_two_conversations_with_one_token_does_not_wait_for_itself(host: Host) -> None:
    for slot, name in enumerate(["1.a", "2.b"]):
        host.enter(slot, name)
    younger = host.worker(1)
    assert younger.take_token(TALK)
    host.waits(0, TALK)
    assert younger.take_token(TALK)


def test_who_waits_says_so_only_while_it_does(host: Host) -> None:
    host.enter(0, "1.a")
    host.enter(1, "2.b")
    assert host.worker(0).take_token(TALK)
    seen: list[int] = []
    word = host.board.slot(1) + SlotWord.WAITS_FOR
    look = lambda: seen.append(host.board.words[word])  # noqa: E731
    host.world.before("listdir", look, where="/tokens/", times=1000)
    assert not host.worker(1).take_token(TALK)
    assert (seen[0], set(seen[1:])) == (0, {Tokens.token_number(TALK)})
    assert host.board.words[word] == 0
