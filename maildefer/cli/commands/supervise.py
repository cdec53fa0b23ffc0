"""`supervise`: takes the pid file's lock, then executes the supervisor, so that typer is not in its memory."""

from __future__ import annotations

import json
import os
import sys
import time
from shlex import quote
from typing import Annotated, Any, get_args

import typer

from maildefer.cli import output
from maildefer.cli.defaults import one_of, pid_path, supervise_pid
from maildefer.cli.parameters import Commands

app = Commands()


@app.command()
def supervise(
    queues: Annotated[
        list[str] | None, typer.Argument(metavar="[QUEUE]...", help="Of the settings' queues, only these.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-w", metavar="N", min=1, help="How many; else as the settings say."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency",
            metavar="N",
            min=1,
            max=1000,
            help="How many messages for async handlers each has in flight; else as the settings say (10).",
        ),
    ] = None,
    pid: Annotated[
        str | None, typer.Option("--pid", metavar="PATH", help="The pid file (run/supervise-HOST.pid).")
    ] = None,
    intake: Annotated[
        bool, typer.Option("--intake", help="Run the front end of receiver_config as well.")
    ] = False,
    user: Annotated[
        str, typer.Option("--user", metavar="NAME", help="The front end becomes this user once it listens.")
    ] = "",
    group: Annotated[
        str, typer.Option("--group", metavar="NAME", help="And this group; else the user's own.")
    ] = "",
    drain: Annotated[
        bool, typer.Option("--drain", help="End when nothing is left but deferred entries that are not due.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Start on a mount that the doctor refuses.")
    ] = False,
    log_format: Annotated[
        str | None, typer.Option("--log-format", metavar="FORMAT", help="console, logfmt or json.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
    ] = None,
    log_file: Annotated[
        str | None,
        typer.Option("--log-file", metavar="PATH", help="Append the log there; USR1 opens it anew."),
    ] = None,
) -> None:
    """Run a pool of workers on the queues."""
    from maildefer import events
    from maildefer.doctor.examine import examine_at_start, refuse_unsafe
    from maildefer.handling.project.finder import project
    from maildefer.host.pidfile_lock import acquire_lock  # filelock

    if (user or group) and not intake:
        raise typer.BadParameter("--user and --group are for the front end: add --intake.")
    if drain and intake:
        raise typer.BadParameter(
            "--drain is for queues alone: a front end takes new messages until it is stopped."
        )
    one_of("--log-format", log_format, get_args(events.Format))
    one_of("--log-level", log_level, get_args(events.Level))
    if log_file:
        events.must_open(log_file)
    for place in queues or []:  # each queue's keeper looks at its mount again, named or not
        findings = examine_at_start(place)
        if not force:
            refuse_unsafe(place, findings)
        for finding in findings:
            if finding.verdict != "ok":
                output.say(f"{place}: {finding.fact}: {finding.remedy}")
    pidfile = pid_path(pid, supervise_pid())
    orders: dict[str, Any] = {
        "project": project(),
        "queues": [os.path.abspath(queue) for queue in queues] if queues else None,
        "workers": workers,
        "concurrency": concurrency,
        "pidfile": pidfile,
        "lock_fd": acquire_lock(pidfile),
        "force": force,
        "intake": intake,
        "drain": drain,
        "user": user,
        "group": group,
        "log_format": log_format,
        "log_level": log_level,
        "log_file": os.path.abspath(log_file) if log_file else None,
    }
    sys.stdout.flush()
    if drain:
        _fork_and_wait(pidfile, orders["lock_fd"])
    os.execv(sys.executable, [sys.executable, "-m", "maildefer.pool", json.dumps(orders)])


def _fork_and_wait(pidfile: str, lock: int) -> None:
    """Return in a child, which becomes the supervisor; the parent ends it when nothing is left, with its exit code."""
    from maildefer.control.drained import DeferredRest, wait_until_drained
    from maildefer.host.runtime_dir import name_holder

    if (pid := os.fork()) == 0:
        name_holder(lock)
        return
    os.close(lock)

    def report(rest: DeferredRest) -> None:
        entries = output.count(rest.count, "deferred entry is", "deferred entries are")
        due = output.duration(max(0.0, rest.next_due - time.time()))
        output.say(
            f"{rest.queue}: {entries} left, the first due in {due}: "
            f"`maildefer queue list {quote(rest.queue)} --in deferred` shows them"
        )

    def complain(queue: str, why: str) -> None:
        output.say(
            f"{queue}: {why}. Nothing else is left to do, so the pool ends; what is in there stays. "
            f"`maildefer doctor {quote(queue)}` examines its mount"
        )

    raise typer.Exit(wait_until_drained(pid, pidfile, report, complain))
