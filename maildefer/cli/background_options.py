"""What `start` and `log` have in common: Salmon's server options, the lock, and the receiver's process."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer

from maildefer import events
from maildefer.cli import output
from maildefer.cli.defaults import pid_path
from maildefer.cli.parameters import octal
from maildefer.control import local_processes as control
from maildefer.control import stop
from maildefer.errors import AlreadyRunning, MaildeferError
from maildefer.handling.project import finder
from maildefer.host.daemonize import LaunchFailed, launch

Pid = Annotated[str | None, typer.Option("--pid", metavar="PATH", help="The pid file.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Stop what runs with that pid file, then start.")]
Chdir = Annotated[str, typer.Option("--chdir", metavar="PATH", help="The project's folder.")]
Chroot = Annotated[
    str | None,
    typer.Option("--chroot", metavar="PATH", help="A root that holds Python, maildefer and the project."),
]
Umask = Annotated[str | None, typer.Option("--umask", metavar="MASK", help="Octal, such as 0027.")]
Uid = Annotated[
    int | None,
    typer.Option("--uid", metavar="UID", min=0, help="Become this user once it listens; with --gid."),
]
Gid = Annotated[
    int | None,
    typer.Option("--gid", metavar="GID", min=0, help="Become this group once it listens; with --uid."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Log what is logged for debugging too.")]
Daemon = Annotated[bool, typer.Option(help="In the background, with its output in logs/.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """The server options, as `parameters.with_options` gives them to a command."""

    pid: Pid = None
    force: Force = False
    chdir: Chdir = "."
    chroot: Chroot = None
    umask: Umask = None
    uid: Uid = None
    gid: Gid = None
    debug: Debug = False
    daemon: Daemon = True


def serve(kind: str, default_pid: str, options: ServerOptions, more: dict[str, object]) -> None:
    """Take the lock and start, or with --no-daemon become, `python -m maildefer.cli.receiver_process`."""
    if (options.uid is None) != (options.gid is None):
        raise typer.BadParameter("--uid and --gid go together.")
    mask = None if options.umask is None else octal("--umask", options.umask, "0027")
    here = os.getcwd()
    pidfile = _enter_project(options, default_pid)
    lock = _lock(pidfile, options.force)
    orders: dict[str, object] = {"kind": kind, "pidfile": pidfile, "lock_fd": lock, "debug": options.debug}
    orders |= {"uid": options.uid, "gid": options.gid, **more}
    enter = _entering(options.chroot, mask)
    if not options.daemon:
        enter()
        sys.stdout.flush()
        os.execv(sys.executable, _command(orders))
    name = os.path.splitext(os.path.basename(pidfile))[0]
    log_path = os.path.abspath(f"logs/{name}.out")
    with contextlib.suppress(OSError):  # the next says so
        os.makedirs(os.path.dirname(log_path), exist_ok=True)
    events.must_open(log_path)
    started = launch(
        lambda ready: _command({**orders, "ready_fd": ready}), log_path=log_path, keep=(lock,), before=enter
    )
    if isinstance(started, LaunchFailed):
        output.say(started.last_words)
        output.complain(f"it has not come up: {log_path} tells why")
        raise typer.Exit(started.code if started.code > 0 else 1)
    output.line(str(started))
    shown = os.path.relpath(pidfile, here)
    output.say(f"process {started} is up; its output goes to {os.path.relpath(log_path, here)}; next:")
    output.say(f"  maildefer stop{'' if options.pid is None and kind == 'start' else f' --pid {shown}'}")


def _enter_project(options: ServerOptions, default_pid: str) -> str:
    """Change to the project's folder and return the pid file's path; a given path is relative to --chdir."""
    os.chdir(options.chdir)
    if options.chdir != "." and finder.PROJECT in os.environ:
        os.environ[finder.PROJECT] = os.getcwd()  # an option comes before a variable
    pidfile = pid_path(options.pid, default_pid)
    os.chdir(finder.project())
    return pidfile


def _command(orders: dict[str, object]) -> list[str]:
    return [sys.executable, "-m", "maildefer.cli.receiver_process", json.dumps(orders)]


def _entering(chroot: str | None, mask: int | None) -> Callable[[], None]:
    """The steps of the new process before exec(2)."""

    def enter() -> None:
        if mask is not None:
            os.umask(mask)
        if chroot is not None:
            os.chroot(chroot)
            os.chdir("/")

    return enter


def _lock(pidfile: str, force: bool) -> int:
    from maildefer.host.pidfile_lock import acquire_lock  # filelock

    try:
        return acquire_lock(pidfile)
    except AlreadyRunning:
        if not force:
            raise
    for step in stop.stop([control.find_process(pidfile)], kill=True):
        output.say(f"{step.path}: {step.text}")
        if step.failed:
            raise MaildeferError(f"what runs with {pidfile} would not stop") from None
    return acquire_lock(pidfile)
