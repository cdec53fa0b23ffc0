"""A pause of one queue, on all hosts, by a mark in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from maildefer.maildir.operator import pause_mark
from tests.lifecycle.commands import answered, maildefer
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import Project, eventually

pytestmark = pytest.mark.lifecycle


def is_heeded(pool: Pool, queue: str = "run/later") -> bool:
    return any(one["queue"] == queue and one["paused_everywhere"] for one in pool.status()["queues"])


def test_a_paused_queue_is_claimed_from_on_no_host_and_the_others_are(project: Project, start: Start) -> None:
    pools = [start(workers=1, host=host) for host in "ab"]
    ended = maildefer(pools[0], "pause", "run/later")
    assert ended.returncode == 0, ended.stderr
    assert "run/later is paused: within 1.2 s no host claims from it" in ended.stdout
    for pool in pools:
        eventually(lambda pool=pool: is_heeded(pool), f"{pool.host} heeds it")  # type: ignore[misc]
    held = project.push(queue="run/later", count=5)
    done = project.push(count=20)
    eventually(lambda: not project.names("new") and not project.names("cur"), "the other queue is drained")
    assert project.starts() == dict.fromkeys(done, 1)
    assert len(project.names(queue="run/later")) == 5
    assert "paused on all hosts by root" in answered(pools[1], "status").stdout

    ended = maildefer(pools[1], "resume", "run/later")
    assert (ended.returncode, "run/later goes on" in ended.stdout) == (0, True), ended.stderr
    eventually(project.is_empty, "all are handled")
    assert project.starts() == dict.fromkeys([*held, *done], 1)


def test_a_pause_outlives_the_pools(project: Project, start: Start) -> None:
    pool = start(workers=1)
    maildefer(pool, "pause", "run/later")
    eventually(lambda: is_heeded(pool), "it is heeded")
    assert pool.stop() == 0
    held = project.push(queue="run/later")
    pool = start(workers=1)
    done = project.push()
    eventually(lambda: project.starts() == dict.fromkeys(done, 1), "the other queue is served")
    assert is_heeded(pool)
    assert pool.status()["paused"] is False, "the pool itself is not"
    maildefer(pool, "resume", "run/later")
    eventually(project.is_empty, "it goes on")
    assert project.starts() == dict.fromkeys([*held, *done], 1)


def test_a_pause_without_a_name_is_for_all_queues(project: Project, start: Start) -> None:
    pool = start(workers=1)
    ended = maildefer(pool, "pause")
    assert ended.returncode == 0, ended.stderr
    assert {line.split()[0] for line in ended.stdout.splitlines()} == {"run/queue", "run/later"}
    eventually(lambda: pool.status()["paused"], "the pool has nothing to claim")
    project.push(), project.push(queue="run/later")
    assert maildefer(pool, "pause", "run/later").stdout == "run/later was paused already\n"
    assert maildefer(pool, "resume").returncode == 0
    eventually(project.is_empty, "all goes on")


def test_queues_can_be_paused_before_a_pool_is_started(project: Project, start: Start) -> None:
    pool = Pool(project)
    assert maildefer(pool, "pause").returncode == 0
    assert all(pause_mark.is_paused(layout) for layout in project.layouts.values())
    assert maildefer(pool, "resume").returncode == 0
    assert not any(pause_mark.is_paused(layout) for layout in project.layouts.values())


CONSUMER = """
import sys
from maildefer.queue import Queue
with Queue("run/queue").consumer() as consumer:
    print("joined", flush=True)
    for claim in consumer:
        print(claim.key, flush=True)
        claim.ack()
"""
RECEIVER = """
from maildefer.routing import Router
from maildefer.server import QueueReceiver
Router.defaults(what="[a-z]+", argument="[0-9.]*")
Router.load(["workers.front"])
print("joined", flush=True)
QueueReceiver("run/queue", sleep=0.1).start()
"""


@pytest.mark.parametrize("program", [CONSUMER, RECEIVER], ids=["consumer", "receiver"])
def test_who_serves_a_queue_without_a_supervisor_heeds_its_pause(
    project: Project, program: str, tmp_path: Path
) -> None:
    pause_mark.pause_queue(project.queue, user="ann", host="a")
    project.push()
    environ = Pool(project).environ
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=project.path, env=environ, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"joined\n"
            for _ in range(3):
                beat = eventually(project.leases, "its lease")
                eventually(lambda beat=beat: project.leases() != beat, "another beat")  # type: ignore[misc]
            assert len(project.names("new")) == 1
            assert project.names("cur") == []
            pause_mark.resume_queue(project.queue)
            eventually(project.is_empty, "it goes on")
        finally:
            process.kill()
