"""The issue's scripted run: `maildefer stop --all run/` under load, for this host's pool and another's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.lifecycle.conftest import Start
from tests.lifecycle.machines import machine
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import Project, eventually

pytestmark = pytest.mark.lifecycle


@pytest.mark.slow
def test_stop_all_under_load_finishes_or_releases_everything_in_flight(
    project: Project, start: Start
) -> None:
    here = start(host="a", workers=3, settings={"drain_seconds": 1.5})
    there = start(host="b", workers=3, settings={"drain_seconds": 1.5})
    pushed: set[str] = set()
    for _ in range(25):
        pushed.update(project.push("sleep0.02", 8), project.push("sleep0.4", 1))
    hanging = set(project.push("hang", 2))
    pushed |= hanging
    eventually(lambda: hanging <= project.starts().keys(), "both hosts are under way, and two handlers hang")
    done = stop_all(here)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project.leases(), project.names("cur")) == ([], []), "it waited for both"
    assert (here.wait(), there.wait()) == (0, 0)
    assert here.pidfile in done.stdout
    assert there.pidfile in done.stdout

    started, ended = project.starts(), {note.key for note in project.notes("end")}
    left = {entry.key: entry for entry in project.names("new")}
    assert left.keys() | ended == pushed, "nothing is lost"
    assert left.keys() & ended == set(), "whose handler ended within the drain's time is not there any more"
    assert hanging <= left.keys()
    assert set(started.values()) == {1}, "nothing was handled twice"
    assert {(entry.attempts, entry.crashes) for entry in left.values()} == {(0, 0)}, "nobody was charged"


def test_a_cloned_machines_living_pool_is_stopped_and_not_taken_for_ended(
    project: Project, start: Start
) -> None:
    """Asked from a clone that was booted after it was started, so that its pid file may be the clone's own."""
    pool = start(host="a", host_id="clone", environ=machine(project, "first"))
    done = stop_all(pool, machine(project, "second", 1.0))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "or a clone) was asked to stop process" in done.stdout
    assert pool.wait() == 0


def test_one_that_does_not_answer_keeps_its_pid_file_and_the_command_fails(
    project: Project, start: Start
) -> None:
    pool = start(host="a", host_id="clone", environ=machine(project, "first"))
    pool.signal(signal.SIGSTOP)
    done = stop_all(pool, machine(project, "second", 1.0), "--timeout", "2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "has not stopped process" in done.stdout
    assert os.path.exists(pool.pidfile)
    pool.signal(signal.SIGCONT)


def stop_all(
    pool: Pool, environ: Mapping[str, str] | None = None, *options: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "maildefer.cli", "stop", "--all", "run/", *options],
        cwd=pool.project.path,
        env={**pool.environ, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
