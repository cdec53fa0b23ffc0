"""Async handlers: a thousand that wait for 50 ms, and what a message costs beside one for a handler that is not async.

Two workers with a hundred in flight each have done the thousand in a quarter of a second at best.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks import filesystem
from benchmarks.backlog import WORKERS, drain_cost
from benchmarks.drain import Run, drain_pool
from benchmarks.figures import Figure, Limit, interleave

WAITING, WAIT_SECONDS, IN_FLIGHT = 1000, 0.05, 100
IDEAL_SECONDS = WAITING / (WORKERS * IN_FLIGHT) * WAIT_SECONDS
WAITING_LIMIT = Limit(bound=1.5 * IDEAL_SECONDS, at_most=True)
PLAIN, ASYNC = "not async", "async"
APPLICATIONS = {PLAIN: "noop", ASYNC: "concurrent"}


def measure(quick: bool) -> list[Figure]:
    """On tmpfs, where the disk does not hide what the pool costs."""
    entries, rounds = (4_000, 3) if quick else (10_000, 7)
    with filesystem.tmpfs() as base:
        with _waiting(WAIT_SECONDS):
            run = Run(directory=base, entries=WAITING, workers=WORKERS)
            rates = [drain_pool(run, "concurrent") for _ in range(rounds)]
        contenders = {
            name: partial(_cost, base, entries, application) for name, application in APPLICATIONS.items()
        }
        costs = interleave(contenders, rounds, note=print)
    case = f"{WAITING} of {WAIT_SECONDS * 1000:g} ms, {WORKERS} workers"
    seconds = [WAITING / rate for rate in rates]
    figures = [_figure(case, f"{IN_FLIGHT} in flight", "s", seconds, WAITING_LIMIT)]
    case = f"{entries} messages"
    figures += [_figure(case, name, "µs/msg", samples) for name, samples in costs.items()]
    ratios = [mine / plain for mine, plain in zip(costs[ASYNC], costs[PLAIN], strict=True)]
    return [*figures, _figure(case, f"{ASYNC}, beside {PLAIN}", "times", ratios)]


def _cost(base: str, entries: int, application: str) -> float:
    return drain_cost(base, entries, application).cpu_us_per_message


@contextmanager
def _waiting(seconds: float) -> Iterator[None]:
    """Have the handlers of pools that are started meanwhile wait so long."""
    os.environ["BENCHMARK_WAIT_SECONDS"] = f"{seconds}"
    try:
        yield
    finally:
        del os.environ["BENCHMARK_WAIT_SECONDS"]


def _figure(case: str, name: str, unit: str, samples: list[float], limit: Limit | None = None) -> Figure:
    return Figure(benchmark="concurrent", case=case, name=name, unit=unit, samples=samples, limit=limit)
