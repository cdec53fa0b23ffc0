"""A queue emptied by a no-op handler with a middleware of nothing around it, beside the same handler without any."""

from __future__ import annotations

from functools import partial

from benchmarks import filesystem
from benchmarks.backlog import drain_cost
from benchmarks.figures import Figure, Limit, interleave

WITHOUT, SURROUNDED = "no middleware", "a middleware of nothing"
APPLICATIONS = {WITHOUT: "noop", SURROUNDED: "surrounded"}
LIMIT = Limit(bound=1.05, at_most=True)


def measure(quick: bool) -> list[Figure]:
    """Processor time of a whole pool for a message, on tmpfs, where the disk does not hide what the pool costs."""
    entries, rounds = (4_000, 3) if quick else (10_000, 7)
    with filesystem.tmpfs() as base:
        contenders = {
            name: partial(_microseconds, base, entries, application)
            for name, application in APPLICATIONS.items()
        }
        samples = interleave(contenders, rounds, note=print)
    pairs = zip(samples[SURROUNDED], samples[WITHOUT], strict=True)
    ratios = [surrounded / without for surrounded, without in pairs]
    case = f"{entries} messages"
    return [
        *(_figure(case, name, "µs/msg", taken) for name, taken in samples.items()),
        _figure(case, f"{SURROUNDED}, beside {WITHOUT}", "times", ratios, LIMIT),
    ]


def _microseconds(base: str, entries: int, application: str) -> float:
    return drain_cost(base, entries, application).cpu_us_per_message


def _figure(case: str, name: str, unit: str, samples: list[float], limit: Limit | None = None) -> Figure:
    return Figure(benchmark="middleware", case=case, name=name, unit=unit, samples=samples, limit=limit)
