"""Runs the real modules with a simulated clock, /proc and log.

The stand-ins ask the installation, which asks the schedule that runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from maildefer import events
from maildefer.maildir import claims, doubt, due, durable, names, pop, scan
from maildefer.maildir.drafts import placer, synced
from maildefer.maildir.layout import Layout
from maildefer.maildir.operator import entries, schedule
from maildefer.maildir.outbox.publish import Outboxes
from maildefer.maildir.push import Pusher
from maildefer.maildir.system import System
from maildefer.maildir.upkeep import promote, reclaim
from maildefer.pool import scoreboard, status_record, worker_deaths
from maildefer.pool.keeper import heartbeat, keeper, maintenance, ticker
from maildefer.pool.receiver import consumer
from maildefer.pool.supervisor import drain, workers
from maildefer.pool.worker import (
    attempt,
    batch_group,
    batch_leader,
    batch_worker,
    claim_slots,
    cross_device,
    queue_view,
    scout,
    settle,
    worker,
)
from tests.simulation import periodic
from tests.simulation.journals import Records, SimulatedJournal
from tests.simulation.scheduler import Process, Scheduler
from tests.simulation.stand_ins import Memory, nothing

Listed = Callable[[str, str, System], bool]
Look = Callable[[Listed, str, str, System], bool]


@dataclass(slots=True)
class Installation:
    """What the stand-ins need to know of the schedule that is on."""

    scheduler: Scheduler
    processes: dict[int, Process]
    heard: Callable[[str, dict[str, Any]], None]
    look: Look  # at `doubt.is_listed`, with the truth beside it
    thorough: bool  # keepers look whether every folder of the queue is there
    kill: Callable[[int], None]  # what a process does to another one
    records: Records | None  # of the loss journal, where one is kept
    layouts: list[Layout]
    acting: Process | None = None  # for whom the schedule acts, where no thread runs


_on: list[Installation] = []
_installed: list[bool] = []


class Time:
    """The `time` module, as the process that runs now has it."""

    CLOCK_BOOTTIME = time.CLOCK_BOOTTIME

    def time(self) -> float:
        now: float = running().client.time()
        return now

    def sleep(self, seconds: float) -> None:
        running().client.sleep(seconds)

    def boottime(self) -> float:
        scheduler = _on[-1].scheduler
        cache = (running() if scheduler.thread is None else scheduler.thread.process).client.cache
        now: float = cache.uptime + scheduler.now * cache.drift
        return now

    def clock_gettime(self, clock: int) -> float:
        return self.boottime()

    def clock_gettime_ns(self, clock: int) -> int:
        return int(self.boottime() * 1e9)


def running() -> Process:
    """The process whose thread runs now, or for whom the schedule acts."""
    installation = _on[-1]
    if (thread := installation.scheduler.thread) is not None:
        return thread.process
    assert installation.acting is not None
    return installation.acting


def act_as(process: Process) -> None:
    """What follows is done by this process, without a thread."""
    _on[-1].acting = process


def _parent() -> int:
    """Of a child of a supervisor, which dies with it."""
    family = running().family
    return 1 if family is None or not family.alive else family.pid


def _exit(code: int) -> None:
    raise SystemExit(code)


def _kill(pid: int, signum: int) -> None:
    _on[-1].kill(pid)


@cache
def layout_of(path: str) -> Layout:
    """Made once, for all schedules."""
    return Layout(path)


def _thoroughly(real: Callable[..., Layout]) -> Callable[..., Layout]:
    """What a keeper does to a queue that it joins: dozens of requests that find everything there."""

    def opened(path: str, *, system: System) -> Layout:
        if _on[-1].thorough:
            return real(path, system=system)
        system.listdir(path)
        return layout_of(path)

    return opened


def _journal_of(layout: Layout, system: object = None, *, anew: bool = False) -> SimulatedJournal | None:
    records = _on[-1].records
    return None if records is None else records.journal(running(), layout)


def _outboxes() -> Outboxes:
    return Outboxes(lambda: _on[-1].layouts, system=running().client.system)


def _alive(pid: int, start: int) -> bool:
    process = _on[-1].processes.get(pid)
    return process is not None and process.alive


@contextmanager
def simulated(installation: Installation) -> Iterator[None]:
    """A schedule is on. Keys count from zero in each, so that it replays."""
    with installed():
        _on.append(installation)
        names._count = count()
        try:
            yield
        finally:
            _on.pop()


@contextmanager
def installed() -> Iterator[None]:
    """Put the stand-ins in their places, for the schedules that run inside; a planted bug is put in first."""
    if _installed:
        yield
        return
    clock = Time()
    listed = doubt.is_listed
    chunks = scan.chunks
    system = SimpleNamespace(
        **{**vars(scan), "chunks": lambda path, **only: chunks(path, system=running().client.system, **only)}
    )
    with ExitStack() as stack:

        def put(module: Any, name: str, value: object) -> None:
            stack.enter_context(patch.object(module, name, value))

        for module in (worker, attempt, queue_view, settle, scout, status_record, batch_worker):
            put(module, "time", clock)
        for module in (queue_view, status_record, scout):
            put(module, "boottime", clock.boottime)
        for module in (keeper, batch_group, batch_leader, batch_worker, settle):
            put(module, "boottime", clock.boottime)
        put(keeper, "os", SimpleNamespace(getppid=_parent, _exit=_exit, kill=_kill))
        put(keeper, "descendants", SimpleNamespace(is_or_is_below=lambda parent, pid: True))
        put(
            cross_device,
            "Pusher",
            lambda layout, host: Pusher(layout, host=host, system=running().client.system),
        )
        put(cross_device, "SYSTEM", clock)
        for module in (workers, drain):
            put(module, "boottime", clock.boottime)
        put(scout, "scan", system)
        put(scout, "keep_short", lambda sending: None)
        put(scout, "await_readable", lambda gate: clock.sleep(0.1))
        for name in ("create_queue", "open_queue"):
            put(heartbeat, name, _thoroughly(getattr(heartbeat, name)))
        threads = SimpleNamespace(Event=nothing, Thread=nothing)  # a keeper's are made by `keepers`
        for module in (heartbeat, maintenance):
            put(module, "threading", threads)
        put(scoreboard, "mmap", SimpleNamespace(mmap=Memory))
        for module in (scoreboard, claim_slots):  # few, since a board is copied with each death
            put(module, "GATHERED_PLACES", 8)
        for module in (claims, due, entries, placer, pop, promote, reclaim, schedule):
            put(module, "journal_of", _journal_of)
        put(consumer, "await_readable", lambda keeper, seconds: clock.sleep(seconds))
        put(consumer, "SYSTEM", clock)
        put(consumer, "project_outboxes", _outboxes)
        for module in (consumer, worker_deaths):
            put(module, "boottime", clock.boottime)
        put(heartbeat, "start_time", lambda pid: 1)
        put(maintenance, "is_alive", _alive)
        put(ticker.Ticker, "compose", staticmethod(lambda task, queue, host: lambda stem: [periodic.DATA]))
        put(events, "emit", lambda event, **facts: _on[-1].heard(event, facts))
        put(doubt, "is_listed", lambda path, name, system: _on[-1].look(listed, path, name, system))
        put(synced, "is_on", lambda layout: layout.synced in running().client.world.server.directories)
        put(synced, "boot_name", lambda: f"{running().client.cache.boots:08x}")
        put(durable, "keeps_order", lambda device: running().client.world.server.keeps_order)
        put(names, "_count", count())
        _installed.append(True)
        try:
            yield
        finally:
            _installed.pop()
