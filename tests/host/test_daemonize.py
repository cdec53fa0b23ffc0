"""Starting a process in the background and hearing whether it has come up."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from maildefer.host.daemonize import READY, LaunchFailed, launch

pytestmark = pytest.mark.lifecycle


def python(program: str):
    return lambda ready: [sys.executable, "-c", f"import os, sys, time, signal\nready = {ready}\n{program}"]


@pytest.fixture
def log(tmp_path):
    return str(tmp_path / "logs" / "x.out")


@pytest.fixture
def up(log):
    """Starts a process that is ready; it is killed in the end."""
    pids = []

    def one(program: str, **options) -> int:
        pid = launch(
            python(f"{program}\nos.write(ready, {READY!r})\nsignal.pause()"), log_path=log, **options
        )
        assert isinstance(pid, int)
        pids.append(pid)
        return pid

    yield one
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_process_that_is_ready_runs_on_in_a_session_of_its_own(up, log):
    pid = up("print('hello', flush=True)")
    assert os.getsid(pid) == pid
    assert open_text(log) == "hello\n"
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"


def test_a_log_is_read_by_its_owner_and_group_alone(up, log):
    before = os.umask(0)
    try:
        up("")
    finally:
        os.umask(before)
    assert os.stat(log).st_mode & 0o777 == 0o640


def test_what_it_is_to_keep_is_inherited_and_nothing_else(up, tmp_path):
    reader, writer = os.pipe()
    other = os.dup(writer)
    os.set_inheritable(other, True)
    pid = up(f"os.write({writer}, b'kept')", keep=(writer,))
    assert os.read(reader, 10) == b"kept"
    assert not os.path.exists(f"/proc/{pid}/fd/{other}")
    for descriptor in (reader, writer, other):
        os.close(descriptor)


def test_the_log_is_appended_to_and_only_the_last_words_of_this_one_are_told(up, log):
    up("print('first', flush=True)")
    failed = launch(python("print('second', flush=True)\nsys.exit(78)"), log_path=log)
    assert failed == LaunchFailed(78, "second")
    assert open_text(log) == "first\nsecond\n"


def test_a_process_that_ends_before_it_is_ready_has_failed_with_its_code(log):
    assert launch(python("sys.exit(3)"), log_path=log) == LaunchFailed(3, "")


def test_a_process_that_never_comes_up_is_killed_with_all_its_children(log):
    for seconds in (0.3, 3, 30):  # on a busy machine it may be killed before it has forked
        failed = launch(
            python("print(os.fork(), flush=True)\nsignal.pause()"), log_path=log, timeout_seconds=seconds
        )
        assert isinstance(failed, LaunchFailed)
        assert failed.code == 1
        if children := [int(line) for line in failed.last_words.split() if line != "0"]:
            break
    assert children
    deadline = time.monotonic() + 60
    while any(map(lives, children)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as facts:
            return facts.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def open_text(path: str) -> str:
    with open(path) as file:
        return file.read()
