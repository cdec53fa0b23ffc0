"""Processor time of a push with a unique key beside a plain one, and of a push that finds its key held."""

from __future__ import annotations

import os
from collections.abc import Callable

from benchmarks import filesystem
from benchmarks.figures import OURS, Figure, Limit, compare, interleave
from benchmarks.filler import make_maildir
from benchmarks.gate import Gated
from benchmarks.places import PYTHON, Unavailable

COUNT = 1_000
LIMITS = {"plain": Limit(bound=0.5)}


def measure(quick: bool) -> list[Figure]:
    """Pushes a processor second, each in a process of its own, one after the other."""
    rounds, count = (3, COUNT // 4) if quick else (7, COUNT)
    try:
        with filesystem.ext4() as base:
            ways = {way: _way(base, count, way) for way in ("plain", "unique", "found")}
            samples = interleave(ways, rounds, note=print)
    except Unavailable as why:
        print(f"  skipped: {why}")
        return []
    pair = {"plain": samples["plain"], OURS: samples["unique"]}
    found = {"plain": samples["plain"], OURS: samples["found"]}
    return [
        *compare("unique", "a new unique key", pair, "msg/cpu s", LIMITS),
        *compare("unique", "a unique key that is held", found, "msg/cpu s", {}),
    ]


def _way(base: str, count: int, way: str) -> Callable[[], float]:
    def push() -> float:
        with filesystem.fresh_directory(base) as directory:
            queue = make_maildir(os.path.join(directory, "queue"))
            command = [PYTHON, "-m", "benchmarks.contenders.push_unique", queue, str(count), way]
            with Gated(command) as gated:
                gated.open()
                return count / (int(gated.result()) / 1e9)

    return push
