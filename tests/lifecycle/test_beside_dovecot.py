"""A pool on a queue that Dovecot takes for a user's Maildir, with all that it keeps there for itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from maildefer.maildir import journal
from maildefer.maildir.layout import Layout
from tests.lifecycle.conftest import Start
from tests.lifecycle.project import Project, eventually
from tests.support import dovecot
from tests.support.front_end import ROOT
from tests.support.other_users import give_to_nobody

pytestmark = pytest.mark.lifecycle
MESSAGES = 10  # of each kind


@pytest.fixture
def home() -> Iterator[Path]:
    with dovecot.home() as folder:
        yield folder


@pytest.fixture
def project(home: Path) -> Iterator[Project]:
    """Where Dovecot gets at it."""
    made = Project(home / "project", journal=True)
    give_to_nobody(home / "project/run")
    yield made
    journal.close_journals()


@pytest.fixture
def server(home: Path, project: Project) -> Iterator[dovecot.Dovecot]:
    settings = f"mail_path = {project.queue.path}\n" + dovecot.USERS % "{home}"
    with dovecot.running(home, settings) as running:
        yield running


def dovecots_own(queue: Layout) -> set[str]:
    """What there is in it that is neither maildefer's nor a message."""
    return {
        str(path.relative_to(queue.path)) for path in Path(queue.path).rglob("*") if "dovecot" in path.name
    }


def test_both_use_it_and_neither_minds_what_the_other_keeps_there(
    project: Project, server: dovecot.Dovecot, start: Start
) -> None:
    server.send("quick@test")  # Dovecot comes first
    kept = dovecots_own(project.queue)
    assert {"dovecot-uidlist", "dovecot.index.log", ".dead/dovecot-uidlist"} <= kept
    pool = start()
    for what in ("quick@test", "reject@test", "defer900@test") * MESSAGES:
        server.send(what)
    eventually(lambda: len(project.names("later_new")) == MESSAGES, "some are deferred")
    eventually(lambda: len(project.names("dead_new")) == MESSAGES, "some are buried")
    eventually(lambda: len(project.notes("end")) == 1 + MESSAGES, "the others are handled")
    eventually(lambda: not project.names("new") + project.names("cur"), "and settled")
    assert set(project.starts().values()) == {1}
    server.send("quick@test")  # its index lists what has gone
    eventually(lambda: len(project.notes("end")) == 2 + MESSAGES, "it is handled too")
    assert dovecots_own(project.queue) >= kept
    assert server.complaints() == []
    assert pool.stop() == 0


def test_the_doctor_finds_nothing_wrong_with_it(project: Project, server: dovecot.Dovecot) -> None:
    def findings() -> list[str]:
        said = subprocess.run(
            [sys.executable, "-m", "maildefer", "doctor", project.queue.path],
            cwd=project.path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return [re.sub(r"[\d.]+", "", line) for line in said.stdout.splitlines()]

    before = findings()
    server.send("quick@test")
    assert dovecots_own(project.queue)
    assert findings() == before
