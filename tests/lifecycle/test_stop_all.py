"""The issue's scripted run: `maildefer stop --all run/` under load, for this host's pool and another's."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import Project, eventually

pytestmark = [pytest.mark.lifecycle, pytest.mark.slow]


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
    assert (here.wait(1), there.wait(1)) == (0, 0), "it waited for both"
    assert here.pidfile in done.stdout
    assert there.pidfile in done.stdout

    started, ended = project.starts(), {note.key for note in project.notes("end")}
    left = {entry.key: entry for entry in project.names("new")}
    assert project.names("cur") == []
    assert project.leases() == []
    assert left.keys() | ended == pushed, "nothing is lost"
    assert left.keys() & ended == set(), "whose handler ended within the drain's time is not there any more"
    assert hanging <= left.keys()
    assert set(started.values()) == {1}, "nothing was handled twice"
    assert {(entry.attempts, entry.crashes) for entry in left.values()} == {(0, 0)}, "nobody was charged"


def stop_all(pool: Pool) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "maildefer.cli", "stop", "--all", "run/"],
        cwd=pool.project.path,
        env=pool.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
