"""push_unique.py QUEUE COUNT plain|unique|found: what a push takes of processor time.

`unique` has another unique key for each push, `found` one for all. Says "ready", begins at a line on stdin, prints the
nanoseconds of processor time that COUNT pushes took.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

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


def run(path: str, count: int, way: str) -> int:
    push = pushes(Queue(path), way)
    push(count)  # lazy imports are no part of a push
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.process_time_ns()
    for number in range(count):
        push(number)
    return time.process_time_ns() - start


if __name__ == "__main__":
    print(run(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
