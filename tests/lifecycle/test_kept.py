"""What a pool's handlers have acked is kept, and replayed by a command."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from maildefer.maildir import journal
from maildefer.maildir.names import EntryName
from tests.lifecycle.commands import maildefer
from tests.lifecycle.conftest import Start
from tests.lifecycle.project import APPLICATION, Project, eventually

pytestmark = pytest.mark.lifecycle


@pytest.fixture(params=["application", "asyncs", "batches"])
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Project]:
    """With plain handlers, async ones and batches; all that they ack is kept."""
    made = Project(tmp_path, APPLICATION.parent / request.param, journal=True)
    with open(tmp_path / "conf" / "settings.py", "a") as settings:
        settings.write('\nkeep = {"run/queue": "7d"}\n')
    yield made
    journal.close_journals()


def kept(project: Project) -> dict[str, EntryName]:
    folder = project.queue.done_new
    found = [EntryName.parse(name) for name in os.listdir(folder)] if os.path.isdir(folder) else []
    return {entry.key: entry for entry in found}


def test_it_is_handled_again_and_stays(project: Project, start: Start) -> None:
    pool = start(workers=2)
    keys = project.push("quick", 3)
    project.go()
    eventually(lambda: set(keys) <= kept(project).keys(), "all are kept")
    assert {round((entry.due or 0) - time.time(), -4) for entry in kept(project).values()} == {
        600_000  # 7 days
    }
    replayed = maildefer(pool, "replay", "run/queue", "--since", "1h")
    told = dict(line.split("  ") for line in replayed.stdout.splitlines())
    assert set(told) == set(keys), replayed.stderr
    eventually(lambda: set(told.values()) <= kept(project).keys(), "the replays are handled, and kept")
    assert set(keys) <= kept(project).keys()
    assert project.is_empty()
    explained = maildefer(pool, "explain", told[keys[0]]).stdout
    assert "replay_of=" + keys[0] in explained
    assert "ended, and kept until" in explained
