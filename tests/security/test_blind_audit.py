"""A journal to which who pushes may not write: the push says so, the doctor does, and the audit is not content."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from maildefer import events
from maildefer.doctor.examine import examine
from maildefer.doctor.findings import Finding
from maildefer.maildir import journal
from maildefer.maildir.claims import Claimer
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.push import Pusher
from maildefer.maildir.rights.sharing import FrontEndAccount, share
from tests.support.other_users import as_user
from tests.support.queues import DATA, LABEL, FakeHand

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, and a user who is not")
FRONT, GROUP = 61_021, 61_023  # nobody's
LEASE = f"{LABEL}-17-abcdef012345"


@pytest.fixture
def queue() -> Iterator[Layout]:
    """A queue whose tmp/ and new/ a front end may write to, and nothing else."""
    place = Path(tempfile.mkdtemp(prefix="maildefer-", dir="/tmp"))
    place.chmod(0o755)
    layout = create_queue(str(place / "queue"))
    journal.begin_journal(layout)
    journal.expect_records(layout)
    share(layout.path, FrontEndAccount(user=FRONT, group=GROUP))
    os.chmod(layout.journal, 0o2700)
    yield layout
    journal.close_journals()
    shutil.rmtree(place)


def push(queue: Layout, told: Path, count: int) -> None:
    """As the front end does, so many, in one process; what it tells is written there."""

    def act() -> None:
        os.dup2(os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        journal.report_with(events.emit)
        journal.close_journals()
        pusher = Pusher(queue, host=LABEL)
        for _ in range(count):
            pusher.push(lambda stem: [DATA])

    told.touch()
    told.chmod(0o666)
    as_user(FRONT, GROUP, act)


def test_pushes_without_a_record_are_told_once_and_keep_an_audit_from_being_content(queue: Layout) -> None:
    told = Path(queue.path).parent / "told"
    push(queue, told, 3)
    lines = told.read_text().splitlines()
    assert len(lines) == 1, lines
    assert "event=journal.failed" in lines[0]
    assert "Permission denied" in lines[0]
    for key in os.listdir(queue.new):
        claim = Claimer(queue, FakeHand(), lease=LEASE, host=LABEL).claim(key)
        assert claim is not None
        claim.ack()
    command = [sys.executable, "-m", "maildefer", "audit", queue.path, "--patience", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1, ended
    assert ended.stdout.count("unrecorded  ") == 3, ended
    assert "3 pushes left no record, so the audit is blind" in ended.stderr


def test_the_doctor_tells_who_leaves_no_records(queue: Layout) -> None:
    refused = of_the_front_end(queue)
    assert refused.verdict == "refuse"
    assert "may not leave records in .maildefer/journal/" in refused.fact
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(refused.remedy, shell=True, check=True, env=environ)
    assert of_the_front_end(queue).verdict == "ok"


def of_the_front_end(queue: Layout) -> Finding:
    found = examine(queue.path, races=0, user=str(FRONT), group=str(GROUP))
    return next(one for one in found if one.check == "front end")


def test_the_doctor_tells_a_user_of_the_queue_who_leaves_no_records(queue: Layout) -> None:
    for folder, _, _ in os.walk(queue.path):
        os.chmod(folder, 0o2770)
    os.chmod(queue.journal, 0o2750)

    examine(queue.path, races=0)  # which loads what that user could not

    def act() -> None:
        os.environ["MAILDEFER_RUNTIME_DIR"] = f"{queue.tmp}/runtime"
        (found,) = [one for one in examine(queue.path, races=0) if one.check == "journal"]
        assert found.verdict == "warn", found

    as_user(FRONT, GROUP, act)
