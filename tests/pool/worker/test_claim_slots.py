from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest

from maildefer.handling.handler_marks import MOST_MESSAGES
from maildefer.pool.scoreboard import (
    GATHERED_PLACES,
    QUEUE_SHIFT,
    Header,
    ProcessKind,
    Scoreboard,
    SlotWord,
    State,
)
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.status_record import on_claims
from maildefer.pool.worker.batch_group import batch_size
from maildefer.pool.worker.claim_slots import GatheredClaim, GatheredSlots

PID = 4711


@pytest.fixture
def board() -> Scoreboard:
    board = Scoreboard(3, 4)
    board.words[Header.USED] = 2
    base = board.slot(1)
    board.words[base + SlotWord.PID] = PID
    board.words[base + SlotWord.KIND] = ProcessKind.WORKER
    board.words[base + SlotWord.STATE] = State.BUSY
    return board


@pytest.fixture
def slots(board: Scoreboard) -> ScoreboardSlot:
    return ScoreboardSlot(board, 1)


def gather(board: Scoreboard, slots: ScoreboardSlot, queue: int, free: list[int]) -> GatheredSlots:
    return GatheredSlots(board, 1, slots, queue, free)


def test_there_is_room_for_the_largest_batch() -> None:
    assert MOST_MESSAGES <= GATHERED_PLACES


@pytest.mark.invariant(5)
def test_a_gathered_claim_is_held_before_it_is_sent_until_it_is_settled(
    board: Scoreboard, slots: ScoreboardSlot
) -> None:
    places = gather(board, slots, 2, GatheredSlots.all_places(board, 1))
    seq = places.next_seq()
    assert on_claims(board)(PID, seq) is False
    place = places.take_place(seq, "1.k,a=1")
    assert (on_claims(board)(PID, seq), board.holds(1), board.gathered(1), board.name(1)) == (
        True,
        True,
        1,
        "1.k,a=1",
    )
    places.free_place(place)
    assert (on_claims(board)(PID, seq), board.holds(1), board.gathered(1)) == (False, False, 0)


def test_a_claim_is_held_under_the_lease_of_its_own_queue_whatever_the_worker_is_on(
    board: Scoreboard, slots: ScoreboardSlot
) -> None:
    places = gather(board, slots, 2, GatheredSlots.all_places(board, 1))
    places.take_place(places.next_seq(), "1.k")
    board.words[board.slot(1) + SlotWord.QUEUE] = 0
    assert [board.holds_under(1, queue) for queue in range(3)] == [False, False, True]
    slots.take_place(slots.next_seq(), "2.k")
    assert [board.holds_under(1, queue) for queue in range(3)] == [True, False, True]


def test_places_are_shared_by_the_queues_and_used_from_the_lowest(
    board: Scoreboard, slots: ScoreboardSlot
) -> None:
    free = GatheredSlots.all_places(board, 1)
    first, second = gather(board, slots, 0, free), gather(board, slots, 2, free)
    taken = [one.take_place(one.next_seq(), "x") for one in (first, second) * (GATHERED_PLACES // 2)]
    assert sorted(taken) == list(range(board.gathering(1), board.gathering(1) + GATHERED_PLACES))
    assert not free
    for place in taken:
        first.free_place(place)
    assert first.take_place(1, "x") == taken[-1], "the last that came free, so that few are ever looked at"


def test_slots_do_not_share_places(board: Scoreboard) -> None:
    ends = [(places[-1], places[0]) for slot in range(4) if (places := GatheredSlots.all_places(board, slot))]
    assert all(below[1] < above[0] for below, above in pairwise(ends))
    assert ends[-1][1] < len(board.words)
    assert ends[0][0] >= board.slot(3) + 160


def test_what_a_handler_has_begun_with_is_not_spared(board: Scoreboard, slots: ScoreboardSlot) -> None:
    free = GatheredSlots.all_places(board, 1)
    places, others = gather(board, slots, 0, free), gather(board, slots, 2, free)
    claims = [_claim(places), _claim(places), _claim(places)]
    other = _claim(others)
    places.mark_in_handler(claims[:2])
    assert board.spared(1, 0) == {_seq(claims[2])}
    assert board.spared(1, 2) == {_seq(other)}
    assert on_claims(board)(PID, _seq(claims[0])) is True
    places.unmark(claims[:2])
    assert board.spared(1, 0) == {_seq(claim) for claim in claims}


def test_what_was_taken_back_in_one_queue_is_still_to_be_taken_back_in_another(
    board: Scoreboard, slots: ScoreboardSlot
) -> None:
    free = GatheredSlots.all_places(board, 1)
    _claim(gather(board, slots, 0, free))
    _claim(gather(board, slots, 2, free))
    assert board.gathered_in(1) == 0
    board.forget_gathered(1, 0)
    assert board.gathered_in(1) == 2
    board.forget_gathered(1, 2)
    assert board.gathered_in(1) is None


def test_a_cleared_slot_has_nothing_gathered(board: Scoreboard, slots: ScoreboardSlot) -> None:
    places = gather(board, slots, 0, GatheredSlots.all_places(board, 1))
    for _ in range(5):
        places.take_place(places.next_seq(), "x")
    board.clear_slot(1)
    board.words[board.slot(1) + SlotWord.GATHERED] = 5  # as its next worker will have it
    assert board.gathered(1) == 0


@pytest.mark.parametrize(
    ("limit", "max_crashes", "companies"),
    [
        (500, 5, [500, 63, 8, 1, 1]),
        (40, 5, [40, 12, 4, 1, 1]),
        (500, 3, [500, 23, 1]),
        (500, 2, [500, 1]),
        (1, 5, [1, 1, 1, 1, 1]),
    ],
)
def test_who_was_in_a_batch_that_died_goes_in_smaller_company_and_alone_before_the_crash_limit(
    limit: int, max_crashes: int, companies: list[int]
) -> None:
    assert [batch_size(limit, crashes, max_crashes) for crashes in range(max_crashes)] == companies


def _claim(places: GatheredSlots) -> GatheredClaim:
    seq = places.next_seq()
    name = f"1.k:1,a-1-abcdef.{PID}.{seq}"
    claim = GatheredClaim.__new__(GatheredClaim)
    claim.name, claim._place = name, places.take_place(seq, name)
    return claim


def _seq(claim: GatheredClaim) -> int:
    return int(claim.name.rpartition(".")[2])


@pytest.mark.slow
def test_a_worker_without_batches_and_async_handlers_loads_nothing_of_them() -> None:
    loaded = (
        "import sys, maildefer.pool.worker.run, maildefer.pool.keeper.keeper, maildefer.pool.worker.scout; "
        "print(*sys.modules)"
    )
    modules = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    names = ("batch_worker", "claim_slots", "batch_leader", "bisect", "in_flight")
    of_others = {"asyncio", *(f"maildefer.pool.worker.{name}" for name in names)}
    assert of_others.isdisjoint(modules.stdout.split())


def test_one_look_at_the_board_serves_any_number_of_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """A keeper asks about every claim of its host at each beat; with batches these are a thousand a worker."""
    workers, each = 8, 200
    board = Scoreboard(1, workers + 2)
    board.words[Header.USED] = workers
    for slot in range(workers):
        base = board.slot(slot)
        board.words[base + SlotWord.PID], board.words[base + SlotWord.GATHERED] = 100 + slot, each
        for place in range(each):
            board.words[board.gathering(slot) + place] = place + 1 | 1 << QUEUE_SHIFT
    looks = 0
    words_of = Scoreboard._gathered_words

    def counted(self: Scoreboard, slot: int) -> memoryview:
        nonlocal looks
        looks += 1
        return words_of(self, slot)

    monkeypatch.setattr(Scoreboard, "_gathered_words", counted)
    on_claim = on_claims(board)
    assert all(on_claim(100 + slot, seq + 1) for slot in range(workers) for seq in range(each))
    assert looks == workers
