"""Keepers and scouts of a simulated host: the real threads, driven by the scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maildefer.maildir.names import lease_name
from maildefer.pool.keeper import Keeper
from maildefer.pool.lifeline import Lifeline
from maildefer.pool.scout import Memory, Pace, QueueScout
from maildefer.pool.tender import Tender
from tests.simulation.scheduler import Process
from tests.simulation.stand_ins import Arrivals, Event

if TYPE_CHECKING:
    from tests.simulation.hosts import SimulatedHost


class SimulatedTender(Tender):
    """Without the keeper's paperwork in most schedules, which tells operators and scouts how hosts stand."""

    paperwork = True

    def _share(self) -> None:
        if self.paperwork:
            super()._share()

    def _answer_requests(self) -> None:
        if self.paperwork:
            super()._answer_requests()

    def _write_status(self) -> None:
        if self.paperwork:
            super()._write_status()


class SimulatedKeeper(Keeper):
    """The main thread's messages come from the host; what it holds, and how it finds the dead, is real."""

    def __init__(self, host: SimulatedHost, process: Process) -> None:
        scheduler = host.world.scheduler
        system = process.client.system
        self._shared = host.shared
        name = lease_name(host.label, system)
        self._lifelines, self._tenders = [], []
        for index in range(len(host.shared.queues)):
            lifeline = Lifeline(host.shared, index, name, lambda index: None, system=system)
            events: list[Any] = [Event(scheduler) for _ in range(4)]
            lifeline.leaving, lifeline.joined, lifeline.left = events[:3]
            tender = SimulatedTender(host.shared, index, lifeline, self._free, system=system)
            tender.paperwork = host.world.weather.paperwork
            tender._wake = events[3]
            self._lifelines.append(lifeline)
            self._tenders.append(tender)
            scheduler.start(process, "beat", lifeline._run)
            scheduler.start(process, "tend", tender._run)
        self._find_dead()


class SimulatedScout(QueueScout):
    """The real passes over the listing, with offers and arrivals on simulated time."""

    def __init__(self, host: SimulatedHost, process: Process, index: int) -> None:
        shared = host.shared
        path = shared.queues[index].layout.new
        arrivals: Any = Arrivals(host.world.scheduler, lambda: process.client.utime(path))
        channel: Any = host.channels[index]
        self.name = shared.queues[index].name
        self._layout = shared.queues[index].layout
        self._board = shared.board
        self._words = shared.board.words
        self._base = shared.board.queue(index)
        self._socket = channel
        self._gate = 0
        self._watch = arrivals
        self._memory = Memory()
        self._pace = Pace(shared.board)
        self._deaths = 0
        self._wait_seconds = 0.05
        self._touched_at = 0.0
        host.cache.watched[path] = arrivals.note
        host.world.scheduler.start(process, "scout", self.serve)
