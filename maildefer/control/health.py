"""Judging a process by its status: whether it lives, whether it is ready, and what is not as it should be.

Written from the answers to status questions, which are JSON of any version: what is not there is passed over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from maildefer.untrusted import number, objects

Status = Mapping[str, Any]
_END_OF_TIME: Final = 1 << 34  # what other hosts wrote may be anything
# Beyond the TTL: a scout gives a sign of life every two seconds, a keeper every five.
_GRACE_SECONDS: Final = 5.0
_MANY_DEATHS: Final = 5  # in a row, without a minute between them: then they are started ever more slowly
Judge = Callable[[Status], list[str]]


def why_dead(status: Status) -> list[str]:
    """The reasons to restart a process; a handler that takes long, a pause, or a mount that hangs is none."""
    limit = _number(status, "ttl_seconds") + _GRACE_SECONDS
    signs = {
        "keeper_silent_seconds": "its keeper has given no sign of life",
        "scout_silent_seconds": "its scout has given no sign of life",
        "without_workers_seconds": "it has had no worker that was up",
    }
    silent = {what: seconds for name, what in signs.items() if (seconds := _number(status, name)) > limit}
    return [f"{what} for {seconds:.0f} s" for what, seconds in silent.items()]


def why_unready(status: Status) -> list[str]:
    """The reasons for which a process handles no messages now, or not with the code that it was to load."""
    found = why_dead(status)
    if status.get("draining"):
        found.append("it is draining")
    if status.get("paused"):
        found.append("it is paused")
    if status.get("workers") is not None and not any(map(_is_up, objects(status["workers"]))):
        found.append("no worker is up yet")
    groups = objects(status.get("front_end_groups"))
    found += [why for group in groups if group.get("kind") != "monitor" and (why := why_down(group))]
    for queue in objects(status.get("queues")):
        if queue.get("paused_everywhere") and not status.get("paused"):
            found.append(f"{queue.get('queue')}: paused on all hosts by an operator")
        found += [f"{queue.get('queue')}: {why}" for why in (why_idle(queue),) if why]
    return found + list(why_reload_refused(status))


def why_degraded(status: Status) -> list[str]:
    """The faults of a process, which may still handle mail; an operator's pause is no fault."""
    found = why_dead(status)
    if trouble := status.get("trouble"):
        found.append(str(trouble))
    if seconds := status.get("throttled_seconds"):
        found.append(f"its workers die at once, and are forked more slowly: the next one in {seconds} s")
    starts = _number(status, "up_seconds") < _number(status, "ttl_seconds")
    for queue in objects(status.get("queues")):
        found += [f"{queue.get('queue')}: {why}" for why in why_queue_degraded(queue, starts=starts)]
    for group in objects(status.get("front_end_groups")):
        if (group.get("deaths") or group.get("error")) and (why := why_down(group)):
            found.append(why)
    for front_end in objects(status.get("front_ends")):
        for name, reason in shortages(front_end).items():
            found.append(f"its front end refuses mail for {name}: {reason}")
    return found + list(why_reload_refused(status))


def why_queue_degraded(queue: Status, *, starts: bool = False) -> list[str]:
    """The faults of one queue, by a pool's status or its file on the mount; a pool that starts has yet to join."""
    found = []
    why = why_idle(queue)
    if why and not (starts and queue.get("state") == "absent"):
        found.append(why)
    return found + [_failing(fault) for fault in objects(queue.get("faults"))]


def why_down(group: Status) -> str:
    """The reason for which the front ends of one kind take no mail, or soon will not; empty if they do."""
    deaths, up = int(_number(group, "deaths")), int(_number(group, "up"))
    word = "" if group.get("kind") == "monitor" else "front end "
    what = f"its {word}{group.get('kind')} {group.get('address') or ''}".rstrip()
    if deaths >= _MANY_DEATHS:
        pause = _number(group, "throttled_seconds")
        then = f", and is started again in {pause:.0f} s" if pause else ""
        return f"{what} has died {deaths} times in a row{then}: its log tells why"
    if error := group.get("error"):
        return f"{what}: {error}"
    if _number(group, "wanted") and not up:
        return f"{what} is not up"
    return ""


def shortages(front_end: Status) -> dict[str, object]:
    """The queues for which a front end refuses mail, each with the reason."""
    found = front_end.get("shortages")
    return found if isinstance(found, dict) else {}


def _failing(fault: Status) -> str:
    """A failing chore of a keeper in words: since when, at how many entries, and why."""
    since, entries = fault.get("since"), fault.get("entries")
    when = ""
    if isinstance(since, int) and 0 < since < _END_OF_TIME:
        when = time.strftime(" since %Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
    more = f" (and {entries - 1} more)" if isinstance(entries, int) and entries > 1 else ""
    return f"the keeper's chore `{fault.get('chore')}` fails{when}: {fault.get('error')}{more}"


def why_idle(queue: Status) -> str:
    """The reason for which a pool claims nothing from a queue, other than an operator's pause; empty if it claims."""
    seconds = _number(queue, "paused_seconds")
    match queue.get("paused_for"):
        case None:
            pass
        case "ENOENT":  # whatever is missing of a queue is a fault with another name
            remedy = "see `maildefer routes` for what these settings take"
            return f"paused for {seconds:.0f} s: nothing has a route; {remedy}"
        case code:
            return f"paused for {seconds:.0f} s: a fault of the storage ({code})"
    if queue.get("state") == "served":
        late = queue.get("may_claim") is False
        return "no good beat: no claims until the mount answers in time" if late else ""
    return {"absent": "not joined: it has no lease there", "fenced": "fenced: it joins anew"}.get(
        str(queue.get("state")), ""
    )


def why_reload_refused(status: Status) -> Iterator[str]:
    """The reason for which the last reload was refused, if it was."""
    reload = status.get("reload")
    why = status.get("reload_refused") or (reload.get("refused") if isinstance(reload, Mapping) else None)
    if why:
        yield f"the last reload was refused, and what it had loaded goes on: {why}"


def _is_up(worker: Status) -> bool:
    return worker.get("state") in ("idle", "busy", "handling")


def _number(facts: Status, name: str) -> float:
    return number(facts.get(name))
