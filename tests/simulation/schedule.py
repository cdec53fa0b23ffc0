"""One schedule: a seed, its weather, the pools under it, a calm end, and the last look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from itertools import count
from typing import Any

from maildefer.maildir.layout import Format, Layout, create_queue
from maildefer.pool.scoreboard import Header
from tests.simulation import final
from tests.simulation.cache import Cache
from tests.simulation.client import Client
from tests.simulation.disasters import Disasters
from tests.simulation.doubt_rules import watched
from tests.simulation.faults import Weather, forecast
from tests.simulation.histories import Violation
from tests.simulation.hosts import SimulatedHost
from tests.simulation.installed import Stage, layout_of, playing
from tests.simulation.oracle import Oracle
from tests.simulation.scheduler import Process, Scheduler
from tests.simulation.server import Server, Tree
from tests.simulation.world import BEAT_SECONDS, TTL_SECONDS, World

_CALM_SECONDS = 240.0
_TICKING_SECONDS = 15.0  # of the calm
_SETTLED_EVERY = 4  # of so many schedules one waits in the end until all dead leases are fenced


@dataclass
class Result:
    """What came of a schedule."""

    seed: int
    weather: Weather
    failure: str = ""
    steps: int = 0
    claims: int = 0
    reclaimed: int = 0
    recorded: Sequence[tuple[float, str, object]] = field(default=(), repr=False)

    @cached_property
    def trace(self) -> list[tuple[float, str, str]]:
        """In words."""
        return [(when, who, str(what)) for when, who, what in self.recorded]


def run(seed: int, weather: Weather | None = None) -> Result:
    """Run one schedule to its end, or to the first violation."""
    weather = forecast(seed) if weather is None else weather
    play = Play(seed, weather)
    failure = ""
    with playing(play.stage):
        try:
            play.through()
        except Violation as violation:
            failure = str(violation)
        except Exception as error:  # noqa: BLE001  # whatever the code under test raises out of its loop
            failure = f"{type(error).__name__}: {error}"
        finally:
            play.close()
    oracle = play.oracle
    steps, trace = play.scheduler.steps, play.world.trace
    return Result(seed, weather, failure, steps, oracle.claims, oracle.reclaimed, trace)


class Play:
    """The hosts and what is done to them."""

    def __init__(self, seed: int, weather: Weather) -> None:
        self.scheduler = Scheduler(seed)
        self.world = World(self.scheduler, Server(), Weather(latency=0.001, local=weather.local))
        second = "/far/p" if weather.far else "/p"
        self.layouts = [layout_of(path) for path in ("/q", second)[: weather.queues]]
        self.oracle = Oracle(self.world, self.layouts)
        self.weather = weather
        self.hosts: list[SimulatedHost] = []
        self.over = False
        self.settled = seed % _SETTLED_EVERY == 0
        look = partial(watched, self.oracle)
        self.stage = Stage(
            self.scheduler, self.oracle.processes, self.heard, look, weather.paperwork, self._kill
        )

    def heard(self, event: str, facts: dict[str, Any]) -> None:
        if event == "lease.lost" and not self.over:
            self.oracle.beats.believes_fenced(str(facts["lease"]), self.layouts)

    def through(self) -> None:
        """The queue is made; the storm; the calm; the last look."""
        self._make_queue()
        self.world.watcher = self.oracle
        self.world.weather = self.weather
        SimulatedHost.pids = count(100)
        self.hosts = [
            SimulatedHost(self.world, self.oracle, self.layouts, i) for i in range(self.weather.hosts)
        ]
        for number in range(self.weather.entries):
            self.scheduler.random.choice(self.hosts).to_push.append(f"Subject: {number}\n\nbody\n".encode())
        self.oracle.conversations.minded = lambda: any(
            host.supervisor.board.words[Header.TOKENS] for host in self.hosts
        )
        self.disasters = Disasters(self.world, self.oracle, self.layouts, self.hosts)
        self.disasters.plan(self.weather)
        self.scheduler.run_to(self.scheduler.now + self.weather.seconds)
        self._clear_up()
        self.scheduler.run(self._is_over, limit=self.scheduler.now + _CALM_SECONDS)
        final.check(self.oracle, self._families() if self.settled else None)
        self.oracle.periodic.check(self.weather.ticks)

    def close(self) -> None:
        self.over = True
        for process in self.oracle.processes.values():
            self.scheduler.kill(process)

    def _make_queue(self) -> None:
        """A copy of one that was made by the real code, in a schedule of its own."""
        server = self.world.server = Server(made(*(layout.path for layout in self.layouts)))
        if self.weather.local:
            server.can_lose_power()

    def _is_done(self) -> bool:
        """Everybody is awake, every late request has landed, and nothing is left to do."""
        return (
            not self.world.under_way
            and not self.world.weather.ticks
            and self.disasters.frozen_until <= self.scheduler.now
            and not any(host.to_push for host in self.hosts)
            and final.is_all_done(self.oracle)
        )

    def _is_over(self) -> bool:
        """The same, and where it is waited for, no dead supervisor's lease is left."""
        return self._is_done() and not (self.settled and final.leftover_leases(self.oracle, self._families()))

    def _families(self) -> list[Process]:
        return [host.supervisor.process for host in self.hosts]

    def _clear_up(self) -> None:
        world = self.world
        weather = self.weather
        world.weather = Weather(
            latency=0.002,
            workers=weather.workers,
            local=weather.local,
            paperwork=weather.paperwork,
            shared=weather.shared,
            later=weather.later,
            queues=weather.queues,
            conversations=weather.conversations,
            ticks=weather.ticks,
        )
        if weather.ticks:
            self.scheduler.at(world.now + _TICKING_SECONDS, self._end_ticks)
        world.down_until = world.grace_until = min(world.grace_until, world.now)
        self.disasters.end_quiet()
        for host in self.hosts:
            host.calm = True
            host.cache.partitioned_until = 0.0
            host.supervisor.board.words[Header.PAUSED] = 0
            if not host.alive:
                host.start(reboot=True)

    def _end_ticks(self) -> None:
        """Not before whatever was begun in the storm is finished."""
        self.world.weather = replace(self.world.weather, ticks=0)
        for host in self.hosts:
            host.supervisor.keeper.end_ticks()

    def _kill(self, pid: int) -> None:
        """A keeper kills a worker of its host."""
        process = self.oracle.processes[pid]
        for host in self.hosts:
            if process.family is host.supervisor.process:
                host.supervisor.workforce.end(process)


@cache
def made(*paths: str) -> Tree:
    """Queues that nobody has used yet."""
    world = World(Scheduler(0), Server(), Weather(latency=0.001))
    process = Process("setup", 1)
    process.client = Client(world, process, Cache())
    done: list[Layout] = []

    def make() -> None:
        agreed = Format(beat_seconds=BEAT_SECONDS, ttl_seconds=TTL_SECONDS)
        for path in paths:
            done.append(create_queue(path, format=agreed, system=process.client.system))

    world.scheduler.start(process, "make", make)
    world.scheduler.run(lambda: len(done) == len(paths))
    return world.server.tree()
