"""Periodic tasks of several hosts on one queue: an entry for each instant, whichever host dies, at whichever call."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from maildefer import events
from maildefer.handling.periodic.schedule import CatchUp, Schedule
from maildefer.handling.periodic.table import PeriodicTask
from maildefer.handling.tasks.call import call_in
from maildefer.maildir.layout import Format, Layout, create_queue
from maildefer.maildir.system import System
from maildefer.maildir.upkeep.ticks import Ticks
from maildefer.pool.keeper.ticker import Ticker
from tests.support.queues import TRACKED, World

EVERY = PeriodicTask(name="workers.nightly.digest", queue="run/queue", schedule=Schedule(every_seconds=10))
START = 1_700_000_000  # a multiple of ten
Tell = Callable[[str, dict[str, Any]], None]


class Died(BaseException):
    """A process is killed."""


@dataclass
class Clock:
    """The mount's."""

    seconds: float = START + 1.5


class Host:
    """A keeper's chore of periodic tasks. `skew`: its reckoning of the mount's time is off by so much."""

    def __init__(self, layout: Layout, clock: Clock, name: str, *, skew: float = 0.0) -> None:
        self.world = World()
        self.clock, self.skew = clock, skew
        self.layout, self.name = layout, name
        self.calls_left = -1  # then it dies
        self.start()

    def start(self, *tasks: PeriodicTask) -> None:
        heartbeat = SimpleNamespace(
            queue=SimpleNamespace(layout=self.layout, name="run/queue"),
            format=Format(beat_seconds=5.0, ttl_seconds=45.0),
            mount_time=SimpleNamespace(now=lambda: self.clock.seconds + self.skew),
        )
        self.ticker = Ticker(cast(Any, heartbeat), self.name, self._mortal(self.world.system))
        self.ticker.use_table(tasks or (EVERY,))

    def _mortal(self, system: System) -> System:
        def counted(what: str) -> Callable[..., Any]:
            real = getattr(system, what)

            def call(*arguments: Any, **named: Any) -> Any:
                if self.calls_left == 0:
                    raise Died
                self.calls_left -= 1
                return real(*arguments, **named)

            return call

        return replace(system, **{what: counted(what) for what in TRACKED if what != "close"})

    def look(self) -> None:
        if self.ticker.next_at() <= self.world.uptime:
            self.ticker.tick()

    def look_and_die_at(self, call: int) -> bool:
        """Whether it died."""
        self.calls_left = call
        try:
            self.look()
        except Died:
            return True
        finally:
            self.calls_left = -1
        return False


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create_queue(f"{tmp_path}/queue")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hosts(layout: Layout, clock: Clock) -> list[Host]:
    return [Host(layout, clock, f"host{number}-000000") for number in range(3)]


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(events, "emit", lambda event, **facts: found.append((event, facts)))
    return found


def entries(layout: Layout) -> list[str]:
    return sorted(os.listdir(layout.new))


def instants(told: list[tuple[str, dict[str, Any]]]) -> list[int]:
    return [facts["instant"] - START for event, facts in told if event == "tick.pushed"]


def test_the_call_is_one_that_a_worker_makes(layout: Layout, hosts: list[Host], clock: Clock) -> None:
    hosts[0].look()
    clock.seconds = START + 10
    hosts[0].look()
    (key,) = entries(layout)
    data = Path(layout.new, key).read_bytes()
    body = data[data.rindex(b"To: workers.nightly.digest@task.invalid") :]
    call = call_in(body, layout.path, key)
    assert (call.task, call.args, call.kwargs) == ("workers.nightly.digest", [], {})


def test_a_task_that_is_new_begins_with_its_next_instant(
    layout: Layout, hosts: list[Host], clock: Clock, told: Any
) -> None:
    hosts[0].look()
    assert entries(layout) == []
    assert hosts[0].ticker.next_at() - hosts[0].world.uptime == pytest.approx(8.5)
    clock.seconds = START + 9.99
    hosts[0].look()
    assert entries(layout) == []
    clock.seconds = START + 10
    hosts[0].look()
    assert len(entries(layout)) == 1
    assert instants(told) == [10]


def test_three_hosts_push_one_call_for_each_instant(
    layout: Layout, hosts: list[Host], clock: Clock, told: Any
) -> None:
    for number in range(1, 31):
        for host in hosts[number % 3 :] + hosts[: number % 3]:
            host.look()
        clock.seconds = START + 10 * number
    assert len(entries(layout)) == 29
    assert instants(told) == list(range(10, 300, 10))
    assert os.listdir(layout.tmp) == []


@pytest.mark.parametrize("skew", [-30.0, 30.0])
def test_a_clock_that_is_off_by_half_a_minute_makes_no_call_twice_and_loses_none(
    layout: Layout, clock: Clock, told: Any, skew: float
) -> None:
    hosts = [Host(layout, clock, "a-000000"), Host(layout, clock, "b-000000", skew=skew)]
    for second in range(200):
        clock.seconds = START + second
        for host in hosts:
            host.look()
    made = instants(told)
    assert made == list(range(made[0], made[0] + 10 * len(made), 10))
    assert len(made) == len(entries(layout)) >= 19


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.slow
def test_a_host_that_dies_at_any_call_loses_no_instant_and_doubles_none(
    tmp_path: Path, told: Any, begun: bool
) -> None:
    """Of the push, and of the first look at a task; the second host comes then, and at last the first again."""
    died, call = True, 0
    while died:
        call += 1
        layout = create_queue(f"{tmp_path}/queue{call}")
        clock = Clock()
        first, second = (Host(layout, clock, f"{name}-000000") for name in "ab")
        if begun:
            first.look()
            clock.seconds = START + 10
        died = first.look_and_die_at(call)
        second.look()
        assert len(entries(layout)) == begun, f"it died at call {call}"
        first.start()
        first.look()
        clock.seconds = START + 10 + 10 * begun
        for host in (second, first):
            host.look()
        assert len(entries(layout)) == 1 + begun, f"it died at call {call}"
    assert call > 10


@pytest.mark.slow
def test_a_host_that_is_alone_finishes_after_its_restart_what_it_had_begun(tmp_path: Path) -> None:
    died, call = True, 0
    while died:
        call += 1
        layout, clock = create_queue(f"{tmp_path}/queue{call}"), Clock()
        host = Host(layout, clock, "a-000000")
        host.look()
        clock.seconds = START + 10
        died = host.look_and_die_at(call)
        host.start()
        host.look()
        assert len(entries(layout)) == 1, f"it died at call {call}"


CATCH_UPS: list[tuple[CatchUp, list[int]]] = [
    ("last", [50, 60]),
    ("all", [10, 20, 30, 40, 50, 60]),
    ("none", [60]),
]


@pytest.mark.parametrize(("catch_up", "made"), CATCH_UPS)
def test_what_all_hosts_missed_is_made_up_for_as_the_task_asks(
    hosts: list[Host], clock: Clock, told: Any, catch_up: CatchUp, made: list[int]
) -> None:
    task = replace(EVERY, catch_up=catch_up)
    for host in hosts:
        host.start(task)
        host.look()
    clock.seconds = START + 55
    for host in hosts:
        host.start(task)
        host.look()
    clock.seconds = START + 60
    for host in hosts:
        host.look()
    assert instants(told) == made


@pytest.mark.parametrize(("catch_up", "made"), CATCH_UPS)
def test_a_pause_is_as_a_time_without_hosts(
    layout: Layout, hosts: list[Host], clock: Clock, told: Any, catch_up: CatchUp, made: list[int]
) -> None:
    task = replace(EVERY, catch_up=catch_up)
    marks = Ticks(layout, host="cli-000000")
    for host in hosts:
        host.start(task)
        host.look()
    marks.pause(task.label)
    for second in (10, 20, 30, 40, 50):
        clock.seconds = START + second
        for host in hosts:
            host.look()
    assert instants(told) == []
    marks.resume(task.label)
    clock.seconds = START + 60
    for host in hosts:
        host.look()
    assert instants(told) == made


def test_a_table_that_comes_again_forgets_nothing_and_one_without_the_task_ends_it(
    hosts: list[Host], clock: Clock, told: Any
) -> None:
    host = hosts[0]
    host.start(replace(EVERY, catch_up="none"))
    host.look()
    clock.seconds = START + 10.5
    host.ticker.use_table((replace(EVERY, catch_up="none"),))  # a reload, just as an instant has come
    host.look()
    assert instants(told) == [10]
    host.ticker.use_table(())
    clock.seconds = START + 30
    host.look()
    assert instants(told) == [10]
    assert host.ticker.next_at() == float("inf")


def test_a_task_whose_schedule_was_changed_begins_with_its_next_instant(
    hosts: list[Host], clock: Clock, told: Any
) -> None:
    hosts[0].look()
    clock.seconds = START + 10
    hosts[0].look()
    clock.seconds = START + 18
    hosts[0].ticker.use_table((replace(EVERY, schedule=Schedule(every_seconds=4)),))
    hosts[0].look()
    assert instants(told) == [10]
    clock.seconds = START + 20
    hosts[0].look()
    assert instants(told) == [10, 20]


def test_without_overlap_an_instant_is_left_out_while_the_last_call_has_not_ended(
    layout: Layout, hosts: list[Host], clock: Clock, told: Any
) -> None:
    for host in hosts:
        host.start(replace(EVERY, overlap=False))
        host.look()
    for second in (10, 20, 30):
        clock.seconds = START + second
        for host in hosts:
            host.look()
    assert instants(told) == [10]
    assert [facts["instant"] - START for event, facts in told if event == "tick.skipped"] == [20, 30]
    (key,) = entries(layout)
    os.unlink(f"{layout.new}/{key}")
    clock.seconds = START + 40
    for host in hosts:
        host.look()
    assert instants(told) == [10, 40]
    assert len(entries(layout)) == 1


def test_what_fails_for_one_task_delays_no_other(layout: Layout, hosts: list[Host], clock: Clock) -> None:
    other = replace(EVERY, name="workers.nightly.other")
    host = hosts[0]
    host.start(EVERY, other)
    host.look()
    host.world.refuse("rename", errno.EACCES, where=EVERY.folder, times=100)
    clock.seconds = START + 10
    host.look()
    assert len(entries(layout)) == 1
    assert len(host.ticker.refusals) == 1
    assert host.ticker.next_at() > host.world.uptime, "not at once"
    host.world.rules.clear()
    host.world.pass_time(60)
    host.look()
    assert len(entries(layout)) == 2
    assert len(host.ticker.refusals) == 0
    assert os.listdir(layout.tmp) == []


def test_a_zone_that_this_host_does_not_know_is_a_fault_of_that_task(hosts: list[Host]) -> None:
    hosts[0].start(EVERY, replace(EVERY, schedule=Schedule(cron="15 3 * * *", zone="Europe/Atlantis")))
    hosts[0].look()
    assert "no zone that this host knows" in hosts[0].ticker.refusals.first()


def test_an_instant_of_a_clock_that_was_wrong_by_years_is_taken_back(
    layout: Layout, hosts: list[Host], clock: Clock, told: Any
) -> None:
    hosts[0].look()
    hosts[0].skew = 10 * 365 * 86400.0
    hosts[0].look()
    assert instants(told)[-1] > 300_000_000
    told.clear()
    hosts[1].look()
    clock.seconds = START + 10
    hosts[1].look()
    assert [event for event, _ in told] == ["tick.ahead", "tick.pushed"]
    assert instants(told) == [10]


def test_a_queue_without_periodic_tasks_costs_no_call(hosts: list[Host]) -> None:
    host = hosts[0]
    host.ticker.use_table(())
    host.look()
    assert host.world.calls == []
    assert host.ticker.next_at() == float("inf")
