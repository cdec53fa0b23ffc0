"""dirq: a directory queue that never syncs, with the loop of its documents for a worker; it has none of its own."""

from __future__ import annotations

import time

from dirq.QueueSimple import QueueSimple

from benchmarks.contenders.peers import job
from benchmarks.contenders.peers.forks import fork_workers

POLL_SECONDS = 0.1

queue = QueueSimple(f"{job.PLACE}/dirq")


def enqueue(number: int, milliseconds: int) -> None:
    queue.add(f"{number} {milliseconds}")


def work(workers: int) -> None:
    fork_workers(workers, _work)


def _work() -> None:
    while True:
        for name in queue:
            if queue.lock(name):
                number, milliseconds = queue.get(name).split()
                job.run(int(number), int(milliseconds))
                queue.remove(name)
        time.sleep(POLL_SECONDS)


def recover() -> None:
    """What its documents have a program do at times, with ten minutes where this has a second."""
    queue.purge(maxlock=1)
