"""One schedule: a seed, its weather, the pools under it, a calm end, and the last look."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from itertools import count
from typing import Any

from maildefer.maildir import operate
from maildefer.maildir.layout import Format, Layout, create_queue
from maildefer.pool.board import Header, Kind
from tests.simulation import final
from tests.simulation.cache import Cache
from tests.simulation.client import Client
from tests.simulation.hosts import SimulatedHost
from tests.simulation.looks import watched
from tests.simulation.oracle import Oracle
from tests.simulation.scheduler import Process, Scheduler
from tests.simulation.server import Server, Tree
from tests.simulation.stage import Stage, playing
from tests.simulation.stories import Violation
from tests.simulation.weather import Weather, forecast
from tests.simulation.world import BEAT_SECONDS, TTL_SECONDS, Request, World

_CALM_SECONDS = 240.0
_SETTLED_EVERY = 4  # of so many schedules one waits in the end until all dead leases are fenced


@dataclass
class Result:
    """What came of a schedule."""

    seed: int
    weather: Weather
    failure: str = ""
    steps: int = 0
    claims: int = 0
    taken_back: int = 0
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
    return Result(seed, weather, failure, steps, oracle.claims, oracle.taken_back, trace)


class Play:
    """The hosts and what is done to them."""

    def __init__(self, seed: int, weather: Weather) -> None:
        self.scheduler = Scheduler(seed)
        self.world = World(self.scheduler, Server(), Weather(latency=0.001, local=weather.local))
        second = "/far/p" if weather.far else "/p"
        self.layouts = [Layout(path) for path in ("/q", second)[: weather.queues]]
        self.oracle = Oracle(self.world, self.layouts)
        self.weather = weather
        self.hosts: list[SimulatedHost] = []
        self.frozen_until = 0.0  # the longest
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
        self._plan_disasters()
        self.scheduler.run_to(self.scheduler.now + self.weather.seconds)
        self._clear_up()
        self.scheduler.run(self._is_over, limit=self.scheduler.now + _CALM_SECONDS)
        final.check(self.oracle, self._families() if self.settled else None)

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
            and self.frozen_until <= self.scheduler.now
            and not any(host.to_push for host in self.hosts)
            and not final.outstanding(self.oracle)
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
            queues=weather.queues,
            conversations=weather.conversations,
        )
        world.down_until = world.grace_until = min(world.grace_until, world.now)
        self._end_quiet()
        for host in self.hosts:
            host.calm = True
            host.cache.partitioned_until = 0.0
            host.supervisor.board.words[Header.PAUSED] = 0
            if not host.alive:
                host.start(reboot=True)

    # Disasters

    def _plan_disasters(self) -> None:
        weather, random = self.weather, self.scheduler.random
        start = self.scheduler.now
        plans: list[tuple[int, Callable[[], object]]] = [
            (weather.worker_deaths, self._kill_worker),
            (weather.keeper_deaths, self._kill_keeper),
            (weather.host_deaths, self._kill_host),
            (weather.freezes, self._freeze),
            (weather.partitions, self._partition),
            (weather.restarts, self._restart_server),
            (weather.power_cuts, self._cut_power),
            (weather.readers, self._read_mail),
            (weather.operators, self._requeue),
            (weather.scout_deaths, self._kill_scout),
            (weather.supervisor_freezes, self._freeze_supervisor),
            (weather.drains, self._drain),
            (weather.pauses, self._pause),
        ]
        for times, disaster in plans:
            for _ in range(times):
                self.scheduler.at(start + random.uniform(0.5, weather.seconds), disaster)

    def _any(self) -> SimulatedHost:
        return self.scheduler.random.choice(self.hosts)

    def _kill(self, pid: int) -> None:
        """A keeper kills a worker of its host."""
        process = self.oracle.processes[pid]
        for host in self.hosts:
            if process.family is host.supervisor.process:
                host.supervisor.workforce.end(process)

    def _kill_worker(self, host: SimulatedHost | None = None) -> None:
        workforce = (host or self._any()).supervisor.workforce
        if workforce.processes:
            pid = self.scheduler.random.choice(sorted(workforce.processes))
            cause = self.scheduler.random.choice((signal.SIGKILL, signal.SIGSEGV))
            workforce.end(workforce.processes[pid], cause)

    def _kill_keeper(self) -> None:
        """And often a worker at the same time."""
        host = self._any()
        if self.scheduler.random.random() < 0.5:
            self._kill_worker(host)
        if host.alive:
            host.supervisor.lose(Kind.KEEPER)

    def _kill_scout(self) -> None:
        host = self._any()
        if host.alive:
            host.supervisor.lose(Kind.SCOUT)

    def _drain(self) -> None:
        """Another supervisor follows."""
        host = self._any()
        if host.alive and not host.supervisor.draining.has_begun:
            host.supervisor.drain()
            self.world.note(host.label, "is told to stop")
            self.world.later(self.scheduler.random.uniform(1, 12), lambda: self._revive(host, False))

    def _pause(self) -> None:
        """Stop claiming, and go on."""
        words = self._any().supervisor.board.words
        words[Header.PAUSED] = 1

        def resume() -> None:
            words[Header.PAUSED] = 0

        self.world.later(self.scheduler.random.uniform(0.5, 4), resume)

    def _freeze_supervisor(self) -> None:
        self._frozen([self._any().supervisor.process])

    def _kill_host(self) -> None:
        """Often in the middle of a worker's request."""
        random = self.scheduler.random
        host = random.choice(self.hosts)
        doom = lambda: self._end_host(host)  # noqa: E731
        if random.random() < 0.7:
            host.cache.next_request = doom
            self.world.later(3, lambda: doom() if host.cache.next_request is doom else None)
        else:
            doom()

    def _end_host(self, host: SimulatedHost) -> None:
        random, host.cache.next_request = self.scheduler.random, None
        if host.alive:
            host.die()
            reboot = random.random() < 0.5
            self.world.later(random.uniform(0.1, 15), lambda: self._revive(host, reboot))

    def _revive(self, host: SimulatedHost, reboot: bool) -> None:
        if not host.alive:
            host.start(reboot=reboot)
        elif host.supervisor.draining.has_begun:
            self.world.later(1, lambda: self._revive(host, reboot))

    def _freeze(self) -> None:
        """A whole host, or one process of it."""
        random = self.scheduler.random
        host = random.choice(self.hosts)
        self._frozen(host.processes() if random.random() < 0.5 else [random.choice(host.processes())])

    def _frozen(self, frozen: list[Process]) -> None:
        until = self.scheduler.now + self._absence()
        self.frozen_until = max(self.frozen_until, until)
        for process in frozen:
            process.frozen_until = until
            self.world.note(process.name, f"frozen until {until:.1f}")

    def _absence(self) -> float:
        """Shorter or longer than the TTL, and often about as long."""
        random = self.scheduler.random
        return (
            random.uniform(0.1, 3 * TTL_SECONDS)
            if random.random() < 0.5
            else TTL_SECONDS + random.gauss(0, 0.7)
        )

    def _partition(self) -> None:
        random = self.scheduler.random
        host = random.choice(self.hosts)
        host.cache.partitioned_until = self.scheduler.now + self._absence()
        self.world.note(host.label, f"partitioned until {host.cache.partitioned_until:.1f}")

    def _restart_server(self) -> None:
        """Replies under way are lost; then it lists for a while, but does not rename."""
        random, world = self.scheduler.random, self.world
        world.boots += 1
        world.down_until = world.now + random.uniform(0.1, 6)
        world.grace_until = world.down_until + random.choice((0.0, random.uniform(0, 8)))
        self._end_quiet()
        world.quiet.append((world.now, world.grace_until))
        world.note(
            "server", f"restarts, back at {world.down_until:.1f}, in grace until {world.grace_until:.1f}"
        )

    def _end_quiet(self) -> None:
        quiet, now = self.world.quiet, self.world.now
        if quiet and quiet[-1][1] > now:
            quiet[-1] = (quiet[-1][0], now)

    def _cut_power(self) -> None:
        host = self.hosts[0]
        if host.alive:
            host.die()
            random = self.scheduler.random
            self.world.server.cut_power(random, ordered=random.random() < 0.5)
            final.power_was_cut(self.oracle)
            self.world.note("power", "cut")
            self.world.later(random.uniform(0.1, 3), lambda: self._revive(host, True))

    def _read_mail(self) -> None:
        """A mail reader opens the queue."""
        names = list(self.world.server.directories[self.layouts[0].new].names)
        if names:
            name = self.scheduler.random.choice(names)
            reader = self.oracle.processes.setdefault(2, Process("reader", 2))
            self.world.carry_out(
                Request(
                    "rename",
                    f"{self.layouts[0].new}/{name}",
                    f"{self.layouts[0].cur}/{name}:2,S",
                    reader,
                    self.world.now,
                )
            )

    def _requeue(self) -> None:
        """An operator puts a dead letter back."""
        host = self.scheduler.random.choice(self.hosts)
        process = host.process("operator", None)

        def operate_it() -> None:
            system = process.client.system
            try:
                for layout in self.layouts:
                    for found in list(operate.listed(layout, "dead", system=system))[:1]:
                        operate.requeue(layout, found, system=system)
            except Exception:  # noqa: BLE001  # told to a person, who tries again
                pass

        self.scheduler.start(process, "operate", operate_it)


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
