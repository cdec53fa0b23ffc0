"""A periodic task of three hosts, of which one is killed at each instant."""

from __future__ import annotations

import pytest

from tests.simulation import schedule
from tests.simulation.faults import FaultRates
from tests.simulation.histories import Violation
from tests.simulation.hosts import SimulatedHost
from tests.simulation.installed import simulated
from tests.simulation.periodic import PeriodicCalls
from tests.simulation.schedule import ScheduleRun
from tests.simulation.world import START

INSTANTS = 200
EVERY_SECONDS = 3


class Killed(ScheduleRun):
    """At each instant a host loses power, mostly in the middle of one of its requests; it is back before the next."""

    def plan(self) -> None:
        first = START - START % EVERY_SECONDS + EVERY_SECONDS - START
        for number in range(INSTANTS + 1):
            instant = first + number * EVERY_SECONDS
            self.scheduler.at(instant - 0.01, self._doom_one)

    def _doom_one(self) -> None:
        host = self.scheduler.random.choice(self.hosts)

        def doom() -> None:
            host.cache.next_request = None
            if host.alive:
                host.die()
                self.world.later(self.scheduler.random.uniform(0.1, 2), lambda: host.start(reboot=True))

        if self.scheduler.random.random() < 0.8:
            host.cache.next_request = doom
        else:
            self.world.later(self.scheduler.random.uniform(0, 0.2), doom)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_two_hundred_instants_have_two_hundred_entries_though_a_host_dies_at_each(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.simulation.scheduler._MOST_STEPS", 5_000_000)
    fault_rates = FaultRates(
        hosts=3,
        workers=1,
        entries=1,
        ticks=EVERY_SECONDS,
        seconds=(INSTANTS + 1) * EVERY_SECONDS,
        lost=0.05,
        copied=0.05,
        torn=0.2,
        stale=0.3,
    )
    play = Killed(seed, fault_rates)
    plan = schedule.Disasters.plan
    deaths: list[SimulatedHost] = []
    monkeypatch.setattr(
        schedule.Disasters, "plan", lambda self, fault_rates: (plan(self, fault_rates), play.plan())
    )
    die = SimulatedHost.die
    monkeypatch.setattr(SimulatedHost, "die", lambda self: (deaths.append(self), die(self)))
    with simulated(play.installation):
        try:
            play.through()
        finally:
            play.close()
    calls = play.oracle.periodic
    assert len(deaths) >= INSTANTS - 10
    assert len(calls.keys) >= INSTANTS
    assert len(calls.pushed) == len(calls.keys) == len(set(calls.keys.values()))


def test_an_instant_that_is_missing_is_told() -> None:
    class Told:
        def fail(self, invariant: str, what: str) -> None:
            raise Violation(f"{invariant}: {what}")

    calls = PeriodicCalls(Told(), keys={10: "a", 30: "b"}, first=5, pushed={"a", "b"})  # type: ignore[arg-type]
    with pytest.raises(Violation, match=r"instants without a call: \[20\]"):
        calls.check(10)
    calls = PeriodicCalls(Told(), keys={10: "a", 20: "b"}, first=5, pushed={"a"})  # type: ignore[arg-type]
    with pytest.raises(Violation, match="never pushed: b"):
        calls.check(10)
