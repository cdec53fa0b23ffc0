"""What a long backlog costs: processor time a message, and memory, over full drains of two lengths and within one.

The drains in turn have 10,000 and 100,000 entries; the one that is looked at from tenth to tenth has a million.
"""

from __future__ import annotations

import os
import statistics
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import pairwise

from benchmarks import filesystem, processes
from benchmarks.drain import maildir_empty, refuse_unhandled
from benchmarks.figures import Figure, Limit, interleave
from benchmarks.filler import fill, make_maildir
from benchmarks.places import Unavailable
from benchmarks.product import Pool

WORKERS = 2
ROLES = ("supervisor", "keeper", "scout")
CPU_LIMIT = Limit(bound=1.15, at_most=True)
# A tenth: the allocator's own noise, nothing that grows with a backlog.
FLAT_LIMIT = Limit(bound=1.1, at_most=True)
SAMPLE_SECONDS = 0.05
TENTHS = 10
_ATTEMPT = b" event=attempt.ended "


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one drain: CPU of the whole pool, and the highest RSS seen of those that must stay flat."""

    cpu_us_per_message: float
    peak_bytes: dict[str, int]


def measure(quick: bool) -> list[Figure]:
    """10,000 and 100,000 entries in turn, on ext4 where that can be had."""
    short, long, rounds = 10_000, 100_000, 1 if quick else 7
    costs: dict[str, list[Cost]] = {f"{short:,}": [], f"{long:,}": []}
    with _place() as base:

        def one(entries: int) -> float:
            cost = drain_cost(base, entries)
            costs[f"{entries:,}"].append(cost)
            return cost.cpu_us_per_message

        cpu = interleave(
            {f"{short:,}": lambda: one(short), f"{long:,}": lambda: one(long)}, rounds, note=print
        )
    return [*_figures(cpu, costs), *_tenths(100_000 if quick else 1_000_000)]


def _tenths(entries: int) -> Iterator[Figure]:
    """One drain, by the attempts that the pool's log had at each moment."""
    try:
        with filesystem.ext4(entries * 8192 + (1 << 30), 4096) as base:
            samples = _watched_drain(base, entries)
    except Unavailable as why:
        print(f"  no drain from tenth to tenth: {why}")
        return
    counts = [sample.attempts for sample in samples]
    marks = [
        samples[min(bisect_left(counts, part * entries // TENTHS), len(counts) - 1)]
        for part in range(TENTHS + 1)
    ]
    case = f"one drain of {entries:,}, {WORKERS} workers"
    cpu = [
        (end.cpu_ns - begin.cpu_ns) / (end.attempts - begin.attempts) / 1_000
        for begin, end in pairwise(marks)
    ]
    dearest = max(cpu) / statistics.median(cpu)
    yield _figure("CPU of its tenths", "µs/msg", cpu, case=case)
    yield _figure("CPU, the dearest tenth / their median", "times", [dearest], FLAT_LIMIT, case=case)
    for role in ROLES:
        growth = marks[-1].rss_bytes[role] / marks[1].rss_bytes[role]
        yield _figure(
            f"RSS of {role}, after the last tenth / the first", "times", [growth], FLAT_LIMIT, case=case
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A pool in mid-drain: attempts that its log has, processor time of all its processes, and memory."""

    attempts: int
    cpu_ns: int
    rss_bytes: dict[str, int]


def _watched_drain(base: str, entries: int) -> list[Sample]:
    queue = make_maildir(os.path.join(base, "queue"))
    with _filled(queue, entries) as pool, open(pool.log_path, "rb") as log:
        samples, attempts = list[Sample](), log.read().count(_ATTEMPT)
        deadline = time.monotonic() + 60 + entries / 1_000
        pool.resume()
        while attempts < entries:
            attempts += sum(line.count(_ATTEMPT) for line in log)
            rss: dict[str, int] = {}
            _note_peaks(pool.pid, rss)
            samples.append(Sample(attempts=attempts, cpu_ns=processes.cpu_ns(pool.pid), rss_bytes=rss))
            if time.monotonic() > deadline:
                raise RuntimeError(f"{entries} entries not drained in time")
            time.sleep(SAMPLE_SECONDS)
        refuse_unhandled(queue)
    return samples


def _figures(cpu: dict[str, list[float]], costs: dict[str, list[Cost]]) -> Iterator[Figure]:
    if len(cpu) < 2:
        return
    few, many = cpu
    for name, samples in cpu.items():
        yield _figure(f"CPU, {name} entries", "µs/msg", samples)
    growth = [long / short for short, long in zip(cpu[few], cpu[many], strict=True)]
    yield _figure(f"CPU, {many} / {few}", "times", growth, CPU_LIMIT)
    for role in ROLES:
        peaks = [cost.peak_bytes.get(role, 0) / 1e6 for cost in costs[many]]
        before = [cost.peak_bytes.get(role, 0) / 1e6 for cost in costs[few]]
        yield _figure(f"RSS of {role}, {many}", "MB", peaks)
        growth = [long / short for short, long in zip(before, peaks, strict=True) if short]
        if growth:
            yield _figure(f"RSS of {role}, {many} / {few}", "times", growth, FLAT_LIMIT)


def drain_cost(
    base: str, entries: int, application: str = "noop", prepare: Callable[[str], object] = lambda queue: None
) -> Cost:
    """Drains `entries` with a pool that was paused until then; `prepare` gets the queue's path before."""
    with filesystem.fresh_directory(base) as directory:
        queue = make_maildir(os.path.join(directory, "queue"))
        prepare(queue)
        with _filled(queue, entries, application) as pool:
            peaks: dict[str, int] = {}
            before = processes.cpu_ns(pool.pid)
            pool.resume()
            deadline = time.monotonic() + 60 + entries / 1_000
            while not maildir_empty(queue):
                _note_peaks(pool.pid, peaks)
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{entries} entries not drained in time")
                time.sleep(SAMPLE_SECONDS)
            used = processes.cpu_ns(pool.pid) - before
            _note_peaks(pool.pid, peaks)
            refuse_unhandled(queue)
    return Cost(cpu_us_per_message=used / entries / 1_000, peak_bytes=peaks)


@contextmanager
def _filled(queue: str, entries: int, application: str = "noop") -> Iterator[Pool]:
    """A pool that is paused, and idle, beside so many entries."""
    with Pool(queue, workers=WORKERS, application=application) as pool:
        pool.pause()
        fill(queue, entries)
        filesystem.settle_disk(queue)
        pool.wait_until_idle()
        yield pool


def _note_peaks(pid: int, peaks: dict[str, int]) -> None:
    for role, members in processes.by_role(pid).items():
        if role in ROLES:
            peaks[role] = max(peaks.get(role, 0), *map(processes.rss_bytes, members))


@contextmanager
def _place() -> Iterator[str]:
    place: AbstractContextManager[str] = filesystem.ext4()
    try:
        base = place.__enter__()
    except Unavailable as why:
        print(f"  on tmpfs, since ext4 can't be had: {why}")
        place = filesystem.tmpfs()
        base = place.__enter__()
    try:
        yield base
    finally:
        place.__exit__(None, None, None)


def _figure(
    name: str,
    unit: str,
    samples: list[float],
    limit: Limit | None = None,
    case: str = f"drain, {WORKERS} workers",
) -> Figure:
    return Figure(benchmark="backlog", case=case, name=name, unit=unit, samples=samples, limit=limit)
