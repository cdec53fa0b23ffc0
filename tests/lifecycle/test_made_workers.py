"""What a template makes of its workers before it forks them: nothing in it is of the template's own process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lifecycle.conftest import Start
from tests.lifecycle.project import APPLICATION, Project

pytestmark = pytest.mark.lifecycle

# In the template, what would give a worker something of this process fails while workers are made.
GUARD = """
import os, select, signal, sys
if "maildefer.pool.worker.run" in sys.modules:
    from maildefer.maildir.system import SYSTEM
    from maildefer.pool.worker.run import LoadedApplication

    make = LoadedApplication.make_workers

    def refuse(*given, **named):
        raise AssertionError("this is of the template's process")

    def make_guarded(self, shared):
        places = [(SYSTEM, name) for name in ("pid", "token", "open", "listdir")]
        places += [(os, name) for name in ("getpid", "open", "pipe2", "eventfd", "register_at_fork")]
        places += [(select, "epoll"), (signal, "signal")]
        before = [(place, name, getattr(place, name)) for place, name in places]
        for place, name in places:
            object.__setattr__(place, name, refuse)
        try:
            make(self, shared)
        finally:
            for kept in before:
                object.__setattr__(*kept)
        with open("made", "w") as file:
            file.write(f"{type(self.workers[0]).__name__} {len(self.workers)}")

    LoadedApplication.make_workers = make_guarded
"""


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Project:
    return Project(tmp_path, APPLICATION.parent / request.param)


@pytest.mark.parametrize(
    ("project", "kind"),
    [
        ("application", "Worker"),
        ("conversations", "Worker"),
        ("limits", "BatchWorker"),
        ("batches", "BatchWorker"),
        ("asyncs", "AsyncWorker"),
    ],
    indirect=["project"],
)
def test_a_worker_that_is_made_before_the_fork_has_nothing_of_the_process_that_makes_it(
    project: Project, start: Start, kind: str
) -> None:
    (project.path / "conf" / "guard.py").write_text(GUARD)
    with open(project.path / "conf" / "settings.py", "a") as settings:
        settings.write("\nimport conf.guard\n")
    pool = start(workers=2)
    assert (project.path / "made").read_text() == f"{kind} 4"  # two to spare
    assert pool.stop() == 0
