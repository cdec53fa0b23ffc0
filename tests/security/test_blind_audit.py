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
from maildefer.control.audit import audit as control_audit
from maildefer.doctor.examine import examine
from maildefer.doctor.findings import Finding
from maildefer.errors import MaildeferError
from maildefer.maildir import journal
from maildefer.maildir.claims import Claimer
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.operator import record_keeping
from maildefer.maildir.push import Pusher
from maildefer.maildir.rights.sharing import FrontEndAccount, share_queue
from tests.support.other_users import as_user
from tests.support.queues import DATA, LABEL, FakeSlots

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
    record_keeping.expect_records(layout)
    share_queue(layout.path, FrontEndAccount(user=FRONT, group=GROUP))
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


@pytest.mark.slow
def test_pushes_without_a_record_are_told_once_and_keep_an_audit_from_being_content(queue: Layout) -> None:
    told = Path(queue.path).parent / "told"
    push(queue, told, 3)
    lines = told.read_text().splitlines()
    assert len(lines) == 1, lines
    assert "event=journal.failed" in lines[0]
    assert "Permission denied" in lines[0]
    for key in os.listdir(queue.new):
        claim = Claimer(queue, FakeSlots(), lease=LEASE, host=LABEL).claim(key)
        assert claim is not None
        claim.ack()
    command = [sys.executable, "-m", "maildefer", "audit", queue.path, "--patience", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1, ended
    assert ended.stdout.count("unrecorded  ") == 3, ended
    assert "3 pushes left no record, so the audit is blind" in ended.stderr


@pytest.mark.slow
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


@pytest.fixture(params=[0o2770, pytest.param(0o700, marks=pytest.mark.slow)])
def owned(request: pytest.FixtureRequest) -> Iterator[Layout]:
    """A queue of a user's, that no front end shares."""
    place = Path(tempfile.mkdtemp(prefix="maildefer-", dir="/tmp"))
    place.chmod(0o755)
    layout = create_queue(str(place / "queue"))
    for folder, _, files in os.walk(layout.path):
        os.chown(folder, FRONT, GROUP)
        os.chmod(folder, request.param)
        for file in files:
            os.chown(f"{folder}/{file}", FRONT, GROUP)
            os.chmod(f"{folder}/{file}", 0o660)
    yield layout
    journal.close_journals()
    shutil.rmtree(place)


def audit(queue: Layout, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "maildefer", "audit", queue.path, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, umask=0o022)


def handle(queue: Layout) -> None:
    """As the queue's owner, a push and its end."""

    def act() -> None:
        journal.close_journals()
        key = Pusher(queue, host=LABEL).push(lambda stem: [DATA])
        claim = Claimer(queue, FakeSlots(), lease=LEASE, host=LABEL).claim(key)
        assert claim is not None
        claim.ack()

    as_user(FRONT, GROUP, act)


def of_journal(queue: Layout) -> tuple[int, int, int]:
    facts = os.stat(queue.journal)
    return facts.st_uid, facts.st_gid, facts.st_mode & 0o7777


def journal_finding(queue: Layout) -> Finding:
    (found,) = [one for one in examine(queue.path, races=0) if one.check == "journal"]
    return found


@pytest.mark.slow
def test_a_journal_that_root_begins_is_the_queues_owners(owned: Layout) -> None:
    assert audit(owned, "--on").returncode == 0
    assert of_journal(owned) == (FRONT, GROUP, os.stat(owned.new).st_mode & 0o7777)
    handle(owned)
    ended = audit(owned)
    assert ended.returncode == 0, ended
    assert "1  accepted" in ended.stdout
    assert journal_finding(owned).verdict == "ok"


@pytest.mark.slow
def test_a_journal_that_is_shut_for_who_owns_the_queue_is_told_and_mended_by_a_second_beginning(
    owned: Layout,
) -> None:
    assert audit(owned, "--on").returncode == 0
    os.chown(owned.journal, 0, 0)
    os.chmod(owned.journal, 0o750)
    handle(owned)
    blind = audit(owned)
    assert blind.returncode == 1, blind
    assert (
        f"blind: {owned.path}: user {FRONT}, who owns the queue, may not write to .maildefer/journal/"
        in blind.stderr
    )
    found = journal_finding(owned)
    assert (found.verdict, str(FRONT) in found.fact) == ("warn", True)
    assert audit(owned, "--on").returncode == 0
    assert of_journal(owned) == (FRONT, GROUP, os.stat(owned.new).st_mode & 0o7777)
    handle(owned)
    assert audit(owned).returncode == 0
    assert journal_finding(owned).verdict == "ok"


@pytest.mark.slow
def test_what_was_handled_while_its_end_could_not_be_recorded_is_not_called_lost(owned: Layout) -> None:
    assert audit(owned, "--on").returncode == 0
    key = Pusher(owned, host=LABEL).push(lambda stem: [DATA])
    os.unlink(f"{owned.new}/{key}")
    os.chown(owned.journal, 0, 0)
    os.chmod(owned.journal, 0o700)
    ended = audit(owned, "--patience", "0")
    assert ended.returncode == 1
    assert ended.stdout.startswith(f"unproven  {key}")


def test_records_that_root_leaves_can_be_read_by_who_owns_the_queue(owned: Layout) -> None:
    assert audit(owned, "--on").returncode == 0
    mask = os.umask(0o077)
    try:
        journal.close_journals()
        Pusher(owned, host=LABEL).push(lambda stem: [DATA])
    finally:
        os.umask(mask)
    as_user(
        FRONT, GROUP, lambda: [Path(owned.journal, name).read_bytes() for name in os.listdir(owned.journal)]
    )


def test_a_journal_is_given_away_through_no_link(owned: Layout) -> None:
    elsewhere = Path(owned.path).parent / "elsewhere"
    elsewhere.mkdir()
    os.rmdir(owned.journal)
    os.symlink(elsewhere, owned.journal)
    assert audit(owned, "--on").returncode == 1
    assert elsewhere.stat().st_uid == 0


@pytest.mark.slow
def test_a_user_who_may_not_read_the_journal_is_told_what_to_do(owned: Layout) -> None:
    assert audit(owned, "--on").returncode == 0
    os.chown(owned.journal, 0, 0)
    os.chmod(owned.journal, 0o700)

    def act() -> None:
        with pytest.raises(MaildeferError, match="can't be read by this user, so nothing can be proven"):
            control_audit([owned.path])

    as_user(FRONT, GROUP, act)
