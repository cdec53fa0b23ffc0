"""What a member of the queue's group has put where root is going to write: nothing else is reached through it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maildefer.cli.project_skeleton import write_project
from maildefer.doctor import trials
from maildefer.doctor.examine import examine
from maildefer.doctor.findings import Finding, ok
from maildefer.errors import ConfigurationError, FormatUnknown, LeaseFenced, NotAQueue, StorageFault
from maildefer.host import pidfile
from maildefer.host.identity import this_host
from maildefer.maildir import journal, journal_file, reasons
from maildefer.maildir.layout import Layout, create_queue, open_queue
from maildefer.maildir.names import EntryName
from maildefer.maildir.push import Pusher
from maildefer.maildir.system import SYSTEM
from maildefer.maildir.upkeep.leases import Lease
from maildefer.maildir.upkeep.sweep import WATCHED_SECONDS, Sweeper
from maildefer.maildir.upkeep.tokens import Tokens
from maildefer.pool.frontend import listeners
from tests.support.front_end import ROOT
from tests.support.other_users import as_user, as_user_meanwhile
from tests.support.queues import DATA, LABEL, FakeSlots, holder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, and a user who is not")
MEMBER, GROUP = 61_011, 61_013  # nobody's
SECRET = "root's own\n"


@pytest.fixture
def place() -> Iterator[Path]:
    """Where other users may go."""
    place = Path(tempfile.mkdtemp(prefix="maildefer-", dir="/tmp"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def layout(place: Path) -> Iterator[Layout]:
    """Root's queue, shared with a group, which keeps a journal."""
    layout = create_queue(str(place / "queue"))
    journal.begin_journal(layout)
    for folder, _, _ in os.walk(layout.path):
        os.chown(folder, 0, GROUP)
        os.chmod(folder, 0o2770)
    yield layout
    journal.close_journals()


@pytest.fixture
def precious(place: Path) -> Path:
    """A file of root's outside of the queue."""
    file = place / "precious"
    file.write_text(SECRET)
    file.chmod(0o600)
    return file


def member(act: Callable[[], object]) -> None:
    as_user(MEMBER, GROUP, act)


def a_link(path: str, precious: Path) -> None:
    member(lambda: os.symlink(precious, path))


def a_hard_link(path: str, precious: Path) -> None:
    os.link(precious, path)  # as a member may where `fs.protected_hardlinks` is off


def a_fifo(path: str, precious: Path) -> None:
    member(lambda: os.mkfifo(path, 0o666))


def a_folder(path: str, precious: Path) -> None:
    member(lambda: os.mkdir(path))


def a_file_of_its_own(path: str, precious: Path) -> None:
    member(lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)))


@pytest.fixture(params=[a_link, a_hard_link, a_fifo, a_folder, a_file_of_its_own])
def plant(request: pytest.FixtureRequest, precious: Path) -> Callable[[str], None]:
    return lambda path: request.param(path, precious)


def push(queue: Path) -> None:
    """In a process that is given up when it hangs."""
    subprocess.run(
        [sys.executable, "-m", "maildefer", "push", str(queue), "-"],
        input=b"From: a@example.org\nTo: b@example.org\n\nHello\n",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=queue.parent,
        timeout=60,
        check=True,
    )


def records(layout: Layout) -> list[str]:
    """The verbs, as far as the files are root's."""
    found = []
    for path in Path(layout.journal).iterdir():
        facts = path.lstat()
        if stat.S_ISREG(facts.st_mode) and facts.st_uid == 0 and facts.st_nlink == 1:
            found += [line.split(" ")[1] for line in path.read_text().split("\n") if line]
    return found


@pytest.mark.slow
def test_a_record_is_appended_to_no_file_that_another_user_has_put_there(
    layout: Layout, precious: Path, plant: Callable[[str], None]
) -> None:
    """A FIFO hung every push for ever."""
    day, boot = time.strftime("%Y-%m-%d", time.gmtime()), journal_file.boot_name()
    for writer in (f"{journal_file.host_name()}.{boot}", f"{journal_file.host_name()}.{boot}.0"):
        plant(f"{layout.journal}/{day}.{writer}.pushed")
    push(Path(layout.path))
    assert precious.read_text() == SECRET
    assert records(layout) == ["push"], "it stands elsewhere then"


def test_a_journal_that_is_a_link_leads_nowhere(layout: Layout, place: Path) -> None:
    elsewhere = place / "elsewhere"
    elsewhere.mkdir(mode=0o700)

    def replace() -> None:
        os.rmdir(layout.journal)
        os.symlink(elsewhere, layout.journal)

    member(replace)
    Pusher(layout, host=LABEL).push(lambda stem: [DATA])
    assert list(elsewhere.iterdir()) == []


def test_each_user_has_journal_files_of_its_own(layout: Layout) -> None:
    Pusher(layout, host=LABEL).push(lambda stem: [DATA])
    journal.close_journals()
    member(lambda: Pusher(layout, host=LABEL).push(lambda stem: [DATA]))
    found = {path.stat().st_uid: path.read_text().count(" push ") for path in Path(layout.journal).iterdir()}
    assert found == {0: 1, MEMBER: 1}


def test_a_keeper_that_takes_over_writes_to_no_file_but_its_lease(
    layout: Layout, precious: Path, plant: Callable[[str], None]
) -> None:
    lease = Lease.join(layout, f"{LABEL}-17-abcdef012345", holder())
    member(lambda: os.unlink(lease.path))
    plant(lease.path)
    with pytest.raises(LeaseFenced):
        Lease.take_over(layout, lease.name, holder(keeper_pid=3))
    assert precious.read_text() == SECRET


def test_a_pid_file_is_not_written_through_a_link_of_a_name_that_can_be_guessed(
    place: Path, precious: Path
) -> None:
    run = place / "run"
    run.mkdir()
    os.chown(run, MEMBER, GROUP)
    ours = pidfile.for_process(os.getpid(), this_host(), kind="supervise")
    member(lambda: os.symlink(precious, run / f".x.pid.{ours.host}.{os.getpid()}"))
    pidfile.write(str(run / "x.pid"), ours)
    assert precious.read_text() == SECRET
    assert pidfile.read(str(run / "x.pid")) == ours


def test_a_folder_is_made_without_a_file_elsewhere(layout: Layout, place: Path) -> None:
    def replace() -> None:
        os.rmdir(f"{layout.path}/.later/new")
        os.unlink(f"{layout.path}/.later/maildirfolder")
        os.symlink(place / "made", f"{layout.path}/.later/maildirfolder")

    member(replace)
    open_queue(layout.path)
    assert not (place / "made").exists()


@pytest.fixture
def folder_of_roots(place: Path) -> Path:
    folder = place / "roots"
    folder.mkdir()
    for name in ("precious", "format", "trial-s0"):
        (folder / name).write_text(SECRET)
    return folder


def swapped(path: str, folder: Path) -> None:
    """A member puts a link in a folder's place."""

    def swap() -> None:
        os.rename(path, f"{path}.aside")
        os.symlink(folder, path)

    member(swap)


def test_a_sweep_removes_nothing_where_a_link_has_taken_a_drafts_place(
    layout: Layout, folder_of_roots: Path
) -> None:
    """Between the look at it and what follows: it was emptied in one round."""
    draft = f"{layout.tmp}/.maildefer-1-abcd"
    member(lambda: os.mkdir(draft))
    os.utime(draft, (1, 1))
    clock = [1000.0]

    def swapping(act: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *rest: Any, **named: Any) -> Any:
            if os.path.basename(str(first)) == os.path.basename(draft) and not os.path.islink(draft):
                swapped(draft, folder_of_roots)
            return act(first, *rest, **named)

        return call

    system = replace(SYSTEM, boottime=lambda: clock[0], listdir=swapping(os.listdir), open=swapping(os.open))
    sweeper = Sweeper(layout, system=system)
    for _ in range(3):
        sweeper.sweep(time.time())
        clock[0] += WATCHED_SECONDS
    assert os.path.lexists(f"{draft}.aside"), "it was swapped"
    assert len(list(folder_of_roots.iterdir())) == 3


def test_a_sweep_removes_from_a_strangers_folder_only_what_we_make_in_one(layout: Layout) -> None:
    member(lambda: os.makedirs(f"{layout.tmp}/.maildefer-1-abcd/more"))
    member(lambda: os.mkdir(f"{layout.tmp}/elsewhere"))
    clock = [1000.0]
    sweeper = Sweeper(layout, system=replace(SYSTEM, boottime=lambda: clock[0]))
    for _ in range(3):
        sweeper.sweep(time.time() + 1e9)
        clock[0] += WATCHED_SECONDS
    assert sorted(os.listdir(layout.tmp)) == [".maildefer-1-abcd", "elsewhere"]
    assert os.listdir(f"{layout.tmp}/.maildefer-1-abcd") == ["more"]


def test_the_doctor_removes_nothing_where_a_link_has_taken_its_folders_place(
    layout: Layout, folder_of_roots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It emptied the other one in two of two tries."""
    monkeypatch.setenv("MAILDEFER_RUNTIME_DIR", str(folder_of_roots.parent / "runtime"))

    def swap(folder: object) -> Finding:
        (name,) = os.listdir(layout.tmp)
        swapped(f"{layout.tmp}/{name}", folder_of_roots)
        return ok("names", "")

    monkeypatch.setattr(trials, "try_names", swap)
    examine(layout.path, races=0)
    assert sorted(file.name for file in folder_of_roots.iterdir()) == ["format", "precious", "trial-s0"]


def test_tokens_are_made_nowhere_else(layout: Layout, folder_of_roots: Path) -> None:
    def mkdir(path: str, mode: int = 0o777, **named: Any) -> None:
        os.mkdir(path, mode, **named)
        if os.path.basename(path).startswith(".tokens-"):
            swapped(f"{layout.tmp}/{os.path.basename(path)}", folder_of_roots)

    system = replace(SYSTEM, mkdir=mkdir)
    tokens = Tokens(layout, FakeSlots(), lease=lambda: f"{LABEL}-17-abcdef012345", system=system)
    with suppress(StorageFault):
        tokens.take_token("a conversation")
    assert len(list(folder_of_roots.iterdir())) == 3


@pytest.mark.parametrize("folder", ["tmp", ".maildefer/dead"])
def test_why_an_entry_was_buried_is_written_nowhere_else(
    layout: Layout, folder_of_roots: Path, folder: str
) -> None:
    swapped(f"{layout.path}/{folder}", folder_of_roots)
    dead = EntryName(key="1.x", attempts=1, returns=3)
    with pytest.raises(OSError, match="Not a directory"):
        reasons.write_reason(layout, dead, "no route", {}, host=LABEL)
    assert len(list(folder_of_roots.iterdir())) == 3


@pytest.mark.parametrize("folder", ["new", "cur", "tmp", ".later", ".dead/new", ".maildefer"])
def test_a_queue_with_a_link_in_a_folders_place_is_none(
    layout: Layout, folder_of_roots: Path, folder: str
) -> None:
    """`queue clear` removed the files of the folder to which it led."""
    for name in ("new", "cur", "tmp", "leases"):
        (folder_of_roots / name).mkdir()
    os.utime(folder_of_roots, (1, 1))
    swapped(f"{layout.path}/{folder}", folder_of_roots)
    for use in (open_queue, create_queue):
        with pytest.raises((NotAQueue, FormatUnknown)):
            use(layout.path)
    assert folder_of_roots.stat().st_mtime == 1


def test_a_sockets_mode_is_given_to_no_file_that_a_link_in_its_place_leads_to(
    place: Path, precious: Path
) -> None:
    run = place / "run"
    run.mkdir()
    os.chown(run, MEMBER, GROUP)
    attacked, link = run / "lmtp", run / "link"

    def step() -> None:
        with suppress(FileExistsError):
            link.symlink_to(precious)
        link.rename(attacked)

    with as_user_meanwhile(MEMBER, GROUP, step):
        for _ in range(300):
            with suppress(ConfigurationError):
                listeners.bound_file(str(attacked), 0o666).close()
    assert stat.S_IMODE(precious.stat().st_mode) == 0o600


def test_a_socket_takes_the_place_of_no_other_file(place: Path) -> None:
    (place / "notes").write_text("mine")
    with pytest.raises(ConfigurationError, match="something else than a socket is there"):
        listeners.bound_file(str(place / "notes"))
    assert (place / "notes").read_text() == "mine"


def test_a_salmon_programs_pid_file_is_not_written_through_a_link(place: Path, precious: Path) -> None:
    run = place / "run"
    run.mkdir()
    os.chown(run, MEMBER, GROUP)
    member(lambda: os.symlink(precious, run / "x.pid"))
    code = "from maildefer.utils import daemonize; daemonize('run/x.pid', None, None, None)"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=True,
    )
    deadline = time.monotonic() + 60
    while (run / "x.pid").is_symlink() and precious.read_text() == SECRET and time.monotonic() < deadline:
        time.sleep(0.01)
    assert precious.read_text() == SECRET
    assert int((run / "x.pid").read_text()) > 1


def test_a_password_file_is_not_made_through_a_link(place: Path) -> None:
    (place / "shared").mkdir()
    os.chown(place / "shared", MEMBER, GROUP)
    member(lambda: os.symlink(place / "made", place / "shared" / "passwords"))
    done = subprocess.run(
        [sys.executable, "-m", "maildefer", "passwd", str(place / "shared" / "passwords"), "ann"],
        input=b"a secret\n",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=place,
        timeout=60,
        capture_output=True,
        check=False,
    )
    assert done.returncode
    assert b"is a link, which is not followed" in done.stderr
    assert not (place / "made").exists()


def test_a_new_project_is_written_through_no_link(place: Path, precious: Path) -> None:
    project = place / "project"
    project.mkdir()
    os.chown(project, MEMBER, GROUP)
    member(lambda: os.symlink(precious, project / "README.md"))
    write_project(project, force=True)
    assert precious.read_text() == SECRET
    assert (project / "README.md").is_file()
