"""What a journal costs: the same pushes and the same drain with and without one."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from benchmarks import filesystem
from benchmarks.backlog import drain_cost
from benchmarks.drain import Run, drained
from benchmarks.figures import OURS, Figure, Limit, compare, interleave
from benchmarks.filler import ENTRY_BYTES, make_maildir
from benchmarks.gate import Gated
from benchmarks.places import PYTHON, Unavailable
from maildefer.maildir.layout import create_queue
from maildefer.maildir.operator import record_keeping

WITHOUT = "without a journal"
# A drain by a no-op handler is the worst case: to five cheap system calls a message comes one. A push on tmpfs, where
# a sync does nothing, is no push.
LIMITS = {"push": Limit(bound=0.9), "drain": Limit(bound=0.9), "processor": Limit(bound=1 / 1.05)}
PUSHES = {"ext4": 1_000, "tmpfs": 5_000}


def measure(quick: bool) -> list[Figure]:
    """One writer's pushes, and 10,000 no-op messages through 2 workers, on ext4 and tmpfs."""
    rounds, share = (3, 4) if quick else (7, 1)
    figures = []
    for name, filesystem_of in filesystem.FILESYSTEMS.items():
        try:
            with filesystem_of() as base:
                cases: dict[str, Callable[[bool], float]] = {
                    "push": partial(_push, base, PUSHES[name] // share),
                    "drain": partial(_drain, base, 10_000 // share),
                    "processor": partial(_processor, base, 10_000 // share),
                }
                for case, rate in cases.items():
                    samples = interleave(_contenders(rate), rounds, note=print)
                    limits = {WITHOUT: LIMITS[case]} if (name, case) != ("tmpfs", "push") else {}
                    figures += compare("journal", f"{name}, {case}", samples, "msg/s", limits)
        except Unavailable as why:
            print(f"{name} skipped: {why}")
    return figures


def _contenders(rate: Callable[[bool], float]) -> dict[str, Callable[[], float]]:
    return {WITHOUT: lambda: rate(False), OURS: lambda: rate(True)}


def _push(base: str, entries: int, kept: bool) -> float:
    with filesystem.fresh_directory(base) as directory:
        queue = _queue(directory, kept)
        command = [PYTHON, "-m", "benchmarks.contenders.push_maildefer"]
        with Gated([*command, queue, str(entries), "1", str(ENTRY_BYTES), "pusher"]) as gated:
            gated.open()
            seconds = int(gated.result()) / 1e9
        _refuse_unkept(queue, kept, entries)
    return entries / seconds


def _drain(base: str, entries: int, kept: bool) -> float:
    with filesystem.fresh_directory(base) as directory:
        queue = _queue(directory, kept)
        rate = drained(Run(directory=base, entries=entries, workers=2), queue)
        _refuse_unkept(queue, kept, entries)
        return rate


def _processor(base: str, entries: int, kept: bool) -> float:
    """Messages for each second of the pool's processor time."""
    return 1e6 / drain_cost(base, entries, prepare=partial(_prepare, kept=kept)).cpu_us_per_message


def _queue(directory: str, kept: bool) -> str:
    queue = make_maildir(os.path.join(directory, "queue"))
    _prepare(queue, kept)
    return queue


def _prepare(queue: str, kept: bool) -> None:
    layout = create_queue(queue)  # on a local disk, so that it keeps one
    if not kept:
        record_keeping.end_journal(layout)


def _refuse_unkept(queue: str, kept: bool, entries: int) -> None:
    """RuntimeError where it wasn't the journal that was measured."""
    folder = os.path.join(queue, ".maildefer", "journal")
    written = sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder)) if kept else 0
    if kept != os.path.isdir(folder) or written < entries * 50 * kept:
        raise RuntimeError(f"{written} bytes of records for {entries} messages")
