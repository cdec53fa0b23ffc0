"""The processes of a front end, from their first moment on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from maildefer.pool.frontend.intake_command import IntakeCommand
from maildefer.pool.frontend.launcher import IntakeLauncher
from maildefer.pool.frontend.process_group import ProcessGroup

pytestmark = pytest.mark.lifecycle


Poll = Callable[[], int | None]


def by_group(folder: Path) -> tuple[int, Poll]:
    group = ProcessGroup("intake", IntakeCommand(options=["--nonsense"], listeners=[]), folder=str(folder))
    group.refill()
    [process] = group.facts()
    pid = int(process["pid"])

    def poll() -> int | None:
        gone, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if gone else None

    return pid, poll


def by_launcher(folder: Path) -> tuple[int, Poll]:
    launcher = IntakeLauncher([], str(folder), ["--nonsense"])
    launcher.execute()
    assert launcher.process is not None
    return launcher.process.pid, launcher.process.poll


@pytest.mark.parametrize("started", [by_group, by_launcher])
@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGUSR1], ids=lambda signum: signum.name)
def test_a_signal_that_comes_before_it_is_ready_does_not_end_it(
    tmp_path: Path, started: Callable[[Path], tuple[int, Poll]], signum: signal.Signals
) -> None:
    pid, poll = started(tmp_path)
    while (code := poll()) is None:
        os.kill(pid, signum)
    assert code == 2  # as its options want it to
