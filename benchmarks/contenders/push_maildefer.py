"""push_maildefer.py QUEUE COUNT THREADS BYTES pusher|one-sync|queue: maildefer's durable push.

`pusher` is the queue's core, given bytes as push.c has them, `one-sync` the same in a queue whose pushes take one sync;
`queue` is `Queue.push`, with the envelope block and all.
Says "ready", begins at a line on stdin, prints the nanoseconds that COUNT pushes took.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

from benchmarks.filler import RECIPIENT, message_bytes


def pusher(path: str, size_bytes: int) -> Callable[[], object]:
    """Pushes through `maildir.push.Pusher`."""
    from maildefer.maildir.layout import create_queue  # only one of the ways is loaded
    from maildefer.maildir.push import Pusher

    push, content = Pusher(create_queue(path), host="bench-000000").push, b"x" * size_bytes
    return lambda: push(lambda stem: (content,))


def one_sync(path: str, size_bytes: int) -> Callable[[], object]:
    from maildefer.doctor.one_sync import take_one  # only one of the ways is loaded
    from maildefer.maildir.layout import create_queue

    take_one(create_queue(path))
    return pusher(path, size_bytes)


def queue(path: str, size_bytes: int) -> Callable[[], object]:
    """Pushes through the public `Queue`."""
    from maildefer.queue import Queue  # only one of the ways is loaded

    push, message = Queue(path).push, message_bytes(size_bytes - 200)  # the block takes some 200 bytes
    return lambda: push(message, sender="sender@example.org", recipient=RECIPIENT)


def run(push: Callable[[], object], count: int, threads: int) -> int:
    """Pushes `count` times from `threads` threads, all begun at once; returns nanoseconds."""
    push()  # lazy imports are no part of a push
    gate = threading.Barrier(threads + 1)

    def writer() -> None:
        gate.wait()
        for _ in range(count // threads):
            push()

    writers = [threading.Thread(target=writer) for _ in range(threads)]
    for thread in writers:
        thread.start()
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.monotonic_ns()
    gate.wait()
    for thread in writers:
        thread.join()
    return time.monotonic_ns() - start


if __name__ == "__main__":
    way = {"pusher": pusher, "one-sync": one_sync, "queue": queue}[sys.argv[5]]
    print(run(way(sys.argv[1], int(sys.argv[4])), int(sys.argv[2]), int(sys.argv[3])))
