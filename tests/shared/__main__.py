"""`python -m tests.shared MOUNT MOUNT`: the same directory, mounted twice, with a host on each; workers are killed.

What the doctor says of it is printed first. It ends with 1 if a message was lost, left over, or handled once more than
dead workers account for. How docs/filesystems.md tried GlusterFS, MooseFS and CephFS.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import processes
from benchmarks.chaos_verdict import Facts, Verdict, judge
from benchmarks.places import APPLICATIONS
from maildefer.doctor.examine import examine
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import TTL_SECONDS, Project, eventually

WORKERS = 2
KILLS_PER_SECOND = 4.0
TREE_EVERY_SECONDS = 6.0  # a whole host is killed, and starts anew a second later
BATCH = 20


def is_one(mounts: list[str]) -> bool:
    """Whether both show the same directory."""
    name = f"maildefer-probe-{os.getpid()}"
    first, second = (Path(mount, name) for mount in mounts)
    first.touch(exist_ok=False)
    try:
        return second.exists()
    finally:
        first.unlink()


class Hosts:
    """Two pools on one directory, a and b, each with its own way to it."""

    def __init__(self, mounts: list[str], runtime: Path, messages: int, seconds: float) -> None:
        self._messages, self._seconds = messages, seconds
        self._projects = [
            Project(Path(mount, "maildefer"), APPLICATIONS / "chaos", queues=("run/queue",))
            for mount in mounts
        ]
        self.project = self._projects[0]
        (self.project.path / "journal").mkdir(exist_ok=True)
        busy = f"{seconds * 0.5 * len(mounts) * WORKERS / messages:.6f}"
        self.pools = []
        for name, project in zip("ab", self._projects, strict=True):
            environ = {"CHAOS_HANDLER_SECONDS": busy, "MAILDEFER_RUNTIME_DIR": str(runtime / name)}
            pool = Pool(project, host=name, workers=WORKERS, environ=environ)
            pool.runtime, pool.log_path = runtime / name, runtime / f"{name}.log"
            self.pools.append(pool)

    def run(self) -> Verdict:
        began = time.monotonic()
        for pool in self.pools:
            pool.start()
        for pool in self.pools:
            pool.await_ready()
        pushed, counts = self._push_and_kill(began)
        counts["mounts that died"] = self._leave_dead_mounts()
        for pool in self.pools:
            pool.await_ready()
        self.project = self._living()
        self._await("all is handled", self.project.is_empty)
        self._await("old leases are fenced", lambda: len(self.project.leases()) == len(self.pools))
        survivors = {pid: processes.began(pid) for pool in self.pools for pid in pool.worker_pids()}
        codes = [pool.stop(60) for pool in self.pools]
        acked = [
            event["key"] for pool in self.pools for event in pool.events("attempt.ended", outcome="acked")
        ]
        return judge(
            Facts(
                project=self.project,
                pushed=pushed,
                survivors=survivors,
                acked=acked,
                counts=counts,
                exit_codes=codes,
                seconds=time.monotonic() - began,
            )
        )

    def end(self) -> None:
        for pool in self.pools:
            if pool.process is not None and pool.process.poll() is None:
                pool.kill_tree()

    def _push_and_kill(self, began: float) -> tuple[list[str], dict[str, int]]:
        """Messages enter by both mounts, about as fast as they are handled."""
        pushed: list[str] = []
        counts = {"workers killed": 0, "hosts killed": 0}
        next_kill = next_tree = 0.0
        while len(pushed) < self._messages or not self._living().is_empty():
            passed = time.monotonic() - began
            if passed > self._seconds * 10:
                break
            if len(pushed) < min(self._messages, passed / self._seconds * self._messages):
                pushed += self._living().push("chaos", BATCH)
            if passed >= next_kill:
                next_kill = passed + 1 / KILLS_PER_SECOND
                if pids := random.choice(self.pools).worker_pids():
                    processes.kill([random.choice(pids)])
                    counts["workers killed"] += 1
            if passed >= next_tree + TREE_EVERY_SECONDS:
                next_tree = passed
                pool = random.choice(self.pools)
                pool.kill_tree()
                counts["hosts killed"] += 1
                time.sleep(1)
                if os.path.isdir(pool.project.path):
                    pool.start()
            time.sleep(0.01)
        return pushed, counts

    def _living(self) -> Project:
        """One of the mounts, by turns, of those that are there."""
        self._projects.reverse()
        return next(project for project in self._projects if os.path.isdir(project.path))

    def _leave_dead_mounts(self) -> int:
        """A FUSE daemon that crashes takes its host's mount along; the other host is to do it all."""
        dead = [pool for pool in self.pools if not os.path.isdir(pool.project.path)]
        for pool in dead:
            pool.kill_tree()
            self.pools.remove(pool)
        return len(dead)

    def _await(self, what: str, condition: Callable[[], bool]) -> None:
        try:
            eventually(condition, what, TTL_SECONDS * 5)
        except AssertionError as failure:
            print(failure)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.shared", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("mounts", nargs=2, help="the same directory, through two mounts")
    parser.add_argument("--messages", type=int, default=1500)
    parser.add_argument(
        "--seconds", type=float, default=25, help="how long handling them is to take, about (25)"
    )
    options = parser.parse_args()
    if not is_one(options.mounts):
        parser.error(f"{' and '.join(options.mounts)} do not show the same directory")
    with tempfile.TemporaryDirectory() as runtime:
        os.environ["MAILDEFER_RUNTIME_DIR"] = runtime
        for finding in examine(options.mounts[0]):
            print(f"doctor: {finding.verdict:6} {finding.check}: {finding.fact}", flush=True)
        hosts = Hosts(options.mounts, Path(runtime), options.messages, options.seconds)
        try:
            verdict = hosts.run()
        finally:
            hosts.end()
    print(verdict.table())
    return int(bool(verdict.violations))


if __name__ == "__main__":
    sys.exit(main())
