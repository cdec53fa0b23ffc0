"""Hosts of a simulated pool: one machine each, with supervisor, keeper, scout, workers and a pusher."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

from greenlet import GreenletExit

from maildefer.errors import MaildeferError
from maildefer.host.identity import Host
from maildefer.maildir.layout import Layout
from maildefer.maildir.push import Pusher
from maildefer.pool.board import Board
from maildefer.pool.shared import QueueOfPool, Shared
from tests.simulation.cache import Cache
from tests.simulation.client import Client
from tests.simulation.keepers import SimulatedKeeper, SimulatedScout
from tests.simulation.oracle import Oracle
from tests.simulation.scheduler import Process
from tests.simulation.stand_ins import Bell, Channel, Mailbox
from tests.simulation.supervisors import SimulatedWorkforce
from tests.simulation.world import MAX_CRASHES, World


class SimulatedHost:
    """One machine, which may lose power and come back. A supervisor's life is a Process without threads."""

    pids = count(100)

    def __init__(self, world: World, oracle: Oracle, layout: Layout, number: int) -> None:
        random = world.scheduler.random
        self.world = world
        self.oracle = oracle
        self.layout = layout
        self.label = f"{'abc'[number]}-00000{number}"
        self.calm = False
        self.to_push: list[bytes] = []
        self._boots = 0
        self.cache = Cache(
            skew=random.choice((0.0, random.uniform(-90, 90))),
            uptime=random.uniform(10, 1e5),
            drift=1 + random.uniform(-5e-4, 5e-4),
        )
        self.start(reboot=True)

    def start(self, *, reboot: bool) -> None:
        """A supervisor starts; with `reboot`, on a machine that has just booted."""
        self._boots += reboot
        self.supervisor = self.process("supervisor", None)
        self.supervisor.family = self.supervisor
        scheduler, weather = self.world.scheduler, self.world.weather
        self.board = Board(1, 2 * weather.workers + 2)
        board = self.board
        self.supervisor.lease = lambda: board.lease(0)
        self.bell, room = Bell(scheduler), Bell(scheduler)
        self.channels = [Channel(self.bell, room)]
        settings: Any = SimpleNamespace(max_crashes=MAX_CRASHES, queues={"q": ()})
        nobody: Any = None
        keepers_end: Any = Mailbox(self._hear)
        workers_end: Any = Mailbox(lambda message: self.keeper._tenders[0].hear(str(message["name"])))
        self.shared = Shared(
            settings=settings,
            project="/",
            pidfile="",
            host=Host(label=self.label, boot_id=f"{self.label}.{self._boots}", pid_namespace="p"),
            queues=(QueueOfPool(name="q", layout=self.layout),),
            board=self.board,
            offers=(),
            keeper=(nobody, keepers_end),
            deferrals=(nobody, workers_end),
            gate=0,
            supervisor=self.supervisor.pid,
        )
        self._start_keeper()
        self._start_scout()
        self.workforce = SimulatedWorkforce(self)
        for _ in range(weather.workers):
            self.workforce.fork()
        self.pusher = self.process("pusher", None)
        scheduler.start(self.pusher, "push", self._push_all)

    def process(self, kind: str, family: Process | None) -> Process:
        pid = next(self.pids)
        process = Process(f"{self.label[0]}.{kind}{pid}", pid, family)
        process.client = Client(self.world, process, self.cache)
        self.oracle.processes[pid] = process
        return process

    def _start_keeper(self) -> None:
        self.keeper_process = self.process("keeper", self.supervisor)
        self.keeper = SimulatedKeeper(self, self.keeper_process)

    def _start_scout(self) -> None:
        self.scout_process = self.process("scout", self.supervisor)
        SimulatedScout(self, self.scout_process, 0)

    def soon(self, seconds: float, action: Callable[[], object]) -> None:
        """Unless the supervisor is gone by then."""
        supervisor = self.supervisor
        self.world.later(seconds, lambda: action() if supervisor.alive else None)

    def tell_keeper(self) -> None:
        if self.keeper_process.alive:
            self.keeper._find_dead()

    def _hear(self, message: dict[str, Any]) -> None:
        match message:
            case {"fenced": index}:
                delay = self.world.scheduler.random.uniform(0, 0.1)
                self.soon(delay, lambda: self.workforce.kill_holders(index))

    # Ends

    def kill_keeper(self) -> None:
        if self.keeper_process.alive:
            self.end(self.keeper_process)
            self.soon(self.world.scheduler.random.uniform(0.05, 3), self._start_keeper)

    def kill_scout(self) -> None:
        if self.scout_process.alive:
            self.end(self.scout_process)
            self.soon(self.world.scheduler.random.uniform(0.05, 3), self._start_scout)

    def die(self) -> None:
        """All processes of the supervisor end with it."""
        self.supervisor.alive = False
        for process in self.processes():
            self.end(process)
        self.workforce.processes.clear()
        self.cache.watched.clear()

    def end(self, process: Process) -> None:
        """What it had sent may still arrive."""
        world = self.world
        for thread in process.threads:
            if thread.sending is not None and not world.weather.local and world.chance(0.7):
                world.carry_out_late(thread.sending, world.a_while())
        world.note(process.name, "dies")
        self.oracle.dies(process)
        world.scheduler.kill(process)

    def processes(self) -> list[Process]:
        return [*self.workforce.processes.values(), self.keeper_process, self.scout_process, self.pusher]

    # Pushes

    def _push_all(self) -> None:
        random, client = self.world.scheduler.random, self.pusher.client
        pusher = Pusher(self.layout, host=self.label, system=client.system)
        while self.to_push:
            data = self.to_push[-1]
            try:
                key = pusher.push(lambda stem, data=data: [data])  # type: ignore[misc]
            except GreenletExit:
                raise
            except MaildeferError as fault:
                self.world.note(self.pusher.name, f"could not push: {type(fault).__name__}")
                client.sleep(1)
                continue
            self.to_push.pop()
            self.oracle.acknowledged(key, data)
            client.sleep(random.expovariate(1))
