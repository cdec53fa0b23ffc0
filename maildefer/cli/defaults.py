"""Default paths and pid files of all commands."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final, TypeVar, get_args

import typer

from maildefer import events
from maildefer.control.local_processes import is_a_clones
from maildefer.errors import MaildeferError, QueueMissing
from maildefer.events import Format, Level
from maildefer.handling.project.finder import project
from maildefer.host import pidfile
from maildefer.host.bounded_call import TimedOut, bounded
from maildefer.host.identity import this_host
from maildefer.maildir import journal
from maildefer.maildir.layout import Layout, create_queue, open_queue

T = TypeVar("T")
journal.report_with(events.emit)

RUN: Final = "run"
SMTP_PID: Final = "run/smtp.pid"
LOG_PID: Final = "run/log.pid"


def supervise_pid() -> str:
    """The supervisor's pid file; its name has the host's in it, since hosts may share `run/` on a mount."""
    return f"{RUN}/supervise-{this_host().label}.pid"


def pid_path(given: str | None, default: str) -> str:
    """The absolute path of the pid file: as given, else the project's default or this host's variant of it.

    The mount is asked in bounded time; one that hangs gives the default.
    """
    if given is not None:
        return os.path.abspath(given)
    chosen = bounded(lambda: pidfile.choose_path(os.path.join(project(), default), this_host(), is_a_clones))
    return os.path.abspath(default) if isinstance(chosen, TimedOut) else chosen


def answered(result: T | TimedOut, what: str) -> T:
    """The result of a bounded call. Raises MaildeferError if it timed out."""
    if isinstance(result, TimedOut):
        raise MaildeferError(
            f"{what} did not answer within {result.seconds:g} s: its filesystem hangs; see the kernel's log"
        )
    return result


def log_format(given: str | None) -> str | None:
    """Check the name of a log format; None leaves it to `MAILDEFER_LOG_FORMAT` and the terminal."""
    if given is not None and given not in get_args(Format):
        raise typer.BadParameter(f"--log-format: {given!r} is not one of {', '.join(get_args(Format))}.")
    return given


def log_level(given: str | None) -> str | None:
    """Check the name of a level; None leaves it to `MAILDEFER_LOG_LEVEL` and the settings."""
    if given is not None and given not in get_args(Level):
        raise typer.BadParameter(f"--log-level: {given!r} is not one of {', '.join(get_args(Level))}.")
    return given


def queues_seen(pidfiles: Iterable[pidfile.PidFile]) -> list[str]:
    """The queues that pid files name, each once, in order."""
    return list(dict.fromkeys(queue for one in pidfiles for queue in one.queues))


def open_or_make(path: str) -> Layout:
    """Open a queue; a missing one is made if the settings name it, else it is an error."""
    try:
        return open_queue(path)
    except QueueMissing:
        from maildefer.handling.project.finder import is_project
        from maildefer.handling.project.queue_paths import listed_queues
        from maildefer.handling.project.settings import load_settings  # the project's own code

        if not is_project() or os.path.abspath(path) not in listed_queues(load_settings()):
            raise
        return create_queue(path)
