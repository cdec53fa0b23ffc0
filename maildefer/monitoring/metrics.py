"""The metrics, from what a process says of itself and what is in its queues. Documented in docs/monitoring.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from maildefer.control import health
from maildefer.control.local_processes import LocalStatus, problems_of
from maildefer.control.queue_status import EntryCounts
from maildefer.host.identity import this_host
from maildefer.monitoring.looks import Found, queue_name
from maildefer.pool.counts.memory import BOUNDS
from maildefer.untrusted import number, objects
from maildefer.version import VERSION

Samples = Iterable[tuple[tuple[object, ...], float]]
_MOST_DESTINATIONS: Final = 50  # by name: domains are whatever somebody sends to
_STATES: Final = ("starting", "idle", "busy", "handling", "dead_charged", "dead_uncharged", "unknown")


def exposition(process: Found, queues: Mapping[str, Found], accept: str) -> tuple[bytes, str]:
    """Write all metrics in the format that the client accepts; returns its content type, too."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected([*_of_process(process), *_of_queues(process, queues)]))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collected(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _of_process(process: Found) -> Iterator[Metric]:
    for name, judge, text in (
        ("live", health.why_dead, "1: /live says so."),
        ("ready", health.why_unready, "1: /ready says so."),
        ("sound", health.why_degraded, "1: status finds nothing degraded in this process."),
    ):
        yield _gauge(name, text, (), [((), not problems_of(process, judge))])
    if not isinstance(process, LocalStatus) or process.status is None:
        return
    status: dict[str, Any] = process.status
    facts = (VERSION, status.get("host") or this_host().label, process.record.kind)
    yield _gauge(
        "info", "Always 1; its labels tell of this process.", ("version", "host", "kind"), [(facts, 1)]
    )
    states = [str(worker.get("state")) for worker in objects(status.get("workers"))]
    if "workers" in status:
        counts = [((state,), states.count(state)) for state in _STATES]
        yield _gauge("workers", "Worker processes by their state.", ("state",), counts)
        yield _counter("worker_deaths", "Workers that died.", (), [((), number(status.get("worker_deaths")))])
        refused = bool(list(health.why_reload_refused(status)))
        yield _gauge("reload_refused", "1: the last reload was refused.", (), [((), refused)])
    yield from _of_leases(objects(status.get("queues")))
    yield from _of_attempts(objects(status.get("attempts")), objects(status.get("notable")))
    yield from _of_deliveries(objects(status.get("deliveries")))
    groups = [one for one in objects(status.get("front_end_groups")) if one.get("kind") != "monitor"]
    yield from _of_front_ends(groups or objects(status.get("front_ends")), objects(status.get("front_ends")))


def _of_leases(queues: list[dict[str, Any]]) -> Iterator[Metric]:
    def of(name: str) -> Samples:
        return [((one.get("queue"),), number(one.get(name))) for one in queues]

    served = [((one.get("queue"),), one.get("state") == "served") for one in queues]
    claims = [((one.get("queue"),), not health.why_idle(one)) for one in queues]
    faults = [
        ((one.get("queue"), fault.get("chore")), 1) for one in queues for fault in objects(one.get("faults"))
    ]
    yield _gauge("lease_held", "1: this pool has a lease in the queue.", ("queue",), served)
    yield _gauge("queue_claims", "1: nothing but a person keeps this pool from claims.", ("queue",), claims)
    yield _gauge("queue_paused", "1: it is paused.", ("queue",), of("paused"))
    yield _gauge("queue_hosts", "Live leases that share the queue.", ("queue",), of("hosts"))
    yield _gauge("queue_limited", "Entries that wait for a limit.", ("queue",), of("limited"))
    yield _gauge("lease_beat_age_seconds", "Since the last good beat.", ("queue",), of("beat_age_seconds"))
    yield _counter("lease_beats", "Good beats.", ("queue",), of("beats"))
    yield _counter("takeovers", "Leases of other hosts that this host fenced.", ("queue",), of("fences"))
    yield _counter("reclaimed", "Claims of dead owners that were taken back.", ("queue",), of("reclaims"))
    yield _gauge("chore_failing", "1: that chore of the keeper fails.", ("queue", "chore"), faults)


def _of_attempts(attempts: list[dict[str, Any]], notable: list[dict[str, Any]]) -> Iterator[Metric]:
    outcomes = [
        ((one.get("queue"), one.get("handler"), outcome), number(count))
        for one in attempts
        for outcome, count in one["outcomes"].items()
    ]
    labels = ("queue", "handler", "outcome")
    yield _counter("attempts", "Attempts, by what came of them.", labels, outcomes)
    durations = HistogramMetricFamily(
        "maildefer_attempt_duration_seconds", "From the claim to the settle.", labels=("queue", "handler")
    )
    for one in attempts:
        buckets = zip((*map(str, BOUNDS), "+Inf"), accumulate(map(number, one["buckets"])), strict=True)
        named = [_text(one.get(name)) for name in ("queue", "handler")]
        durations.add_metric(named, list(buckets), number(one.get("seconds")))
    yield durations
    buried: dict[tuple[object, ...], float] = {}
    for one in notable:
        if one.get("event") == "buried":
            key = (one.get("queue"), one.get("kind"))
            buried[key] = buried.get(key, 0.0) + number(one.get("count"))
    yield _counter("buried", "Burials, by the kind of reason.", ("queue", "reason"), buried.items())


def _of_deliveries(deliveries: list[dict[str, Any]]) -> Iterator[Metric]:
    counts = [
        ((one.get("destination"), outcome), number(count))
        for one in deliveries
        for outcome, count in (one.get("outcomes") or {}).items()
    ]
    labels = ("destination", "outcome")
    yield _counter("deliveries", "Attempts to deliver, by what came of them.", labels, counts)


def _of_front_ends(groups: list[dict[str, Any]], processes: list[dict[str, Any]]) -> Iterator[Metric]:
    kind = ("front_end",)
    accepted = [((one.get("kind"),), number(one.get("accepted"))) for one in groups]
    refused = [
        ((one.get("kind"), why), number(count))
        for one in groups
        for why, count in (one.get("refused") or {}).items()
    ]
    connections: dict[tuple[object, ...], float] = {}
    for one in processes:
        key = (one.get("kind"),)
        connections[key] = connections.get(key, 0.0) + number(one.get("connections"))
    short = {(one.get("kind"), queue): 1.0 for one in processes for queue in health.shortages(one)}
    yield _counter("accepted", "Messages that a front end has stored.", kind, accepted)
    yield _counter("refused", "Its refusals, by enhanced status or HTTP's.", (*kind, "status"), refused)
    yield _gauge("connections", "Open connections.", kind, connections.items())
    yield _gauge("front_end_short", "1: it takes nothing for that queue.", (*kind, "queue"), short.items())


def _of_queues(process: Found, queues: Mapping[str, Found]) -> Iterator[Metric]:
    named = {queue_name(path, process): found for path, found in queues.items() if found is not None}
    counts = {name: found for name, found in named.items() if isinstance(found, EntryCounts)}
    entries: list[tuple[tuple[object, ...], float]] = []
    for name, one in counts.items():
        states = {"waiting": one.waiting, "claimed": one.claimed, "deferred": one.deferred - one.later}
        states |= {"later": one.later, "dead": one.dead}
        entries += [((name, state), count) for state, count in states.items()]
    readable = [((name,), name in counts) for name in named]
    complete = [((name,), one.complete) for name, one in counts.items()]
    oldest = [((name,), one.oldest_seconds or 0.0) for name, one in counts.items()]
    free = [((name,), one.free_bytes) for name, one in counts.items() if one.free_bytes is not None]
    down = sum(one.down_destinations for one in counts.values())
    since = [((each.destination,), each.seconds) for one in counts.values() for each in one.down]
    queue = ("queue",)
    yield _gauge("destinations_down", "Mail servers that are down.", (), [((), down)] if counts else [])
    yield _gauge(
        "destination_down_seconds", "Since when it is down.", ("destination",), since[:_MOST_DESTINATIONS]
    )
    yield _gauge("queue_readable", "1: the queue could be looked at in time.", queue, readable)
    yield _gauge("queue_counted", "1: all entries were counted, in time.", queue, complete)
    yield _gauge("queue_entries", "Entries, on all hosts, by state.", (*queue, "state"), entries)
    yield _gauge(
        "queue_oldest_seconds",
        "Since the push of the oldest that waits; also of one to be tried again.",
        queue,
        oldest,
    )
    yield _gauge("queue_free_bytes", "Free space where the queue is.", queue, free)


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    metric = GaugeMetricFamily(f"maildefer_{name}", text, labels=labels)
    for values, value in samples:
        metric.add_metric([*map(_text, values)], float(value))
    return metric


def _counter(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    metric = CounterMetricFamily(f"maildefer_{name}", text, labels=labels)
    for values, value in samples:
        metric.add_metric([*map(_text, values)], float(value))
    return metric


def _text(value: object) -> str:
    """A label's value; paths and handlers may have bytes that are no text."""
    return str(value or "").encode("utf-8", "backslashreplace").decode()
