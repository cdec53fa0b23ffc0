"""Signals of the supervisor: handlers only note them, the loop acts on them."""

from __future__ import annotations

import os
import signal

CAUGHT = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGTSTP,
    signal.SIGCONT,
    signal.SIGUSR1,
    signal.SIGUSR2,  # of no use but to `--drain`, and its default would end the whole pool
    signal.SIGCHLD,
)
_MUST_WAIT = set(CAUGHT) - {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD}


def hold_signals() -> None:
    """Let signals wait over an execve(2) until `Signals` is there, but for those that are to end the pool.

    Their defaults would end it as well: a second reload, say, while it starts anew for the first.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _MUST_WAIT)


class Signals:
    """Signals that came since they were last taken; `descriptor` is readable when there are any. Main thread only."""

    def __init__(self) -> None:
        self._noted: list[signal.Signals] = []
        self.descriptor, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for signum in CAUGHT:
            signal.signal(signum, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _MUST_WAIT)

    def take_noted(self) -> list[signal.Signals]:
        try:
            os.read(self.descriptor, 4096)
        except BlockingIOError:  # none came
            pass
        noted, self._noted = self._noted, []
        return noted

    def close_in_child(self) -> None:
        """Close the pipe in a child that has no wakeup descriptor of ours: what it read would be lost here."""
        for descriptor in (self.descriptor, self._writer):
            os.close(descriptor)

    def _note(self, signum: int, frame: object) -> None:
        self._noted.append(signal.Signals(signum))
