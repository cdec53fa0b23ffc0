"""What root puts into another user's queue, by hand or by cron, is that user's to handle; a link makes it no more."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from maildefer.errors import MaildeferError
from maildefer.maildir import journal
from maildefer.maildir.claims import Claimer
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.operator import entries, pause_mark
from maildefer.queue import Queue
from tests.support.other_users import as_user
from tests.support.queues import DATA, LABEL, FakeSlots

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for other users")
USER = pwd.getpwnam("nobody")


@pytest.fixture
def queue() -> Iterator[Layout]:
    """Another user's, as an ordinary umask leaves it."""
    place = tempfile.mkdtemp(prefix="maildefer-", dir="/tmp")
    os.chmod(place, 0o755)
    (Path(place) / "run").mkdir()
    os.chown(f"{place}/run", USER.pw_uid, USER.pw_gid)
    path = f"{place}/run/queue"
    as_user(USER.pw_uid, USER.pw_gid, lambda: os.umask(0o022) and create_queue(path))
    yield Layout(path)
    journal.close_journals()
    shutil.rmtree(place)


def foreign(queue: Layout) -> list[str]:
    """What is not the queue's owner's, or not its group's."""
    return [
        path
        for folder, _, files in os.walk(queue.path)
        for path in (folder, *(f"{folder}/{name}" for name in files))
        if (os.lstat(path).st_uid, os.lstat(path).st_gid) != (USER.pw_uid, USER.pw_gid)
    ]


def test_what_root_pushes_is_handled_by_the_queues_owner(queue: Layout) -> None:
    pushed = Queue(queue.path)
    keys = [pushed.push(DATA), pushed.push(DATA, unique="order-17")]
    pushed.push(DATA, after=3600)
    assert foreign(queue) == []

    def handle() -> None:
        claimer = Claimer(queue, FakeSlots(), lease=f"{LABEL}-17-abcdef012345", host=LABEL)
        for key in keys:
            claim = claimer.claim(key)
            assert claim is not None
            assert DATA in claim.read()
            claim.ack()
        assert not os.listdir(queue.new)

    as_user(USER.pw_uid, USER.pw_gid, handle)
    assert pushed.push(DATA, unique="order-17").is_new  # type: ignore[attr-defined]


def test_what_else_root_makes_there_is_the_owners_too(queue: Layout) -> None:
    key = Queue(queue.path).push(DATA)
    pause_mark.pause_queue(queue, user="root", host="h")
    entries.delete(queue, entries.find(queue, key))
    shutil.rmtree(queue.later_new)
    Queue(queue.path).push(DATA, after=3600)
    assert foreign(queue) == []


def test_a_link_in_a_folders_place_gets_root_to_give_nothing_away(queue: Layout) -> None:
    elsewhere = Path(queue.path).parent.parent / "roots"
    elsewhere.mkdir(mode=0o755)
    os.rmdir(queue.tmp)
    os.symlink(elsewhere, queue.tmp)
    with pytest.raises(MaildeferError):
        Queue(queue.path).push(DATA)
    assert list(elsewhere.iterdir()) == []


def test_a_queue_that_becomes_a_link_after_it_was_opened_gets_nothing_given_away(queue: Layout) -> None:
    pushing = Queue(queue.path)
    pushing.push(DATA)
    roots = create_queue(str(Path(queue.path).parent.parent / "roots"))
    os.rename(queue.path, f"{queue.path}-aside")
    os.symlink(roots.path, queue.path)
    with pytest.raises(MaildeferError):
        pushing.push(DATA)
    assert os.listdir(roots.new) == os.listdir(roots.tmp) == []
