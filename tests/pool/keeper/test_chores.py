"""The chores of one queue: each stands alone."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from maildefer import events
from maildefer.maildir.system import SYSTEM
from maildefer.maildir.upkeep.failed_moves import FailedMoves
from maildefer.pool.chore_faults import CHORES, ChoreFault, ChoreFaults
from maildefer.pool.keeper.chores import Chore, Chores
from maildefer.pool.scoreboard import Scoreboard

START = 1_700_000_000


class House:
    """Chores that note when they are done, and fail while they are told to."""

    def __init__(self, *names: str) -> None:
        self.now = 1000.0
        self.done: list[str] = []
        self.mended = 0
        self.failing: dict[str, Exception] = {}
        self.faults = ChoreFaults(Scoreboard(2, 1), 1)
        system = replace(SYSTEM, boottime=lambda: self.now, time=lambda: START + self.now)
        chores = [
            Chore(name=name, event=f"{name}.failed", work=self.work(name), every=lambda: 5.0)
            for name in names
        ]
        self.chores = Chores("run/queue", chores, self.faults, system, self.mend)

    def mend(self) -> bool:
        self.mended += 1
        return self.mended < 2

    def work(self, name: str) -> Callable[[], None]:
        def work() -> None:
            if name in self.failing:
                raise self.failing[name]
            self.done.append(name)

        return work

    def round(self, seconds: float = 0.0) -> list[str]:
        """So much later: what was done."""
        self.now += seconds
        self.done.clear()
        self.chores.do_what_is_due()
        return list(self.done)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    lines: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(events, "emit", lambda event, **facts: lines.append((event, facts)))
    return lines


def refused(what: str = "refused") -> OSError:
    return OSError(errno.EACCES, what)


def test_what_fails_holds_up_nothing_that_stands_behind_it(told: list[object]) -> None:
    house = House("fence", "reclaim", "status")
    house.failing["fence"] = house.failing["reclaim"] = refused()
    assert house.round() == ["status"]
    assert house.round(5.0) == ["status"]


def test_a_fault_is_told_once_under_the_chores_own_event_and_so_is_its_end(
    told: list[tuple[str, dict[str, Any]]],
) -> None:
    house = House("fence", "status")
    house.failing["fence"] = refused()
    for _ in range(5):
        house.round(60.0)
    assert told == [("fence.failed", {"queue": "run/queue", "error": "[Errno 13] refused"})]
    house.failing.clear()
    house.round(60.0)
    house.round(60.0)
    assert told[1:] == [("chore.recovered", {"queue": "run/queue", "chore": "fence"})]


def test_what_fails_is_tried_again_after_a_pause_that_grows(told: list[object]) -> None:
    house = House("fence")
    house.failing["fence"] = refused()
    pauses = []
    for _ in range(7):
        house.round()
        pauses.append(house.chores.next_at() - house.now)
        house.now = house.chores.next_at()
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    house.failing.clear()
    assert house.round() == ["fence"]
    assert house.chores.next_at() - house.now == 5.0


def test_what_is_wanted_at_once_and_fails_waits_for_its_pause_all_the_same(told: list[object]) -> None:
    house = House()
    tries = []

    def work() -> None:
        tries.append(house.now)
        raise refused()

    chores = [Chore(name="promote", event="promotion.failed", work=work, wanted=lambda: 0.0)]
    house.chores = Chores("run/queue", chores, house.faults, house.chores._system, house.mend)
    for _ in range(100):
        house.round(0.01)
    assert len(tries) == 1


def test_the_status_tells_which_chore_fails_since_when_and_with_which_error(told: list[object]) -> None:
    house = House("fence", "status", "sweep")
    house.failing["status"] = refused("a status that can't be written")
    house.round()
    house.failing["status"] = refused("another fault")
    house.round(60.0)
    assert house.faults.read_faults() == [
        ChoreFault(chore="status", since=START + 1000, entries=0, error="[Errno 13] another fault")
    ]
    house.failing.clear()
    house.round(60.0)
    assert house.faults.read_faults() == []


def test_a_new_keeper_begins_without_the_faults_of_the_one_before_it(told: list[object]) -> None:
    house = House("fence")
    house.failing["fence"] = refused()
    house.round()
    Chores(
        "run/queue",
        [Chore(name="fence", event="fence.failed", work=lambda: None)],
        house.faults,
        SYSTEM,
        house.mend,
    )
    assert house.faults.read_faults() == []


def test_what_is_done_every_so_often_is_due_at_once_where_the_queue_is_joined_anew(
    told: list[object],
) -> None:
    house = House("fence", "sweep")
    house.chores._chores[1].at_once = False
    assert house.round() == ["fence", "sweep"]
    assert house.round(1.0) == []
    house.chores.make_due()
    assert house.round(1.0) == ["fence"]


def test_without_chores_nothing_is_ever_due() -> None:
    assert House().chores.next_at() == math.inf


def test_each_chore_has_a_place_of_its_own_on_the_board_and_a_long_error_is_cut() -> None:
    board = Scoreboard(2, 1)
    faults = ChoreFaults(board, 0)
    for number, name in enumerate(CHORES):
        faults.note_fault(ChoreFault(chore=name, since=number + 1, entries=number, error=f"{number}ä" * 500))
    assert [(found.chore, found.since, found.entries) for found in faults.read_faults()] == [
        (name, number + 1, number) for number, name in enumerate(CHORES)
    ]
    assert all(found.error.startswith(f"{number}ä") for number, found in enumerate(faults.read_faults()))
    assert ChoreFaults(board, 1).read_faults() == []


def test_what_fails_for_want_of_a_folder_of_ours_is_done_once_more_when_it_is_made_again(
    told: list[object],
) -> None:
    house = House("requests")
    house.failing["requests"] = FileNotFoundError(errno.ENOENT, "gone")
    real = house.mend

    def mend() -> bool:
        house.failing.clear()
        return real()

    house.chores._mend = mend
    assert house.round() == ["requests"]
    assert told == []


def test_one_entry_that_fails_is_told_by_name_and_leaves_the_chore_at_its_pace(
    told: list[tuple[str, dict[str, Any]]],
) -> None:
    house = House("promote", "status")
    chore = house.chores._chores[0]
    chore.refusals = stuck = FailedMoves(system=house.chores._system)
    chore.event = "promotion.failed"
    stuck.note("1.x,n=1", OSError(errno.EPERM, "not permitted"))
    assert house.round() == ["promote", "status"]
    assert house.round(5.0) == ["promote", "status"]
    assert told == [
        ("promotion.failed", {"queue": "run/queue", "entry": "1.x,n=1", "error": "not permitted"})
    ]
    assert house.faults.read_faults() == [
        ChoreFault(chore="promote", since=START + 1000, entries=1, error="1.x,n=1: not permitted")
    ]
    stuck.forget("1.x,n=1")
    house.round(5.0)
    assert told[1:] == [("chore.recovered", {"queue": "run/queue", "chore": "promote"})]
    assert house.faults.read_faults() == []


@pytest.mark.slow
def test_of_many_entries_ten_are_told_by_name(told: list[tuple[str, dict[str, Any]]]) -> None:
    house = House("promote")
    house.chores._chores[0].refusals = stuck = FailedMoves(system=house.chores._system)
    for number in range(1000):
        stuck.note(str(number), OSError(errno.EPERM, "not permitted"))
    house.round()
    assert [facts.get("entry") for _, facts in told] == [*map(str, range(10)), None]
    assert told[-1][1]["more"] == 990
    assert house.faults.read_faults()[0].entries == 1000


def test_what_fails_where_no_folder_could_be_made_again_is_not_done_twice(told: list[object]) -> None:
    tries: list[str] = []

    def work() -> None:
        tries.append("fence")
        raise FileNotFoundError(errno.ENOENT, "gone")

    house = House("fence")
    house.mended = 1  # so that it makes none
    house.chores._chores[0].work = work
    house.round()
    assert tries == ["fence"]
    house = House("fence")  # and here it makes one
    house.chores._chores[0].work = work
    house.round()
    assert tries == ["fence"] * 3
