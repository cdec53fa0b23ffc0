"""What 100,000 deferred entries cost an idle pool, beside a pool with none: processor time a second."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack

from benchmarks import filesystem, processes
from benchmarks.figures import Figure, Limit
from benchmarks.filler import entry_stem, make_maildir
from benchmarks.places import Unavailable
from benchmarks.product import Pool

COUNT = 100_000
WORKERS = 2
LIMIT = Limit(bound=10, at_most=True)
DUE_SECONDS = 30 * 86400  # from now: none is promoted meanwhile


def measure(quick: bool) -> list[Figure]:
    """Both pools run at the same time; each sample is of a minute, in which such a folder is listed once at least."""
    rounds, seconds = (1, 20.0) if quick else (7, 60.0)
    counts = (0, COUNT)
    with ExitStack() as stack:
        try:
            base = stack.enter_context(filesystem.ext4())
        except Unavailable as why:
            print(f"  on tmpfs, since ext4 can't be had: {why}")
            base = stack.enter_context(filesystem.tmpfs())
        pools = {}
        for count in counts:
            directory = stack.enter_context(filesystem.fresh_directory(base))
            queue = make_maildir(os.path.join(directory, "queue"))
            pools[count] = stack.enter_context(Pool(queue, workers=WORKERS))
            defer(queue, count)
        time.sleep(seconds / 2)  # polls back off to their slowest, and the first listing is over
        samples = processes.idle_cpu({count: pool.pid for count, pool in pools.items()}, rounds, seconds)
    case = f"pool of {WORKERS}, idle"
    more = [many - none for none, many in zip(samples[0], samples[COUNT], strict=True)]
    return [
        *(
            Figure(benchmark="deferred", case=case, name=f"{count:,} deferred", unit="ms/s", samples=taken)
            for count, taken in samples.items()
        ),
        Figure(
            benchmark="deferred",
            case=case,
            name=f"{COUNT:,} less none",
            unit="ms/s",
            samples=more,
            limit=LIMIT,
        ),
    ]


def defer(queue: str, count: int) -> None:
    """Puts `count` entries into `.later/new/`, all names of one file: it is the names that are read."""
    due = int(time.time()) + DUE_SECONDS
    later = os.path.join(queue, ".later", "new")
    kept = os.path.join(queue, "tmp", "kept")
    for index in range(count):
        if index % 50_000 == 0:  # a file can have so many names
            kept = f"{kept}{index}"
            with open(kept, "wb") as file:
                file.write(b"Subject: later\n\n")
        os.link(kept, f"{later}/{entry_stem(index)},S=16,d={due + index}")
