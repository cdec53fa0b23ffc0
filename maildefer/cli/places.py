"""Where things are by default, for all commands alike."""

from __future__ import annotations

import os
from typing import Final, TypeVar

from maildefer.errors import MaildeferError
from maildefer.pool import pidfile
from maildefer.pool.bounded import TimedOut, bounded
from maildefer.pool.identity import this_host

T = TypeVar("T")

RUN: Final = "run"
SMTP_PID: Final = "run/smtp.pid"
LOG_PID: Final = "run/log.pid"


def supervise_pid() -> str:
    """A name of its own on each host, since `run/` may be on the mount that all of them share."""
    return f"{RUN}/supervise-{this_host().label}.pid"


def pid_path(given: str | None, default: str) -> str:
    """The absolute path of the pid file: as given, else the default or this host's variant of it.

    The mount is asked in bounded time; one that hangs gives the default.
    """
    if given is not None:
        return os.path.abspath(given)
    chosen = bounded(lambda: pidfile.choose_path(os.path.abspath(default), this_host()))
    return os.path.abspath(default) if isinstance(chosen, TimedOut) else chosen


def answered(result: T | TimedOut, what: str) -> T:
    """What a bounded look gave. Raises MaildeferError if it timed out."""
    if isinstance(result, TimedOut):
        raise MaildeferError(
            f"{what} did not answer within {result.seconds:g} s: its filesystem hangs; see the kernel's log"
        )
    return result
