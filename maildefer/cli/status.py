"""`status`: this host's processes without a look at a mount, then each queue, in bounded time, as all hosts see it."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maildefer.cli import output
from maildefer.cli.light import Commands
from maildefer.cli.places import RUN
from maildefer.control import look as control
from maildefer.control.census import Census, Serving, take
from maildefer.control.look import LocalStatus
from maildefer.errors import MaildeferError, NotRunning
from maildefer.host.bounded import TimedOut, bounded
from maildefer.maildir.paused import Pause

if TYPE_CHECKING:
    from maildefer.cli.usage import Usage

app = Commands()

EX_FAILURE = 1  # asked by Salmon's option, it answers as Salmon
EX_NOT_RUNNING = 3
_SECONDS = 2.0


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
    json: Annotated[bool, typer.Option("--json", help="Print JSON Lines.")] = False,
) -> None:
    """Show what runs, on this host and on all that share the queues."""
    local = [
        one for one in control.local_status() if pid is None or one.record.pidfile == os.path.abspath(pid)
    ]
    for one in local:
        _show_json(one) if json else _show(one)
    output.flush()  # whatever hangs from here on, this is known
    runs = bool(local)
    own = {lease for one in local if one.status is not None for lease in one.record.leases.values()}
    for queue in dict.fromkeys(map(os.path.abspath, queues or _queues(local, pid))):
        census = _census(queue)
        if isinstance(census, str):
            output.complain(f"{queue}: {census}")
            continue
        runs = runs or (pid is None and not all(lease.silent for lease in census.serving))
        output.record({"kind": "queue", **asdict(census)}) if json else _show_queue(census, own)
    if not runs:
        what = f"nothing of this host runs with the pid file {pid}" if pid else "nothing runs"
        output.complain(f"{what}: `maildefer supervise` starts a pool, `maildefer start` a front end")
        raise typer.Exit(EX_NOT_RUNNING if pid is None else EX_FAILURE)


def _queues(local: list[LocalStatus], pid: str | None) -> list[str]:
    """Those that this host serves, and those that pid files in `run` name for other hosts."""
    queues = [queue for one in local for queue in one.record.queues]
    if pid is None:
        try:
            queues += [queue for item in control.find(RUN) if item.pidfile for queue in item.pidfile.queues]
        except NotRunning:  # there is no such directory
            pass
    return queues


def _census(queue: str) -> Census | str:
    try:
        census = bounded(lambda: take(queue, _SECONDS * 0.75), _SECONDS)
    except MaildeferError as error:
        return str(error)
    if isinstance(census, TimedOut):
        return (
            f"no answer within {census.seconds:g} s: its filesystem hangs; this host's processes are as shown"
        )
    return census


def _show_json(one: LocalStatus) -> None:
    record = one.record
    facts: dict[str, object] = {"kind": record.kind, "pid": record.pid, "pidfile": record.pidfile}
    facts |= {"started": record.started, "queues": list(record.queues), "leases": dict(record.leases)}
    usage = _usage(record.pid)
    facts["usage"] = None if usage is None else asdict(usage)
    output.record({**facts, "problem": one.problem or None, "status": one.status})


def _show(one: LocalStatus) -> None:
    record = one.record
    state: dict[str, Any] = one.status or {}
    words = [f"{record.kind} {record.pid}"]
    words += [word for word in ("paused", "draining") if state.get(word)]
    if state.get("throttled_seconds"):
        words.append(f"throttled: next fork in {state['throttled_seconds']} s")
    if state.get("up_seconds") is not None:
        words.append(f"up {output.duration(state['up_seconds'])}")
    if state.get("rate_per_second") is not None:
        words.append(f"{state['rate_per_second']}/s")
    if (usage := _usage(record.pid)) is not None:
        words.append(f"{usage.processes} processes, {output.size(usage.memory_bytes)}")
    words.append(record.pidfile)
    output.line(output.clean("  ".join(words)))
    asked = record.status_socket is not None  # others answer no questions, and need not
    for problem in (one.problem if asked else "", state.get("trouble")):
        if problem:
            output.line(output.clean(f"  {problem}"))
    for queue in state.get("queues") or []:
        if stands := _standing(queue):
            output.line(output.clean(f"  {queue.get('queue')}: {stands}"))
    if state.get("reload_refused"):
        told = f"the last reload was refused, and the old application goes on: {state['reload_refused']}"
        output.line(output.clean(f"  {told}"))
    for front_end in state.get("front_ends") or []:
        _show_front_end(front_end)
    workers = state.get("workers") or []
    if workers:
        output.table(
            map(_worker, workers), ("  worker", "state", "for", "handled", "failed", "queue", "entry")
        )


def _standing(queue: dict[str, Any]) -> str:
    """Why a pool claims nothing from a queue, where that is not an operator's doing; empty if it does."""
    if queue.get("paused_everywhere"):
        return "paused on all hosts by an operator"
    seconds = output.duration(float(queue.get("paused_seconds") or 0))
    match queue.get("paused_for"):
        case None:
            pass
        case "ENOENT":  # whatever is missing of a queue is a fault with another name
            return f"paused for {seconds}: nothing has a route; see `maildefer routes` for what these settings take"
        case code:
            return f"paused for {seconds}: a fault of the storage ({code})"
    if queue.get("state") == "served":
        late = queue.get("may_claim") is False
        return "no good beat: no claims until the mount answers in time" if late else ""
    return {"absent": "not joined: it has no lease there", "fenced": "fenced: it joins anew"}.get(
        str(queue.get("state")), ""
    )


def _show_front_end(told: dict[str, Any]) -> None:
    """Where it listens, who is in, and what it can take no more for."""
    words = [f"  {told.get('kind')} {told.get('pid')}", str(told.get("address") or "")]
    if "connections" in told:
        words.append(_connections(told))
        words.append(f"{output.count(told.get('accepted') or 0, 'message', 'messages')} taken")
    if told.get("max_backlog"):
        words.append(f"up to {told['max_backlog']} waiting entries")
    if told.get("min_free_bytes"):
        words.append(f"down to {output.size(told['min_free_bytes'])} free")
    output.line(output.clean("  ".join(words)))
    for queue, reason in (told.get("shortages") or {}).items():
        output.line(output.clean(f"    refuses for now (452): {queue}: {reason}"))


def _connections(told: dict[str, Any]) -> str:
    own, of_all = told["connections"], told.get("connections_of_all", told["connections"])
    most = told.get("max_connections")
    return (
        f"{own} of {most} connections" if of_all == own else f"{own} connections, {of_all} of {most} in all"
    )


def _usage(pid: int) -> Usage | None:
    """In bounded time: /proc has no answer about the memory of a process that hangs in a page fault."""
    from maildefer.cli import usage  # psutil, for those who have something to look at

    try:
        used = bounded(lambda: usage.of_tree(pid), _SECONDS)
    except MaildeferError:  # who looked was killed
        return None
    return None if isinstance(used, TimedOut) else used


def _worker(worker: dict[str, Any]) -> list[object]:
    seconds = worker.get("seconds")
    handled = sum(int(worker.get(name) or 0) for name in ("acked", "handed_off"))
    failed = sum(int(worker.get(name) or 0) for name in ("failed", "buried"))
    busy = output.duration(seconds) if seconds is not None else ""
    entry = worker.get("entry") or ""
    state = worker.get("state")
    if state in ("idle", "busy") and worker.get("gathered"):
        state = f"gathers {worker['gathered']}"
    elif worker.get("waits_for"):
        state = "waits"
    return [f"  {worker.get('pid')}", state, busy, handled, failed, worker.get("queue"), entry]


def _show_busy(lease: Serving) -> None:
    """What another host's workers are on; this host's are listed above."""
    for worker in lease.busy_workers:
        seconds = worker.get("seconds")
        busy = f" for {output.duration(seconds)}" if isinstance(seconds, int | float) else ""
        words = f"  on {lease.lease}: worker {worker.get('pid')} {worker.get('state')}{busy}"
        output.line(output.clean(f"{words}  {worker.get('entry') or ''}".rstrip()))


def _pause(pause: Pause) -> str:
    whom = f" by {pause.user or 'somebody'}{f' on {pause.host}' if pause.host else ''}"
    since = f", {output.duration(time.time() - pause.since)} ago" if pause.since else ""
    return f"paused on all hosts{whom}{since}"


def _show_queue(census: Census, own: Collection[str] = ()) -> None:
    """With each lease that serves it; `own` are those whose workers were shown already."""
    oldest = f", oldest {output.duration(census.oldest_seconds)}" if census.oldest_seconds is not None else ""
    more = "" if census.complete else " or more (not all was counted)"
    others = f"{census.claimed} claimed, {census.deferred} deferred, {census.dead} dead"
    free = f", {output.size(census.free_bytes)} free" if census.free_bytes is not None else ""
    output.line(output.clean(f"{census.queue}: {census.waiting} waiting{oldest}, {others}{more}{free}"))
    if census.pause is not None:
        output.line(output.clean(f"  {_pause(census.pause)}; `maildefer resume` lets it go on"))
    rows = []
    for lease in census.serving:
        state = lease.status
        busy = f"{lease.busy} of its workers busy"
        stands = _standing(state)
        words = [stands] if stands else [word for word in ("paused",) if state.get(word)]
        rate = f"its pool {lease.rate:.1f}/s" if lease.rate is not None else ""
        if lease.gone:
            words.append("has ended; its work is taken back by the next pool here, or by others in time")
        elif lease.silent:
            words.append(f"silent for {output.duration(lease.told_seconds or 0)}: is that host alive?")
        rows.append((f"  {lease.lease}", f"beat {lease.beat}", busy, rate, " ".join(words)))
    if rows:
        output.table(rows)
        for lease in census.serving:
            if lease.lease not in own and not lease.silent:
                _show_busy(lease)
    else:
        output.line("  nobody serves it")
    if census.dead:
        output.say(f"`maildefer dead list {os.path.relpath(census.queue)}` shows the dead letters")
