"""What it costs a message that handlers' lines tell what they are about, beside a pool in which they don't."""

from __future__ import annotations

from functools import partial

from benchmarks import filesystem
from benchmarks.backlog import drain_cost
from benchmarks.figures import Figure, Limit, interleave
from benchmarks.places import Unavailable

WITH, WITHOUT = "noop", "untold"
LIMIT = Limit(bound=1.03, at_most=True)


def measure(quick: bool) -> list[Figure]:
    """Processor time of a whole pool over a drain, with both in turn."""
    entries, rounds = (2_000, 3) if quick else (20_000, 7)
    figures = []
    for place, filesystem_of in filesystem.FILESYSTEMS.items():
        try:
            with filesystem_of() as base:
                contenders = {name: partial(_microseconds, base, entries, name) for name in (WITHOUT, WITH)}
                samples = interleave(contenders, rounds, note=print)
        except Unavailable as why:
            print(f"{place} skipped: {why}")
            continue
        figures += [_figure(place, name, "µs/msg", taken) for name, taken in samples.items()]
        ratios = [told / untold for untold, told in zip(samples[WITHOUT], samples[WITH], strict=True)]
        figures.append(_figure(place, "with it, beside without", "times", ratios, LIMIT))
    return figures


def _microseconds(base: str, entries: int, application: str) -> float:
    return drain_cost(base, entries, application).cpu_us_per_message


def _figure(place: str, name: str, unit: str, samples: list[float], limit: Limit | None = None) -> Figure:
    return Figure(benchmark="context", case=place, name=name, unit=unit, samples=samples, limit=limit)
