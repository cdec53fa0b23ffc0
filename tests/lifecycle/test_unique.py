"""Once at a time: many processes on two hosts push one unique key, and all of them are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from maildefer.maildir.markers.markers import Markers
from maildefer.maildir.markers.names import hash_of
from tests.lifecycle.conftest import Start
from tests.lifecycle.machines import machine
from tests.lifecycle.pool import ROOT, Pool
from tests.lifecycle.project import BODY, TTL_SECONDS, Project, eventually

pytestmark = pytest.mark.lifecycle

UNIQUE = "front page"
_PUSHERS, _PUSHES = 8, 1000
_PUSH = """
import os, sys, time
from maildefer.queue import Queue

queue, log = Queue(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
while True:
    key = queue.push(sys.argv[3], recipient=sys.argv[4], unique=sys.argv[5])
    os.write(log, f"{key} {int(key.is_new)} {time.monotonic()}\\n".encode())
"""
_DIE_BEFORE = """
import os, signal, sys
from dataclasses import replace
from maildefer.maildir.layout import open_queue
from maildefer.maildir.markers.markers import Markers
from maildefer.maildir.system import SYSTEM

def rename(source, destination):
    if sys.argv[2] in destination:
        os.kill(os.getpid(), signal.SIGKILL)
    os.rename(source, destination)

markers = Markers(open_queue(sys.argv[1]), host="dies", system=replace(SYSTEM, rename=rename))
markers.push("front page", lambda stem: [sys.argv[3].encode()])
"""


@dataclass(frozen=True, slots=True)
class Stay:
    """The time for which an entry was there for certain: from when it was acknowledged, or seen by a handler."""

    key: str
    since: float
    until: float  # its last handler ended then, and it was acked after that


class Pushers:
    """Processes that push one key for as long as they live."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._log = project.path / "pushes"
        self._log.touch()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, number: int) -> None:
        host = "ab"[number % 2]
        environ = {**os.environ, **machine(self._project, host), "MAILDEFER_HOST_ID": host}
        arguments = [self._project.queue.path, str(self._log), BODY.decode(), "quick@test", UNIQUE]
        self._processes[number] = subprocess.Popen(
            [sys.executable, "-c", _PUSH, *arguments], cwd=self._project.path, env=environ
        )

    def kill(self, number: int) -> None:
        process = self._processes.pop(number, None)
        if process is not None:
            has_ended = process.poll() is not None
            process.kill()
            process.wait()
            assert not has_ended, "it has ended by itself"

    def pushes(self) -> list[tuple[str, bool, float]]:
        lines = self._log.read_text().rpartition("\n")[0].splitlines()
        return [(key, new == "1", float(at)) for key, new, at in (line.split() for line in lines)]

    def end(self) -> None:
        for number in list(self._processes):
            self.kill(number)


@pytest.fixture
def pushers(project: Project) -> Any:
    pushers = Pushers(project)
    yield pushers
    pushers.end()


def stays(project: Project, pushers: Pushers) -> list[Stay]:
    acknowledged = {key: at for key, is_new, at in pushers.pushes() if is_new}
    ends: dict[str, float] = {}
    for note in project.notes():
        acknowledged.setdefault(note.key, note.time)
        acknowledged[note.key] = min(acknowledged[note.key], note.time)
        ends[note.key] = max(note.time, ends.get(note.key, 0.0))
    found = [Stay(key, since, ends[key]) for key, since in acknowledged.items() if key in ends]
    return sorted(found, key=lambda stay: stay.since)


@pytest.mark.slow
@pytest.mark.invariant(12)
def test_one_key_pushed_a_thousand_times_by_eight_processes_on_two_hosts_that_are_killed(
    project: Project, start: Start, pushers: Pushers
) -> None:
    """Never two unended entries of it, nothing lost, and after the end of each the next is accepted."""
    chance = random.Random(17)
    pools = {host: start(host=host, environ=machine(project, host)) for host in "ab"}
    for number in range(_PUSHERS):
        pushers.start(number)
    kills = 0
    while len(pushers.pushes()) < _PUSHES or kills < 30:
        before = len(pushers.pushes())
        victim = chance.randrange(_PUSHERS)
        pushers.kill(victim)
        pushers.start(victim)
        kills += 1
        if kills % 4 == 0:
            _kill_worker(chance.choice(list(pools.values())))
        if kills in (11, 23):  # a whole host
            host = chance.choice("ab")
            pools[host].kill_tree()
            pools[host].start()
        eventually(lambda before=before: len(pushers.pushes()) > before + 5, "they go on")  # type: ignore[misc]
    pushers.end()
    eventually(project.is_empty, "all are handled")
    told = pushers.pushes()
    found = stays(project, pushers)
    for one, other in pairwise(found):
        assert one.until <= other.since, f"two at a time: {one}, {other}"
    handled = set(project.starts())
    assert {key for key, is_new, _ in told if is_new} <= handled, "each that was accepted was handled"
    assert {key for key, is_new, _ in told if not is_new} <= handled, "each that was named was there"
    assert len(handled) > 50, "after the end of one the next is accepted"
    markers = Markers(project.queue, host="test")
    eventually(lambda: markers.push(UNIQUE, lambda stem: [BODY]).is_new, "the last one blocks nobody")


def _kill_worker(pool: Pool) -> None:
    with suppress(ProcessLookupError, IndexError):
        os.kill(pool.worker_pids()[0], signal.SIGKILL)


@pytest.mark.parametrize("before", ["/unique/", "/new/"])
def test_a_pusher_that_is_killed_before_it_has_its_marker_or_its_entry_there_blocks_nobody(
    project: Project, before: str
) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [project.queue.path, before, BODY.decode()]
    dies = subprocess.run([sys.executable, "-c", _DIE_BEFORE, *arguments], env=environ, check=False)
    assert dies.returncode == -signal.SIGKILL
    marked = Markers(project.queue, host="test").push(UNIQUE, lambda stem: [BODY])
    assert marked.is_new == (before == "/unique/")
    assert os.listdir(project.queue.new) == [marked.key], "the entry of whoever was killed, or this one"


@pytest.mark.slow
def test_a_marker_whose_entry_was_removed_by_hand_blocks_for_no_longer_than_the_ttl(project: Project) -> None:
    markers = Markers(project.queue, host="test")
    lost = markers.push(UNIQUE, lambda stem: [BODY])
    os.unlink(f"{project.queue.new}/{lost.key}")
    marker = f"{project.queue.control}/unique/{hash_of(UNIQUE)}/{lost.key}"
    while True:
        began = time.time()  # not after: it is the push that may not begin so late in vain
        if (marked := markers.push(UNIQUE, lambda stem: [BODY])).is_new:
            break
        assert began - os.stat(marker).st_mtime < TTL_SECONDS + 5
        time.sleep(0.1)
    assert os.listdir(project.queue.new) == [marked.key]
