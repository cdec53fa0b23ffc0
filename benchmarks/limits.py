"""A queue emptied by a handler without limits, in an application that has limited ones too, beside one without any."""

from __future__ import annotations

from statistics import median

from benchmarks import filesystem
from benchmarks.drain import Run, drain_pool
from benchmarks.figures import Figure, Limit, interleave

WITHOUT, BESIDE = "no limits", "beside limited handlers"
LIMIT = Limit(bound=0.9)
WORKERS = 2


def measure(quick: bool) -> list[Figure]:
    """Messages a second of both, on tmpfs, where the disk does not hide what the pool costs."""
    entries, rounds = (4_000, 3) if quick else (10_000, 7)
    with filesystem.tmpfs() as base:
        run = Run(directory=base, entries=entries, workers=WORKERS)
        contenders = {WITHOUT: lambda: drain_pool(run), BESIDE: lambda: drain_pool(run, "limited")}
        samples = interleave(contenders, rounds, note=print)
    pairs = zip(samples[BESIDE], samples[WITHOUT], strict=True)
    ratio = median(beside / without for beside, without in pairs)
    case = f"{entries} messages, {WORKERS} workers"
    return [
        Figure(benchmark="limits", case=case, name=WITHOUT, unit="msg/s", samples=samples[WITHOUT]),
        Figure(
            benchmark="limits",
            case=case,
            name=BESIDE,
            unit="msg/s",
            samples=samples[BESIDE],
            ratio=ratio,
            limit=LIMIT,
        ),
    ]
