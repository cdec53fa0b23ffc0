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
from tests.simulation.periodic import task
from tests.simulation.scheduler import Process
from tests.simulation.stand_ins import Arrivals, Event

if TYPE_CHECKING:
    from tests.simulation.supervisors import SimulatedSupervisor

_END_SECONDS = 5.0


class SimulatedMountFiles(MountFiles):
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


class SimulatedMaintenance(Maintenance):
    mount_files_class = SimulatedMountFiles
    _mount_files: SimulatedMountFiles


class SimulatedKeeper(Keeper):
    """Messages are heard at once; what the main thread does with them, and between them, is real."""

    def __init__(self, supervisor: SimulatedSupervisor, process: Process) -> None:
        scheduler = supervisor.world.scheduler
        system = process.client.system
        context = self._context = supervisor.shared
        self._supervisor = supervisor
        self._process = process
        self._leaving = False
        self._checked_at = self._silence_counts_from = 0.0
        self._began = system.boottime()
        name = lease_name(context.host.label, system)
        self._heartbeats, self._maintenance = [], []
        for index in range(len(context.queues)):
            heartbeat = Heartbeat(context, index, name, lambda index: None, system=system)
            events: list[Any] = [Event(scheduler) for _ in range(4)]
            heartbeat.leaving, heartbeat.joined, heartbeat.left = events[:3]
            maintenance = SimulatedMaintenance(context, index, heartbeat, self._note_reclaimed, system=system)
            maintenance._mount_files.is_done = supervisor.world.fault_rates.paperwork
            maintenance._wake = events[3]
            if (seconds := supervisor.world.fault_rates.ticks) and not index:
                maintenance.ticker.use_table((task(seconds),))
            self._heartbeats.append(heartbeat)
            self._maintenance.append(maintenance)
            scheduler.start(process, "beat", heartbeat._run)
            scheduler.start(process, "tend", maintenance._run)
        self._reclaim_dead_slots()
        scheduler.start(process, "mind", self._mind)

    def note_deferred(self, message: dict[str, Any]) -> None:
        if self._process.alive and (order := from_supervisor(message)) is not None:
            self._carry_out(order)

    def hear_deferred(self, message: dict[str, Any]) -> None:
        if self._process.alive and (told := from_worker(message, queues=len(self._maintenance))) is not None:
            self._receive_from_worker(told)

    def end_ticks(self) -> None:
        """As after a reload without the task."""
        self._maintenance[0].ticker.use_table(())

    def _mind(self) -> None:
        """The main thread, between its messages; at last it waits until the leases are left."""
        client = self._process.client
        while not self._leaving:
            try:
                self._check_supervisor()
            except SystemExit:
                return self._supervisor.lose(ProcessKind.KEEPER)
            client.sleep(self._check_seconds())
        for heartbeat in self._heartbeats:
            heartbeat.left.wait()
        self._process.alive = False
        return None


class SimulatedScout(QueueScout):
    """The real passes over the listing, with offers and arrivals on simulated time."""

    def __init__(self, supervisor: SimulatedSupervisor, process: Process, index: int) -> None:
        context, host = supervisor.shared, supervisor.host
        path = context.queues[index].layout.new
        arrivals: Any = Arrivals(host.world.scheduler, lambda: process.client.utime(path))
        channel: Any = supervisor.channels[index]
        self.name = context.queues[index].name
        self._layout = context.queues[index].layout
        self._board = context.board
        self._words = context.board.words
        self._base = context.board.queue(index)
        self._socket = channel
        self._gate = 0
        self._watch = arrivals
        self._missing_watch = ""
        self._memory = OfferMemory()
        self._pace = OfferPace(context.board)
        self._deaths = 0
        self._steals = set()
        self._by_priority = None
        self._wait_seconds = 0.05
        self._touched_at = 0.0
        host.cache.watched[path] = arrivals.note
        host.world.scheduler.start(process, "scout", self.serve)

    def _has_room(self) -> bool:
        """The stand-in for the socket is as short as it can be, and holds up the scout that sends."""
        return True
