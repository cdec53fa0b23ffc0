"""`python -m benchmarks.chaos`: two hosts on one directory, whose workers and supervisors are killed all the time.

It prints what happened, and ends with 1 if a message was lost, left over, buried without reason, or handled once more
than dead workers account for. The random choices come from a seed, which is printed; the timing does not.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import filesystem, processes
from benchmarks.chaos_verdict import Facts, Verdict, judge
from benchmarks.places import APPLICATIONS, Unavailable
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import TTL_SECONDS, Project, eventually

HOSTS = ("a", "b")
WORKERS = 4  # on each
KILLS_PER_SECOND = 10.0
STEWARDS = 0.03  # of the kills go to a keeper or a scout
TREE_EVERY_SECONDS = (2.0, 5.0)
RESTART_AFTER_SECONDS = (0.0, 1.0)
BATCH = 25  # messages pushed with one directory sync
PUSHING = 0.7  # of the time: the rest is for the backlog
BUSY = 0.6  # of the workers' time goes to handlers, the rest to dying and being born
PATIENCE = 10  # times the planned time, then what is still there is left over


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument(
        "--seconds", type=float, default=60, help="how long handling them is to take, about (60)"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument(
        "--directory", help="where to do it, and leave everything (a tmpfs, and nothing is left)"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    print(
        f"chaos: {options.messages} messages, {len(HOSTS)} hosts of {WORKERS} workers, seed {options.seed}",
        flush=True,
    )
    with _directory(options.directory) as directory:
        verdict = run(
            Path(directory), options.messages, options.seconds, options.seed, progress=sys.stdout.isatty()
        )
    print(verdict.table())
    return int(bool(verdict.violations))


def run(directory: Path, messages: int, seconds: float, seed: int, *, progress: bool = False) -> Verdict:
    """Push, handle and kill until everything is handled; then judge."""
    chaos = Chaos(directory, messages, seconds, seed)
    try:
        return chaos.run(progress)
    finally:
        chaos.end()


class Chaos:
    """One run."""

    def __init__(self, directory: Path, messages: int, seconds: float, seed: int) -> None:
        self._random = random.Random(seed)
        self._messages, self._seconds = messages, seconds
        self._project = Project(directory, APPLICATIONS / "chaos", queues=("run/queue",))
        (directory / "journal").mkdir()
        handler_seconds = seconds * BUSY * len(HOSTS) * WORKERS / messages
        environ = {"CHAOS_HANDLER_SECONDS": f"{handler_seconds:.6f}"}
        self._pools = [Pool(self._project, host=host, workers=WORKERS, environ=environ) for host in HOSTS]
        self._pushed: list[str] = []
        self._counts: Counter[str] = Counter()
        self._down: dict[int, float] = {}  # index of a pool: when it is started again
        self._halt = threading.Event()

    def run(self, progress: bool) -> Verdict:
        began = time.monotonic()
        for pool in self._pools:
            pool.start()
        for pool in self._pools:
            pool.await_ready()
        pusher = threading.Thread(target=self._push, name="pusher")
        pusher.start()
        self._kill_until_handled(pusher, progress)
        pusher.join()
        for index in list(self._down):
            self._restart(index)
        self._settle()
        survivors = [pid for pool in self._pools for pid in pool.worker_pids()]
        codes = [pool.stop(60) for pool in self._pools]
        return judge(self._facts(survivors, codes, time.monotonic() - began))

    def end(self) -> None:
        """Leave no process behind, whatever happened."""
        self._halt.set()
        for pool in self._pools:
            if pool.process is not None and pool.process.poll() is None:
                pool.kill_tree()

    def _push(self) -> None:
        """All along, so that pushes, too, meet with deaths; a little faster than they are handled."""
        pause = self._seconds * PUSHING * BATCH / self._messages
        due = time.monotonic()
        while len(self._pushed) < self._messages and not self._halt.wait(max(0.0, due - time.monotonic())):
            due += pause
            self._pushed += self._project.push("chaos", min(BATCH, self._messages - len(self._pushed)))

    def _kill_until_handled(self, pusher: threading.Thread, progress: bool) -> None:
        now = began = shown = due = time.monotonic()
        next_tree = began + self._random.uniform(*TREE_EVERY_SECONDS)
        while pusher.is_alive() or not self._project.is_empty():
            if now - began > self._seconds * PATIENCE:
                return
            due += 1 / KILLS_PER_SECOND
            self._halt.wait(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            for index in [index for index, at in self._down.items() if now >= at]:
                self._restart(index)
            if now >= next_tree:
                next_tree = now + self._random.uniform(*TREE_EVERY_SECONDS)
                self._kill_tree()
            self._kill_one()
            if progress and now - shown > 1:
                shown = now
                sys.stdout.write(f"\r{now - began:4.0f} s, {len(self._pushed)} pushed, {dict(self._counts)} ")
                sys.stdout.flush()
        if progress:
            print()

    def _kill_one(self) -> None:
        """A worker, whatever it is doing just now; once in a while a keeper or a scout instead."""
        up = [pool for index, pool in enumerate(self._pools) if index not in self._down]
        kind = "worker" if self._random.random() > STEWARDS else self._random.choice(("keeper", "scout"))
        pids = [pid for pool in up for pid in _pids(pool, kind)]
        if pids:
            processes.kill([self._random.choice(pids)])
            self._counts[f"{kind}s killed"] += 1

    def _kill_tree(self) -> None:
        """A whole host at once, or its supervisor alone, whose children then end by themselves."""
        index = self._random.randrange(len(self._pools))
        if index in self._down:
            return
        if self._random.random() < 0.5:
            self._pools[index].kill_tree()
            self._counts["supervisors killed with all children"] += 1
        else:
            self._pools[index].signal(signal.SIGKILL)
            self._pools[index].wait()
            self._counts["supervisors killed alone"] += 1
        self._down[index] = time.monotonic() + self._random.uniform(*RESTART_AFTER_SECONDS)

    def _restart(self, index: int) -> None:
        del self._down[index]
        self._pools[index].start()

    def _settle(self) -> None:
        """Let the pools finish in peace: whatever still lies about afterwards is left over."""
        for pool in self._pools:
            pool.await_ready()
        try:
            eventually(self._project.is_empty, "all is handled", TTL_SECONDS * 3)
            eventually(
                lambda: len(self._project.leases()) == len(HOSTS), "old leases are fenced", TTL_SECONDS * 3
            )
        except AssertionError as failure:
            print(failure)

    def _facts(self, survivors: list[int], codes: list[int], seconds: float) -> Facts:
        acked = [
            event["key"] for pool in self._pools for event in pool.events("attempt.ended", outcome="acked")
        ]
        died = [event for pool in self._pools for event in pool.events("worker.died")]
        return Facts(
            project=self._project,
            pushed=self._pushed,
            survivors=survivors,
            acked=acked,
            counts={**self._counts, "worker deaths told by supervisors": len(died)},
            exit_codes=codes,
            seconds=seconds,
        )


def _pids(pool: Pool, kind: str) -> list[int]:
    return pool.worker_pids() if kind == "worker" else processes.by_role(pool.pid).get(kind, [])


@contextmanager
def _directory(chosen: str | None) -> Iterator[str]:
    if chosen:
        Path(chosen).mkdir(parents=True)
        yield chosen
        return
    try:
        with filesystem.tmpfs() as base:
            yield base
    except Unavailable:
        with tempfile.TemporaryDirectory(prefix="maildefer-chaos-") as base:
            yield base


if __name__ == "__main__":
    sys.exit(main())
