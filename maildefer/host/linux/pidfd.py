"""A process of this host held by a pidfd, so that what is verified is what is signalled and awaited."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Sequence
from typing import Final

from maildefer.host.identity import is_alive

_POLL_SECONDS: Final = 0.05


class PidfdProcess:
    """One process, named by pid and start time; the descriptor holds on to it, even when the pid is used anew."""

    def __init__(self, pid: int, start_time: int) -> None:
        """Raises ProcessLookupError if that process has ended, whoever may have its pid now."""
        self.pid = pid
        self._start_time = start_time
        try:
            self._descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            raise
        except OSError:  # before Linux 5.3, or forbidden in a container: each signal looks at /proc instead
            self._descriptor = -1
        if not is_alive(pid, start_time):  # only now: before the open, the pid could still have changed hands
            self.close()
            raise ProcessLookupError(f"process {pid} has ended")

    def send(self, signum: signal.Signals) -> None:
        """Signal it, and nobody else. Raises ProcessLookupError, PermissionError."""
        if self._descriptor >= 0:
            signal.pidfd_send_signal(self._descriptor, signum)
        elif is_alive(self.pid, self._start_time):
            os.kill(self.pid, signum)
        else:
            raise ProcessLookupError(f"process {self.pid} has ended")

    def takes(self, signum: signal.Signals) -> bool:
        """Whether it catches the signal, or has blocked it to wait for it; else it would end or freeze."""
        bit = 1 << (signum - 1)
        with open(f"/proc/{self.pid}/status", encoding="utf-8", errors="replace") as file:
            masks = dict(line.split(":\t", 1) for line in file if line.startswith(("SigCgt", "SigBlk")))
        return any(int(mask, 16) & bit for mask in masks.values())

    def has_ended(self) -> bool:
        return not is_alive(self.pid, self._start_time)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def descriptor(self) -> int:
        """The pidfd, readable once the process has ended; -1 where the kernel has none."""
        return self._descriptor


def wait_any(processes: Sequence[PidfdProcess], seconds: float) -> list[PidfdProcess]:
    """Wait until one of them has ended, or so long; returns those that have."""
    deadline = time.monotonic() + seconds
    poll = select.poll()
    for process in processes:
        if process.descriptor >= 0:
            poll.register(process.descriptor, select.POLLIN)
    all_held = all(process.descriptor >= 0 for process in processes)
    while True:
        ended = [process for process in processes if process.has_ended()]
        left = max(deadline - time.monotonic(), 0)
        if ended or not left:
            return ended
        poll.poll((left if all_held else min(left, _POLL_SECONDS)) * 1000)
