"""How many names an offer carries."""

from __future__ import annotations

import pytest

from maildefer.pool.scoreboard import Header, ProcessKind, Scoreboard, SlotWord, State
from maildefer.pool.worker import scout
from maildefer.pool.worker.offers import MOST_NAMES
from maildefer.pool.worker.scout import SLICE_SECONDS, OfferPace


class Host:
    """Two busy workers, and a clock."""

    def __init__(self) -> None:
        self.board = Scoreboard(1, 4)
        self.board.words[Header.USED] = 2
        self.now = 100.0
        for slot in range(2):
            self.write(slot, SlotWord.KIND, ProcessKind.WORKER)
            self.write(slot, SlotWord.STATE, State.BUSY)
        self.pace = OfferPace(self.board)

    def write(self, slot: int, word: int, value: int) -> None:
        self.board.words[self.board.slot(slot) + word] = value


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host()
    monkeypatch.setattr(scout, "boottime", lambda: host.now)
    host.pace.names_per_offer()
    return host


@pytest.mark.parametrize("word", [SlotWord.HANDLED, SlotWord.TAKEN])
def test_an_offer_carries_what_a_worker_did_in_its_last_5_ms_settled_or_gathered(
    host: Host, word: int
) -> None:
    host.now += 2 * SLICE_SECONDS
    host.write(0, word, 24)
    host.write(1, word, 16)
    assert 9 <= host.pace.names_per_offer() <= 10


def test_an_offer_carries_one_name_while_a_worker_is_idle_or_slow(host: Host) -> None:
    host.now += 2 * SLICE_SECONDS
    assert host.pace.names_per_offer() == 1
    host.now += 2 * SLICE_SECONDS
    host.write(0, SlotWord.HANDLED, 1000)
    host.write(1, SlotWord.STATE, State.IDLE)
    assert host.pace.names_per_offer() == 1


def test_no_offer_carries_more_than_fits(host: Host) -> None:
    host.now += 2 * SLICE_SECONDS
    host.write(0, SlotWord.HANDLED, 100_000)
    assert host.pace.names_per_offer() == MOST_NAMES
