"""How soon a killed worker's message, and a killed host's, is in another worker's hands."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks import filesystem, processes, product
from benchmarks.figures import Figure, Limit
from benchmarks.filler import ENTRY_BYTES, RECIPIENT, make_maildir, message_bytes

BLOCKING = "block@osb.example.org"
SETTLED_BETWEEN = 20
BEAT_SECONDS, TTL_SECONDS = 0.6, 6.0
WORKER_LIMIT = Limit(bound=100, at_most=True)
HOST_LIMIT = Limit(bound=TTL_SECONDS + BEAT_SECONDS + 1, at_most=True)


class Note(NamedTuple):
    """What a handler wrote when it began."""

    key: str
    pid: int
    begun_ns: int


def measure(quick: bool) -> list[Figure]:
    """Kills worker after worker in one pool; then, of two hosts on one queue, the one that has the message."""
    workers, hosts = (5, 1) if quick else (30, 5)
    with filesystem.tmpfs() as base:
        worker_ms = [seconds * 1e3 for seconds in killed_workers(base, workers)]
        host_seconds = [killed_host(base) for _ in range(hosts)]
    return [
        _figure("killed worker's message", "ms", worker_ms, WORKER_LIMIT),
        _figure("killed host's message", "s", host_seconds),
        _figure("killed host's, the worst", "s", [max(host_seconds)], HOST_LIMIT),
    ]


def killed_workers(base: str, kills: int) -> list[float]:
    """Seconds from each kill to the handler's start in another worker."""
    seconds = []
    with filesystem.fresh_directory(base) as directory:
        queue = make_maildir(os.path.join(directory, "queue"))
        with product.Pool(queue, workers=4, application="blocking") as pool:
            for _ in range(kills):
                key = _push(queue)
                first = _await(lambda: _notes(pool, key), 10, "first attempt")  # noqa: B023  # called at once
                killed_ns = time.monotonic_ns()
                processes.kill([first.pid])
                second = _await(lambda: _notes(pool, key)[1:], 30, "second attempt")  # noqa: B023  # called at once
                if second.pid == first.pid:
                    raise RuntimeError("the killed worker came back")
                seconds.append((second.begun_ns - killed_ns) / 1e9)
                # One death at a time is what is measured: the replacement comes up, and workers settle something,
                # so that the supervisor does not take it for a fork that always fails.
                for _ in range(SETTLED_BETWEEN):
                    _push(queue, RECIPIENT)
                pool.wait_until_idle()
    return seconds


def killed_host(base: str) -> float:
    """Seconds from the end of everything on host "a" to the handler's start on host "b"."""
    with filesystem.fresh_directory(base) as directory:
        queue = make_maildir(os.path.join(directory, "queue"))
        product.set_beat(queue, beat_seconds=BEAT_SECONDS, ttl_seconds=TTL_SECONDS)
        with (
            product.Pool(queue, workers=2, application="blocking", host_id="a") as host_a,
            product.Pool(queue, workers=2, application="blocking", host_id="b") as host_b,
        ):
            for _ in range(100):
                key = _push(queue)
                _await(lambda: _notes(host_a, key) + _notes(host_b, key), 10, "first attempt")  # noqa: B023  # called at once
                if _notes(host_a, key):
                    break
            else:
                raise RuntimeError("host a never got a message")
            killed_ns = time.monotonic_ns()
            processes.kill(processes.tree(host_a.pid))  # the supervisor first
            taken = _await(lambda: _notes(host_b, key), 10 * TTL_SECONDS, "attempt on host b")
            return (taken.begun_ns - killed_ns) / 1e9


def _push(queue: str, recipient: str = BLOCKING) -> str:
    message = message_bytes(ENTRY_BYTES - 200)
    return str(product.opened(queue).push(message, sender="sender@example.org", recipient=recipient))


def _notes(pool: product.Pool, key: str) -> list[Note]:
    """The attempts at `key`, oldest first."""
    lines = [line.split() for line in Path(pool.notes_path).read_text().splitlines()]
    return [Note(noted, int(pid), int(begun_ns)) for noted, pid, begun_ns in lines if noted == key]


def _await(notes: Callable[[], list[Note]], seconds: float, what: str) -> Note:
    product.wait_until(lambda: bool(notes()), seconds, what, poll_seconds=0.002)
    return notes()[0]


def _figure(name: str, unit: str, samples: list[float], limit: Limit | None = None) -> Figure:
    case = f"TTL {TTL_SECONDS:g} s, beat {BEAT_SECONDS:g} s"
    return Figure(benchmark="recovery", case=case, name=name, unit=unit, samples=samples, limit=limit)
