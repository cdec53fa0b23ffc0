"""`python -m tests.formats.two_versions`: the last release and this version on one queue, both killed all the time.

Of two hosts one runs the last release, the other this version. Every few seconds one of them is killed or stopped, and
goes on with the other version, up or down. Messages of all kinds are pushed by programs of both versions meanwhile.
It ends with 1 if a message was lost, left over or buried, or if the audit can't prove all of them.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from maildefer.control.audit import audit
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import Project, eventually

ROOT = Path(__file__).resolve().parent.parent.parent
# Nothing is released yet: the code before keys had fields for times, priorities and unique keys, and before limits.
LAST_RELEASE = "e2c0b8285ef994dd3ef4c2a0d251605d35298fab"
HOSTS = ("a", "b")
PAUSE_SECONDS = 0.25  # from one kill to the next
REST_SECONDS = 120.0
# Of each kind one after the other, until its input ends; the keys that were accepted are printed.
PUSH = """
import itertools, os, select, sys
from maildefer.queue import Queue

queue, numbers = Queue("run/queue"), itertools.count()
kinds = [("quick", {}), ("sleep0.02", {}), ("defer0.5", {}), ("handoff", {})]
if sys.argv[1] == "this":
    kinds += [("quick", {"after": 0.5}), ("quick", {"priority": "high"}), ("sleep0.02", {"priority": "low"}),
              ("defer0.5", {"unique": True})]
for what, options in itertools.cycle(kinds):
    if select.select([sys.stdin], [], [], 0.03)[0]:
        break
    if len(os.listdir("run/queue/new")) > 100:  # the workers die faster than they handle
        continue
    if "unique" in options:
        options = {"unique": str(next(numbers))}
    print(queue.push("Subject: x\\n\\n", sender="ann@example.org", recipient=what + "@test", **options), flush=True)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    pushed: int
    lost: list[str]  # never handled to the end, or not proven by the audit
    left: list[str]  # names of entries, dead letters among them
    handled_again: int
    kills: int
    changes: int  # of a host from one version to the other

    def is_good(self) -> bool:
        return not self.lost and not self.left


def last_release(folder: Path) -> Path:
    """Its tree. Raises CalledProcessError where the repository's history is not here."""
    packed = subprocess.run(
        ["git", "archive", LAST_RELEASE, "maildefer"], cwd=ROOT, check=True, capture_output=True
    ).stdout
    subprocess.run(["tar", "x", "-C", folder], input=packed, check=True)
    return folder


def run(place: Path, last: Path, *, seconds: float, seed: int) -> Outcome:
    dice = random.Random(seed)
    project = Project(place, journal=True)
    project.edit(
        "workers/front.py",
        "    result = ACTIONS[what]",
        "    if what == 'defer' and message.attempt > 1:\n        what = 'quick'\n    result = ACTIONS[what]",
    )
    trees = {"last": last, "this": ROOT}
    versions = dict(zip(HOSTS, trees, strict=True))
    kills = changes = 0

    def start(host: str) -> Pool:
        limits = {"max_crashes": 1_000_000, "max_attempts": 1_000_000}
        return Pool(
            project, host=host, settings=limits, environ={"PYTHONPATH": str(trees[versions[host]])}
        ).start()

    def restart_ended() -> None:
        """As a service manager does, where the process that loads the application was killed."""
        for host, pool in pools.items():
            if pool.process is not None and pool.process.poll() is not None:
                pools[host] = start(host)

    with _pools({host: start(host) for host in HOSTS}) as pools:
        with _pushing(project, trees):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                time.sleep(PAUSE_SECONDS)
                restart_ended()
                host = dice.choice(HOSTS)
                if dice.random() < 0.9:
                    with suppress(ProcessLookupError, IndexError):  # it has just ended, or there is none yet
                        os.kill(dice.choice(pools[host].tree()[1:]), signal.SIGKILL)
                        kills += 1
                    continue
                match dice.choice(("host", "supervisor", "stop")):
                    case "host":
                        kills += len(pools[host].kill_tree())
                    case "supervisor":
                        pools[host].signal(signal.SIGKILL)
                        pools[host].wait()
                        kills += 1
                    case "stop":
                        pools[host].stop()
                versions[host] = next(name for name in trees if name != versions[host])
                changes += 1
                pools[host] = start(host)
        pushed = [key for name in trees for key in (place / f"pushed.{name}").read_text().split()]
        with suppress(AssertionError):  # what is left is told below
            eventually(lambda: restart_ended() or project.is_empty(), "all are handled", REST_SECONDS)
        for pool in pools.values():
            pool.stop()
    report = audit([layout.path for layout in project.layouts.values()])
    ends = Counter(note.key for note in project.notes("end"))
    handed_on = {note.key for note in project.notes("back")}  # and so handled twice
    return Outcome(
        pushed=len(pushed),
        lost=sorted({*pushed} - ends.keys() | {suspect.key for suspect in report.suspects}),
        left=[
            str(name)
            for queue in project.layouts
            for folder in ("new", "cur", "later_new", "dead_new")
            for name in project.names(folder, queue)
        ],
        handled_again=sum(ends.values()) - len(ends) - len(handed_on),
        kills=kills,
        changes=changes,
    )


@contextmanager
def _pools(pools: dict[str, Pool]) -> Iterator[dict[str, Pool]]:
    try:
        yield pools
    finally:
        for pool in pools.values():
            if pool.process is not None and pool.process.poll() is None:
                pool.kill_tree()


@contextmanager
def _pushing(project: Project, trees: dict[str, Path]) -> Iterator[None]:
    pushers = []
    for name, tree in trees.items():
        environ = {**os.environ, "PYTHONPATH": str(tree)}
        with open(project.path / f"pushed.{name}", "w") as accepted:
            pushers.append(
                subprocess.Popen(
                    [sys.executable, "-c", PUSH, name],
                    cwd=project.path,
                    env=environ,
                    stdin=subprocess.PIPE,
                    stdout=accepted,
                    text=True,
                )
            )
    try:
        yield
    finally:
        for pusher in pushers:
            pusher.communicate("\n", timeout=60)
            assert pusher.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.formats.two_versions")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        place, last = Path(folder, "project"), Path(folder, "last")
        last.mkdir()
        print(f"two versions: {options.seconds:g} seconds, seed {options.seed}", flush=True)
        outcome = run(place, last_release(last), seconds=options.seconds, seed=options.seed)
    print(*outcome.lost[:20], *outcome.left[:20], sep="\n")
    print(
        f"{outcome.pushed} messages, {outcome.kills} kills, {outcome.changes} changes of version: "
        f"{len(outcome.lost)} lost, {len(outcome.left)} left, {outcome.handled_again} handled again"
    )
    return 0 if outcome.is_good() else 1


if __name__ == "__main__":
    sys.exit(main())
