"""What is measured of one peer: durable enqueues, wake-up, memory and processor time when idle, drain, and losses."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks import filesystem, processes
from benchmarks.contenders.peers.job import GATE, GATE_NAME
from benchmarks.figures import OURS
from benchmarks.filler import fill
from benchmarks.gate import Gated
from benchmarks.peers.contenders import WORKERS, Place
from benchmarks.peers.servers import Redis

ENQUEUED = 30  # in one turn
LOST_MILLISECONDS = 5
_SETTLE_SECONDS = 2.0
_WAKE_SECONDS = 30.0
_DRAIN_SECONDS = 120.0
_TAKEN_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything; of a drain's jobs, one in `drained_share`."""

    rounds: int
    turns: int
    drained_share: int
    wakes: int
    idle_seconds: float
    killed: int
    kills: int
    servers_killed: bool = True


FULL = Scale(rounds=5, turns=20, drained_share=1, wakes=20, idle_seconds=4, killed=1_000, kills=3)
QUICK = Scale(
    rounds=1,
    turns=3,
    drained_share=4,
    wakes=10,
    idle_seconds=1,
    killed=100,
    kills=1,
    servers_killed=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Of a peer's workers, and of its server: memory in MB, and processor time of both in ms/s."""

    workers_mb: float
    server_mb: float
    cpu_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Of jobs of which some were running when all was killed."""

    never: int
    twice: int
    seconds: float  # from the new start until the last of those that have run began


def enqueue_rate(enqueuer: Gated) -> float:
    """Jobs a second that one program enqueues, one after the other."""
    began_ns, ended_ns = map(int, enqueuer.ask(f"0 {ENQUEUED} 0").split())
    return ENQUEUED / (ended_ns - began_ns) * 1e9


def idle(place: Place, pid: int, scale: Scale) -> Idle:
    """After two seconds of nothing."""
    server = processes.tree(place.server.pid) if place.server else []
    time.sleep(_SETTLE_SECONDS)
    before, start = _cpu_ns(place, pid), time.monotonic()
    time.sleep(scale.idle_seconds)
    cpu_ms = (_cpu_ns(place, pid) - before) / 1e6 / (time.monotonic() - start)
    return Idle(
        workers_mb=sum(map(processes.pss_bytes, processes.tree(pid))) / 1e6,
        server_mb=sum(map(processes.pss_bytes, server)) / 1e6,
        cpu_ms=cpu_ms,
    )


def _cpu_ns(place: Place, pid: int) -> int:
    return processes.cpu_ns(pid) + (processes.cpu_ns(place.server.pid) if place.server else 0)


def wake_ms(place: Place, enqueuer: Gated, scale: Scale) -> float:
    """The median time from the call that enqueues a job to its begin, sync and all; workers are idle before each."""
    gaps, taken = random.Random(1), []
    for number in range(1, scale.wakes + 1):
        time.sleep(gaps.uniform(0.03, 0.1))
        before = place.count()
        enqueued_ns = int(enqueuer.ask(f"{number} 1 0").split()[0])
        place.await_count(before + 1, _WAKE_SECONDS)
        taken.append((place.notes()[-1].began_ns - enqueued_ns) / 1e6)
    return statistics.median(taken)


def drain_rate(place: Place, enqueuer: Gated, scale: Scale, sync: str = "always") -> float:
    """Jobs a second of a queue that is filled while all workers wait in a job; `sync` is Redis' during the drain."""
    jobs = place.peer.drained // scale.drained_share
    with _gate(place, enqueuer) as gates:
        if place.peer.name == OURS:
            fill(f"{place.directory}/queue", jobs, ["job-0-0@osb.example.org"])
        else:
            _sync(place, "everysec")
            enqueuer.ask(f"0 {jobs} 0")
        _sync(place, sync)
        filesystem.settle_disk(place.directory)
        start = time.perf_counter()
        gates.open()
        place.await_count(gates.before + jobs, _DRAIN_SECONDS)
        seconds = time.perf_counter() - start
        _sync(place, "always")
    return jobs / seconds


def losses(place: Place, scale: Scale, *, everything: bool) -> Loss:
    """Kills all workers, and the server too if `everything`, when half of the jobs have run, and starts all again."""
    with place.enqueuer() as enqueuer:
        enqueuer.ask(f"0 {scale.killed} {LOST_MILLISECONDS}")
    with place.workers() as pid:
        place.await_count(scale.killed // 2, _DRAIN_SECONDS)
        processes.kill(processes.tree(pid))
        if everything and place.server:
            place.server.kill()
    if everything and place.server:
        place.server.start()
    started_ns = time.monotonic_ns()
    with place.workers():
        _await_all(place, scale.killed)
    runs = Counter(note.number for note in place.notes())
    return Loss(
        never=scale.killed - len(runs),
        twice=sum(count > 1 for count in runs.values()),
        seconds=(max(note.began_ns for note in place.notes()) - started_ns) / 1e9,
    )


def _await_all(place: Place, jobs: int) -> None:
    """Returns when every job has run, and some time for second runs has passed, or when none runs any more."""
    seen, last = 0, time.monotonic()
    while len({note.number for note in place.notes()}) < jobs:
        if place.count() > seen:
            seen, last = place.count(), time.monotonic()
        quiet_seconds = time.monotonic() - last
        if quiet_seconds > place.peer.patience_seconds:
            return
        if quiet_seconds > _SETTLE_SECONDS:  # nothing runs: what is looked for is of the dead
            place.recover()
        time.sleep(0.5)
    time.sleep(_SETTLE_SECONDS)


@dataclass(slots=True, kw_only=True)
class _Gates:
    """The jobs in which all workers wait; `before` is how many jobs have run when the last of these has."""

    path: str
    before: int
    writer: int | None = None

    def open(self) -> None:
        self.writer = os.open(self.path, os.O_WRONLY)


@contextmanager
def _gate(place: Place, enqueuer: Gated) -> Iterator[_Gates]:
    """Has each worker wait in a job until `open` is called."""
    gates = _Gates(path=f"{place.directory}/{GATE_NAME}", before=place.count())
    os.mkfifo(gates.path)
    first, deadline = place.count(), time.monotonic() + _WAKE_SECONDS
    while (waiting := _workers_since(place, first)) < WORKERS:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{place.peer.name}: not all workers wait:\n{place.log()}")
        enqueuer.ask(f"0 1 {GATE}")
        gates.before += 1
        taken = time.monotonic() + _TAKEN_SECONDS  # a worker that waits may have reserved this one
        while _workers_since(place, first) == waiting and time.monotonic() < taken:
            time.sleep(0.005)
    try:
        yield gates
    finally:
        if gates.writer is not None:
            os.close(gates.writer)
        os.unlink(gates.path)


def _workers_since(place: Place, first: int) -> int:
    return len({note.pid for note in place.notes()[first:]})


def _sync(place: Place, when: str) -> None:
    if isinstance(place.server, Redis):
        place.server.sync(when)
