"""Keepers and scouts of a simulated host: the real threads, driven by the scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maildefer.maildir.names import lease_name
from maildefer.pool.keeper.heartbeat import Heartbeat
from maildefer.pool.keeper.keeper import Keeper
from maildefer.pool.keeper.maintenance import Maintenance
from maildefer.pool.keeper.mount_files import MountFiles
from maildefer.pool.messages import from_supervisor, from_worker
from maildefer.pool.scoreboard import ProcessKind
from maildefer.pool.worker.scout import OfferMemory, OfferPace, QueueScout
from tests.simulation.scheduler import Process
from tests.simulation.stand_ins import Arrivals, Event

if TYPE_CHECKING:
    from tests.simulation.supervisors import SimulatedSupervisor

_END_SECONDS = 5.0


class SimulatedPaperwork(MountFiles):
    """Left out in most schedules: it tells operators and scouts how hosts stand."""

    is_done = True

    def share(self, others: list[str]) -> None:
        if self.is_done:
            super().share(others)

    def answer_requests(self) -> None:
        if self.is_done:
            super().answer_requests()

    def write_status(self) -> None:
        if self.is_done:
            super().write_status()


class SimulatedTender(Maintenance):
    papers = SimulatedPaperwork
    _paperwork: SimulatedPaperwork


class SimulatedKeeper(Keeper):
    """Messages are heard at once; what the main thread does with them, and between them, is real."""

    def __init__(self, supervisor: SimulatedSupervisor, process: Process) -> None:
        scheduler = supervisor.world.scheduler
        system = process.client.system
        shared = self._shared = supervisor.shared
        self._supervisor = supervisor
        self._process = process
        self._leaving = False
        self._looked_at = self._patient_from = 0.0
        self._began = system.boottime()
        name = lease_name(shared.host.label, system)
        self._lifelines, self._tenders = [], []
        for index in range(len(shared.queues)):
            lifeline = Heartbeat(shared, index, name, lambda index: None, system=system)
            events: list[Any] = [Event(scheduler) for _ in range(4)]
            lifeline.leaving, lifeline.joined, lifeline.left = events[:3]
            tender = SimulatedTender(shared, index, lifeline, self._free, system=system)
            tender._paperwork.is_done = supervisor.world.weather.paperwork
            tender._wake = events[3]
            self._lifelines.append(lifeline)
            self._tenders.append(tender)
            scheduler.start(process, "beat", lifeline._run)
            scheduler.start(process, "tend", tender._run)
        self._find_dead()
        scheduler.start(process, "mind", self._mind)

    def hear(self, message: dict[str, Any]) -> None:
        if self._process.alive and (order := from_supervisor(message)) is not None:
            self._obey(order)

    def hear_deferred(self, message: dict[str, Any]) -> None:
        if self._process.alive and (told := from_worker(message, queues=len(self._tenders))) is not None:
            self._hear(told)

    def _mind(self) -> None:
        """The main thread, between its messages; at last it waits until the leases are left."""
        client = self._process.client
        while not self._leaving:
            try:
                self._mind_supervisor()
            except SystemExit:
                return self._supervisor.lose(ProcessKind.KEEPER)
            client.sleep(self._look_seconds())
        for line in self._lifelines:
            line.left.wait()
        self._process.alive = False
        return None


class SimulatedScout(QueueScout):
    """The real passes over the listing, with offers and arrivals on simulated time."""

    def __init__(self, supervisor: SimulatedSupervisor, process: Process, index: int) -> None:
        shared, host = supervisor.shared, supervisor.host
        path = shared.queues[index].layout.new
        arrivals: Any = Arrivals(host.world.scheduler, lambda: process.client.utime(path))
        channel: Any = supervisor.channels[index]
        self.name = shared.queues[index].name
        self._layout = shared.queues[index].layout
        self._board = shared.board
        self._words = shared.board.words
        self._base = shared.board.queue(index)
        self._socket = channel
        self._gate = 0
        self._watch = arrivals
        self._told_missing = ""
        self._memory = OfferMemory()
        self._pace = OfferPace(shared.board)
        self._deaths = 0
        self._steals = False
        self._wait_seconds = 0.05
        self._touched_at = 0.0
        host.cache.watched[path] = arrivals.note
        host.world.scheduler.start(process, "scout", self.serve)
