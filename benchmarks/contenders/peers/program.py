"""program.py PEER enqueue|work|recover [WORKERS]: one peer's side of the benchmark.

`enqueue` says "ready"; at each line on stdin, FIRST COUNT MILLISECONDS, it enqueues that many jobs of that length, one
after the other, numbered from FIRST, and prints the nanoseconds of the monotonic clock when it began and when it ended.
"""

from __future__ import annotations

import importlib
import sys
import time
from typing import Protocol, cast


class Jobs(Protocol):
    """What each peer's module offers; `recover` only where it is needed."""

    def enqueue(self, number: int, milliseconds: int) -> object: ...
    def work(self, workers: int) -> object: ...
    def recover(self) -> object: ...


def main(peer: str, verb: str, *arguments: str) -> None:
    jobs = cast(Jobs, importlib.import_module(f"benchmarks.contenders.peers.{peer}_jobs"))
    if verb == "enqueue":
        serve(jobs)
    elif verb == "work":
        jobs.work(int(arguments[0]))
    else:
        jobs.recover()


def serve(jobs: Jobs) -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        first, count, milliseconds = map(int, line.split())
        began_ns = time.monotonic_ns()
        for number in range(first, first + count):
            jobs.enqueue(number, milliseconds)
        print(began_ns, time.monotonic_ns(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
