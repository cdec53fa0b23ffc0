"""drain_dirq.py QUEUE PROCESSES: python-dirq's QueueSimple, the fastest crash-safe Python directory queue.

Locks by a hard link, reads, removes, as its documentation shows; it never syncs.
`drain_dirq.py QUEUE fill COUNT BYTES` fills one.
"""

from __future__ import annotations

import sys

from dirq.QueueSimple import QueueSimple

from benchmarks.contenders.drain_loop import run


def drain(queue: QueueSimple) -> None:
    """Takes every element until a pass over the queue finds none."""
    while True:
        found = False
        for name in queue:
            found = True
            if queue.lock(name):
                queue.get(name)
                queue.remove(name)
        if not found:
            return


def fill(path: str, count: int, content: bytes) -> None:
    """Adds `count` elements."""
    queue = QueueSimple(path)
    for _ in range(count):
        queue.add(content)


if __name__ == "__main__":
    path = sys.argv[1]
    if sys.argv[2] == "fill":
        fill(path, int(sys.argv[3]), b"x" * int(sys.argv[4]))
        sys.exit(0)
    # Each process has its own object, as separate programs would.
    sys.exit(run(int(sys.argv[2]), lambda index, processes: drain(QueueSimple(path))))
