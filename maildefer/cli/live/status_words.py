"""What is said of processes, queues and workers, in words: by `status`, `top` and the page of `web`."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import Any, Final

from maildefer.cli import output
from maildefer.control import health
from maildefer.control.local_processes import LocalStatus
from maildefer.control.queue_status import DownDestination, EntryCounts, ServingHost
from maildefer.maildir.operator.pause_mark import PauseMark
from maildefer.untrusted import number

_MOST_DOWN: Final = 5  # destinations that are named


def problems_of_process(one: LocalStatus) -> list[str]:
    """The problems of one process of this host."""
    if one.status is not None:
        return health.why_degraded(one.status)
    return [one.problem] if one.record.status_socket is not None else []  # others answer no questions


def problems_of_queue(counts: EntryCounts, own: Collection[str], *, is_kept: bool) -> list[str]:
    """The problems of a queue, as the mount shows it, but for those that this host's own pools report.

    The queue of a sink is served by no pool. That strangers' domains are down is no fault of ours.
    """
    found = []
    for lease in counts.serving:
        if lease.gone or lease.silent:
            found.append(f"{lease.lease}: {silence_words(lease)}")
        elif lease.lease not in own:
            found += [f"{lease.lease}: {why}" for why in health.why_queue_degraded(lease.status)]
            found += [f"{lease.lease}: {why}" for why in health.why_reload_refused(lease.status)]
    if counts.waiting and not counts.serving and not is_kept:
        found.append(f"nobody serves it, and {output.count(counts.waiting, 'entry waits', 'entries wait')}")
    return found + [f"{_down_words(one)}; see `maildefer outgoing`" for one in counts.down if one.is_server]


def down_lines(counts: EntryCounts) -> Iterator[str]:
    """The destinations of mail that are down, some by name."""
    yield from map(_down_words, counts.down[:_MOST_DOWN])
    if (more := counts.down_destinations - _MOST_DOWN) > 0:
        what = output.count(more, "more destination is", "more destinations are")
        yield f"{what} down: see `maildefer outgoing`"


def _down_words(down: DownDestination) -> str:
    return f"{down.destination} is down for {output.duration(down.seconds)}: {down.words}"


def unknown_words(queue: str, problem: str) -> str:
    """Why nothing is known of a queue, without its path, beside which it is printed."""
    without = problem.removeprefix(f"{queue} ").removeprefix(f"{queue}: ")
    return without.replace(f" at {queue}:", " there:")


def idle_words(queue: dict[str, Any]) -> str:
    if queue.get("paused_everywhere"):
        return "paused on all hosts by an operator"
    return "; ".join(health.why_queue_degraded(queue))


def limited_words(queue: dict[str, Any]) -> str:
    """How many entries wait for a limit, as far as this host knows."""
    limited = int(number(queue.get("limited")))
    return output.count(limited, "entry waits for a limit", "entries wait for a limit") if limited else ""


def worker_row(worker: dict[str, Any]) -> list[object]:
    seconds = worker.get("seconds")
    handled = sum(int(number(worker.get(name))) for name in ("acked", "handed_off"))
    failed = sum(int(number(worker.get(name))) for name in ("failed", "buried"))
    busy = output.duration(number(seconds)) if seconds is not None else ""
    entry, state = worker.get("entry") or "", worker_state(worker)
    return [f"  {worker.get('pid')}", state, busy, handled, failed, worker.get("queue"), entry]


def worker_state(worker: dict[str, Any]) -> object:
    state = worker.get("state")
    if state in ("idle", "busy") and (gathered := int(number(worker.get("gathered")))) > (state == "busy"):
        return f"gathers {gathered}"  # any worker that reads or settles has one
    if blocked := number(worker.get("blocked_seconds")):
        return f"blocked for {output.duration(blocked)}"
    if state == "handling" and number(worker.get("in_handlers")) > 1:
        return f"handles {worker['in_handlers']}"
    return "waits" if worker.get("waits_for") else state


def silence_words(lease: ServingHost) -> str:
    if lease.gone:
        return "has ended; its work is taken back by the next pool here, or by others in time"
    return f"silent for {output.duration(lease.silent_seconds or 0)}: is that host alive?"


def pause_words(pause: PauseMark) -> str:
    whom = f" by {pause.user or 'somebody'}{f' on {pause.host}' if pause.host else ''}"
    since = f", {output.duration(time.time() - pause.since)} ago" if pause.since else ""
    return f"paused on all hosts{whom}{since}"
