"""What a million drained entries leave to an idle pool: processor time and wake-ups, beside a queue that had none.

ext4's folders never shrink. Three pools run at the same time: on a fresh queue; on one whose `new/` had a million names
and can't be replaced, since a name is left in it; and on one whose keeper has replaced it.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks import filesystem, processes, product
from benchmarks.figures import Figure, Limit
from benchmarks.filler import ENTRY_BYTES, RECIPIENT, entry_stem, make_maildir, message_bytes
from benchmarks.product import Pool

COUNT: Final = 1_000_000
QUICK_COUNT: Final = 100_000
WORKERS: Final = 8
FRESH, GROWN, REPLACED = "fresh", "grown", "replaced"
AS_FRESH: Final = Limit(bound=1.15, at_most=True)
_REPLACED_SECONDS = 90.0  # a keeper looks once a minute


def measure(quick: bool) -> list[Figure]:
    """Idle for some rounds, then pushes to each pool in turn; a ratio is the median of the rounds' ratios."""
    count, rounds, seconds = (QUICK_COUNT, 2, 10.0) if quick else (COUNT, 5, 20.0)
    with ExitStack() as stack:
        base = stack.enter_context(filesystem.ext4())
        pools: dict[str, Pool] = {}
        for name in (FRESH, GROWN, REPLACED):
            directory = stack.enter_context(filesystem.fresh_directory(base))
            queue = make_maildir(os.path.join(directory, "queue"))
            if name != FRESH:
                grow(f"{queue}/new", count)
            if name == GROWN:
                Path(queue, "new", ".kept").touch()
            pools[name] = stack.enter_context(Pool(queue, workers=WORKERS, application="noting"))
        sizes = {name: _size(pool) for name, pool in pools.items()}
        product.wait_until(
            lambda: _size(pools[REPLACED]) < sizes[GROWN] / 10, _REPLACED_SECONDS, "the folder is replaced"
        )
        time.sleep(seconds)
        idle = processes.idle_cpu({name: pool.pid for name, pool in pools.items()}, rounds, seconds)
        waits = wake_ups_ms(pools, 50 if quick else 300)
    case = f"{count:,} drained, pool of {WORKERS}"
    figures = [
        Figure(benchmark="grown", case=case, name=f"{name}: size of new/", unit="MB", samples=[size / 1e6])
        for name, size in sizes.items()
    ]
    return [*figures, *_compared(case, "idle", "ms/s", idle), *_compared(case, "wake-up", "ms", waits)]


def grow(folder: str, count: int) -> None:
    """Have a folder hold so many names, and none: all are one file's, or a few files', to be quick."""
    names = [f"{folder}/{entry_stem(number)}.grown,S=2048" for number in range(count)]
    for number, name in enumerate(names):
        if number % 60_000 == 0:  # ext4 allows 65,000 links
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
            first = name
        else:
            os.link(first, name)
    for name in names:
        os.unlink(name)


def wake_ups_ms(pools: dict[str, Pool], pushes: int) -> dict[str, list[float]]:
    """Milliseconds from each push's return to its handler's start; the medians of tens of pushes."""
    message, gaps = message_bytes(ENTRY_BYTES - 200), random.Random(1)
    returned: dict[str, dict[str, int]] = {name: {} for name in pools}
    push = {name: product.opened(str(pool.queue)).push for name, pool in pools.items()}
    for _ in range(pushes):
        for name in pools:
            key = push[name](message, sender="sender@example.org", recipient=RECIPIENT)
            returned[name][str(key)] = time.monotonic_ns()
            time.sleep(gaps.uniform(0.01, 0.03))
    waits = {}
    for name, pool in pools.items():
        notes = Path(pool.notes_path)
        product.wait_until(lambda: len(notes.read_text().splitlines()) >= pushes, 10, "every push handled")  # noqa: B023  # called at once
        begun = {key: int(ns) for key, _, ns in map(str.split, notes.read_text().splitlines())}
        all_ms = [(begun[key] - ns) / 1e6 for key, ns in returned[name].items()]
        waits[name] = [statistics.median(all_ms[at : at + 25]) for at in range(0, pushes, 25)]
    return waits


def _size(pool: Pool) -> int:
    return os.stat(f"{pool.queue}/new").st_size


def _compared(case: str, what: str, unit: str, samples: dict[str, list[float]]) -> list[Figure]:
    figures = []
    for name, taken in samples.items():
        figures.append(Figure(benchmark="grown", case=case, name=f"{name}: {what}", unit=unit, samples=taken))
        if name != FRESH and what == "idle":
            ratios = [mine / fresh for mine, fresh in zip(taken, samples[FRESH], strict=True)]
            limit = AS_FRESH if name == REPLACED else None
            figures.append(
                Figure(
                    benchmark="grown",
                    case=case,
                    name=f"{name}: {what}, beside fresh",
                    unit="times",
                    samples=ratios,
                    limit=limit,
                )
            )
    return figures
