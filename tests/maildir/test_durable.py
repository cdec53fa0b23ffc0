"""Writing durably: files, their directories, and one sync for all that wait."""

from __future__ import annotations

import errno
import gc
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from maildefer.maildir import durable
from maildefer.maildir.system import SYSTEM
from tests.support.queues import World

PATIENCE_SECONDS = 60.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        threading.Event().wait(0.001)


class Disk:
    """A directory whose syncs take until they are let go."""

    def __init__(self, path: Path) -> None:
        self.begun = 0
        self.ended = 0
        self.faults: list[BaseException] = []
        self._go = threading.Semaphore(0)
        self.sync = durable.DirectorySync(str(path), system=replace(SYSTEM, fsync=self._fsync))

    def _fsync(self, descriptor: int) -> None:
        self.begun += 1
        assert self._go.acquire(timeout=PATIENCE_SECONDS)
        if self.faults:
            raise self.faults.pop(0)
        self.ended += 1

    def let_go(self, times: int = 1) -> None:
        self._go.release(times)


class Caller(threading.Thread):
    """Calls sync in a thread, and tells what came of it."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(daemon=True)
        self.disk = disk
        self.done = False
        self.fault: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.disk.sync.sync()
        except BaseException as fault:  # noqa: BLE001  (told to the test)
            self.fault = fault
        self.done = True


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def waiting(disk: Disk) -> int:
    return len(disk.sync._waiting)


@pytest.mark.invariant(1)
def test_who_comes_while_a_sync_runs_waits_for_the_next_one(disk: Disk) -> None:
    first = Caller(disk)
    until(lambda: disk.begun == 1)
    second = Caller(disk)
    until(lambda: waiting(disk) == 1)
    disk.let_go()
    until(lambda: disk.begun == 2)
    assert not second.done, "its rename may have come after the first sync began"
    disk.let_go()
    until(lambda: first.done and second.done)
    assert (first.fault, second.fault) == (None, None)


def test_all_who_wait_share_one_sync(disk: Disk) -> None:
    callers = [Caller(disk)]
    until(lambda: disk.begun == 1)
    callers += [Caller(disk) for _ in range(10)]
    until(lambda: waiting(disk) == 10)
    disk.let_go(2)
    until(lambda: all(caller.done for caller in callers))
    assert disk.ended == 2


@pytest.mark.invariant(1)
def test_a_fault_of_the_sync_is_told_to_all_who_shared_it_and_to_nobody_else(disk: Disk) -> None:
    first = Caller(disk)
    until(lambda: disk.begun == 1)
    sharers = [Caller(disk) for _ in range(3)]
    until(lambda: waiting(disk) == 3)
    disk.let_go()
    until(lambda: disk.begun == 2)
    disk.faults.append(OSError(errno.EIO, "no"))
    last = Caller(disk)
    until(lambda: waiting(disk) == 1)
    disk.let_go(2)
    until(lambda: all(caller.done for caller in (first, last, *sharers)))
    assert [type(caller.fault) for caller in sharers] == [OSError] * 3
    assert (first.fault, last.fault) == (None, None)


@pytest.mark.invariant(1)
def test_an_interrupted_sync_counts_for_nobody_and_another_carries_it_out(disk: Disk) -> None:
    first = Caller(disk)
    until(lambda: disk.begun == 1)
    sharers = [Caller(disk) for _ in range(3)]
    until(lambda: waiting(disk) == 3)
    disk.let_go()
    until(lambda: disk.begun == 2)
    disk.faults.append(KeyboardInterrupt())
    disk.let_go()
    until(lambda: disk.begun == 3)
    assert sum(caller.done for caller in sharers) == 1, "only the interrupted one"
    disk.let_go()
    until(lambda: all(caller.done for caller in (first, *sharers)))
    assert sorted(str(type(caller.fault)) for caller in sharers) == sorted(
        map(str, (KeyboardInterrupt, type(None), type(None)))
    )


class Gate:
    """Where a waiter sleeps; it is interrupted there, once `first` is so."""

    def __init__(self, first: Callable[[], object]) -> None:
        self._first = first
        self.calls = 0

    def acquire(self) -> None:
        self.calls += 1
        if self.calls > 1:  # its maker takes it first
            self._first()
            raise KeyboardInterrupt

    def release(self) -> None:
        pass


def test_a_waiter_that_is_interrupted_is_forgotten(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Caller(disk)
    until(lambda: disk.begun == 1)
    gate = Gate(lambda: until(lambda: waiting(disk) == 1))
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Lock", lambda: gate)
        with pytest.raises(KeyboardInterrupt):
            disk.sync.sync()
    assert waiting(disk) == 0
    disk.let_go()
    until(lambda: first.done)
    assert disk.begun == 1, "nobody is there for whom to sync again"
    disk.let_go()
    disk.sync.sync()


@pytest.mark.invariant(1)
def test_a_waiter_that_is_interrupted_when_its_turn_comes_hands_it_over(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Caller(disk)
    until(lambda: disk.begun == 1)
    others: list[Caller] = []

    def turn_comes() -> None:
        patch.undo()
        until(lambda: waiting(disk) == 1)
        [waiter] = disk.sync._waiting
        others.append(Caller(disk))
        until(lambda: waiting(disk) == 2)
        disk.let_go()
        until(lambda: waiter.followers is not None)

    with monkeypatch.context() as patch:
        gate = Gate(turn_comes)
        patch.setattr(threading, "Lock", lambda: gate)
        with pytest.raises(KeyboardInterrupt):
            disk.sync.sync()
    until(lambda: disk.begun == 2)
    disk.let_go()
    until(lambda: first.done and others[0].done)
    assert (first.fault, others[0].fault) == (None, None)


@pytest.mark.invariant(1)
@pytest.mark.parametrize("when", ["while they are being synced", "when it is woken"])
def test_one_that_is_interrupted_lets_those_behind_it_be_woken(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """They wake one another: leader, this one, and two behind it."""
    callers = [Caller(disk)]
    until(lambda: disk.begun == 1)
    callers.append(Caller(disk))
    until(lambda: waiting(disk) == 1)

    def synced() -> None:
        patch.undo()
        until(lambda: waiting(disk) == 2)
        waiter = disk.sync._waiting[1]
        for _ in range(2):
            callers.append(Caller(disk))
            until(lambda: waiting(disk) == len(callers))
        disk.let_go()
        until(lambda: disk.begun == 2)
        if when == "when it is woken":
            disk.let_go()
            until(lambda: waiter.is_woken)

    with monkeypatch.context() as patch:
        gate = Gate(synced)
        patch.setattr(threading, "Lock", lambda: gate)
        with pytest.raises(KeyboardInterrupt):
            disk.sync.sync()
    disk.let_go()
    until(lambda: all(caller.done for caller in callers))
    assert [caller.fault for caller in callers] == [None] * 4
    assert disk.ended == 2


def test_the_next_sync_after_all_have_left_begins_at_once(disk: Disk) -> None:
    disk.let_go(2)
    disk.sync.sync()
    disk.sync.sync()
    assert disk.ended == 2


def test_the_directory_is_opened_by_path_for_each_sync(tmp_path: Path, world: World) -> None:
    sync = durable.DirectorySync(str(tmp_path / "d"), system=world.system)
    for _ in range(2):
        os.mkdir(tmp_path / "d")  # replaced: a kept descriptor would sync the old one
        sync.sync()
        os.rename(tmp_path / "d", tmp_path / f"old{len(world.calls)}")
    assert [call.what for call in world.calls] == ["open", "fsync", "close"] * 2


def test_who_waits_to_sync_has_the_directory_open_and_closes_it(disk: Disk) -> None:
    before = len(os.listdir("/proc/self/fd"))
    callers = [Caller(disk)]
    until(lambda: disk.begun == 1)
    callers += [Caller(disk)]
    until(lambda: waiting(disk) == 1 and disk.sync._waiting[0].directory >= 0)
    callers += [Caller(disk) for _ in range(3)]
    until(lambda: waiting(disk) == 4)
    assert [waiter.directory >= 0 for waiter in disk.sync._waiting] == [True, False, False, False]
    disk.let_go(2)
    until(lambda: not any(caller.is_alive() for caller in callers))
    assert disk.ended == 2
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.invariant(1)
def test_a_directory_that_cannot_be_opened_ahead_is_a_fault_of_its_sync(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    disk = Disk(tmp_path / "d")
    first = Caller(disk)
    until(lambda: disk.begun == 1)
    os.rename(tmp_path / "d", tmp_path / "gone")
    second = Caller(disk)
    until(lambda: waiting(disk) == 1)
    disk.let_go(2)
    until(lambda: first.done and second.done)
    assert (first.fault, type(second.fault)) == (None, FileNotFoundError)


@pytest.mark.invariant(1)
def test_a_replaced_file_is_durable_before_its_name_and_its_directory_after(
    tmp_path: Path, world: World
) -> None:
    durable.replace_file(f"{tmp_path}/x", b"new", f"{tmp_path}/draft", system=world.system)
    assert [str(call) for call in world.asked("fsync", "rename")] == [
        "fsync draft",
        "rename draft -> x",
        f"fsync {tmp_path.name}",
    ]
    assert (tmp_path / "x").read_bytes() == b"new"


def test_what_need_not_be_durable_is_not_synced(tmp_path: Path, world: World) -> None:
    durable.replace_file(f"{tmp_path}/x", b"new", f"{tmp_path}/draft", durably=False, system=world.system)
    assert world.asked("fsync") == []
    assert (tmp_path / "x").read_bytes() == b"new"


@pytest.mark.parametrize("what", ["write", "fsync", "rename"])
def test_a_failed_replacement_leaves_the_old_file_and_no_draft(
    tmp_path: Path, world: World, what: str
) -> None:
    (tmp_path / "x").write_bytes(b"old")
    world.refuse(what, errno.ENOSPC)
    with pytest.raises(OSError, match="No space"):
        durable.replace_file(f"{tmp_path}/x", b"new", f"{tmp_path}/draft", system=world.system)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"old")]


def test_a_draft_that_is_there_already_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "draft").write_bytes(b"another's")
    with pytest.raises(FileExistsError):
        durable.replace_file(f"{tmp_path}/x", b"new", f"{tmp_path}/draft")
    assert (tmp_path / "draft").read_bytes() == b"another's"


def test_a_small_file_is_read_up_to_its_limit_and_never_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    os.symlink("x", tmp_path / "link")
    assert durable.read_small(f"{tmp_path}/x", limit_bytes=3) == b"123"
    with pytest.raises(OSError, match="symbolic"):
        durable.read_small(f"{tmp_path}/link")


def test_a_fifo_in_place_of_a_small_file_holds_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    assert durable.read_small(f"{tmp_path}/x") == b""


@pytest.mark.parametrize("fault", [None, "write", "fsync", "rename", "read"])
@pytest.mark.slow
def test_no_descriptor_is_left_open(tmp_path: Path, world: World, fault: str | None) -> None:
    gc.collect()  # what other tests have left must not be closed meanwhile
    before = len(os.listdir("/proc/self/fd"))
    for number, durably in enumerate((True, False)):
        if fault is not None:
            world.refuse(fault, errno.EIO)
        try:
            durable.replace_file(
                f"{tmp_path}/x", b"new", f"{tmp_path}/draft{number}", durably=durably, system=world.system
            )
            durable.read_small(f"{tmp_path}/x", system=world.system)
        except OSError:
            pass
    assert len(os.listdir("/proc/self/fd")) == before
