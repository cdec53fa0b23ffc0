"""Samples, pairs, limits, tables: how figures are taken and shown."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from benchmarks.places import RESULTS, Unavailable

OURS = "maildefer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What the project promises of one figure."""

    bound: float
    at_most: bool = False

    def met(self, figure: float) -> bool:
        return figure <= self.bound if self.at_most else figure >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.bound:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure with the samples it is the median of; `ratio` is maildefer's share of this contender's figure."""

    benchmark: str
    case: str
    name: str
    unit: str
    samples: list[float]
    ratio: float | None = None
    limit: Limit | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def passed(self) -> bool | None:
        """None where no limit was set."""
        return (
            None if self.limit is None else self.limit.met(self.median if self.ratio is None else self.ratio)
        )


def interleave(
    contenders: Mapping[str, Callable[[], float]], rounds: int, note: Callable[[str], None]
) -> dict[str, list[float]]:
    """Runs A B C A B C …; a contender that is unavailable is left out, and `note` is told why."""
    running = dict(contenders)
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, measure in list(running.items()):
            try:
                samples[name].append(measure())
            except Unavailable as why:
                note(f"{name} skipped: {why}")
                del running[name]
    return {name: samples[name] for name in running}


def compare(
    benchmark: str, case: str, samples: Mapping[str, list[float]], unit: str, limits: Mapping[str, Limit]
) -> list[Figure]:
    """Figures of one interleaved run; the ratio is the median of the pairs' ratios, the limit one on that ratio."""
    ours = samples.get(OURS)
    figures = []
    for name, values in samples.items():
        ratio = None
        if ours and name != OURS:
            ratio = statistics.median(mine / theirs for mine, theirs in zip(ours, values, strict=True))
        limit = limits.get(name) if ratio is not None else None
        figures.append(
            Figure(
                benchmark=benchmark, case=case, name=name, unit=unit, samples=values, ratio=ratio, limit=limit
            )
        )
    return figures


def show(figures: list[Figure]) -> None:
    """Prints a table, one line per figure."""
    if not figures:
        return
    wide = max(len(figure.case) for figure in figures)
    wider = max(len(figure.name) for figure in figures)
    print(
        f"  {'case':<{wide}} {'':<{wider}} {'min':>11} {'median':>11} {'max':>11} {'unit':<10} {'ratio':>6}  limit"
    )
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        verdict = {None: "", True: f"{figure.limit} pass", False: f"{figure.limit} FAIL"}[figure.passed]
        low, median, high = min(figure.samples), figure.median, max(figure.samples)
        print(
            f"  {figure.case:<{wide}} {figure.name:<{wider}} {_short(low):>11} {_short(median):>11} {_short(high):>11} "
            f"{figure.unit:<10} {ratio:>6}  {verdict}".rstrip(),
            flush=True,
        )


def keep(figures: list[Figure]) -> None:
    """Appends the figures, with the machine's facts, to the benchmark's file of JSON lines."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        line = {"time": int(time.time()), **asdict(figure), "passed": figure.passed, "machine": machine()}
        with (RESULTS / f"{figure.benchmark}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def machine() -> dict[str, str | int | float]:
    """What a figure depends on."""
    return {
        "cores": os.cpu_count() or 1,
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "load": round(os.getloadavg()[0], 1),
    }


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
