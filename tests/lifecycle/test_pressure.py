"""Handlers and machines at their limits: nothing is lost, the pool lives on, and the outcome is the design's.

Each test ends with the audit: what was accepted is proven to have ended, or to lie where it should.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from maildefer.control.audit import AuditReport, audit
from maildefer.errors import NoSpace
from maildefer.maildir import journal
from maildefer.maildir.push import Pusher
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import ROOT, Pool
from tests.lifecycle.project import Project, eventually

pytestmark = pytest.mark.lifecycle
PRESSURE = Path(__file__).parent / "pressure"
LONG = 60.0  # seconds that a busy machine may take


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, PRESSURE, queues=("run/queue",), ttl_seconds=20.0, journal=True)


def proven(project: Project) -> AuditReport:
    report = audit([project.queue.path], timeout_seconds=5)
    assert report.suspects == []
    return report


def serves_on(project: Project, pool: Pool) -> None:
    """After all that, an ordinary message is handled, and TERM ends the pool in order."""
    [key] = project.push()
    eventually(lambda: project.notes("end", key), "the pool serves on", LONG)
    assert pool.stop(LONG) == 0


# What kills its process is charged, and buried at the limit


@pytest.mark.parametrize(
    ("what", "how"), [("segfault", "SIGSEGV"), ("abort", "SIGABRT"), ("exit3", "exit 3")]
)
def test_what_kills_its_worker_is_buried_and_nothing_else_suffers(
    project: Project, start: Start, what: str, how: str
) -> None:
    pool = start(workers=2, settings={"max_crashes": 2})
    [poison] = project.push(what)
    others = project.push("quick", 30)
    eventually(lambda: project.names("dead_new"), "it is buried", LONG)
    eventually(project.is_empty, "the others are handled", LONG)
    [dead] = project.names("dead_new")
    assert (dead.key, dead.crashes) == (poison, 2)
    assert project.starts() == {poison: 2, **dict.fromkeys(others, 1)}
    assert [event["how"] for event in pool.events("worker.died", charged=True)] == [how, how]
    report = proven(project)
    assert (report.accepted, report.ended, report.found["dead"]) == (31, 30, 1)
    serves_on(project, pool)


# What raises is deferred, and no worker ends


@pytest.mark.parametrize("what", ["sysexit0", "sysexit3", "interrupt", "nochildren", "eat40"])
def test_what_a_handler_raises_defers_its_message_and_ends_no_worker(
    project: Project, start: Start, what: str
) -> None:
    pool = start(workers=1)
    before = pool.worker_pids()
    [key] = project.push(what)
    eventually(lambda: project.names("later_new"), "it is deferred", LONG)
    [entry] = project.names("later_new")
    assert (entry.key, entry.attempts, entry.crashes) == (key, 1, 0)
    others = project.push("quick", 30)
    eventually(lambda: set(others) <= {note.key for note in project.notes("end")}, "it serves on", LONG)
    assert pool.worker_pids() == before
    report = proven(project)
    assert (report.ended, report.found["deferred"]) == (30, 1)
    serves_on(project, pool)


# What uses up its process costs that process, and charges nobody else


@pytest.mark.parametrize("what", ["leak", "gorge40", "closeall", "closeandopen"])
def test_a_worker_that_is_used_up_is_replaced_and_charges_nobody(
    project: Project, start: Start, what: str
) -> None:
    pool = start(workers=1)
    [before] = pool.worker_pids()
    project.push(what)
    eventually(lambda: project.notes("start"), "it is being handled", LONG)
    others = project.push("quick", 40)
    eventually(
        lambda: set(others) <= {note.key for note in project.notes("end")}, "the others are handled", LONG
    )
    eventually(lambda: pool.worker_pids() and before not in pool.worker_pids(), "by another worker", LONG)
    assert project.names("dead_new") == []
    assert [entry.crashes for entry in project.names("later_new")] in ([], [0])
    proven(project)
    mine = project.path / "mine"
    assert not mine.exists() or mine.read_bytes() == b"", "nothing of ours got into its files"
    serves_on(project, pool)


def test_a_handler_that_takes_over_all_signals_changes_nothing_for_the_pool(
    project: Project, start: Start
) -> None:
    pool = start(workers=1)
    [key] = project.push("signals")
    eventually(lambda: project.notes("end", key), "it is handled", LONG)
    project.push("quick", 10)
    eventually(project.is_empty, "its worker goes on", LONG)
    proven(project)
    pool.signal(signal.SIGHUP)
    pool.await_event("worker.ended", seconds=LONG)
    serves_on(project, pool)


def test_children_that_a_handler_leaves_behind_hold_up_nobody(project: Project, start: Start) -> None:
    pool = start(workers=2)
    project.push("children3", 2)
    others = project.push("quick", 20)
    eventually(project.is_empty, "all are handled", LONG)
    assert set(others) <= project.starts().keys()
    proven(project)
    try:
        serves_on(project, pool)
    finally:
        (project.path / "journal").unlink()  # by which they end


# The machine's limits


@pytest.fixture
def tampered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose Python processes fail to fork while `no-forks` is there, whose clocks and disk are off by
    as many seconds as the file `clock` says, as if somebody had set them, and to which all mounts are remote where
    there is a file `remote`: a module that Python loads first.
    """
    folder = tmp_path_factory.mktemp("tampered")
    (folder / "sitecustomize.py").write_text(TAMPERING)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "TAMPERED": str(folder)}


TAMPERING = """
import errno, os, time
folder = os.environ["TAMPERED"]
_fork, _time, _fstat = os.fork, time.time, os.fstat

def fork():
    if os.path.exists(f"{folder}/no-forks"):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return _fork()

def offset(name):
    try:
        with open(f"{folder}/{name}") as file:
            return float(file.read() or 0)
    except OSError:
        return 0.0

def fstat(descriptor):
    found = _fstat(descriptor)
    mtime = found.st_mtime + offset("disk")
    names = [name for name in dir(found) if name.startswith("st_")]
    more = {name: getattr(found, name) for name in names} | {"st_mtime": mtime}
    return os.stat_result([*found[:8], int(mtime), found[9]], more)

os.fork, time.time, os.fstat = fork, lambda: _time() + offset("clock"), fstat

if os.path.exists(f"{folder}/remote"):
    from maildefer.host import mounts
    mounts._LOCAL = frozenset()
"""


def test_a_pool_that_cannot_fork_serves_with_who_is_left_and_forks_later(
    project: Project, start: Start, tampered: dict[str, str]
) -> None:
    pool = start(workers=2, environ=tampered)
    first, _ = pool.worker_pids()
    Path(tampered["TAMPERED"], "no-forks").touch()
    os.kill(first, signal.SIGKILL)
    pool.await_event("fork.failed", seconds=LONG)
    assert os.strerror(errno.EAGAIN) in pool.events("fork.failed")[0]["error"]
    assert pool.events("pool.throttled") == []
    keys = project.push("quick", 20)
    eventually(project.is_empty, "the other worker serves", LONG)
    assert project.starts() == dict.fromkeys(keys, 1)
    assert len(pool.worker_pids()) == 1
    Path(tampered["TAMPERED"], "no-forks").unlink()
    eventually(lambda: len(pool.worker_pids()) == 2, "there are two again", LONG)
    proven(project)
    serves_on(project, pool)


@pytest.mark.parametrize("hours", [1, -1])
@pytest.mark.parametrize("what", ["clock", "clock and disk"])
def test_a_clock_that_is_set_by_an_hour_fences_and_kills_and_loses_nobody(
    project: Project, start: Start, tampered: dict[str, str], hours: int, what: str
) -> None:
    """The host's alone, or that of its disk too. Leases and deadlines go by the boot clock (clock_gettime(2))."""
    pool = start(workers=2, environ=tampered, settings={"handler_timeout_seconds": 30})
    in_hand = project.push("wait", 2)
    eventually(lambda: len(project.notes("start")) == 2, "two are in hand", LONG)
    for name in what.split(" and "):
        Path(tampered["TAMPERED"], name).write_text(str(hours * 3600))
    beats = project.leases()
    eventually(lambda: not set(beats) & set(project.leases()), "the lease is renewed", LONG)
    project.go()
    others = project.push("quick", 20)
    [deferred] = project.push("once1")
    eventually(project.is_empty, "all are handled, the deferred one too", LONG)
    assert project.starts() == {**dict.fromkeys([*in_hand, *others], 1), deferred: 2}
    for never in ("lease.fenced", "lease.lost", "claim.lost", "worker.died", "worker.timed_out"):
        assert pool.events(never) == []
    proven(project)
    serves_on(project, pool)


def test_a_host_whose_clock_is_put_right_names_what_it_defers_correctly_at_once(
    project: Project, start: Start, tampered: dict[str, str]
) -> None:
    """On a mount, whose time it has measured while its own clock was three hours slow."""
    folder = Path(tampered["TAMPERED"])
    (folder / "remote").touch()
    (folder / "clock").write_text(str(-3 * 3600))
    pool = start(workers=1, environ=tampered)
    differs = pool.await_event("clock.differs", queue="run/queue", seconds=LONG)
    assert differs["offset_ms"] == pytest.approx(3 * 3_600_000, abs=5000)
    (folder / "clock").write_text("0")
    before = time.time()
    project.push("defer30")
    [entry] = eventually(lambda: project.names("later_new"), "it is deferred", LONG)
    assert entry.due is not None
    assert before + 30 <= entry.due <= time.time() + 31
    [queue] = [queue for queue in pool.status()["queues"] if queue["queue"] == "run/queue"]
    assert abs(queue["clock_offset_seconds"]) < 5


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 4 MB at the project's `run/`, for the queue only."""
    if os.geteuid():
        pytest.skip("a filesystem of its own needs root")
    point = tmp_path / "run"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(point)], check=True)
    yield point
    journal.close_journals()
    subprocess.run(["umount", "-l", str(point)], check=True)


def test_a_queue_on_a_mount_that_loses_mail_for_sure_is_not_served(
    small_disk: Path, project: Project, start: Start
) -> None:
    """Of the mounts that the doctor refuses, one that can be had without a network: a read-only one."""
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    pool = start(workers=1, ready=False)
    assert pool.wait() == 78
    [stopped] = pool.events("pool.stopped")
    assert "mounted read-only: mount it read-write" in stopped["reason"]


def test_a_disk_that_fills_up_refuses_pushes_and_holds_up_only_what_needs_space(
    small_disk: Path, project: Project, start: Start
) -> None:
    """A burial wants its reason on the disk first, and waits for room; all else is renames and unlinks."""
    pool = start(workers=2)
    project.push("reject", 2)
    eventually(lambda: len(project.notes("start")) == 2, "both workers are busy", LONG)
    project.push("quick", 4)
    project.push("defer60", 4)
    ballast = small_disk / "ballast"
    _fill(ballast)
    with pytest.raises(NoSpace):
        Pusher(project.queue, host="test").push(lambda stem: [b"x" * 20_000])
    assert not list(Path(project.queue.tmp).glob("[0-9]*")), "nothing half written is left"
    project.go()
    pool.await_event("settle.delayed", seconds=LONG)
    assert pool.events("worker.died") == []
    ballast.unlink()
    eventually(lambda: len(project.names("dead_new")) == 2, "the burials come about", LONG)
    eventually(lambda: len(project.names("later_new")) == 4, "the others are deferred", LONG)
    eventually(lambda: not project.names("new") and not project.names("cur"), "nothing waits", LONG)
    assert sorted(project.starts().values()) == [1] * 10
    report = audit([project.queue.path], timeout_seconds=5)
    assert report.count("lost") == 0
    assert all("could not write its records" in suspect.why for suspect in report.suspects)
    serves_on(project, pool)


def _fill(path: Path) -> None:
    """All that is left, to the last block."""
    with path.open("wb") as file:
        for size in (1 << 16, 1 << 12):
            with suppress(OSError):
                while True:
                    os.write(file.fileno(), bytes(size))
