"""Hosts of a simulated pool: real lifelines, tenders, workers and pushers, and a supervisor's part in plain code."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

from greenlet import GreenletExit

from maildefer.errors import MaildeferError
from maildefer.host.identity import Host
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import lease_name
from maildefer.maildir.push import Pusher
from maildefer.pool.board import Board, Header, Kind, S, State
from maildefer.pool.keeper import Keeper
from maildefer.pool.lifeline import Lifeline
from maildefer.pool.shared import QueueOfPool, Shared
from maildefer.pool.tender import Tender
from tests.simulation.cache import Cache
from tests.simulation.client import Client
from tests.simulation.oracle import Oracle
from tests.simulation.scheduler import Process
from tests.simulation.stand_ins import Event, Mailbox
from tests.simulation.workers import SimulatedWorker
from tests.simulation.world import World

_KEEPER_SLOT = 0


class SimulatedKeeper(Keeper):
    """The keeper's main thread is driven by the host: only what it holds, and how it finds the dead, is real."""

    def __init__(self, host: SimulatedHost, process: Process) -> None:
        scheduler = host.world.scheduler
        system = process.client.system
        self._shared = host.shared
        lifeline = Lifeline(host.shared, 0, lease_name(host.label, system), lambda index: None, system=system)
        lifeline.leaving, lifeline.joined, lifeline.left = (Event(scheduler) for _ in range(3))
        tender = Tender(host.shared, 0, lifeline, self._free, system=system)
        tender._wake = Event(scheduler)
        self._lifelines, self._tenders = [lifeline], [tender]
        scheduler.start(process, "beat", lifeline._run)
        scheduler.start(process, "tend", tender._run)
        self._find_dead()


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

    # The supervisor's part

    def start(self, *, reboot: bool) -> None:
        """A supervisor starts; with `reboot`, on a machine that has just booted."""
        self._boots += reboot
        self.supervisor = self._process("supervisor", None)
        self.supervisor.family = self.supervisor
        workers = self.world.weather.workers
        self.board = Board(1, 2 * workers + 2)
        self.board.words[Header.USED] = 2 * workers + 2
        self.workers: dict[int, Process] = {}  # by slot
        settings: Any = SimpleNamespace(max_crashes=3, queues={"q": ()})
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
        for _ in range(workers):
            self._start_worker()
        self.pusher = self._process("pusher", None)
        self.world.scheduler.start(self.pusher, "push", self._push_all)

    def _process(self, kind: str, family: Process | None) -> Process:
        pid = next(self.pids)
        process = Process(f"{self.label[0]}.{kind}{pid}", pid, family)
        process.client = Client(self.world, process, self.cache)
        self.oracle.processes[pid] = process
        return process

    def _start_keeper(self) -> None:
        self.keeper_process = self._process("keeper", self.supervisor)
        self.keeper = SimulatedKeeper(self, self.keeper_process)

    def _start_worker(self) -> None:
        words = self.board.words
        slot = next((slot for slot in range(1, self.board.slots) if not words[self.board.slot(slot)]), None)
        if slot is None:  # all wait to be taken back
            return self._soon(0.5, self._start_worker)
        process = self._process("worker", self.supervisor)
        base = self.board.slot(slot)
        words[base + S.PID], words[base + S.KIND], words[base + S.STATE] = (
            process.pid,
            Kind.WORKER,
            State.IDLE,
        )
        self.workers[slot] = process
        worker = SimulatedWorker(self, slot, process, self.layout)
        self.world.scheduler.start(process, "work", worker.live)
        return None

    def _soon(self, seconds: float, action: Callable[[], object]) -> None:
        """Unless the supervisor is gone by then."""
        supervisor = self.supervisor
        self.world.later(seconds, lambda: action() if supervisor.alive else None)

    def _hear(self, message: dict[str, Any]) -> None:
        match message:
            case {"fenced": _}:
                self._soon(self.world.scheduler.random.uniform(0, 0.1), self._kill_holders)

    def _kill_holders(self) -> None:
        for slot, process in list(self.workers.items()):
            if self.board.holds_under(slot, 0):
                self.kill_worker(slot, process, by_fence=True)

    def kill_worker(self, slot: int, process: Process, *, by_fence: bool = False) -> None:
        """KILL; the supervisor reaps it a moment later, has its claims taken back, and starts another."""
        if self.workers.get(slot) is not process:
            return
        del self.workers[slot]
        process.by_fence = by_fence
        self.end(process)
        self._soon(self.world.scheduler.random.uniform(0, 0.05), lambda: self._reap(slot, by_fence))

    def _reap(self, slot: int, by_fence: bool) -> None:
        words, base = self.board.words, self.board.slot(slot)
        charged = words[base + S.DEADLINE] != 0 and not by_fence
        words[base + S.DEADLINE] = 0
        words[base + S.STATE] = State.DEAD_CHARGED if charged else State.DEAD_UNCHARGED
        words[Header.DEATHS] += 1
        if self.keeper_process.alive:
            self.keeper._find_dead()
        self._start_worker()

    def kill_keeper(self) -> None:
        if self.keeper_process.alive:
            self.end(self.keeper_process)
            self._soon(self.world.scheduler.random.uniform(0.05, 3), self._start_keeper)

    def die(self) -> None:
        """All processes of the supervisor end with it."""
        self.supervisor.alive = False
        for process in (*self.workers.values(), self.keeper_process, self.pusher):
            self.end(process)
        self.workers.clear()

    def end(self, process: Process) -> None:
        """What it had sent may still arrive."""
        for thread in process.threads:
            if thread.sending is not None and not self.world.weather.local and self.world.chance(0.7):
                thread.sending()
        self.world.note(process.name, "dies")
        self.oracle.handling.pop(process.pid, None)
        self.world.scheduler.kill(process)

    def processes(self) -> list[Process]:
        return [*self.workers.values(), self.keeper_process, self.pusher]

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
