"""`maildefer probe`, and what `maildefer status` says by its exit code."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from maildefer.control import health
from tests.lifecycle.commands import answered, maildefer
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import Pool, stopped
from tests.lifecycle.project import TTL_SECONDS, Project, eventually

pytestmark = pytest.mark.lifecycle


def live(pool: Pool) -> int:
    return answered(pool, "probe", "--live").returncode


def ready(pool: Pool) -> int:
    return answered(pool, "probe", "--ready").returncode


def test_nothing_that_runs_is_neither_live_nor_ready(project: Project) -> None:
    pool = Pool(project)
    assert (live(pool), ready(pool)) == (1, 1)
    assert answered(pool, "status").returncode == 3
    assert maildefer(pool, "probe").returncode == 2


@pytest.mark.ttl(60)
def test_a_stopped_supervisor_is_not_live(project: Project, start: Start) -> None:
    pool = start()
    assert (live(pool), ready(pool), answered(pool, "status").returncode) == (0, 0, 0)
    with stopped(pool.pid):
        for kind in ("--live", "--ready"):
            assert maildefer(pool, "probe", kind).returncode == 1
        told = maildefer(pool, "status")
        assert told.returncode == 4
        assert "degraded: supervise" in told.stderr
    assert live(pool) == 0


@pytest.mark.parametrize("kind", ["keeper", "scout"])
def test_a_stopped_keeper_or_scout_is_not_live_within_the_ttl_and_ten_seconds(
    project: Project, start: Start, kind: str
) -> None:
    pool = start()
    with stopped(pool.child(kind)):
        eventually(lambda: health.why_dead(pool.status()), f"the {kind}'s silence", TTL_SECONDS + 10)
        told = answered(pool, "probe", "--live")
        assert (told.returncode, f"its {kind} has given no sign of life" in told.stderr) == (1, True)
        assert answered(pool, "status").returncode == 4


def test_a_killed_keeper_and_scout_that_have_successors_are_no_reason_to_start_anew(
    project: Project, start: Start
) -> None:
    pool = start()
    for kind in ("keeper", "scout"):
        os.kill(pool.child(kind), signal.SIGKILL)
        pool.await_event("child.started", 2, kind=kind)
    assert live(pool) == 0


def test_workers_that_do_not_start_are_told_within_the_ttl_and_ten_seconds(
    project: Project, start: Start
) -> None:
    project.edit(
        "conf/settings.py",
        '"""Two',
        'import sys, time\nif "maildefer.pool.worker.worker" in sys.modules: time.sleep(600)\n"""Two',
    )
    pool = start(ready=False)
    eventually(pool.status, "the supervisor is up")
    eventually(lambda: health.why_dead(pool.status()), "that none is up", 2 * TTL_SECONDS + 10)
    told = answered(pool, "probe", "--live")
    assert (told.returncode, "it has had no worker that was up" in told.stderr) == (1, True)


def test_neither_a_long_handler_nor_a_pause_is_a_death(project: Project, start: Start) -> None:
    pool = start(workers=1)
    project.push("wait")
    eventually(lambda: project.notes("start"), "the handler begins")
    pool.signal(signal.SIGTSTP)
    pool.await_event("pool.paused")
    eventually(lambda: pool.status()["up_seconds"] > TTL_SECONDS + 6, "as long as a death would take")
    assert (live(pool), ready(pool)) == (0, 1)
    assert answered(pool, "status").returncode == 0, "a pause is somebody's will"
    project.go()


def test_a_pool_is_not_ready_while_paused_refused_or_not_joined(project: Project, start: Start) -> None:
    pool = start(workers=1)
    assert ready(pool) == 0
    maildefer(pool, "pause", "run/later")
    eventually(lambda: health.why_unready(pool.status()), "the pause is heeded")
    assert "run/later" in answered(pool, "probe", "--ready").stderr
    maildefer(pool, "resume", "run/later")
    eventually(lambda: not health.why_unready(pool.status()), "it goes on")
    assert ready(pool) == 0

    project.edit("workers/front.py", "def HANDLE(", "def HANDLE((")
    assert maildefer(pool, "reload").returncode == 78
    assert ready(pool) == 1
    told = answered(pool, "status")
    assert (told.returncode, "the last reload was refused" in told.stderr) == (4, True)
    project.edit("workers/front.py", "def HANDLE((", "def HANDLE(")
    assert maildefer(pool, "reload").returncode == 0
    assert ready(pool) == 0

    away = project.path / "away"
    os.rename(project.layouts["run/later"].path, away)
    eventually(lambda: health.why_unready(pool.status()), "it has no lease there")
    assert ready(pool) == 1
    os.rename(away, project.layouts["run/later"].path)
    eventually(lambda: not health.why_unready(pool.status()), "it joins anew")


def test_status_shows_what_the_keeper_fails_in(project: Project, start: Start) -> None:
    pool = start(workers=1)
    status = project.queue.status
    os.rename(status, f"{status}.away")
    Path(status).touch()  # a file in the folder's place
    eventually(lambda: health.why_degraded(pool.status()), "the chore fails")
    told = answered(pool, "status")
    assert (told.returncode, "the keeper's chore `status` fails" in told.stderr) == (4, True)
    os.unlink(status)
    os.rename(f"{status}.away", status)
    eventually(lambda: not health.why_degraded(pool.status()), "it is done again")
    assert answered(pool, "status").returncode == 0


def test_status_shows_no_other_projects_processes(project: Project, start: Start, tmp_path: Path) -> None:
    pool = start(workers=1)
    other = Project(tmp_path / "other")
    second = Pool(other, workers=1)
    second.runtime, second.environ = pool.runtime, pool.environ  # one host
    second.start()
    eventually(lambda: second.status().get("workers"), "the other pool is up")
    try:
        for mine in (pool, second):
            told = [json.loads(line) for line in answered(mine, "status", "--json").stdout.splitlines()]
            assert [one["pid"] for one in told if one["kind"] == "supervise"] == [mine.pid]
        told = answered(pool, "status", "--all-projects", "--json").stdout.splitlines()
        assert {json.loads(line).get("pid") for line in told} >= {pool.pid, second.pid}
    finally:
        second.kill_tree()
