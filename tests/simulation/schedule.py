"""One schedule: a seed, its faults, the pools under it, a calm end, and the last look."""

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
from tests.simulation.faults import FaultRates, forecast
from tests.simulation.histories import Violation
from tests.simulation.hosts import SimulatedHost
from tests.simulation.installed import Installation, layout_of, simulated
from tests.simulation.journals import Records
from tests.simulation.oracle import Oracle
from tests.simulation.scheduler import Process, Scheduler
from tests.simulation.server import Server, Tree
from tests.simulation.world import BEAT_SECONDS, TTL_SECONDS, World

_CALM_SECONDS = 240.0
_LIMITED_CALM_SECONDS = 900.0  # what waits for a limit waits a minute at a time, in two queues
_TICKING_SECONDS = 15.0  # of the calm
_SETTLED_EVERY = 4  # of so many schedules one waits in the end until all dead leases are fenced


@dataclass
class Result:
    """What came of a schedule."""

    seed: int
    fault_rates: FaultRates
    failure: str = ""
    steps: int = 0
    claims: int = 0
    reclaimed: int = 0
    recorded: Sequence[tuple[float, str, object]] = field(default=(), repr=False)

    @cached_property
    def trace(self) -> list[tuple[float, str, str]]:
        """In words."""
        return [(when, who, str(what)) for when, who, what in self.recorded]


def run(seed: int, fault_rates: FaultRates | None = None) -> Result:
    """Run one schedule to its end, or to the first violation."""
    fault_rates = forecast(seed) if fault_rates is None else fault_rates
    this = ScheduleRun(seed, fault_rates)
    failure = ""
    with simulated(this.installation):
        try:
            this.through()
        except Violation as violation:
            failure = str(violation)
        except Exception as error:  # noqa: BLE001  # whatever the code under test raises out of its loop
            failure = f"{type(error).__name__}: {error}"
        finally:
            this.close()
    oracle = this.oracle
    steps, trace = this.scheduler.steps, this.world.trace
    return Result(seed, fault_rates, failure, steps, oracle.claims, oracle.reclaimed, trace)


class ScheduleRun:
    """The hosts and what is done to them."""

    def __init__(self, seed: int, fault_rates: FaultRates) -> None:
        self.scheduler = Scheduler(seed)
        self.world = World(self.scheduler, Server(), FaultRates(latency=0.001, local=fault_rates.local))
        second = "/far/p" if fault_rates.far else "/p"
        self.layouts = [layout_of(path) for path in ("/q", second)[: fault_rates.queues]]
        self.oracle = Oracle(self.world, self.layouts)
        self.fault_rates = fault_rates
        self.hosts: list[SimulatedHost] = []
        self.over = False
        self.settled = seed % _SETTLED_EVERY == 0
        self.oracle.records = Records() if fault_rates.journal else None
        self.installation = Installation(
            scheduler=self.scheduler,
            processes=self.oracle.processes,
            heard=self.heard,
            look=partial(watched, self.oracle),
            thorough=fault_rates.paperwork,
            kill=self._kill,
            records=self.oracle.records,
            layouts=self.layouts,
        )

    def heard(self, event: str, facts: dict[str, Any]) -> None:
        if event == "lease.lost" and not self.over:
            self.oracle.beats.believes_fenced(str(facts["lease"]), self.layouts)

    def through(self) -> None:
        """The queue is made; the storm; the calm; the last look."""
        self._make_queue()
        self.world.watcher = self.oracle
        self.world.fault_rates = self.fault_rates
        SimulatedHost.pids = count(100)
        self.hosts = [
            SimulatedHost(self.world, self.oracle, self.layouts, i) for i in range(self.fault_rates.hosts)
        ]
        for number in range(self.fault_rates.entries):
            self.scheduler.random.choice(self.hosts).to_push.append(f"Subject: {number}\n\nbody\n".encode())
        self.oracle.conversations.minded = lambda: any(
            host.supervisor.board.words[Header.TOKENS] for host in self.hosts
        )
        self.disasters = Disasters(self.world, self.oracle, self.layouts, self.hosts)
        self.disasters.plan(self.fault_rates)
        self.scheduler.run_to(self.scheduler.now + self.fault_rates.seconds)
        self._clear_up()
        calm = _LIMITED_CALM_SECONDS if self.fault_rates.limits else _CALM_SECONDS
        self.scheduler.run(self._is_over, limit=self.scheduler.now + calm)
        final.check(self.oracle, self._families() if self.settled else None)
        self.oracle.periodic.check(self.fault_rates.ticks)
        if self.oracle.records is not None:
            self.oracle.records.check(self.oracle)

    def close(self) -> None:
        self.over = True
        for process in self.oracle.processes.values():
            self.scheduler.kill(process)

    def _make_queue(self) -> None:
        """A copy of one that was made by the real code, in a schedule of its own."""
        server = self.world.server = Server(made(*(layout.path for layout in self.layouts)))
        if self.fault_rates.local:
            server.keeps_order = self.fault_rates.ordered
            if self.fault_rates.one_sync:
                server.mkdir(self.layouts[0].synced, self.world.mount_time)
                server.leaves_zeros = True
                self.oracle.places[self.layouts[0].synced] = "synced", self.layouts[0]
            server.can_lose_power()

    def _is_done(self) -> bool:
        """Everybody is awake, every late request has landed, and nothing is left to do."""
        return (
            not self.world.under_way
            and not self.world.fault_rates.ticks
            and self.disasters.frozen_until <= self.scheduler.now
            and not any(host.to_push for host in self.hosts)
            and final.is_all_done(self.oracle)
            and self.oracle.periodic.are_pushed()
        )

    def _is_over(self) -> bool:
        """The same, and where it is waited for, no dead supervisor's lease is left."""
        return self._is_done() and not (self.settled and final.leftover_leases(self.oracle, self._families()))

    def _families(self) -> list[Process]:
        programs = [one.process for host in self.hosts for one in host.consumers]
        return [*(host.supervisor.process for host in self.hosts), *filter(lambda one: one.alive, programs)]

    def _clear_up(self) -> None:
        world = self.world
        fault_rates = self.fault_rates
        world.fault_rates = FaultRates(
            latency=0.002,
            workers=fault_rates.workers,
            local=fault_rates.local,
            ordered=fault_rates.ordered,
            one_sync=fault_rates.one_sync,
            paperwork=fault_rates.paperwork,
            shared=fault_rates.shared,
            later=fault_rates.later,
            queues=fault_rates.queues,
            conversations=fault_rates.conversations,
            limits=fault_rates.limits,
            ticks=fault_rates.ticks,
            unique=fault_rates.unique,
            requests=fault_rates.requests,
            together=fault_rates.together,
            journal=fault_rates.journal,
        )
        if fault_rates.ticks:
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
        self.world.fault_rates = replace(self.world.fault_rates, ticks=0)
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
    world = World(Scheduler(0), Server(), FaultRates(latency=0.001))
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
