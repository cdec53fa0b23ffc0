"""A member of the queue's group swaps a folder with a link, without a pause, while root works there: nothing outside
of the queue is removed, changed or made.

Each act is tried many times against a process of another user that calls renameat2(2) with RENAME_EXCHANGE in a loop.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maildefer.control import requests
from maildefer.doctor.examine import examine
from maildefer.errors import MaildeferError
from maildefer.maildir import layout
from maildefer.maildir.due import mount_offset
from maildefer.maildir.layout import Layout
from maildefer.maildir.operator import entries, pause_mark
from maildefer.maildir.pop import pop_entry
from maildefer.maildir.rights import confined
from maildefer.maildir.rights.folder import Folder
from maildefer.maildir.system import SYSTEM, System
from maildefer.maildir.upkeep import leases, sweep
from maildefer.maildir.upkeep.leases import Lease
from maildefer.maildir.upkeep.observer import LeaseObserver
from maildefer.maildir.upkeep.promote import Promoter
from maildefer.maildir.upkeep.reclaim import Reclaimer
from maildefer.maildir.upkeep.sweep import WATCHED_SECONDS, Sweeper
from tests.security.test_planted import GROUP, MEMBER, place, precious
from tests.security.test_planted import layout as shared_queue
from tests.support.other_users import as_user_meanwhile
from tests.support.queues import LABEL, holder

__all__ = ["place", "precious", "shared_queue"]  # fixtures
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, and a user who is not")
ROUNDS, LEAST = 300, 3  # tried, and gone through in spite of the swaps
ROUNDS_OF_TRIALS = 30  # which wait for the disk
LOST_WITHIN_SECONDS = 40.0
_HERE = -100  # AT_FDCWD
_EXCHANGE = 2  # RENAME_EXCHANGE
_LIBC = ctypes.CDLL(None, use_errno=True)
ENTRY, DEFERRED, FOREIGN, LEASE = "1.x", "1.x,n=1,d=1", "1.x:2,S", "other-000000-1-abcdef012345"
DRAFT = ".maildefer-1-abcd"


def exchange(one: str, other: str) -> None:
    if _LIBC.renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE):
        raise OSError(ctypes.get_errno(), "renameat2")


@pytest.fixture
def elsewhere(place: Path) -> Path:
    """A folder of root's, with files of just the names that root will work on in the queue, and of some others."""
    folder = place / "elsewhere"
    folder.mkdir(mode=0o755)
    for name in ("precious", ENTRY, DEFERRED, FOREIGN, f"{LEASE}.7", "format", "trial-s0", "maildirfolder"):
        (folder / name).write_text("root's own\n")
        os.utime(folder / name, (1, 1))
    for name in ("new", "cur", "done"):
        (folder / name).mkdir(mode=0o700)
    os.utime(folder, (1, 1))
    return folder


def state(folder: Path) -> dict[str, tuple[int, int, int, int]]:
    """Everything about it and all that is in it, as far as anybody could change it; none is a link."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        facts = path.lstat()
        found[str(path)] = (facts.st_ino, facts.st_mode, facts.st_mtime_ns, facts.st_size)
    return found


def swap_folder(queue: Layout, folder: str) -> Callable[[], None]:
    path, link = f"{queue.path}/{folder}", f"{queue.path}/link"
    return lambda: exchange(path, link)


def swap_drafts(queue: Layout, elsewhere: Path) -> Callable[[], None]:
    """Whatever folder comes up in `tmp/`, and one of its own that is old enough to be swept."""
    link, mine = f"{queue.tmp}/link", f"{queue.tmp}/{DRAFT}"

    def step() -> None:
        if not os.path.islink(link) and not os.path.islink(mine):  # the link was swept away
            for path in (link, mine):
                with suppress(OSError):
                    os.rmdir(path)
        for make in (lambda: os.symlink(elsewhere, link), lambda: os.mkdir(mine, 0o777)):
            with suppress(FileExistsError):
                make()
        for path in (link, mine):
            os.utime(path, (1, 1), follow_symlinks=False)
        for name in os.listdir(queue.tmp):
            if name.startswith((".maildefer-", ".doctor-")):  # no file: its swap would stay in the queue
                with suppress(OSError):
                    exchange(f"{queue.tmp}/{name}", link)

    return step


class Round:
    """What root does once, with what it has to have for that, put where it belongs by the folders' descriptors."""

    def __init__(self, queue: Layout) -> None:
        self.queue = queue
        self.real = {
            folder: os.open(f"{queue.path}/{folder}", os.O_RDONLY | os.O_DIRECTORY)
            for folder in ("new", "cur", ".later/new", ".dead/new", ".maildefer/leases")
        }
        self.uptime = 1000.0
        self.system = replace(SYSTEM, boottime=lambda: self.uptime)
        self.sweeper = Sweeper(queue, system=self.system)
        observer = LeaseObserver(
            queue, layout.Format(), lambda: "own", lambda holder: False, system=self.system
        )
        self.recovery = Reclaimer(
            queue,
            observer,
            own=lambda: "own",
            look=lambda: lambda owner: "held",
            host=LABEL,
            max_crashes=5,
            grace_seconds=0,
            system=self.system,
        )

    def put(self, folder: str, name: str) -> None:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT, 0o660, dir_fd=self.real[folder]))

    def clear(self) -> None:
        self.put("new", ENTRY)
        entries.clear(self.queue, "waiting")

    def delete_a_dead_letter(self) -> None:
        self.put(".dead/new", ENTRY)
        entries.delete(self.queue, entries.find(self.queue, ENTRY, ("dead",)))

    def requeue(self) -> None:
        self.put(".dead/new", ENTRY)
        entries.requeue(self.queue, entries.find(self.queue, ENTRY, ("dead",)))

    def pop(self) -> None:
        self.put("new", ENTRY)
        popped = pop_entry(self.queue, entries.find(self.queue, ENTRY, ("waiting",)), host=LABEL)
        if popped is not None:
            popped.unlink()

    def promote(self) -> None:
        self.put(".later/new", DEFERRED)
        promoter = Promoter(self.queue, system=self.system)
        promoter.note_deferred(DEFERRED)
        promoter.promote(time.time())

    def return_what_a_reader_moved(self) -> None:
        self.put("cur", FOREIGN)
        self.recovery.scan()

    def fence(self) -> None:
        self.put(".maildefer/leases", f"{LEASE}.7")
        leases.fence(self.queue, LEASE, 7)

    def join(self) -> None:
        Lease.join(self.queue, LEASE, holder()).leave()

    def look_at_the_clock(self) -> None:
        mount_offset(self.queue)

    def pause(self) -> None:
        pause_mark.pause_queue(self.queue, user="root", host=LABEL)
        pause_mark.resume_queue(self.queue)

    def ask(self) -> None:
        requests.file_request(self.queue.path, LEASE, "stop")

    def make_folders(self) -> None:
        layout.make_folder(self.queue, ".later", SYSTEM)

    def sweep(self) -> None:
        self.uptime += WATCHED_SECONDS
        self.sweeper.sweep(time.time())

    def examine(self) -> None:
        examine(self.queue.path, races=0)


ACTS: dict[str, Callable[[Round], None]] = {
    "new": Round.clear,
    ".dead/new": Round.delete_a_dead_letter,
    ".dead": Round.requeue,
    ".later/new": Round.promote,
    "cur": Round.return_what_a_reader_moved,
    ".maildefer/leases": Round.fence,
    ".maildefer/requests": Round.ask,
    ".maildefer": Round.pause,
    ".later": Round.make_folders,
    "tmp": Round.join,
}
BY_NAME: list[tuple[str, Callable[[Round], None]]] = [
    *ACTS.items(),
    ("new", Round.pop),
    ("new", Round.requeue),
    ("new", Round.promote),
    ("tmp", Round.look_at_the_clock),
]
MORE = [*BY_NAME, ("tmp", Round.sweep), ("tmp", Round.examine)]
NAMES = [f"{act.__name__} {folder}" for folder, act in MORE]


def carried_out(queue: Layout, step: Callable[[], None], act: Callable[[Round], None]) -> int:
    """How often it went through."""
    rounds = ROUNDS_OF_TRIALS if act is Round.examine else ROUNDS
    done, tried, each, deadline = 0, 0, Round(queue), time.monotonic() + LOST_WITHIN_SECONDS
    with as_user_meanwhile(MEMBER, GROUP, step):
        while tried < rounds or (done < LEAST and time.monotonic() < deadline):
            tried += 1
            with suppress(MaildeferError, OSError):
                act(each)
                done += 1
    for descriptor in each.real.values():
        os.close(descriptor)
    return done


@pytest.fixture(autouse=True)
def _runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILDEFER_RUNTIME_DIR", str(tmp_path / "runtime"))


@pytest.fixture
def queue(shared_queue: Layout, elsewhere: Path) -> Layout:
    os.symlink(elsewhere, f"{shared_queue.path}/link")
    return shared_queue


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "act"), MORE, ids=NAMES)
def test_nothing_outside_is_touched_while_a_member_swaps_a_folder_with_a_link(
    queue: Layout, elsewhere: Path, folder: str, act: Callable[[Round], None]
) -> None:
    before = state(elsewhere)
    step = swap_folder(queue, folder)
    done = carried_out(queue, step, act)
    assert state(elsewhere) == before
    assert done >= LEAST, "else it shows nothing"


@pytest.mark.slow
@pytest.mark.parametrize("act", [Round.sweep, Round.examine], ids=lambda act: act.__name__)
def test_nothing_outside_is_touched_while_a_member_swaps_the_folders_in_the_making(
    queue: Layout, elsewhere: Path, act: Callable[[Round], None]
) -> None:
    before = state(elsewhere)
    assert carried_out(queue, swap_drafts(queue, elsewhere), act) >= LEAST
    assert state(elsewhere) == before


class ByPath(Folder):
    """A folder as it must not be: each call by its path."""

    def __init__(self, path: str) -> None:
        super().__init__(-1, SYSTEM)
        self.path = path

    def names(self) -> list[str]:
        return os.listdir(self.path)

    def lstat(self, name: str) -> os.stat_result:
        return os.lstat(f"{self.path}/{name}")

    def unlink(self, name: str) -> None:
        os.unlink(f"{self.path}/{name}")

    def rmdir(self, name: str) -> None:
        os.rmdir(f"{self.path}/{name}")

    @contextmanager
    def folder(self, name: str) -> Iterator[Folder]:
        yield ByPath(f"{self.path}/{name}")


@contextmanager
def opened_by_path(path: str, *below: str, system: System = SYSTEM) -> Iterator[Folder]:
    yield ByPath("/".join((path, *below)))


def lost(queue: Layout, elsewhere: Path, step: Callable[[], None], act: Callable[[Round], None]) -> bool:
    before, deadline = state(elsewhere), time.monotonic() + LOST_WITHIN_SECONDS
    while state(elsewhere) == before and time.monotonic() < deadline:
        carried_out(queue, step, act)
    return state(elsewhere) != before


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "act"), BY_NAME, ids=NAMES[: len(BY_NAME)])
def test_by_path_the_same_race_is_lost(
    queue: Layout, elsewhere: Path, folder: str, act: Callable[[Round], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the tests above can fail."""

    @contextmanager
    def listing(self: Any, path: str) -> Iterator[str]:
        yield path

    monkeypatch.setattr(confined._ConfinedSystem, "_located", lambda self, path, folder=None: (path, folder))
    monkeypatch.setattr(confined._ConfinedSystem, "_opened_to_list", listing)
    assert lost(queue, elsewhere, swap_folder(queue, folder), act)


@pytest.mark.slow
def test_by_path_a_sweep_loses_it_too(
    queue: Layout, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "open_folder", opened_by_path)
    assert lost(queue, elsewhere, swap_drafts(queue, elsewhere), Round.sweep)
