"""`reload`, and how pools are asked for anything: this host's by a signal, others by requests through the mount."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import typer

from maildefer.cli import output
from maildefer.cli.defaults import RUN, answered, pid_path, probed, queues_seen, supervise_pid
from maildefer.cli.group import EX_CONFIG
from maildefer.cli.parameters import Commands
from maildefer.control import local_processes as control
from maildefer.control import reload_verdicts
from maildefer.control.pidfile_proof import is_trusted
from maildefer.control.reload_verdicts import ReloadVerdict
from maildefer.control.requests import Verb, file_request, read_leases
from maildefer.errors import ConfigurationError, MaildeferError, NotRunning
from maildefer.handling.project.finder import project
from maildefer.host.bounded_call import bounded

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


@app.command()
def reload(
    queues: Queues = None,
    pid: Pid = None,
    all_hosts: AllHosts = False,
    host: OneHost = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only try whether settings and handlers load; touch no pool.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait for each pool's verdict.")] = True,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long to wait.")
    ] = reload_verdicts.SECONDS,
) -> None:
    """Let pools load settings and handlers anew, one worker at a time."""
    if check:
        if queues or pid or all_hosts or host:
            raise typer.BadParameter("--check looks at this project only.")
        _check(timeout)
    elif not wait:
        ask("reload", queues, pid, all_hosts, host)
        output.say("`maildefer status` and the pool's log show how it goes")
    elif is_elsewhere(queues, pid, all_hosts, host):
        _print_verdicts(_verdicts_there(queues, host, timeout))
    else:
        _print_verdicts(reload_verdicts.reload_here(pools(pid), timeout))


def _check(seconds: float) -> None:
    """Load the project as a pool does at its start and at a reload. Raises ConfigurationError."""
    from maildefer.pool.options import PoolOptions  # for this only

    report, plan = probed(seconds), PoolOptions(project=project(), pidfile="")
    settings = plan.settings(report)
    if report.front_end_fault:
        raise ConfigurationError(report.front_end_fault)
    _check_alerts(settings.alerts)
    served = plan.served(settings, report.routes)
    number = sum(not queue.tokens_only for queue in served)
    routes = output.count(len(report.routes), "route", "routes")
    output.line(f"settings and handlers load: {output.count(number, 'queue', 'queues')}, {routes}")


def _check_alerts(alerts: Mapping[str, Any] | None) -> None:
    from shutil import which  # for this only

    if alerts and which(program := alerts["command"][0]) is None:
        raise ConfigurationError(f"alerts: {program} is no program that this user may execute")


def _print_verdicts(found: Iterable[ReloadVerdict]) -> None:
    outcomes: set[str] = set()
    for verdict in found:
        outcomes.add(verdict.outcome)
        text = output.clean_lines(f"{verdict.subject}: {verdict.text}".rstrip())
        output.line(text) if verdict.outcome == "accepted" else output.say(f"maildefer: {text}")
        output.flush()
    if "refused" in outcomes:
        raise typer.Exit(EX_CONFIG)
    if "unknown" in outcomes:
        raise typer.Exit(1)


def _verdicts_there(queues: list[str] | None, host: str | None, seconds: float) -> Iterator[ReloadVerdict]:
    for queue, names in _meant(queues, host):
        yield from reload_verdicts.reload_there(queue, names, seconds)


def ask(verb: Verb, queues: list[str] | None, pid: str | None, all_hosts: bool, host: str | None) -> None:
    """Ask pools for something: this host's by a signal, with a host or all of them through the mount."""
    if is_elsewhere(queues, pid, all_hosts, host):
        _through_the_mount(verb, queues, host)
    else:
        for found in pools(pid):
            output.line(output.clean(control.signal_process(found, verb)))


def is_elsewhere(queues: list[str] | None, pid: str | None, all_hosts: bool, host: str | None) -> bool:
    """Whether to ask through the mount. Raises BadParameter."""
    if (all_hosts or host) and (pid or (all_hosts and host)):
        raise typer.BadParameter("Give one of --pid, --all-hosts and --host.")
    if queues and not (all_hosts or host):
        raise typer.BadParameter("Queues are named with --all-hosts or --host only.")
    return all_hosts or host is not None


def pools(pid: str | None) -> list[control.PidFileStatus]:
    """This project's pools on this host; other projects' are named by their pid files only."""
    if pid is not None:
        return [control.find_or_suggest(pid)]
    found = [one for one in here() if one.verdict == "running" and one.process.kind == "supervise"]
    return found or [control.find_or_suggest(pid_path(None, supervise_pid()))]  # which says that nothing runs


def here() -> list[control.PidFileStatus]:
    """The processes of this host behind the pid files in the project's `run`, which may be missing."""
    try:
        return control.find_processes(RUN)
    except NotRunning:
        return []


def _through_the_mount(verb: Verb, queues: list[str] | None, host: str | None) -> None:
    for queue, names in _meant(queues, host):
        for lease in names:
            answered(bounded(lambda q=queue, le=lease: file_request(q, le, verb)), queue)  # type: ignore[misc]
            output.line(output.clean(f"asked {lease} to {verb}, through {queue}"))


def _meant(queues: list[str] | None, host: str | None) -> Iterator[tuple[str, list[str]]]:
    """Each queue with the leases to ask through it: one for each pool, so that none reloads twice.

    A pool has one lease name in all of its queues, until it is fenced and joins again under another name.
    """
    asked: set[tuple[str, ...]] = set()
    for queue in queues or known_queues():
        names = []
        for lease in answered(bounded(lambda queue=queue: read_leases(queue)), queue):  # type: ignore[misc]
            if lease.pool not in asked and (host is None or _is_on(host, lease.name)):
                asked.add(lease.pool)
                names.append(lease.name)
        yield queue, names
    if not asked:
        raise NotRunning(
            f"no live lease{f' of {host}' if host else ''}: `maildefer status QUEUE` shows who serves it"
        )


def _is_on(host: str, lease: str) -> bool:
    """Whether a lease is of the named host; a lease name begins with the host's label, whose hash may be left out."""
    label = lease.rsplit("-", 2)[0]
    return host in (label, label.rpartition("-")[0])


def known_queues() -> list[str]:
    items = [item for item in here() if item.pidfile is not None]
    found = queues_seen(item.process for item in items if item.record is not None or is_trusted(item.process))
    if not found:
        raise MaildeferError(
            f"no pid file of this user's or root's in {RUN} names a queue: name the queues whose hosts are meant"
        )
    return found
