"""A pool whose handlers send: each recipient has one entry, whatever their workers die of."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from maildefer.maildir import journal
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import APPLICATION, Project, eventually

pytestmark = pytest.mark.lifecycle

RECIPIENTS = ("a", "b", "c", "task")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    sending = APPLICATION.parent / "sending"
    return Project(tmp_path, sending, queues=("run/queue", "run/outgoing"), journal=True)


def is_killed(pool: Pool) -> bool:
    """Whether some worker was still there to be killed: some end by themselves here."""
    for pid in pool.worker_pids():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def test_what_handlers_have_sent_is_there_once_for_each_message_and_recipient(
    project: Project, start: Start
) -> None:
    """Plain and async handlers; some defer after they have sent, some kill their worker, and so does the test."""
    kinds = {
        f"{how}-{what}": 8 if what == "go" else 3
        for how in ("sync", "async")
        for what in ("go", "defer", "kill")
    }
    keys = [key for what, count in kinds.items() for key in project.push(what, count)]
    pool = start(workers=2)
    for ended in (4, 12, 20):
        eventually(lambda: len(project.notes("end")) >= ended, f"{ended} have ended")  # noqa: B023
        eventually(lambda: is_killed(pool), "a worker is killed")
    eventually(project.is_empty, "everything is handled")
    rows = {tuple(line.split()) for line in (project.path / "sent").read_text().splitlines()}
    entries = Counter((source, who) for _, source, who in rows)
    assert entries == Counter({(key, who): 1 for key in keys for who in RECIPIENTS})
    assert max(project.starts().values()) > 1
    pool.signal(signal.SIGTERM)
    assert pool.wait() == 0
    journal.close_journals()
