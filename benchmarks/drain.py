"""How fast a queue is emptied by workers that do nothing: the whole product beside bare loops.

All entries are in place and all processes wait before the clock starts (the pool is paused by TSTP and
goes on by CONT, the loops wait at their gate); it stops when nothing is left, seen by the same poll for all.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from benchmarks import filesystem
from benchmarks.figures import OURS, Figure, Limit, compare, interleave
from benchmarks.filler import ENTRY_BYTES, fill, make_maildir
from benchmarks.gate import Gated
from benchmarks.native import compiled
from benchmarks.places import CONTENDERS, PYTHON, ROOT, Unavailable
from benchmarks.product import Pool

POLL_SECONDS = 0.005
LOOP = "plain Python loop"
LIMITS = {2: {LOOP: Limit(bound=0.35)}, 8: {LOOP: Limit(bound=0.6)}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one measurement needs."""

    directory: str
    entries: int
    workers: int


def measure(quick: bool) -> list[Figure]:
    """10,000 entries, 2 and 8 workers, on ext4 and tmpfs."""
    entries, rounds = (2_000, 3) if quick else (10_000, 7)
    figures = []
    for name, filesystem_of in filesystem.FILESYSTEMS.items():
        try:
            with filesystem_of() as base:
                for workers, limits in LIMITS.items():
                    run = Run(directory=base, entries=entries, workers=workers)
                    samples = interleave(contenders(run), rounds, note=print)
                    figures += compare("drain", f"{name}, {workers} workers", samples, "msg/s", limits)
        except Unavailable as why:
            print(f"{name} skipped: {why}")
    return figures


def contenders(run: Run) -> dict[str, Callable[[], float]]:
    """Messages per second of each."""
    return {
        "C": lambda: _drain_maildir(run, lambda path: [compiled("drain"), path, str(run.workers)]),
        LOOP: lambda: _drain_maildir(
            run, lambda path: [PYTHON, str(CONTENDERS / "drain_loop.py"), path, str(run.workers)]
        ),
        "dirq": lambda: _drain_dirq(run),
        OURS: lambda: drain_pool(run),
    }


def _drain_maildir(run: Run, command: Callable[[str], list[str]]) -> float:
    with filesystem.fresh_directory(run.directory) as base:
        queue = make_maildir(os.path.join(base, "queue"))
        fill(queue, run.entries)
        filesystem.settle_disk(base)
        return _clock(run, Gated(command(queue)), lambda: maildir_empty(queue))


def _drain_dirq(run: Run) -> float:
    command = [PYTHON, "-m", "benchmarks.contenders.drain_dirq"]
    with filesystem.fresh_directory(run.directory) as base:
        queue = os.path.join(base, "queue")
        subprocess.run([*command, queue, "fill", str(run.entries), str(ENTRY_BYTES)], cwd=ROOT, check=True)
        filesystem.settle_disk(base)
        return _clock(run, Gated([*command, queue, str(run.workers)]), lambda: _dirq_empty(queue))


def drain_pool(run: Run, application: str = "noop") -> float:
    """Messages per second of the whole product, with that application's handlers."""
    with filesystem.fresh_directory(run.directory) as base:
        return drained(run, make_maildir(os.path.join(base, "queue")), application)


def drained(run: Run, queue: str, application: str = "noop") -> float:
    """The same with an empty queue that is there."""
    with Pool(queue, workers=run.workers, application=application) as pool:
        pool.pause()
        fill(queue, run.entries)
        filesystem.settle_disk(queue)
        pool.wait_until_idle()
        if (waiting := len(os.listdir(os.path.join(queue, "new")))) != run.entries:
            raise RuntimeError(f"the paused pool took {run.entries - waiting} entries")
        rate = _clock(run, nullcontext(), lambda: maildir_empty(queue), begin=pool.resume)
        refuse_unhandled(queue)
        return rate


def _clock(
    run: Run,
    context: AbstractContextManager[Gated | None],
    empty: Callable[[], bool],
    begin: Callable[[], None] = lambda: None,
) -> float:
    with context as gated:
        start = time.perf_counter()
        (gated.open if gated else begin)()
        while not empty():
            if time.perf_counter() - start > 120:
                raise RuntimeError("not drained within two minutes")
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - start
        if gated:
            gated.result()
    return run.entries / seconds


def maildir_empty(queue: str) -> bool:
    """True when nothing waits and nothing is claimed. `new/` first: entries only move from there to `cur/`."""
    return _directory_empty(os.path.join(queue, "new")) and _directory_empty(os.path.join(queue, "cur"))


def refuse_unhandled(queue: str) -> None:
    """RuntimeError where a drained queue's entries were not handled, but buried or deferred."""
    for folder in (".dead/new", ".later/new"):
        if count := len(os.listdir(os.path.join(queue, folder))):
            raise RuntimeError(f"{count} entries went to {folder}")


def _dirq_empty(queue: str) -> bool:
    return all(_directory_empty(entry.path) for entry in os.scandir(queue) if entry.is_dir())


def _directory_empty(path: str) -> bool:
    with os.scandir(path) as entries:
        return next(entries, None) is None
