"""A queue emptied in batches of 500 beside the same messages one by one, by handlers that do nothing.

What a batch is for, one commit or one rebuild for many messages, comes on top, and depends on the application.
"""

from __future__ import annotations

from statistics import median

from benchmarks import filesystem
from benchmarks.drain import Run, drain_pool
from benchmarks.figures import Figure, Limit, interleave

SINGLE, BATCHED = "one by one", "in batches"
LIMIT = Limit(bound=0.75)
WORKERS = 2


def measure(quick: bool) -> list[Figure]:
    """Messages a second of both, on tmpfs, where the disk does not hide what the pool costs."""
    entries, rounds = (4_000, 3) if quick else (10_000, 7)
    with filesystem.tmpfs() as base:
        run = Run(directory=base, entries=entries, workers=WORKERS)
        contenders = {SINGLE: lambda: drain_pool(run), BATCHED: lambda: drain_pool(run, "batched")}
        samples = interleave(contenders, rounds, note=print)
    ratio = median(
        batched / single for batched, single in zip(samples[BATCHED], samples[SINGLE], strict=True)
    )
    case = f"{entries} messages, {WORKERS} workers"
    return [
        Figure(benchmark="batches", case=case, name=SINGLE, unit="msg/s", samples=samples[SINGLE]),
        Figure(
            benchmark="batches",
            case=case,
            name=BATCHED,
            unit="msg/s",
            samples=samples[BATCHED],
            ratio=ratio,
            limit=LIMIT,
        ),
    ]
