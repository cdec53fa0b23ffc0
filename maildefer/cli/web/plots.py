"""Numbers over time as SVG, drawn by the server: no script draws, and no style stands in an attribute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from maildefer.cli.output import duration

WIDTH: Final = 360
HEIGHT: Final = 48


def plot(means: Sequence[float], step_seconds: float, what: str) -> Markup:
    """A line from the oldest to the newest mean; gaps where there is none. Its label says what a reader would see."""
    known = [mean for mean in means if not math.isnan(mean)]
    if not known:
        return Markup()
    top = max(*known, 1e-9)
    label = f"{what}, of the last {duration(len(means) * step_seconds)}: now {known[-1]:.3g}, most {max(known):.3g}"
    lines = Markup().join(
        Markup('<polyline points="{}"/>').format(" ".join(points)) for points in _runs(means, top)
    )
    template = '<svg viewBox="0 0 {} {}" role="img" preserveAspectRatio="none" aria-label="{}">{}</svg>'
    return Markup(template).format(WIDTH, HEIGHT, label, lines)


def _runs(means: Sequence[float], top: float) -> list[list[str]]:
    """The points of each run without a gap; a lone point becomes a short line."""
    runs: list[list[str]] = [[]]
    step = WIDTH / max(1, len(means) - 1)
    for index, mean in enumerate(means):
        if math.isnan(mean):
            runs.append([])
            continue
        y = HEIGHT - 1 - (HEIGHT - 2) * mean / top
        runs[-1].append(f"{index * step:.1f},{y:.1f}")
        if len(runs[-1]) == 1:
            runs[-1].append(f"{index * step + 0.5:.1f},{y:.1f}")
    return [run for run in runs if run]
