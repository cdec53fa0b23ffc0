"""Very many schedules, block by block, until one fails; what was done is kept in a file, to be gone on with."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from multiprocessing import get_context
from pathlib import Path

from tests.simulation.installed import installed
from tests.simulation.schedule import run

_BLOCK = 50  # schedules
_FORK = get_context("fork")


@dataclass(slots=True)
class Sum:
    """What came of consecutive seeds."""

    first: int
    schedules: int = 0
    steps: int = 0
    claims: int = 0
    reclaimed: int = 0
    failed: int | None = None  # the seed that did

    @property
    def following(self) -> int:
        return self.first + self.schedules

    def add(self, other: Sum) -> None:
        self.schedules += other.schedules
        self.steps += other.steps
        self.claims += other.claims
        self.reclaimed += other.reclaimed
        self.failed = other.failed

    def __str__(self) -> str:
        return (
            f"{self.schedules:,} schedules from seed {self.first}: {self.steps:,} calls and wake-ups,"
            f" {self.claims:,} claims, {self.reclaimed:,} reclaimed"
        )


def explore(
    first: int, most: int | None, seconds: float | None, processes: int, progress: Path | None = None
) -> Sum:
    """Schedules from seed `first` on, until the first that fails; with `progress`, on from what that file says."""
    total = _so_far(first, progress)
    last = None if most is None else first + most
    until = None if seconds is None else time.monotonic() + seconds
    starts = count(total.following, _BLOCK) if last is None else range(total.following, last, _BLOCK)
    blocks = ((start, _BLOCK if last is None else min(_BLOCK, last - start)) for start in starts)
    for part in _results(blocks, processes, until):
        total.add(part)
        if progress is not None:
            _keep(total, progress)
        if total.failed is not None or (until is not None and time.monotonic() > until):
            break
    return total


def _results(blocks: Iterator[tuple[int, int]], processes: int, until: float | None) -> Iterator[Sum]:
    """The blocks in their order."""
    gc.collect()
    gc.freeze()
    gc.disable()  # see _play
    try:
        with installed():
            if processes == 1:
                yield from map(_run_one, blocks)
                return
            if until is not None:  # a pool asks for all of them at once
                rounds = iter(lambda: [next(blocks) for _ in range(processes)], None)
            else:
                rounds = iter([list(blocks)])
            with _FORK.Pool(processes) as pool:
                for some in rounds:
                    yield from pool.imap(_run_one, some)
    finally:
        gc.enable()
        gc.unfreeze()


def _run_one(block: tuple[int, int]) -> Sum:
    found = Sum(block[0])
    for seed in range(block[0], block[0] + block[1]):
        result = run(seed)
        if result.failure:
            found.failed = seed
            break
        found.schedules += 1
        found.steps += result.steps
        found.claims += result.claims
        found.reclaimed += result.reclaimed
        del result  # its trace leads to all that a schedule was made of
        gc.collect(0)  # now, while that is in the processor's caches; it all is young
    gc.collect()
    return found


def _so_far(first: int, progress: Path | None) -> Sum:
    if progress is None or not progress.exists():
        return Sum(first)
    return Sum(**{**json.loads(progress.read_text()), "failed": None})


def _keep(total: Sum, progress: Path) -> None:
    draft = progress.with_suffix(".draft")
    draft.write_text(json.dumps(asdict(total)))
    os.replace(draft, progress)
