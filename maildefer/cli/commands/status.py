"""`status`: this host's processes, without touching a mount, then each queue as all hosts see it, in bounded time."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import asdict
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maildefer.cli import output
from maildefer.cli.live.status_words import (
    down_lines,
    idle_words,
    limited_words,
    pause_words,
    problems_of_process,
    problems_of_queue,
    silence_words,
    unknown_words,
    worker_row,
)
from maildefer.cli.parameters import Commands
from maildefer.cli.schemas.schema import Schema
from maildefer.cli.status_survey import look, meant
from maildefer.control import health
from maildefer.control.local_processes import LocalStatus
from maildefer.control.queue_status import EntryCounts, ServingHost
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
    schema = Schema("status") if json else None
    for one, used in seen.local:
        problems = problems_of_process(one)
        trouble += [f"{one.record.kind} {one.record.pid}: {problem}" for problem in problems]
        _show(one, used) if schema is None else _show_json(one, used, problems, schema)
    runs = bool(seen.local)
    for queue, counts in seen.queues.items():
        if isinstance(counts, str):
            counts = unknown_words(queue, counts)
            output.complain(f"{queue}: {counts}")
            if json:
                output.record({"kind": "unknown", "queue": queue, "problem": counts})
            trouble.append(f"{os.path.relpath(queue)}: {counts}")
            continue
        runs = runs or (pid is None and not all(lease.silent for lease in counts.serving))
        problems = problems_of_queue(counts, seen.own_leases, is_kept=queue in seen.kept_queues)
        trouble += [f"{os.path.relpath(queue)}: {problem}" for problem in problems]
        if schema is None:
            _show_queue(counts, seen.own_leases)
        else:
            facts = asdict(counts)
            del facts["filesystem"]
            for lease in facts["serving"]:
                lease["status"] = schema.fitted(lease["status"], "served_queue")
            output.record({"kind": "queue", **facts, "degraded": problems})
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


def _show_json(one: LocalStatus, used: Usage | None, problems: list[str], schema: Schema) -> None:
    record = one.record
    facts: dict[str, object] = {"kind": record.kind, "pid": record.pid, "pidfile": record.pidfile}
    facts |= {"started": record.started, "queues": list(record.queues), "leases": dict(record.leases)}
    facts["usage"] = None if used is None else asdict(used)
    facts |= {"problem": one.problem or None, "degraded": problems}
    output.record({**facts, "status": schema.fitted(one.status, "process_status")})


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
        if stands := "; ".join(filter(None, (idle_words(queue), limited_words(queue)))):
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
            map(worker_row, workers), ("  worker", "state", "for", "handled", "failed", "queue", "entry")
        )


def _show_front_end(report: dict[str, Any]) -> None:
    """Print where a front end listens, its connections, and why it can take no more."""
    words = [f"  {report.get('kind')} {report.get('pid')}", str(report.get("address") or "")]
    if "connections" in report:
        words.append(_connections(report))
    if "connections" in report and report.get("kind") != "monitor":
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
        output.line(output.clean(f"  {pause_words(counts.pause)}; `maildefer resume` lets it go on"))
    for line in down_lines(counts):
        output.line(output.clean(f"  {line}"))
    rows = []
    for lease in counts.serving:
        state = lease.status
        busy = f"{lease.busy} of its workers busy"
        stands = idle_words(state)
        words = [stands] if stands else [word for word in ("paused",) if state.get(word)]
        rate = f"its pool {lease.rate:.1f}/s" if lease.rate is not None else ""
        if lease.gone or lease.silent:
            words.append(silence_words(lease))
        rows.append((f"  {lease.lease}", f"beat {lease.beat}", busy, rate, " ".join(words)))
    if rows:
        output.table(rows)
        for lease in counts.serving:
            if lease.lease not in own and not lease.silent:
                _show_busy(lease)
    else:
        output.line("  nobody serves it")
    if counts.dead:
        output.say(f"`maildefer dead list {quote(os.path.relpath(counts.queue))}` shows the dead letters")
