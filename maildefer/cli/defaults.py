"""Default paths and pid files of all commands."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import typer

from maildefer import events
from maildefer.cli import output
from maildefer.control.local_processes import is_a_clones
from maildefer.errors import ConfigurationError, MaildeferError, QueueMissing
from maildefer.handling.project.finder import PROJECT, is_project, project
from maildefer.host import pidfile
from maildefer.host.bounded_call import TimedOut, bounded
from maildefer.host.identity import this_host
from maildefer.host.runtime_dir import must_not_be_away
from maildefer.maildir import journal
from maildefer.maildir.layout import Layout, create_queue, open_queue

if TYPE_CHECKING:
    from maildefer.pool.probe import ProbeReport

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


def one_of(option: str, given: str | None, names: Sequence[str]) -> str | None:
    """The value of an option, which has to be one of these, where it is given. Raises BadParameter."""
    if given is not None and given not in names:
        raise typer.BadParameter(f"{option}: {given!r} is not one of {', '.join(names)}.")
    return given


def must_be_project() -> None:
    """Raise ConfigurationError outside of a project."""
    if not is_project():
        raise ConfigurationError(
            f"no project here, as {os.getcwd()} has no settings: "
            f"change to the project's folder, or name it in {PROJECT}"
        )


def probed(seconds: float | None = None) -> ProbeReport:
    """Load the project as a pool does at its start. Raises ConfigurationError, after what its code has said."""
    from maildefer.pool.probe import LIMIT_SECONDS, Probe  # for those who load one

    limit = LIMIT_SECONDS if seconds is None else min(seconds, LIMIT_SECONDS)
    try:
        return Probe(project(), limit).wait()
    except ConfigurationError as error:
        output.say("\n".join(getattr(error, "__notes__", [])).rstrip())
        raise


def queues_seen(pidfiles: Iterable[pidfile.PidFile]) -> list[str]:
    """The queues that pid files name, each once, in order."""
    return list(dict.fromkeys(queue for one in pidfiles for queue in one.queues))


def open_or_make(path: str) -> Layout:
    """Open a queue; a missing one is made if the settings name it, else it is an error."""
    try:
        return open_queue(path)
    except QueueMissing:
        from maildefer.handling.project.queue_paths import listed_queues
        from maildefer.handling.project.settings import load_settings  # the project's own code

        if not is_project() or os.path.abspath(path) not in listed_queues(load_settings()):
            raise
        must_not_be_away(path)
        return create_queue(path)
