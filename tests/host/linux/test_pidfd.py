from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from maildefer.host.identity import start_time
from maildefer.host.linux.pidfd import PidfdProcess, wait_any

pytestmark = pytest.mark.lifecycle

CODE = "import signal; signal.signal(signal.SIGHUP, lambda *a: None); print('up', flush=True); input()"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.fixture(params=["pidfd", "without pidfd"])
def held(
    request: pytest.FixtureRequest, child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> Iterator[PidfdProcess]:
    def refuse(pid: int) -> int:
        raise PermissionError("seccomp")

    if request.param != "pidfd":
        monkeypatch.setattr(os, "pidfd_open", refuse)
    began = start_time(child.pid)
    assert began is not None
    process = PidfdProcess(child.pid, began)
    yield process
    process.close()


def test_a_process_is_signalled_and_its_end_awaited(held: PidfdProcess) -> None:
    assert wait_any([held], 0.06) == []
    held.send(signal.SIGTERM)
    assert wait_any([held], 5) == [held]


def test_an_ended_process_cannot_be_signalled(held: PidfdProcess, child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    with pytest.raises(ProcessLookupError):
        held.send(signal.SIGTERM)


def test_a_reused_pid_is_never_taken_for_the_process(child: subprocess.Popen[bytes]) -> None:
    began = start_time(child.pid)
    assert began is not None
    with pytest.raises(ProcessLookupError):
        PidfdProcess(child.pid, began - 1)


def test_a_signal_that_a_process_does_not_catch_is_known(held: PidfdProcess) -> None:
    assert held.takes(signal.SIGHUP)
    assert not held.takes(signal.SIGTSTP)
