"""Who may do what: each user tries everything with all that lies in a queue, and does what the page says it can."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from maildefer.control.requests import file_request
from maildefer.errors import LeaseFenced, PermissionRefused
from maildefer.handling.state.directory import DirectoryStorage
from maildefer.handling.tasks import signature
from maildefer.maildir import journal
from maildefer.maildir.claims import Claim, Claimer
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.operator.pause_mark import pause_queue
from maildefer.maildir.push import Pusher
from maildefer.maildir.upkeep.leases import Lease
from maildefer.message.envelope import split
from tests.support.other_users import as_user, told_by
from tests.support.queues import LABEL, FakeSlots, holder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, and users who are not")
WORKERS, FRONT, MEMBER, GROUP, OTHER = 61_001, 61_002, 61_011, 61_003, 61_041  # nobody's
LEASE: Final = f"{LABEL}-17-abcdef012345"
SHARED_BY_A_GROUP: Final = 0o2770
READABLE: Final = {"tmp", "new", ".maildefer/format", ".maildefer/idempotency"}
PUT_IN: Final = {"tmp", "new", ".maildefer/journal", ".maildefer/idempotency"}
FORGED: Final = b"Return-Path: <root@example.org>\nDelivered-To: post@osb.example\n\nPay at once.\n"


@pytest.fixture
def place() -> Iterator[Path]:
    """The workers' user's, where others may go."""
    place = Path(tempfile.mkdtemp(prefix="maildefer-", dir="/tmp"))
    place.chmod(0o755)
    os.chown(place, WORKERS, GROUP)
    before = os.umask(0o007)  # as the units have it
    yield place
    os.umask(before)
    journal.close_journals()
    shutil.rmtree(place)


@pytest.fixture
def queue(place: Path) -> Layout:
    """The workers' user's, with something of each kind in it, which nobody else was given rights to."""

    def make() -> None:
        layout = create_queue(f"{place}/queue")
        journal.begin_journal(layout)
        fill(layout)
        signature.ensure_secret(layout.path)

    as_user(WORKERS, GROUP, make)
    return Layout(f"{place}/queue")


def fill(layout: Layout) -> None:
    """Entries that wait, are claimed, deferred and dead, a lease, records, and what commands and handlers leave."""
    Lease.join(layout, f"{LEASE}{len(os.listdir(layout.leases))}", holder())
    for deal in (Claim.ack, lambda claim: claim.defer(3600), lambda claim: claim.bury("no route"), None):
        push(layout)
        claim = claimed(layout)
        if deal is not None:
            deal(claim)
    push(layout)
    pause_queue(layout, user="ann", host=LABEL)
    file_request(layout.path, LEASE, "stop")
    DirectoryStorage(layout.states).set("key", "ann@example.org", "START")


@pytest.fixture
def shared(queue: Layout) -> Layout:
    """The same, shared with a front end, which has stored something, and used on after that."""
    command = [sys.executable, "-m", "maildefer", "permissions", queue.path, "--apply"]
    subprocess.run([*command, "--user", str(FRONT), "--group", str(GROUP)], check=True, timeout=60)
    as_user(WORKERS, GROUP, lambda: fill(queue))
    as_user(FRONT, GROUP, lambda: (push(queue), Path(queue.tmp, "a-draft").touch(0o640)))
    return queue


def push(layout: Layout, text: bytes = b"Subject: hello\n\nhello\n") -> str:
    journal.close_journals()
    return Pusher(layout, host=LABEL).push(lambda stem: [text])


def claimed(layout: Layout) -> Claim:
    """The newest."""
    claim = Claimer(layout, FakeSlots(), lease=LEASE, host=LABEL).claim(max(os.listdir(layout.new)))
    assert claim is not None
    return claim


def lead_to(folder: Path, *paths: str) -> None:
    """Put a link to it in the place of each."""
    for path in paths:
        os.rename(path, f"{path}.aside")
        os.symlink(folder, path)


def everything(layout: Layout) -> dict[str, os.stat_result]:
    """By paths below the queue, each with whose it is; the queue itself is `.`."""
    found = {}
    for folder, _, files in os.walk(layout.path):
        for path in (folder, *(f"{folder}/{file}" for file in files)):
            found[os.path.relpath(path, layout.path)] = os.lstat(path)
    return found


def files_of(layout: Layout, user: int) -> set[str]:
    return {
        path
        for path, facts in everything(layout).items()
        if facts.st_uid == user and not os.path.isdir(f"{layout.path}/{path}")
    }


def what_may(uid: int, gid: int, layout: Layout) -> dict[str, set[str]]:
    """By doing it to each thing there, and undoing it: which of them."""
    paths = {path: os.path.isdir(f"{layout.path}/{path}") for path in everything(layout)}

    def tell() -> dict[str, list[str]]:
        os.chdir("/")
        return {
            act.__name__: [path for path, is_folder in paths.items() if is_done(act, path, is_folder)]
            for act in (read, change, remove, put_in)
        }

    def is_done(act: Callable[[str, bool], object], path: str, is_folder: bool) -> bool:
        try:
            act(f"{layout.path}/{path}", is_folder)
        except OSError:
            return False
        return True

    told = told_by(uid, gid, tell)
    return {act: set(done) for act, done in told.items()}


def read(path: str, is_folder: bool) -> None:
    os.close(os.open(path, os.O_RDONLY))


def change(path: str, is_folder: bool) -> None:
    """A file's bytes, a folder's mode."""
    if is_folder:
        os.chmod(path, os.stat(path).st_mode & 0o7777)
    else:
        os.close(os.open(path, os.O_WRONLY))


def remove(path: str, is_folder: bool) -> None:
    """By a rename, which needs the same rights."""
    os.rename(path, f"{path}.moved")
    os.rename(f"{path}.moved", path)


def put_in(path: str, is_folder: bool) -> None:
    os.close(os.open(f"{path}/trial", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    os.unlink(f"{path}/trial")


def test_a_broken_front_end_may_nothing_with_what_it_has_not_stored_itself(shared: Layout) -> None:
    own = files_of(shared, FRONT)
    assert len(own) == 3, "an entry, a draft, records"
    assert what_may(FRONT, GROUP, shared) == {
        "read": {*own, *READABLE},
        "change": own,
        "remove": own,
        "put_in": PUT_IN,
    }


def test_another_member_of_the_front_ends_group_reads_what_that_has_stored_and_changes_nothing(
    shared: Layout,
) -> None:
    stored = {path for path in files_of(shared, FRONT) if not path.startswith(".maildefer")}
    may = what_may(MEMBER, GROUP, shared)
    assert may["read"] - files_of(shared, FRONT) == READABLE
    assert may["read"] >= stored
    assert may["change"] == may["remove"] == set()
    assert may["put_in"] == PUT_IN


@pytest.mark.slow
def test_a_broken_front_end_sends_as_anybody(shared: Layout) -> None:
    as_user(FRONT, GROUP, lambda: push(shared, FORGED))
    newest = Path(shared.new, max(os.listdir(shared.new)))
    envelope, _ = split(newest.read_bytes(), newest.name)
    assert envelope is not None
    assert envelope.sender == "root@example.org"


@pytest.mark.slow
def test_a_broken_front_end_changes_what_it_has_stored_even_while_that_is_handled(shared: Layout) -> None:
    """By a descriptor that it has kept: bytes are a handler's own from when it has read them."""
    (entry,) = [path for path in files_of(shared, FRONT) if path.startswith("new/")]
    kept = subprocess.Popen(
        ["/bin/sh", "-c", 'exec 3<>"$0"; echo ready; read go; printf Changed: >&3', entry],
        cwd=shared.path,
        user=FRONT,
        group=GROUP,
        extra_groups=[],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert kept.stdout is not None
    assert kept.stdout.readline() == b"ready\n"
    claim = claimed(shared)
    kept.communicate(b"go\n", timeout=30)
    assert claim.read().startswith(b"Changed:")


@pytest.mark.slow
def test_an_audit_believes_who_may_write_to_the_journal(shared: Layout) -> None:
    gone, never = min(os.listdir(shared.new)), "1700000000.M1P1Q1R1.never,S=5"
    os.unlink(f"{shared.new}/{gone}")

    def audit() -> tuple[int, list[str]]:
        command = [sys.executable, "-m", "maildefer", "audit", shared.path, "--patience", "0"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return ended.returncode, [key for key in (gone, never) if key in ended.stdout]

    assert audit() == (1, [gone]), "it was lost"
    pen = journal.Journal(shared, host="forged", boot="0")
    as_user(FRONT, GROUP, lambda: (pen.record_end("ack", gone), pen.record_pushes([never])))
    assert audit() == (1, [never]), "the false records are believed"


def test_workers_can_have_a_front_end_make_files_in_a_folder_of_its_own_and_replace_none(
    shared: Layout, place: Path
) -> None:
    """They own `tmp/` and `new/`, and may put a link there: its files' names are nobody's choice, and new."""
    folder = place / "mailfront"
    folder.mkdir(mode=0o700)
    (folder / "precious").write_text("the front end's own\n")
    os.chown(folder, FRONT, GROUP)

    as_user(WORKERS, GROUP, lambda: lead_to(folder, shared.tmp, shared.new))
    as_user(FRONT, GROUP, lambda: push(shared))
    made = set(os.listdir(folder)) - {"precious"}
    assert len(made) == 1
    assert made.pop().rpartition(",S=")[2].isdecimal()
    assert (folder / "precious").read_text() == "the front end's own\n"


def test_root_gives_away_no_file_that_workers_have_had_it_make_elsewhere(shared: Layout, place: Path) -> None:
    """What root makes in a queue that a front end shares is given to the queue's owner."""
    folder = place / "roots"
    folder.mkdir(mode=0o700)
    push(shared)
    given = Path(shared.new, max(os.listdir(shared.new))).stat()
    assert (given.st_uid, given.st_gid) == (WORKERS, GROUP)

    as_user(WORKERS, GROUP, lambda: lead_to(folder, shared.tmp, shared.new))
    pusher = Pusher(shared, host=LABEL)
    for make in (lambda: push(shared), pusher.draft):
        with pytest.raises(PermissionRefused, match="did not get the queue's group"):
            make()
    assert os.listdir(folder) == []


def test_a_broken_worker_may_everything_with_its_users_queues_and_sign_calls(queue: Layout) -> None:
    files, folders = files_of(queue, WORKERS), set(everything(queue)) - files_of(queue, WORKERS)
    assert what_may(WORKERS, GROUP, queue) == {
        "read": files | folders,
        "change": files | folders,
        "remove": files | folders - {"."},
        "put_in": folders,
    }
    secret = told_by(WORKERS, GROUP, lambda: (signature.read_secret(queue.path) or b"").hex())
    assert bytes.fromhex(secret) == signature.read_secret(queue.path)


@pytest.mark.parametrize("umask", [0o077, 0o027, 0o022, 0o007, 0o002, 0])
def test_another_local_user_may_nothing_with_a_queue_whatever_the_umask(place: Path, umask: int) -> None:
    def make() -> None:
        os.umask(umask)
        layout = create_queue(f"{place}/queue")
        push(layout)
        signature.ensure_secret(layout.path)

    as_user(WORKERS, GROUP, make)
    may = what_may(OTHER, OTHER, Layout(f"{place}/queue"))
    assert may == {"read": set(), "change": set(), "remove": set(), "put_in": set()}


def test_another_local_user_may_nothing_with_a_shared_queue(shared: Layout) -> None:
    may = what_may(OTHER, OTHER, shared)
    assert may == {"read": set(), "change": set(), "remove": set(), "put_in": set()}


def test_a_broken_worker_may_nothing_with_a_queue_of_another_user(queue: Layout, place: Path) -> None:
    folder = place / "another"
    folder.mkdir(mode=0o755)
    os.chown(folder, OTHER, OTHER)
    as_user(OTHER, OTHER, lambda: push(create_queue(f"{folder}/queue")))
    may = what_may(WORKERS, GROUP, Layout(f"{folder}/queue"))
    assert may == {"read": set(), "change": set(), "remove": set(), "put_in": set()}


@pytest.fixture
def common(queue: Layout) -> Layout:
    """A queue that the members of a group serve together."""
    for folder, _, files in os.walk(queue.path):
        os.chmod(folder, SHARED_BY_A_GROUP)
        for file in files:
            os.chmod(f"{folder}/{file}", 0o660)
    return queue


def test_a_member_of_a_group_that_serves_a_queue_together_may_everything_but_change_modes(
    common: Layout,
) -> None:
    files, folders = files_of(common, WORKERS), set(everything(common)) - files_of(common, WORKERS)
    assert what_may(MEMBER, GROUP, common) == {
        "read": files | folders,
        "change": files,
        "remove": files | folders - {"."},
        "put_in": folders,
    }


@pytest.mark.parametrize("user", [WORKERS, MEMBER])
def test_who_serves_a_queue_can_stop_and_fence_the_pools_of_all_its_hosts(common: Layout, user: int) -> None:
    lease = Lease.join(common, f"{LABEL}-18-abcdef012345", holder())
    as_user(user, GROUP, lambda: file_request(common.path, lease.name, "stop"))
    assert any(lease.name in name for name in os.listdir(common.requests))
    as_user(user, GROUP, lambda: os.rename(lease.path, f"{common.fenced}/{os.path.basename(lease.path)}"))
    with pytest.raises(LeaseFenced):
        lease.renew()


def test_root_that_claims_goes_where_a_member_has_put_a_link(common: Layout, place: Path) -> None:
    """A claim costs no look at the folders: so root should not run workers where others may write."""
    folder = place / "roots"
    folder.mkdir(mode=0o700)

    as_user(MEMBER, GROUP, lambda: lead_to(folder, common.cur))
    claimed(common)
    (moved,) = os.listdir(folder)
    assert ":1," in moved, "under a claim's name, and no other"
