"""`pause` and `resume`: queues on all hosts, by a mark in the queue; or single pools, as long as they run."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from functools import partial
from shlex import quote
from typing import Annotated

import typer

from maildefer.cli import output
from maildefer.cli.commands.reload import AllHosts, OneHost, ask, here, known_queues
from maildefer.cli.defaults import answered, pid_path, supervise_pid
from maildefer.cli.parameters import Commands
from maildefer.control import local_processes as control
from maildefer.errors import ConfigurationError, MaildeferError
from maildefer.host.bounded_call import bounded
from maildefer.host.identity import this_host
from maildefer.maildir.layout import open_queue, read_format
from maildefer.maildir.operator import pause_mark

app = Commands()

Queues = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[QUEUE]...",
        help="These queues and no others; else all of the project. "
        "With --host or --all-hosts: the whole pools that serve them.",
    ),
]
Pid = Annotated[
    str | None, typer.Option("--pid", metavar="PATH", help="Not the queues, but the pool with this pid file.")
]


@app.command()
def pause(queues: Queues = None, pid: Pid = None, all_hosts: AllHosts = False, host: OneHost = None) -> None:
    """Let no host claim messages from queues, until they are resumed."""
    if pid or all_hosts or host:
        ask("pause", queues, pid, all_hosts, host)
        output.say(
            "these are whole pools, with all of their queues; `maildefer pause QUEUE` is for one queue on all hosts"
        )
        output.say("`maildefer resume`, with the same option, lets them go on; so does a new start")
        return
    _each(_of_project(queues), partial(pause_queue, user=user_name(), host=this_host().label))
    output.say(f"`maildefer resume{''.join(f' {quote(queue)}' for queue in queues or [])}` lets it go on")


@app.command()
def resume(queues: Queues = None, pid: Pid = None, all_hosts: AllHosts = False, host: OneHost = None) -> None:
    """Let hosts claim messages from paused queues again."""
    if pid or all_hosts or host:
        ask("resume", queues, pid, all_hosts, host)
        return

    _each(_of_project(queues), resume_queue)
    for found in [] if queues else here():
        if found.verdict == "running" and found.process.kind == "supervise":
            output.line(output.clean(control.signal_process(found, "resume")))
    output.say("`maildefer status` shows them at work")


def _each(queues: list[str], do: Callable[[str], str]) -> None:
    """Call a function for each queue, in bounded time, and print what came of it; one that hangs delays no other."""
    failed = False
    for queue in queues:
        try:
            answer = answered(bounded(lambda queue=queue: do(queue)), queue)  # type: ignore[misc]
            output.line(f"{output.clean(os.path.relpath(queue))} {answer}")
        except MaildeferError as error:
            output.complain(str(error))
            failed = True
    if failed:
        raise typer.Exit(1)


def pause_queue(queue: str, user: str, host: str) -> str:
    """Pause a queue on all hosts; returns in words what came of it."""
    layout = open_queue(queue)
    if not pause_mark.pause_queue(layout, user=user, host=host):
        return "was paused already"
    return f"is paused: within {2 * read_format(layout).beat_seconds:g} s no host claims from it"


def resume_queue(queue: str) -> str:
    """Let hosts claim from a queue again; returns in words what came of it."""
    return "goes on" if pause_mark.resume_queue(open_queue(queue)) else "was not paused"


def _of_project(named: list[str] | None) -> list[str]:
    """The named queues, else those that exist of all that this project's pools serve or its settings name."""
    if named:
        return list(dict.fromkeys(map(os.path.abspath, named)))
    found = _served()
    try:
        found += [queue for queue in _of_settings() if queue not in found]
    except ConfigurationError:  # what is broken may be why they are to be paused
        if not found:
            raise
    if not found:
        control.find_or_suggest(pid_path(None, supervise_pid()))  # which says that nothing runs
        raise MaildeferError("no queue of this project is known: name those that are meant")
    return found


def _served() -> list[str]:
    try:
        return known_queues()
    except MaildeferError:  # nothing runs here, and no pid file of another host's is there
        return []


def _of_settings() -> list[str]:
    from maildefer.handling.project.finder import is_project  # the project's own code
    from maildefer.handling.project.queue_paths import listed_queues
    from maildefer.handling.project.settings import load_settings

    if not is_project():
        return []
    named = listed_queues(load_settings())
    return [queue for queue in named if answered(bounded(lambda queue=queue: os.path.isdir(queue)), queue)]  # type: ignore[misc]


def user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's
        return str(os.geteuid())
