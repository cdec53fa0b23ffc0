"""What a survey has found, as rows: pools and front ends, workers, queues, and what is not as it should be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

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
    worker_state,
)
from maildefer.cli.status_survey import StatusSurvey
from maildefer.control.local_processes import LocalStatus
from maildefer.control.queue_status import EntryCounts, ServingHost
from maildefer.host.identity import this_host
from maildefer.maildir.names import EntryName
from maildefer.untrusted import number, objects


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """One worker, of any host."""

    host: str
    pid: int
    state: str
    seconds: float | None  # since the handler began
    queue: str
    entry: str
    handler: str
    handled: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRow:
    """One process of this host, or the pool of another host, as its leases show it."""

    host: str
    kind: str
    pid: int
    state: str
    rate: float | None  # messages a second
    workers: tuple[WorkerRow, ...]
    notes: tuple[str, ...] = ()

    @property
    def busy(self) -> int:
        return sum(worker.seconds is not None or bool(worker.entry) for worker in self.workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRow:
    """One queue; `counts` is None where nothing is known of it, and `notes` say why."""

    path: str
    name: str  # its path as short as a command takes it
    counts: EntryCounts | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptCounts:
    """What a pool of this host has counted of a handler since it began; only pools with `health_config` count."""

    queue: str  # its path
    handler: str
    attempts: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerRow:
    """What one handler is on, on all hosts, and what was counted of it; None where nothing was."""

    handler: str
    busy: int
    longest_seconds: float
    attempts: int | None
    mean_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """All that is shown at a time."""

    at: float  # on the monotonic clock, so that rates and plots go on whatever is done to the other
    pools: tuple[PoolRow, ...] = ()
    queues: tuple[QueueRow, ...] = ()
    problems: tuple[str, ...] = ()
    looked_seconds: float | None = None  # how old what it says of queues is
    workers: tuple[WorkerRow, ...] = ()
    attempts: tuple[AttemptCounts, ...] = ()

    @property
    def handlers(self) -> list[HandlerRow]:
        """The handlers that workers are in or that were counted, those that took most time first."""
        now: dict[str, list[float]] = defaultdict(list)
        counted: dict[str, list[AttemptCounts]] = defaultdict(list)
        for worker in self.workers:
            if worker.handler:
                now[worker.handler].append(worker.seconds or 0.0)
        for one in self.attempts:
            counted[one.handler].append(one)
        spent = {name: sum(one.seconds for one in ones) for name, ones in counted.items()}
        number_of = {name: sum(one.attempts for one in ones) for name, ones in counted.items()}
        names = sorted(now.keys() | spent.keys(), key=lambda name: -spent.get(name, 0.0) - sum(now[name]))
        return [
            HandlerRow(
                handler=name,
                busy=len(now[name]),
                longest_seconds=max(now[name], default=0.0),
                attempts=number_of.get(name),
                mean_seconds=spent[name] / number_of[name] if number_of.get(name) else None,
            )
            for name in names
        ]

    def queue(self, path: str) -> QueueRow | None:
        return next((row for row in self.queues if row.path == path), None)


def overview_of(
    seen: StatusSurvey,
    at: float,
    looked_seconds: float | None,
    home: str,
) -> Overview:
    """The rows of a survey, for a command in the folder `home`. What other hosts wrote is untrusted."""
    own = seen.own_leases
    pools = [_local(one) for one, _ in seen.local]
    others: dict[tuple[str, int], PoolRow] = {}
    problems = [
        f"{one.record.kind} {one.record.pid}: {why}"
        for one, _ in seen.local
        for why in problems_of_process(one)
    ]
    queues = []
    for path, counts in seen.queues.items():
        if isinstance(counts, EntryCounts):
            notes = tuple(_notes(path, counts, seen))
            told = problems_of_queue(counts, own, is_kept=path in seen.kept_queues)
            for pool in [_other(lease) for lease in counts.serving if lease.lease not in own]:
                before = others.setdefault((pool.host, pool.pid), pool)
                if before is not pool:  # which serves several queues
                    others[pool.host, pool.pid] = replace(before, workers=before.workers + pool.workers)
        else:
            told = [unknown_words(path, counts)]
            notes = tuple(told)
        name, known = path.removeprefix(f"{home}/"), counts if isinstance(counts, EntryCounts) else None
        queues.append(QueueRow(path=path, name=name, counts=known, notes=notes))
        problems += [f"{name}: {why}" for why in told]
    pools += others.values()
    return Overview(
        at=at,
        pools=tuple(pools),
        queues=tuple(queues),  # in the order of the settings, as `status` has them
        problems=(*problems, *seen.doubts),
        looked_seconds=looked_seconds,
        workers=tuple(worker for pool in pools for worker in pool.workers),
        attempts=tuple(counts for one, _ in seen.local for counts in _attempts(one.status or {})),
    )


def _local(one: LocalStatus) -> PoolRow:
    status: dict[str, Any] = one.status or {}
    words = [word for word in ("paused", "draining") if status.get(word)]
    if one.status is None and one.record.status_socket is not None:
        words = ["does not answer"]
    if (up := status.get("up_seconds")) is not None:
        words.append(f"up {output.duration(number(up))}")
    host = str(status.get("host") or this_host().label)
    return PoolRow(
        host=host,
        kind=one.record.kind,
        pid=one.record.pid,
        state=", ".join(words) or "runs",
        rate=_rate(status),
        workers=_workers(host, status),
        notes=tuple(_front_end(one) for one in objects(status.get("front_ends")) if "accepted" in one),
    )


def _other(lease: ServingHost) -> PoolRow:
    host = str(lease.status.get("host") or lease.lease)
    return PoolRow(
        host=host,
        kind="pool",
        pid=int(number(lease.status.get("pid"))),
        state=silence_words(lease) if lease.silent else idle_words(lease.status) or f"beat {lease.beat}",
        rate=lease.rate,
        workers=_workers(host, lease.status),
    )


def _rate(status: dict[str, Any]) -> float | None:
    rate = status.get("rate_per_second")
    return float(rate) if isinstance(rate, int | float) else None


def _front_end(report: dict[str, Any]) -> str:
    taken = output.count(int(number(report.get("accepted"))), "message", "messages")
    return f"{report.get('kind')} {report.get('address') or ''}: {taken} taken"


def _workers(host: str, status: dict[str, Any]) -> tuple[WorkerRow, ...]:
    return tuple(
        WorkerRow(
            host=host,
            pid=int(number(worker.get("pid"))),
            state=str(worker_state(worker)),
            seconds=None if worker.get("seconds") is None else number(worker.get("seconds")),
            queue=str(worker.get("queue") or ""),
            entry=EntryName.parse(str(worker.get("entry") or "")).key,
            handler=str(worker.get("handler") or ""),
            handled=sum(int(number(worker.get(name))) for name in ("acked", "handed_off")),
            failed=sum(int(number(worker.get(name))) for name in ("failed", "buried")),
        )
        for worker in objects(status.get("workers"))
    )


def _attempts(status: dict[str, Any]) -> Iterator[AttemptCounts]:
    paths = {one.get("queue"): str(one.get("path")) for one in objects(status.get("queues"))}
    for one in objects(status.get("attempts")):
        outcomes = one.get("outcomes")
        counts = outcomes.values() if isinstance(outcomes, dict) else ()
        yield AttemptCounts(
            queue=paths.get(one.get("queue"), ""),
            handler=str(one.get("handler") or "-"),
            attempts=sum(int(number(count)) for count in counts),
            seconds=number(one.get("seconds")),
        )


def _notes(path: str, counts: EntryCounts, seen: StatusSurvey) -> Iterator[str]:
    if counts.pause is not None:
        yield pause_words(counts.pause)
    if counts.partial:
        yield f"not counted to the end in time: {', '.join(counts.partial)}"
    if not counts.serving and path not in seen.kept_queues:
        yield "nobody serves it"
    for one, _ in seen.local:
        for queue in objects((one.status or {}).get("queues")):
            if queue.get("path") == path and (limited := limited_words(queue)):
                yield limited
    yield from down_lines(counts)
