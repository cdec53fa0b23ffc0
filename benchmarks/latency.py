"""From a local push's return to its handler's start, the pool of 8 being idle.

Below zero where the handler began before the push had synced the directory and returned.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from pathlib import Path

from benchmarks import filesystem, product
from benchmarks.figures import Figure, Limit
from benchmarks.filler import ENTRY_BYTES, RECIPIENT, make_maildir, message_bytes
from benchmarks.places import Unavailable

LIMITS = {"p50": Limit(bound=0.5, at_most=True), "p99": Limit(bound=2, at_most=True)}


def measure(quick: bool) -> list[Figure]:
    """Pushes some 10–30 ms apart, on ext4 and tmpfs."""
    figures = []
    for name, filesystem_of in filesystem.FILESYSTEMS.items():
        try:
            with filesystem_of() as base:
                waits_ms = sorted(latencies_ms(base, 200 if quick else 2_000))
        except Unavailable as why:
            print(f"{name} skipped: {why}")
            continue
        cuts = statistics.quantiles(waits_ms, n=100, method="inclusive")
        for label, value in {
            "p50": cuts[49],
            "p90": cuts[89],
            "p99": cuts[98],
            "worst": waits_ms[-1],
        }.items():
            figures.append(
                Figure(
                    benchmark="latency",
                    case=f"{name}, push to handler",
                    name=label,
                    unit="ms",
                    samples=[value],
                    limit=LIMITS.get(label),
                )
            )
    return figures


def latencies_ms(base: str, pushes: int) -> list[float]:
    """Milliseconds of each push."""
    message, gaps = message_bytes(ENTRY_BYTES - 200), random.Random(1)
    returned_ns: dict[str, int] = {}
    queue = make_maildir(os.path.join(base, "latency"))
    with product.Pool(queue, workers=8, application="noting") as pool:
        push = product.opened(queue).push
        for _ in range(pushes):
            key = push(message, sender="sender@example.org", recipient=RECIPIENT)
            returned_ns[str(key)] = time.monotonic_ns()
            time.sleep(gaps.uniform(0.01, 0.03))
        notes = Path(pool.notes_path)
        product.wait_until(lambda: len(notes.read_text().splitlines()) >= pushes, 10, "every push handled")
        begun_ns = {key: int(ns) for key, _, ns in map(str.split, notes.read_text().splitlines())}
    return [(begun_ns[key] - ns) / 1e6 for key, ns in returned_ns.items()]
