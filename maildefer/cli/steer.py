"""`pause`, `resume` and `reload`: this host's pool by a signal, other hosts' by requests through the mount."""

from __future__ import annotations

from typing import Annotated

import typer

from maildefer.cli import output
from maildefer.cli.light import Commands
from maildefer.cli.places import RUN, answered, pid_path, queues_seen, supervise_pid
from maildefer.control import look as control
from maildefer.control.requests import Verb, live_names, request
from maildefer.errors import MaildeferError, NotRunning
from maildefer.host.bounded import bounded

app = Commands()

Queues = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[QUEUE]...", help="With --all-hosts or --host: the queues whose hosts are meant."
    ),
]
Pid = Annotated[str | None, typer.Option("--pid", metavar="PATH", help="The pool's pid file (those in run).")]
AllHosts = Annotated[bool, typer.Option("--all-hosts", help="Ask every host that serves the queues.")]
OneHost = Annotated[
    str | None, typer.Option("--host", metavar="LABEL", help="Ask that host, as `status` names it.")
]

_NEXT = {
    "pause": "`maildefer resume` lets them go on",
    "resume": "`maildefer status` shows them at work",
    "reload": "`maildefer status` and the pool's log show how it goes",
}


@app.command()
def pause(queues: Queues = None, pid: Pid = None, all_hosts: AllHosts = False, host: OneHost = None) -> None:
    """Let pools claim no more messages."""
    _steer("pause", queues, pid, all_hosts, host)


@app.command()
def resume(queues: Queues = None, pid: Pid = None, all_hosts: AllHosts = False, host: OneHost = None) -> None:
    """Let paused pools claim messages again."""
    _steer("resume", queues, pid, all_hosts, host)


@app.command()
def reload(queues: Queues = None, pid: Pid = None, all_hosts: AllHosts = False, host: OneHost = None) -> None:
    """Let pools load settings and handlers anew, one worker at a time."""
    _steer("reload", queues, pid, all_hosts, host)


def _steer(verb: Verb, queues: list[str] | None, pid: str | None, all_hosts: bool, host: str | None) -> None:
    if all_hosts or host:
        if pid or (all_hosts and host):
            raise typer.BadParameter("Give one of --pid, --all-hosts and --host.")
        _through_the_mount(verb, queues, host)
    else:
        if queues:
            raise typer.BadParameter("Queues are named with --all-hosts or --host only.")
        for found in _pools(pid):
            output.line(output.clean(control.signal_process(found, verb)))
    output.say(_NEXT[verb])


def _pools(pid: str | None) -> list[control.Found]:
    """This project's pools on this host; other projects' are named by their pid files only."""
    if pid is not None:
        return [control.look_or_suggest(pid)]
    pools = [one for one in _here() if one.verdict == "running" and one.process.kind == "supervise"]
    return pools or [control.look_or_suggest(pid_path(None, supervise_pid()))]  # which says that nothing runs


def _here() -> list[control.Found]:
    """What is in the project's `run`, which need not be there yet."""
    try:
        return control.find(RUN)
    except NotRunning:
        return []


def _through_the_mount(verb: Verb, queues: list[str] | None, host: str | None) -> None:
    """One request for each lease, however many queues it serves: two reloads would be one too many."""
    asked: set[str] = set()
    for queue in queues or _known_queues():
        names = answered(bounded(lambda queue=queue: live_names(queue)), queue)  # type: ignore[misc]
        for lease in sorted(set(names) - asked):
            if host is None or _is_on(host, lease):
                answered(bounded(lambda q=queue, le=lease: request(q, le, verb)), queue)  # type: ignore[misc]
                asked.add(lease)
                output.line(output.clean(f"asked {lease} to {verb}, through {queue}"))
    if not asked:
        raise NotRunning(
            f"no live lease{f' of {host}' if host else ''}: `maildefer status QUEUE` shows who serves it"
        )


def _is_on(host: str, lease: str) -> bool:
    """Lease names begin with the host's label, which ends in a hash that nobody need type."""
    label = lease.rsplit("-", 2)[0]
    return host in (label, label.rpartition("-")[0])


def _known_queues() -> list[str]:
    found = queues_seen(item.process for item in _here() if item.pidfile is not None)
    if not found:
        raise MaildeferError(f"no pid file in {RUN} names a queue: name the queues whose hosts are meant")
    return found
