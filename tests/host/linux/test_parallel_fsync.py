"""Syncing several files at the same time."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from maildefer.host.linux import parallel_fsync

BAD = 1_000_000  # nobody's descriptor


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[int]]:
    """Five that are open, with something to be synced."""
    found = []
    for number in range(5):
        found.append(os.open(tmp_path / str(number), os.O_WRONLY | os.O_CREAT))
        os.write(found[-1], b"x")
    yield found
    for descriptor in found:
        os.close(descriptor)


def numbers_of(monkeypatch: pytest.MonkeyPatch, **numbers: tuple[int, int, int]) -> None:
    """Another machine's, with no context left of this one's."""
    monkeypatch.setattr(parallel_fsync, "_NUMBERS", numbers)
    monkeypatch.setattr(parallel_fsync, "_contexts", [])


def traced(script: str, *files: str) -> str:
    """The system calls for it of a program that has them opened as `fds`."""
    program = (
        "import os, sys; from maildefer.host.linux import parallel_fsync as aio\n"
        "fds = [os.open(path, os.O_WRONLY | os.O_CREAT) for path in sys.argv[1:]]\n" + script
    )
    command = ["strace", "-f", "-e", "trace=fsync,io_setup,io_submit,io_getevents", sys.executable, "-c"]
    return subprocess.run([*command, program, *files], check=True, capture_output=True, text=True).stderr


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_nothing_is_wrong_with_files_that_can_be_synced(files: list[int], count: int) -> None:
    assert parallel_fsync.fsync_all(files[:count]) == [None] * count


def test_the_kernel_is_asked_once_for_all_and_again_with_the_same_context(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    paths = [str(tmp_path / name) for name in "abc"]
    calls = traced("aio.fsync_all(fds); aio.fsync_all(fds[:2])", *paths)
    assert calls.count("io_setup(") == 1
    assert calls.count("io_submit(") == calls.count("io_getevents(") == 2
    assert calls.count("aio_lio_opcode=IOCB_CMD_FSYNC") == 5
    assert "fsync(" not in calls


def test_one_file_is_synced_as_ever(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    calls = traced("aio.fsync_all(fds)", str(tmp_path / "a"))
    assert "io_submit" not in calls
    assert calls.count("fsync(") == 1


def test_each_has_its_own_fault(files: list[int]) -> None:
    end, other = os.pipe()  # which can't be synced
    try:
        faults = parallel_fsync.fsync_all([files[0], end, files[1], other])
    finally:
        os.close(end)
        os.close(other)
    assert faults[0] is faults[2] is None
    assert [fault and fault.errno for fault in (faults[1], faults[3])] == [errno.EINVAL, errno.EINVAL]


def test_the_first_may_be_the_one_at_fault(files: list[int]) -> None:
    first, *rest = parallel_fsync.fsync_all([BAD, *files])
    assert first is not None
    assert first.errno == errno.EBADF
    assert rest == [None] * 5


def test_more_than_a_context_takes_are_all_synced(tmp_path: Path) -> None:
    descriptors = [os.open(tmp_path / str(number), os.O_WRONLY | os.O_CREAT) for number in range(100)]
    try:
        assert parallel_fsync.fsync_all(descriptors) == [None] * 100
        assert parallel_fsync.fsync_all([*descriptors, BAD])[-1] is not None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def test_many_threads_sync_at_a_time_and_each_hears_of_its_own(files: list[int]) -> None:
    wrong: list[object] = []

    def sync(bad: bool) -> None:
        for _ in range(50):
            faults = parallel_fsync.fsync_all([*files, BAD] if bad else files)
            if [fault is not None for fault in faults] != [False] * 5 + [True] * bad:
                wrong.append(faults)

    threads = [threading.Thread(target=sync, args=(number % 2 == 0,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_child_syncs_by_itself(files: list[int]) -> None:
    parallel_fsync.fsync_all(files)  # by a context that a child does not have
    if not (pid := os.fork()):
        os._exit(0 if parallel_fsync.fsync_all([*files, BAD])[:5] == [None] * 5 else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_signals_in_the_middle_do_no_harm(files: list[int]) -> None:
    heard = []
    before = signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        end = time.monotonic() + 60
        while len(heard) < 200 and time.monotonic() < end:
            for descriptor in files:
                os.write(descriptor, b"x")
            assert parallel_fsync.fsync_all(files) == [None] * 5
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(heard) >= 200


# Where the kernel has it not, each file is synced all the same


def test_a_machine_whose_numbers_are_not_known_syncs_one_by_one(
    files: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers_of(monkeypatch)
    assert parallel_fsync.fsync_all([*files, BAD])[:5] == [None] * 5
    assert parallel_fsync._contexts == []


def test_a_kernel_without_such_calls_syncs_one_by_one(
    files: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers_of(monkeypatch, **{os.uname().machine: (100_000, 100_001, 100_002)})
    *faults, last = parallel_fsync.fsync_all([*files, BAD])
    assert faults == [None] * 5
    assert last is not None


def test_a_kernel_that_takes_none_of_them_syncs_one_by_one(
    files: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a filter refuses the call, or the filesystem knows no such request."""
    real = parallel_fsync._NUMBERS[os.uname().machine]
    numbers_of(monkeypatch, **{os.uname().machine: (real[0], 100_001, real[2])})
    assert parallel_fsync.fsync_all([*files, BAD])[:5] == [None] * 5


def test_a_kernel_that_has_no_context_left_syncs_one_by_one(
    files: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than `fs.aio-max-nr` allows for the whole machine; to use it up would disturb others."""
    monkeypatch.setattr(parallel_fsync, "_contexts", [])
    monkeypatch.setattr(parallel_fsync, "_MOST", 1 << 30)
    assert parallel_fsync._context() is None
    assert parallel_fsync.fsync_all([*files, BAD])[:5] == [None] * 5


def test_the_structures_are_the_kernels() -> None:
    assert ctypes.sizeof(parallel_fsync._Request) == 64
    assert ctypes.sizeof(parallel_fsync._Event) == 32
    assert parallel_fsync._Request.opcode.offset == 16
    assert parallel_fsync._Request.descriptor.offset == 20
