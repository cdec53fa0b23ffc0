"""What waits for a limit on this host: counted, promoted oldest first as slots are released, not told one by one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.names import EntryName
from maildefer.maildir.upkeep.promote import Promoter
from maildefer.pool.keeper.limited_entries import LimitedEntries
from maildefer.pool.messages import EntryDeferred, SlotReleased
from maildefer.pool.scoreboard import Scoreboard
from maildefer.pool.scoreboard_views import QueueRecordView
from tests.support.queues import World

LIMIT, OTHER = 77, 78


class Stage:
    def __init__(self, layout: Layout, world: World) -> None:
        self.layout, self.world = layout, world
        self.record = QueueRecordView(Scoreboard(1, 2), 0)
        self.limited = LimitedEntries(self.record, Promoter(layout, system=world.system), system=world.system)

    def postpone(self, key: str, limit: int = LIMIT, due: int = 60, turn: float = 0.0) -> str:
        name = f"{key},n=1,d={int(self.world.seconds) + due}"
        open(f"{self.layout.later_new}/{name}", "xb").close()
        self.limited.receive(EntryDeferred(queue=0, name=name, limit=limit, turn_ms=int(turn * 1000)))
        return name

    def release(self, limit: int = LIMIT) -> None:
        self.limited.receive(SlotReleased(queue=0, limit=limit))

    def promoted(self) -> list[str]:
        return sorted(EntryName.parse(name).key for name in os.listdir(self.layout.new))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(create_queue(str(tmp_path / "queue")), World())


def test_each_slot_that_is_released_promotes_the_oldest_that_waits_for_it(stage: Stage) -> None:
    for key in ("1.a", "2.b", "3.c"):
        stage.postpone(key)
    stage.postpone("0.d", limit=OTHER)
    stage.release()
    assert stage.promoted() == ["1.a"]
    stage.release()
    assert stage.promoted() == ["1.a", "2.b"]


@pytest.mark.invariant(4)
def test_it_is_the_next_generation_of_its_name(stage: Stage) -> None:
    stage.postpone("1.a")
    stage.release()
    assert os.listdir(stage.layout.new) == ["1.a,n=2"]


def test_what_another_host_has_promoted_is_passed_over(stage: Stage) -> None:
    gone = stage.postpone("1.a")
    stage.postpone("2.b")
    os.unlink(f"{stage.layout.later_new}/{gone}")
    stage.release()
    assert stage.promoted() == ["2.b"]


def test_a_release_for_which_nothing_waits_promotes_nothing(stage: Stage) -> None:
    stage.postpone("1.a", limit=0)
    stage.postpone("2.b", limit=OTHER)
    stage.release()
    assert stage.promoted() == []


def test_each_that_has_a_turn_for_a_rate_is_promoted_then_and_not_at_the_next_second(stage: Stage) -> None:
    stage.world.uptime += 0.001
    began = stage.world.uptime
    for key, turn in (("3.c", 0.7), ("1.a", 0.21), ("2.b", 0.42)):
        stage.postpone(key, due=1, turn=began + turn)
    seen = []
    for _ in range(20):
        stage.limited.promote_ready()
        seen.append(len(stage.promoted()))
        stage.world.uptime += 0.05
    assert [seen.index(count) for count in (1, 2, 3)] == [5, 9, 15], "in steps of 50 ms"
    assert stage.promoted() == ["1.a", "2.b", "3.c"]
    assert stage.record.limited == 0
    assert stage.limited.next_at() == float("inf")


def test_a_turn_that_another_host_has_promoted_is_over(stage: Stage) -> None:
    name = stage.postpone("1.a", due=1, turn=stage.world.uptime + 0.5)
    os.unlink(f"{stage.layout.later_new}/{name}")
    assert abs(stage.limited.next_at() - stage.world.uptime - 0.5) <= 0.05
    stage.world.uptime += 1
    stage.limited.promote_ready()
    assert (stage.promoted(), stage.record.limited) == ([], 0)


def test_where_no_slot_is_released_here_the_oldest_tries_one_sooner_than_it_is_due(stage: Stage) -> None:
    """Another host may have released it; the longer that lasts, the more rarely."""
    stage.postpone("1.a")
    stage.postpone("2.b")
    tries = []
    for second in range(120):
        stage.limited.promote_ready()
        for name in os.listdir(stage.layout.new):
            tries.append((second, EntryName.parse(name).key))
            os.unlink(f"{stage.layout.new}/{name}")
            stage.postpone(EntryName.parse(name).key)  # without success
        assert stage.limited.next_at() <= stage.world.uptime + 1
        stage.world.uptime += 1
    assert {key for _, key in tries} == {"1.a"}, "it stays the first"
    assert [second for second, _ in tries][:6] == [1, 2, 3, 4, 6, 8]
    assert len(tries) < 25


def test_a_release_here_is_as_good_as_a_try(stage: Stage) -> None:
    for number in range(5):
        stage.postpone(f"{number}.a")
    for number in range(4):
        stage.world.uptime += 0.9
        stage.release()
        stage.limited.promote_ready()
        assert len(stage.promoted()) == number + 1


def test_very_many_limits_are_tried_some_at_a_time(stage: Stage) -> None:
    for number in range(50):
        stage.postpone(f"{number}.a", limit=number + 1)
    counts = []
    for _ in range(4):
        stage.limited.promote_ready()
        counts.append(len(stage.promoted()))
        stage.world.uptime += 1
    assert counts == [0, 20, 40, 50]


def test_they_are_counted_for_the_status(stage: Stage) -> None:
    for key in ("1.a", "2.b", "3.c"):
        stage.postpone(key)
    stage.postpone("4.d", limit=0)
    assert stage.record.limited == 3
    stage.release()
    assert stage.record.limited == 2
    assert stage.limited.forget("2.b"), "promoted when it was due, and not told"
    assert not stage.limited.forget("4.d")
    assert stage.record.limited == 1


def test_those_that_must_be_gone_by_now_are_forgotten(stage: Stage) -> None:
    stage.postpone("1.a", due=10)
    stage.postpone("2.b", due=60)
    stage.limited.forget_past(stage.world.seconds + 12)
    assert stage.record.limited == 2, "it may be promoted in a moment"
    stage.limited.forget_past(stage.world.seconds + 30)
    assert stage.record.limited == 1
    stage.release()
    assert stage.promoted() == ["2.b"]


def test_memory_for_them_has_an_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maildefer.pool.keeper.limited_entries._MOST", 2)
    for key in ("1.a", "2.b", "3.c"):
        stage.postpone(key)
    assert stage.record.limited == 2


@pytest.mark.parametrize("turn", [1024.1, 1025.35, 1050.05])
def test_it_promotes_at_the_very_time_for_which_its_thread_wakes(stage: Stage, turn: float) -> None:
    """Whatever a float makes of it: else that thread would wake again and again for nothing."""
    stage.postpone("1.a", turn=turn)
    stage.world.uptime = stage.limited.next_at()
    stage.limited.promote_ready()
    assert stage.promoted() == ["1.a"]
