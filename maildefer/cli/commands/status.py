"""`status`: this host's processes, without touching a mount, then each queue as all hosts see it, in bounded time."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maildefer.cli import output
from maildefer.cli.parameters import Commands
from maildefer.cli.status_survey import look, meant
from maildefer.control import health
from maildefer.control.local_processes import LocalStatus
from maildefer.control.queue_status import EntryCounts, ServingHost
from maildefer.maildir.operator.pause_mark import PauseMark
from maildefer.untrusted import number, objects

if TYPE_CHECKING:
    from maildefer.cli.process_usage import Usage

app = Commands()

EX_FAILURE = 1  # not known, for want of a pid file to believe; asked by Salmon's option, it answers as Salmon
EX_NOT_RUNNING = 3
EX_DEGRADED = 4


@app.command()
def status(
    queues: Annotated[
        list[str] | None,
        typer.Argument(metavar="[QUEUE]...", help="Look at these; else at those that are served."),
    ] = None,
    pid: Annotated[
        str | None,
        typer.Option("--pid", metavar="PATH", help="Of this host, only the process with this pid file."),
    ] = None,
    all_projects: Annotated[
        bool, typer.Option("--all-projects", help="Of this host, other projects' processes as well.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON Lines.")] = False,
) -> None:
    """Show what runs, on this host and on all that share the queues, and what is not as it should be."""
    seen = look(meant(pid, all_projects), queues, elsewhere=pid is None)
    trouble: list[str] = []
    for one, used in seen.local:
        problems = _problems(one)
        trouble += [f"{one.record.kind} {one.record.pid}: {problem}" for problem in problems]
        _show_json(one, used, problems) if json else _show(one, used)
    runs = bool(seen.local)
    own = {lease for one, _ in seen.local if one.status is not None for lease in one.record.leases.values()}
    kept = {queue for one, _ in seen.local if one.record.kind == "log" for queue in one.record.queues}
    for queue, counts in seen.queues.items():
        if isinstance(counts, str):
            counts = (
                counts.removeprefix(f"{queue} ")
                .removeprefix(f"{queue}: ")
                .replace(f" at {queue}:", " there:")
            )
            output.complain(f"{queue}: {counts}")
            trouble.append(f"{os.path.relpath(queue)}: {counts}")
            continue
        runs = runs or (pid is None and not all(lease.silent for lease in counts.serving))
        problems = _queue_problems(counts, own, is_kept=queue in kept)
        trouble += [f"{os.path.relpath(queue)}: {problem}" for problem in problems]
        if json:
            output.record({"kind": "queue", **asdict(counts), "degraded": problems})
        else:
            _show_queue(counts, own)
    for doubt in seen.doubts:
        output.complain(doubt)
    if not runs and (seen.doubts or seen.unread):
        raise typer.Exit(EX_FAILURE)
    if not runs:
        what = f"nothing of this host runs with the pid file {pid}" if pid else "nothing runs"
        output.complain(f"{what}: `maildefer supervise` starts a pool, `maildefer start` a front end")
        raise typer.Exit(EX_NOT_RUNNING if pid is None else EX_FAILURE)
    if trouble:
        output.flush()
        for problem in trouble:
            output.complain(f"degraded: {problem}")
        raise typer.Exit(EX_DEGRADED)


def _problems(one: LocalStatus) -> list[str]:
    """The problems of one process of this host."""
    if one.status is not None:
        return health.why_degraded(one.status)
    return [one.problem] if one.record.status_socket is not None else []  # others answer no questions


def _queue_problems(counts: EntryCounts, own: Collection[str], *, is_kept: bool) -> list[str]:
    """The problems of a queue, as the mount shows it, but for those that this host's own pools report.

    The queue of a sink is served by no pool.
    """
    found = []
    for lease in counts.serving:
        if lease.gone or lease.silent:
            found.append(f"{lease.lease}: {_silence(lease)}")
        elif lease.lease not in own:
            found += [f"{lease.lease}: {why}" for why in health.why_queue_degraded(lease.status)]
            found += [f"{lease.lease}: {why}" for why in health.why_reload_refused(lease.status)]
    if counts.waiting and not counts.serving and not is_kept:
        found.append(f"nobody serves it, and {output.count(counts.waiting, 'entry waits', 'entries wait')}")
    return found


def _show_json(one: LocalStatus, used: Usage | None, problems: list[str]) -> None:
    record = one.record
    facts: dict[str, object] = {"kind": record.kind, "pid": record.pid, "pidfile": record.pidfile}
    facts |= {"started": record.started, "queues": list(record.queues), "leases": dict(record.leases)}
    facts["usage"] = None if used is None else asdict(used)
    output.record({**facts, "problem": one.problem or None, "degraded": problems, "status": one.status})


def _show(one: LocalStatus, used: Usage | None = None) -> None:
    record = one.record
    state: dict[str, Any] = one.status or {}
    words = [f"{record.kind} {record.pid}"]
    words += [word for word in ("paused", "draining") if state.get(word)]
    if state.get("throttled_seconds"):
        words.append(f"throttled: next fork in {state['throttled_seconds']} s")
    if state.get("up_seconds") is not None:
        words.append(f"up {output.duration(number(state['up_seconds']))}")
    if state.get("rate_per_second") is not None:
        words.append(f"{state['rate_per_second']}/s")
    if used is not None:
        words.append(f"{used.processes} processes, {output.size(used.memory_bytes)}")
    words.append(record.pidfile)
    output.line(output.clean("  ".join(words)))
    asked = record.status_socket is not None  # others answer no questions, and need not
    for problem in (one.problem if asked else "", state.get("trouble")):
        if problem:
            output.line(output.clean(f"  {problem}"))
    for queue in objects(state.get("queues")):
        if stands := "; ".join(filter(None, (_idle_text(queue), _limited_text(queue)))):
            output.line(output.clean(f"  {queue.get('queue')}: {stands}"))
    if state.get("reload_refused"):
        report = f"the last reload was refused, and the old application goes on: {state['reload_refused']}"
        output.line(output.clean(f"  {report}"))
    for front_end in objects(state.get("front_ends")):
        _show_front_end(front_end)
    for group in objects(state.get("front_end_groups")):
        if why := health.why_down(group):
            output.line(output.clean(f"  {why}"))
    if workers := objects(state.get("workers")):
        output.table(
            map(_worker, workers), ("  worker", "state", "for", "handled", "failed", "queue", "entry")
        )


def _idle_text(queue: dict[str, Any]) -> str:
    if queue.get("paused_everywhere"):
        return "paused on all hosts by an operator"
    return "; ".join(health.why_queue_degraded(queue))


def _limited_text(queue: dict[str, Any]) -> str:
    """How many entries wait for a limit, as far as this host knows."""
    limited = int(number(queue.get("limited")))
    return output.count(limited, "entry waits for a limit", "entries wait for a limit") if limited else ""


def _show_front_end(report: dict[str, Any]) -> None:
    """Print where a front end listens, its connections, and why it can take no more."""
    words = [f"  {report.get('kind')} {report.get('pid')}", str(report.get("address") or "")]
    if "connections" in report:
        words.append(_connections(report))
        words.append(f"{output.count(int(number(report.get('accepted'))), 'message', 'messages')} taken")
    if report.get("max_backlog"):
        words.append(f"up to {report['max_backlog']} waiting entries")
    if free := number(report.get("min_free_bytes")):
        words.append(f"down to {output.size(int(free))} free")
    output.line(output.clean("  ".join(words)))
    for queue, reason in health.shortages(report).items():
        output.line(output.clean(f"    refuses for now (452): {queue}: {reason}"))


def _connections(report: dict[str, Any]) -> str:
    own, of_all = report["connections"], report.get("connections_of_all", report["connections"])
    most = report.get("max_connections")
    return (
        f"{own} of {most} connections" if of_all == own else f"{own} connections, {of_all} of {most} in all"
    )


def _worker(worker: dict[str, Any]) -> list[object]:
    seconds = worker.get("seconds")
    handled = sum(int(number(worker.get(name))) for name in ("acked", "handed_off"))
    failed = sum(int(number(worker.get(name))) for name in ("failed", "buried"))
    busy = output.duration(number(seconds)) if seconds is not None else ""
    entry = worker.get("entry") or ""
    state = worker.get("state")
    if state in ("idle", "busy") and worker.get("gathered"):
        state = f"gathers {worker['gathered']}"
    elif state == "handling" and number(worker.get("in_handlers")) > 1:
        state = f"handles {worker['in_handlers']}"
    elif worker.get("waits_for"):
        state = "waits"
    return [f"  {worker.get('pid')}", state, busy, handled, failed, worker.get("queue"), entry]


def _show_busy(lease: ServingHost) -> None:
    """Print in a line what another host's workers are on; `--json` has each."""
    busy = lease.busy_workers
    if not busy:
        return
    longest = max(busy, key=_busy_seconds)
    words = f"  on {lease.lease}: {len(busy)} busy, the longest"
    if seconds := _busy_seconds(longest):
        words += f" for {output.duration(seconds)}"
    output.line(output.clean(f"{words}: worker {longest.get('pid')}  {longest.get('entry') or ''}".rstrip()))


def _busy_seconds(worker: dict[str, Any]) -> float:
    return number(worker.get("seconds"))


def _silence(lease: ServingHost) -> str:
    if lease.gone:
        return "has ended; its work is taken back by the next pool here, or by others in time"
    return f"silent for {output.duration(lease.silent_seconds or 0)}: is that host alive?"


def _pause(pause: PauseMark) -> str:
    whom = f" by {pause.user or 'somebody'}{f' on {pause.host}' if pause.host else ''}"
    since = f", {output.duration(time.time() - pause.since)} ago" if pause.since else ""
    return f"paused on all hosts{whom}{since}"


def _show_queue(counts: EntryCounts, own: Collection[str] = ()) -> None:
    """Print a queue and each lease that serves it; `own` are leases whose workers were shown already."""
    oldest = f", oldest {output.duration(counts.oldest_seconds)}" if counts.oldest_seconds is not None else ""
    numbers = {"waiting": counts.waiting, "claimed": counts.claimed}
    numbers |= {"deferred": counts.deferred, "dead": counts.dead}
    report = {name: f"{'over ' if name in counts.partial else ''}{n} {name}" for name, n in numbers.items()}
    free = f", {output.size(counts.free_bytes)} free" if counts.free_bytes is not None else ""
    output.line(
        output.clean(f"{counts.queue}: {report.pop('waiting')}{oldest}, {', '.join(report.values())}{free}")
    )
    if counts.partial:
        short = ", ".join(counts.partial)
        output.line(f"  not counted to the end in time: {short}; `maildefer queue count` counts all")
    if counts.pause is not None:
        output.line(output.clean(f"  {_pause(counts.pause)}; `maildefer resume` lets it go on"))
    rows = []
    for lease in counts.serving:
        state = lease.status
        busy = f"{lease.busy} of its workers busy"
        stands = _idle_text(state)
        words = [stands] if stands else [word for word in ("paused",) if state.get(word)]
        rate = f"its pool {lease.rate:.1f}/s" if lease.rate is not None else ""
        if lease.gone or lease.silent:
            words.append(_silence(lease))
        rows.append((f"  {lease.lease}", f"beat {lease.beat}", busy, rate, " ".join(words)))
    if rows:
        output.table(rows)
        for lease in counts.serving:
            if lease.lease not in own and not lease.silent:
                _show_busy(lease)
    else:
        output.line("  nobody serves it")
    if counts.dead:
        output.say(f"`maildefer dead list {os.path.relpath(counts.queue)}` shows the dead letters")
