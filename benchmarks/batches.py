"""A queue emptied in batches of 500 beside the same messages one by one, by handlers that do nothing.

What a batch is for, one commit or one rebuild for many messages, comes on top, and depends on the application.
"""

from __future__ import annotations

from functools import partial

from benchmarks import filesystem
from benchmarks.backlog import drain_cost
from benchmarks.figures import Figure, Limit, interleave

SINGLE, BATCHED, LINGERING = "one by one", "in batches", "in batches that linger"
APPLICATIONS = {SINGLE: "noop", BATCHED: "batched", LINGERING: "lingering"}
LIMITS = {BATCHED: Limit(bound=1.15, at_most=True), LINGERING: Limit(bound=2.0, at_most=True)}


def measure(quick: bool) -> list[Figure]:
    """Processor time of a whole pool for a message, on tmpfs, where the disk does not hide what the pool costs."""
    entries, rounds = (4_000, 3) if quick else (10_000, 7)
    with filesystem.tmpfs() as base:
        contenders = {
            name: partial(_microseconds, base, entries, application)
            for name, application in APPLICATIONS.items()
        }
        samples = interleave(contenders, rounds, note=print)
    case = f"{entries} messages"
    figures = [_figure(case, name, "µs/msg", taken) for name, taken in samples.items()]
    for name, limit in LIMITS.items():
        ratios = [batch / single for single, batch in zip(samples[SINGLE], samples[name], strict=True)]
        figures.append(_figure(case, f"{name}, beside {SINGLE}", "times", ratios, limit))
    return figures


def _microseconds(base: str, entries: int, application: str) -> float:
    return drain_cost(base, entries, application).cpu_us_per_message


def _figure(case: str, name: str, unit: str, samples: list[float], limit: Limit | None = None) -> Figure:
    return Figure(benchmark="batches", case=case, name=name, unit=unit, samples=samples, limit=limit)
