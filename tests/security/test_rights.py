"""A queue that `maildefer permissions` shares with a front end of another user: what that may do, and may not."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock

from maildefer.doctor.examine import examine, examine_at_join
from maildefer.doctor.findings import Finding
from maildefer.errors import ConfigurationError, NotAQueue
from maildefer.handling.tasks import signature
from maildefer.maildir import journal, names, reasons
from maildefer.maildir.claims import Claimer
from maildefer.maildir.layout import Layout, create_queue, mend, open_queue
from maildefer.maildir.names import EntryName
from maildefer.maildir.operator import pause_mark, record_keeping, schedule
from maildefer.maildir.push import Planned, Pusher
from maildefer.maildir.rights import sharing
from maildefer.maildir.rights.modes import FOLDER_MODES
from maildefer.maildir.rights.sharing import FrontEndAccount, share_queue
from maildefer.maildir.upkeep.leases import Lease, fence
from maildefer.maildir.upkeep.tokens import Tokens
from tests.sampling import one_fast
from tests.support.front_end import ROOT
from tests.support.front_end_security import AttackedFrontEnd
from tests.support.other_users import ACCOUNTS_LOCK, Accounts, accounts, administer, become
from tests.support.queues import DATA, LABEL, FakeSlots, holder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make users")
LEASE = f"{LABEL}-17-abcdef012345"


@pytest.fixture(scope="module")
def users() -> Iterator[Accounts]:
    with accounts() as made:
        yield made


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where other users may go."""
    place = Path(tempfile.mkdtemp(prefix="maildefer-", dir="/tmp"))
    place.chmod(0o755)
    monkeypatch.setenv("MAILDEFER_RUNTIME_DIR", str(place / "runtime"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    yield place
    journal.close_journals()
    shutil.rmtree(place)


@pytest.fixture
def queue(place: Path, users: Accounts) -> Layout:
    """The workers' user's, with one of everything in it, made with an ordinary umask before it was shared."""
    (place / "run").mkdir()
    os.chown(place / "run", users.worker.pw_uid, users.worker.pw_gid)
    path = str(place / "run" / "queue")

    def make() -> None:
        os.umask(0o002)
        layout = create_queue(path)
        journal.begin_journal(layout)
        signature.ensure_secret(path)
        Pusher(layout, host=LABEL).push(lambda stem: [DATA])
        claim = Claimer(layout, FakeSlots(), lease=LEASE, host=LABEL).claim(os.listdir(layout.new)[0])
        assert claim is not None
        claim.bury("no route")
        Pusher(layout, host=LABEL).push(lambda stem: [DATA])
        Lease.join(layout, LEASE, holder())

    become(users.worker, make)
    share_queue(path, front_end(users))
    return Layout(path)


def front_end(users: Accounts) -> FrontEndAccount:
    return FrontEndAccount(user=users.front.pw_uid, group=users.gid)


def tree(path: str) -> dict[str, tuple[int, int, int]]:
    found = {}
    for folder, _, files in os.walk(path):
        for each in (folder, *(f"{folder}/{name}" for name in files)):
            facts = os.lstat(each)
            found[os.path.relpath(each, path)] = (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid)
    return found


def told(queue: Layout, users: Accounts) -> list[Finding]:
    found = examine(queue.path, races=0, user=users.front.pw_name, group=users.group)
    return [one for one in found if one.check == "front end"]


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def write(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY))


def make(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))


def waiting(queue: Layout) -> str:
    (key,) = os.listdir(queue.new)
    return f"{queue.new}/{key}"


ATTEMPTS: dict[str, Callable[[Layout], object]] = {
    "list the queue": lambda queue: os.listdir(queue.path),
    "read the secret of tasks": lambda queue: signature.read_secret(queue.path),
    "write to the secret of tasks": lambda queue: write(f"{queue.control}/task-key"),
    "replace the secret of tasks": lambda queue: os.unlink(f"{queue.control}/task-key"),
    "make another secret": lambda queue: make(f"{queue.control}/task-key.1"),
    "list dead letters": lambda queue: os.listdir(queue.dead_new),
    "list deferred entries": lambda queue: os.listdir(queue.later_new),
    "list claims": lambda queue: os.listdir(queue.cur),
    "put an entry into cur": lambda queue: make(f"{queue.cur}/1.x"),
    "list leases": lambda queue: os.listdir(queue.leases),
    "end a lease": lambda queue: os.unlink(f"{queue.leases}/{LEASE}.0"),
    "list reasons": lambda queue: os.listdir(queue.reasons),
    "list tokens": lambda queue: os.listdir(queue.tokens),
    "list states": lambda queue: os.listdir(queue.states),
    "file a request": lambda queue: make(f"{queue.requests}/{LEASE}.stop"),
    "read a status": lambda queue: os.listdir(queue.status),
    "pause the queue": lambda queue: make(queue.paused),
    "damage the format": lambda queue: write(queue.format),
    "remove the format": lambda queue: os.unlink(queue.format),
    "list records": lambda queue: os.listdir(queue.journal),
    "read waiting mail of others": lambda queue: read(waiting(queue)),
    "write to waiting mail of others": lambda queue: write(waiting(queue)),
    "delete waiting mail of others": lambda queue: os.unlink(waiting(queue)),
    "rename waiting mail of others": lambda queue: os.rename(waiting(queue), f"{queue.new}/1.x"),
    "take waiting mail of others along": lambda queue: os.rename(waiting(queue), f"{queue.tmp}/1.x"),
    "link waiting mail of others": lambda queue: os.link(waiting(queue), f"{queue.new}/1.x"),
    "change the folder of waiting mail": lambda queue: os.chmod(queue.new, 0o777),
}


@one_fast("attempt", ATTEMPTS)
def test_a_broken_front_end_cannot(attempt: str, queue: Layout, users: Accounts) -> None:
    before = tree(queue.path)
    with pytest.raises(PermissionError):
        become(users.front, partial(ATTEMPTS[attempt], queue))
    assert tree(queue.path) == before


def test_a_broken_front_end_overwrites_no_waiting_mail_of_others(queue: Layout, users: Accounts) -> None:
    entry = waiting(queue)

    def overwrite() -> None:
        make(f"{queue.tmp}/mine")
        os.rename(f"{queue.tmp}/mine", entry)

    with pytest.raises(PermissionError):
        become(users.front, overwrite)
    assert read(entry) == DATA


def test_a_front_end_signs_no_task(queue: Layout, users: Accounts) -> None:
    """It has no secret, and where there is none yet it can't make one."""
    os.unlink(f"{queue.control}/task-key")
    with pytest.raises(Exception, match="Permission denied"):
        become(users.front, lambda: _os_error(lambda: signature.ensure_secret(queue.path)))


def _os_error(act: Callable[[], object]) -> object:
    try:
        return act()
    except Exception as fault:  # noqa: BLE001
        raise OSError(str(fault)) from None


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_a_front_end_puts_entries_in_that_the_workers_user_handles(
    queue: Layout, users: Accounts, umask: int
) -> None:
    def put_in() -> str:
        os.umask(umask)
        journal.close_journals()
        return Pusher(open_queue(queue.path), host=LABEL).push(lambda stem: [DATA])

    key = become(users.front, put_in)
    facts = os.stat(f"{queue.new}/{key}")
    assert (stat.S_IMODE(facts.st_mode), facts.st_gid) == (0o640, users.gid)

    def take_out() -> bytes:
        claim = Claimer(queue, FakeSlots(), lease=LEASE, host=LABEL).claim(key)
        assert claim is not None
        data = read(f"{queue.cur}/{claim.name}")
        claim.ack()
        return data

    assert become(users.worker, take_out) == DATA


def test_what_the_front_end_has_put_in_it_may_take_back_until_it_is_claimed(
    queue: Layout, users: Accounts
) -> None:
    def act() -> None:
        pusher = Pusher(open_queue(queue.path), host=LABEL)
        os.unlink(f"{queue.new}/{pusher.push(lambda stem: [DATA])}")

    become(users.front, act)
    key = become(users.front, lambda: Pusher(open_queue(queue.path), host=LABEL).push(lambda stem: [DATA]))

    def claim() -> str:
        taken = Claimer(queue, FakeSlots(), lease=LEASE, host=LABEL).claim(key)
        assert taken is not None
        return f"{queue.cur}/{taken.name}"

    path = become(users.worker, claim)
    with pytest.raises(PermissionError):
        become(users.front, lambda: read(path))


def test_what_the_front_end_puts_in_for_later_waits_in_new_until_a_worker_postpones_it(
    queue: Layout, users: Accounts
) -> None:
    """It may not write to `.later/`; its pushes carry the due time in their names."""

    def put_in() -> str:
        journal.close_journals()
        pusher = Pusher(open_queue(queue.path), host=LABEL)
        key = pusher.push(Planned(compose=lambda stem: [DATA], due=pusher.due(after=3600)))
        assert pusher.push(Planned(compose=lambda stem: [DATA], due=None))
        with pytest.raises(PermissionError):
            os.listdir(queue.later_new)
        return key

    key = become(users.front, put_in)
    name = names.first_name(key)
    assert name.startswith(f"{key},d=")
    assert name in os.listdir(queue.new)

    def see() -> None:
        claimer = Claimer(queue, FakeSlots(), lease=LEASE, host=LABEL)
        assert claimer.claim(name) is None

    become(users.worker, see)
    [later] = os.listdir(queue.later_new)
    entry, due = EntryName.parse(later), EntryName.parse(name).due
    assert (entry.key, entry.returns, entry.due, len(entry.unique)) == (key, 1, due, 10)
    assert name not in os.listdir(queue.new)
    assert become(users.worker, lambda: schedule.cancel(queue, key, host=LABEL))


def test_another_program_of_the_group_reads_what_waits_and_changes_nothing_of_it(
    queue: Layout, users: Accounts
) -> None:
    key = become(users.front, lambda: Pusher(open_queue(queue.path), host=LABEL).push(lambda stem: [DATA]))
    assert become(users.other, lambda: read(f"{queue.new}/{key}")) == DATA
    for act in (write, os.unlink):
        with pytest.raises(PermissionError):
            become(users.other, partial(act, f"{queue.new}/{key}"))


@pytest.mark.parametrize("who", ["worker", "root"])
@pytest.mark.slow
def test_what_the_workers_user_and_root_make_is_for_nobody_else(
    queue: Layout, users: Accounts, who: str
) -> None:
    """With a umask that would leave it to the group, and with folders that are not there."""
    for folder in (queue.fenced, queue.reasons, queue.tokens, queue.requests):
        shutil.rmtree(folder)
    shutil.rmtree(f"{queue.path}/.dead")
    shutil.rmtree(queue.journal)
    os.unlink(f"{queue.control}/task-key")

    def make_all() -> None:
        os.umask(0)
        layout = open_queue(queue.path)
        mend(layout)
        journal.close_journals()
        journal.begin_journal(layout)
        pusher = Pusher(layout, host=LABEL)
        pusher.push(lambda stem: [DATA])
        pusher.draft().close()
        signature.ensure_secret(layout.path)
        pause_mark.pause_queue(layout, user="x", host="x")
        Lease.join(layout, f"{LABEL}-18-abcdef012345", holder())
        fence(layout, f"{LABEL}-18-abcdef012345", 0)
        Tokens(layout, FakeSlots(), lease=lambda: LEASE).take_token("a conversation")
        reasons.write_reason(layout, EntryName(key="1.x"), "no route", {}, host=LABEL)

    become(users.worker if who == "worker" else pwd.getpwuid(0), make_all)
    assert share_queue(queue.path, front_end(users)) == sharing.SharingResult()
    assert [one.verdict for one in told(queue, users)] == ["ok"]
    others = [path for path, facts in tree(queue.path).items() if facts[1] != users.worker.pw_uid]
    assert [path for path in others if "/tokens/" not in path and not path.endswith("maildirfolder")] == []


@one_fast("folder", ["tmp", "new", "cur", ".maildefer", ".maildefer/leases", ".later", ".dead/new"])
def test_a_folder_that_is_made_anew_has_the_rights_of_the_one_before(
    queue: Layout, users: Accounts, folder: str
) -> None:
    before = tree(queue.path)
    shutil.rmtree(f"{queue.path}/{folder}")
    become(users.worker, lambda: create_queue(queue.path).path)
    if folder == ".maildefer":
        become(users.worker, lambda: journal.begin_journal(queue))
    after = tree(queue.path)
    assert {path: after[path] for path in FOLDER_MODES} == {path: before[path] for path in FOLDER_MODES}
    assert not after[folder][0] & 0o077 or folder in FOLDER_MODES
    assert after[".maildefer/format"] == before[".maildefer/format"]
    assert [one.verdict for one in told(queue, users)] == ["ok"]


def test_a_folder_that_has_inherited_its_rights_is_left_as_it_is(queue: Layout, users: Accounts) -> None:
    """A service may be forbidden to set such bits, by RestrictSUIDSGID=."""

    def make_anew() -> None:
        def refuse(descriptor: int, mode: int) -> None:
            raise PermissionError

        os.fchmod = refuse  # type: ignore[assignment]
        os.rmdir(queue.tokens)
        assert mend(queue)

    before = tree(queue.path)
    become(users.worker, make_anew)
    assert stat.S_IMODE(os.stat(queue.tokens).st_mode) == before[".maildefer/tokens"][0]


def test_a_front_end_that_would_make_the_queue_opens_the_one_that_is_there(
    queue: Layout, users: Accounts
) -> None:
    """As does each program that names a queue, such as a boot module."""
    before = tree(queue.path)
    assert become(users.front, lambda: create_queue(queue.path).path) == queue.path
    assert tree(queue.path) == before


def test_the_doctor_finds_a_queue_that_is_shared_as_it_should_be_fine(queue: Layout, users: Accounts) -> None:
    before = tree(queue.path)
    (found,) = told(queue, users)
    assert found.verdict == "ok", found
    assert found.fact.endswith(
        "may put entries in, leave records and read the format, and nothing else of the queue"
    )
    assert tree(queue.path) == before, "it leaves nothing behind"


@pytest.mark.slow
def test_the_doctor_tries_the_rest_where_the_owner_may_not_list_the_journal_and_its_remedy_cures(
    queue: Layout, users: Accounts
) -> None:
    os.chown(queue.journal, 0, -1)
    os.chmod(queue.journal, 0o3730)
    found = {one.fact: one.verdict for one in told(queue, users)}
    assert [found[fact] for fact in found if "may not list .maildefer/journal/: what" in fact] == ["warn"], (
        found
    )
    share_queue(queue.path, front_end(users))
    (found_then,) = told(queue, users)
    assert found_then.verdict == "ok", found_then


TOO_MUCH = {
    "task-key": (".maildefer/task-key", 0o640, "read .maildefer/task-key"),
    "format": (".maildefer/format", 0o660, "write to .maildefer/format"),
    "queue": (".", 0o3750, "list the queue's folder"),
    "queue's": (".", 0o3770, "put things into the queue's folder"),
    "control": (".maildefer", 0o2730, "put things into .maildefer/"),
    "dead": (".dead", 0o2750, "list .dead/, go into .dead/"),
    "cur": ("cur", 0o2770, "list cur/, put things into cur/, go into cur/"),
    "leases": (".maildefer/leases", 0o2710, "go into .maildefer/leases/"),
    "journal": (".maildefer/journal", 0o3770, "list .maildefer/journal/"),
    "new": (
        "new",
        0o2770,
        "rename another's entry in new/, replace another's entry in new/, delete another's",
    ),
    "tmp": ("tmp", 0o2770, "delete another's entry in tmp/"),
}


@one_fast("case", TOO_MUCH)
@pytest.mark.slow
def test_the_doctor_names_a_right_too_much_and_its_remedy_cures(
    case: str, queue: Layout, users: Accounts
) -> None:
    below, mode, fact = TOO_MUCH[case]
    for path in tree(queue.path):
        os.chown(f"{queue.path}/{path}", -1, users.gid)
    share_queue(queue.path, front_end(users))
    os.chmod(f"{queue.path}/{below}", mode)
    (found,) = told(queue, users)
    assert found.verdict == "refuse"
    assert fact in found.fact
    subprocess.run(found.remedy, shell=True, check=True, cwd="/", env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert [one.verdict for one in told(queue, users)] == ["ok"]


@pytest.mark.slow
def test_the_doctor_is_content_with_what_others_of_the_group_have_put_in(
    queue: Layout, users: Accounts
) -> None:
    """Which it may read, as is documented, and not write to."""
    record_keeping.expect_records(queue)
    key = become(users.other, lambda: Pusher(open_queue(queue.path), host=LABEL).push(lambda stem: [DATA]))
    assert [one.verdict for one in told(queue, users)] == ["ok"]
    os.chmod(f"{queue.new}/{key}", 0o660)
    (found,) = told(queue, users)
    assert f"write to new/{key}" in found.fact
    assert "read" not in found.fact.partition("it may")[2]


def test_the_doctor_names_waiting_mail_that_the_front_end_may_read(queue: Layout, users: Accounts) -> None:
    entry = waiting(queue)
    os.chown(entry, -1, users.gid)
    os.chmod(entry, 0o640)
    (found,) = told(queue, users)
    assert found.verdict == "refuse"
    assert f"read new/{os.path.basename(entry)}" in found.fact


def test_the_commands_that_are_printed_do_the_same_in_a_shell(
    place: Path, users: Accounts, queue: Layout
) -> None:
    """Also for a path with what a shell takes for its own; twice, as nothing is to be changed by a second time."""
    odd = place / "run" / "-a 'queue'\n$(touch no) "
    os.rename(queue.path, odd)
    as_found = tree(str(odd))
    for folder, _, files in os.walk(odd):
        os.chmod(folder, 0o2770)
        for name in files:
            os.chmod(f"{folder}/{name}", 0o664)
    command = ["maildefer", "permissions", str(odd), "--user", users.front.pw_name, "--group", users.group]
    printed = subprocess.run(command, check=True, capture_output=True, cwd="/", env=environ()).stdout
    for _ in range(2):
        subprocess.run(["sh", "-e"], input=printed, check=True, cwd=place)
        found = tree(str(odd))
        for path in (*FOLDER_MODES, ".", ".maildefer/format", ".maildefer/task-key", "cur", ".dead"):
            assert found[path] == as_found[path]
        assert share_queue(str(odd), front_end(users)) == sharing.SharingResult()
    assert not (place / "no").exists()


def environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_it_can_be_given_again_and_again_and_changes_nothing_then(queue: Layout, users: Accounts) -> None:
    before = tree(queue.path)
    command = ["maildefer", "permissions", "--apply", queue.path, "--user", users.front.pw_name]
    command += ["--group", users.group]
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd="/", env=environ())
    assert said.stdout.endswith("all was as it should be\n")
    assert tree(queue.path) == before


@pytest.mark.parametrize("folder", ["tmp", "new", "cur", ".dead", ".maildefer/leases", ".maildefer/journal"])
def test_nothing_is_touched_behind_a_link_in_a_folders_place(
    place: Path, queue: Layout, users: Accounts, folder: str
) -> None:
    elsewhere = place / "roots"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "precious").write_text("root's own")
    (elsewhere / "precious").chmod(0o600)
    before = tree(str(elsewhere))
    shutil.rmtree(f"{queue.path}/{folder}")
    os.symlink(elsewhere, f"{queue.path}/{folder}")
    assert f"{folder} is a link, or no folder" in share_queue(queue.path, front_end(users)).left
    assert tree(str(elsewhere)) == before


def test_nothing_is_touched_through_a_link_that_takes_a_folders_place_meanwhile(
    place: Path, queue: Layout, users: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = place / "roots"
    elsewhere.mkdir(mode=0o755)
    (elsewhere / "precious").write_text("root's own")
    (elsewhere / "precious").chmod(0o644)
    before = tree(str(elsewhere))
    os.chmod(queue.cur, 0o770)
    really = os.fstat

    def swapping(descriptor: int) -> os.stat_result:
        facts = really(descriptor)
        if stat.S_ISDIR(facts.st_mode) and os.readlink(f"/proc/self/fd/{descriptor}") == queue.cur:
            os.rename(queue.cur, f"{queue.path}/aside")
            os.symlink(elsewhere, queue.cur)
        return facts

    monkeypatch.setattr(os, "fstat", swapping)
    share_queue(queue.path, front_end(users))
    monkeypatch.undo()
    assert os.path.islink(queue.cur)
    assert tree(str(elsewhere)) == before


def test_no_file_of_another_name_elsewhere_is_touched(place: Path, queue: Layout, users: Accounts) -> None:
    precious = place / "precious"
    precious.write_text("root's own")
    precious.chmod(0o644)
    os.link(precious, f"{queue.new}/1.x")
    os.link(precious, f"{queue.control}/leases-old")
    os.symlink(precious, f"{queue.new}/2.x")
    os.mkfifo(f"{queue.new}/3.x")
    share_queue(queue.path, front_end(users))
    assert stat.S_IMODE(precious.stat().st_mode) == 0o644
    assert precious.stat().st_uid == 0


def test_a_queue_of_the_front_ends_own_and_what_is_no_queue_are_refused(
    place: Path, queue: Layout, users: Accounts
) -> None:
    with pytest.raises(ConfigurationError, match="itself"):
        share_queue(queue.path, FrontEndAccount(user=users.worker.pw_uid, group=users.gid))
    with pytest.raises(NotAQueue):
        share_queue(str(place), front_end(users))
    os.symlink(queue.path, place / "link")
    with pytest.raises(OSError, match="Not a directory"):
        share_queue(str(place / "link"), front_end(users))
    with pytest.raises(PermissionError):
        become(users.other, lambda: share_queue(queue.path, front_end(users)))


@pytest.mark.slow
def test_workers_of_a_second_user_are_refused_with_the_reason(queue: Layout, users: Accounts) -> None:
    """Of what others put into a sticky folder, its owner alone takes out."""
    os.chmod(queue.cur, 0o2770)
    os.chown(queue.cur, -1, users.gid)
    os.chmod(queue.path, 0o3750)
    examine(queue.path, races=0)  # which loads what that user could not

    def look() -> list[tuple[str, str]]:
        os.environ["MAILDEFER_RUNTIME_DIR"] = f"{queue.tmp}/runtime"
        found = examine(queue.path, races=0)
        return [(one.verdict, one.fact) for one in found if one.check == "permissions"]

    ((verdict, fact),) = become(users.other, look)
    assert verdict == "refuse"
    assert f"new/ is sticky and user {users.worker.pw_uid}'s" in fact
    assert [one.verdict for one in examine(queue.path, races=0) if one.check == "permissions"] == ["ok"]

    def join() -> list[str]:
        """As its keeper does, which ends the pool."""
        return [one.fact for one in examine_at_join(queue) if one.verdict == "refuse"]

    assert become(users.other, join) == [fact]
    assert become(users.worker, join) == []


@pytest.mark.lifecycle
def test_a_whole_front_end_serves_and_the_audit_accounts_for_what_it_stored(
    place: Path, queue: Layout, users: Accounts
) -> None:
    (key,) = os.listdir(queue.new)
    with AttackedFrontEnd(
        place, "--user", users.front.pw_name, "--group", users.group, queue=Path(queue.path)
    ) as attacked:
        assert attacked.send().startswith(b"250 "), attacked.log()
        large = b"Subject: large\r\n\r\n" + b"x" * 70 * 30_000 + b"\r\n"
        assert attacked.send(large).startswith(b"250 "), attacked.log()
        assert "journal.failed" not in attacked.log()
    stored = set(os.listdir(queue.new)) - {key}
    assert len(stored) == 2

    def handle() -> int:
        journal.close_journals()
        handled = 0
        for each in os.listdir(queue.new):
            claim = Claimer(queue, FakeSlots(), lease=LEASE, host=LABEL).claim(each)
            assert claim is not None
            handled += len(read(f"{queue.cur}/{claim.name}")) > 0
            claim.ack()
        return handled

    assert become(users.worker, handle) == 3
    command = ["maildefer", "audit", queue.path, "--patience", "0", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ(), cwd="/")
    assert ended.returncode == 0, ended


RECIPE = re.search(r"tries each of them:\n\n((?:    .+\n)+)", (ROOT / "docs" / "security.md").read_text())


POOL = re.search(
    r"^\*\*In a pool that root starts.+\n\n    (.+)\n",
    (ROOT / "docs" / "security.md").read_text(),
    re.MULTILINE,
)


def test_the_recipes_of_a_front_ends_user_name_one_group() -> None:
    section = (ROOT / "docs" / "security.md").read_text().partition("## Another user for the front end")[2]
    section = section.partition("\n## ")[0]
    named = re.findall(r"--user (\S+) --group (\S+)", section)
    assert set(named) == {("mailfront", "mailfront")}
    assert len(named) == 3


def serve_for_a_moment(project: Path, command: list[str]) -> None:
    """Until its front end is up, too."""
    environ = {**os.environ, "PYTHONPATH": str(project)}  # its `conf`, not this repository's
    for package in ("conf", "workers"):
        (project / package).mkdir()
        (project / package / "__init__.py").touch()
    settings = 'receiver_config = {"host": "127.0.0.1", "port": 0}\nqueues = {"run/queue": ["workers.one"]}\n'
    (project / "conf" / "settings.py").write_text(settings)
    handler = "from maildefer.routing import route\n@route('any@test')\ndef START(message):\n    pass\n"
    (project / "workers" / "one.py").write_text(handler)
    with subprocess.Popen(
        command, cwd=project, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as pool:
        try:
            deadline = time.monotonic() + 60
            while subprocess.run(["maildefer", "probe", "--ready"], cwd=project, env=environ).returncode:
                assert pool.poll() is None, pool.communicate()
                assert time.monotonic() < deadline
        finally:
            pool.terminate()
            pool.communicate(timeout=60)


@pytest.mark.slow
@pytest.mark.lifecycle
def test_the_recipe_is_carried_out_as_it_stands(place: Path, users: Accounts, queue: Layout) -> None:
    """With other names for users that may be there already, in a folder in which the queue is `run/queue`."""
    assert RECIPE is not None
    assert POOL is not None
    lines = [line.strip() for line in RECIPE[1].splitlines()]
    assert [line.split()[0] for line in lines] == ["useradd", "usermod", "maildefer", "maildefer"]
    for folder, _, files in os.walk(queue.path):
        for path in (folder, *(f"{folder}/{name}" for name in files)):
            os.chmod(path, 0o770 if path == folder else 0o660)
    name = f"mdr{os.urandom(3).hex()}"
    try:
        for line in lines:
            command = re.sub(r"\bworker\b", users.worker.pw_name, line.replace("mailfront", name))
            with FileLock(ACCOUNTS_LOCK):
                done = subprocess.run(
                    command.split(), cwd=place, env=environ(), capture_output=True, text=True, timeout=120
                )
            assert done.returncode == 0, (command, done)
        assert "and nothing else of the queue" in done.stdout
        serve_for_a_moment(place, POOL[1].strip().replace("mailfront", name).split())
    finally:
        administer("userdel", "--force", name)
        with suppress(KeyError):  # not removed with it, as it has another member
            grp.getgrnam(name)
            administer("groupdel", name)


def permissions(queue: Layout, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["maildefer", "permissions", queue.path, *options]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", env=environ(), timeout=60)


@pytest.mark.parametrize(
    "options", [("--user", "root"), ("--user", "0"), ("--user", "FRONT", "--group", "root")]
)
def test_rights_are_given_neither_to_root_nor_to_roots_group(
    queue: Layout, users: Accounts, options: tuple[str, ...]
) -> None:
    before = tree(queue.path)
    said = [users.front.pw_name if option == "FRONT" else option for option in options]
    ended = permissions(queue, *said, "--apply")
    assert (ended.returncode, "usermod" in ended.stderr) == (78, False), ended
    assert "a user and a group of its own" in ended.stderr
    assert tree(queue.path) == before


def test_an_owner_who_could_not_read_what_the_front_end_stores_fails_the_command(
    queue: Layout, users: Accounts
) -> None:
    ended = permissions(queue, "--user", users.front.pw_name, "--apply")
    assert ended.returncode == 1
    assert f"usermod -aG {users.front.pw_gid} {users.worker.pw_name}" in ended.stderr


UNDOING = re.search(r"and start it anew:\n\n((?:    .+\n)+)", (ROOT / "docs" / "security.md").read_text())


def test_a_queue_that_is_shared_no_more_is_its_owners_alone(
    place: Path, users: Accounts, queue: Layout
) -> None:
    assert UNDOING is not None
    become(users.front, lambda: Pusher(open_queue(queue.path), host=LABEL).push(lambda stem: [DATA]))
    for line in UNDOING[1].splitlines():
        command = re.sub(r"\bworker:", f"{users.worker.pw_name}:", line.strip())
        subprocess.run(command.split(), cwd=place, check=True, timeout=60)
    rights = {(mode, user) for mode, user, _ in tree(queue.path).values()}
    assert rights == {(0o700, users.worker.pw_uid), (0o600, users.worker.pw_uid)}
    assert (
        become(users.worker, lambda: [len(read(f"{queue.new}/{name}")) for name in os.listdir(queue.new)])
        == [len(DATA)] * 2
    )


def test_the_rights_are_looked_at_once_for_any_number_of_pushes(queue: Layout, users: Accounts) -> None:
    """And nothing is done to an entry besides: no further call for a message."""

    def calls(count: int) -> dict[str, int]:
        made = dict.fromkeys(("stat", "fchmod", "fchown", "umask"), 0)

        def counted(name: str) -> Callable[..., object]:
            really = getattr(os, name)

            def call(*arguments: object, **named: object) -> object:
                made[name] += 1
                return really(*arguments, **named)

            return call

        journal.close_journals()
        os.umask(0o027)
        pusher = Pusher(open_queue(queue.path), host=LABEL)
        pusher.push(lambda stem: [DATA])
        for name in made:
            setattr(os, name, counted(name))
        pusher.push_all([lambda stem: [DATA]] * count)
        return made

    assert become(users.front, lambda: calls(40)) == dict.fromkeys(("stat", "fchmod", "fchown", "umask"), 0)
