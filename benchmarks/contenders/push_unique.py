"""push_unique.py QUEUE plain|unique|found PUSHERS: what pushes take.

`unique` has another unique key for each push, `found` one for all. Says "ready"; at each line on stdin, a number, it
pushes so often, and prints the nanoseconds of processor time and of time that this took.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from benchmarks.filler import RECIPIENT, message_bytes
from maildefer.queue import Queue

SENDER = "sender@example.org"


def pushes(queue: Queue, way: str) -> Callable[[int], object]:
    """Return what pushes the message of that number."""
    push, message = queue.push, message_bytes(2048)
    if way == "plain":
        return lambda number: push(message, sender=SENDER, recipient=RECIPIENT)
    key = "{}" if way == "unique" else "one"
    return lambda number: push(message, sender=SENDER, recipient=RECIPIENT, unique=key.format(number))


def run(path: str, way: str, pushers: int) -> None:
    push = pushes(Queue(path), way)
    push(-1)  # lazy imports are no part of a push
    first = 0

    def push_share(pusher: int, *, numbers: range) -> None:
        for number in numbers[pusher::pushers]:
            push(number)

    with ThreadPoolExecutor(pushers) as threads:
        each = threads.map if pushers > 1 else map
        print("ready", flush=True)
        for line in sys.stdin:
            numbers = range(first, first := first + int(line))
            cpu, wall = time.process_time_ns(), time.perf_counter_ns()
            list(each(partial(push_share, numbers=numbers), range(pushers)))
            print(time.process_time_ns() - cpu, time.perf_counter_ns() - wall, flush=True)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
