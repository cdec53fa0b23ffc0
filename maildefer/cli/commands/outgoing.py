"""`outgoing`: the destinations of what is to be sent: how much waits, which are down, when they are tried next."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Final

import typer

from maildefer.cli import output
from maildefer.cli.defaults import answered, must_be_project
from maildefer.cli.entries.listing import arrived_at, envelope_of
from maildefer.cli.entries.selection import Json
from maildefer.cli.parameters import Commands
from maildefer.cli.status_survey import records_meant
from maildefer.control import history
from maildefer.control.local_processes import ask_process
from maildefer.errors import ConfigurationError, MaildeferError, QueueMissing
from maildefer.handling.outgoing.destinations import MODULE, Destinations, destinations_of
from maildefer.handling.project.queue_paths import home_queue, located
from maildefer.handling.project.settings import load_settings, pool_settings
from maildefer.host.bounded_call import bounded
from maildefer.host.identity import this_host
from maildefer.maildir.due import clock_of
from maildefer.maildir.layout import Layout
from maildefer.maildir.operator import entries, schedule
from maildefer.maildir.operator.entries import Folder, FoundEntry
from maildefer.maildir.operator.inspection import look_into_queue
from maildefer.maildir.upkeep.closures import LOOK_SECONDS, ClosureRecord, Closures
from maildefer.untrusted import number, objects

app = Commands()
_WAITING: Final[tuple[Folder, ...]] = ("deferred", "waiting", "claimed")


@dataclass(slots=True)
class _DestinationEntries:
    """What waits for one destination."""

    entries: int = 0
    oldest: float | None = None
    due: list[int] = field(default_factory=list)


@app.command()
def outgoing(
    retry: Annotated[
        str | None,
        typer.Option(metavar="DESTINATION", help="Have what waits for it, or for a domain, tried at once."),
    ] = None,
    json: Json = False,
) -> None:
    """Show the destinations of mail: how much waits, which are down, when they are tried next."""
    if retry == "":  # as of an unset variable
        raise typer.BadParameter("A destination is empty.")
    queues, destinations, home = _project()
    if retry is None:
        _show(queues, destinations, home, json)
    else:
        _try_at_once(retry, queues, destinations, home)


def _show(queues: dict[str, Layout], destinations: Destinations, home: Layout, json: bool) -> None:
    waiting: dict[str, _DestinationEntries] = {}
    tried: dict[str, str] = {}  # by key, the name of the destination
    for one, name, _ in _entries(queues, destinations):
        found = waiting.setdefault(name, _DestinationEntries())
        if one.entry.attempts:
            tried[one.key] = name
        found.entries += 1
        if (arrived := arrived_at(one.entry.key)) is not None:
            found.oldest = arrived if found.oldest is None else min(arrived, found.oldest)
        if one.entry.due is not None and not schedule.is_held(one.entry):
            found.due.append(one.entry.due)
    to = set(tried.values())
    said = {name: words for name, words in _told_here().items() if name in to} if to else {}
    for layout in queues.values():
        said |= {tried[key]: reason for key, reason in history.last_reasons(layout, tried).items()}
    records, now = answered(bounded(lambda: _records(home)), home.path), time.time()
    down = {one.name: one for one in records if one.name in waiting or not one.closure.is_left(now)}
    rows = []
    for name in sorted(waiting.keys() | down.keys(), key=lambda name: (name not in down, name)):
        facts = _facts(name, waiting.get(name, _DestinationEntries()), down.get(name), said.get(name, ""))
        if json:
            output.record(facts)
        rows.append(_row(facts))
    if rows and not json:
        output.table(rows, ("destination", "waiting", "oldest", "state", "next try", "last words"))
    elif not rows:
        output.say("nothing waits to be sent, and no destination is down")
    if down and not json:
        output.say("once it is mended, `maildefer outgoing --retry DESTINATION` tries it at once")


def _try_at_once(
    destination: str, queues: dict[str, Layout], destinations: Destinations, home: Layout
) -> None:
    lower = destination.lower()
    closures, known = _closures(home), {destination, lower, destinations.of(f"@{destination}").name}
    # As of settings that were mended since:
    unused = known - {name for _, name, _ in _entries(queues, destinations)}
    left = [name for name in unused if answered(bounded(partial(_forgotten, closures, name)), home.path)]
    were_down = [name for name in known if answered(bounded(partial(closures.reopen, name)), home.path)]
    moved = 0
    if were_down:
        time.sleep(LOOK_SECONDS)  # until all workers know
    for one, name, domain in _entries(queues, destinations, ("deferred",)):
        is_meant = name in were_down or lower in (name.lower(), domain)
        if is_meant and not schedule.is_held(one.entry):
            layout = queues[one.path.removesuffix(f"/.later/new/{one.name}")]
            moved += schedule.move(layout, one, None, host=this_host().label)
    if not were_down and not moved and not left:
        raise MaildeferError(f"nothing waits for {destination}: `maildefer outgoing` shows what does")
    for name in were_down:
        output.line(output.clean(f"{name} is tried at once"))
    for name in left:
        output.line(output.clean(f"{name} counts as down no more, as nothing waits for it"))
    output.say(f"{output.count(moved, 'deferred message is', 'deferred messages are')} tried at once")


def _forgotten(closures: Closures, name: str) -> bool:
    return closures.record(name) is not None and closures.open(name)


def _project() -> tuple[dict[str, Layout], Destinations, Layout]:
    """The queues that are delivered, where to, and the queue that knows what is down. Raises ConfigurationError."""
    must_be_project()
    module = load_settings()
    listed = pool_settings(module).queues
    paths = [located(queue) for queue, modules in listed.items() if MODULE in modules]
    if not paths:
        raise ConfigurationError(
            f'no queue is delivered: add "run/outgoing": ["{MODULE}"] to `queues` in {module.__name__}'
        )
    found: dict[str, Layout] = {}
    for path in paths:
        try:
            found[path] = answered(bounded(partial(look_into_queue, path)), path)
        except QueueMissing:  # nothing was ever sent
            continue
    return found, destinations_of(module), answered(bounded(lambda: home_queue(paths[0])), paths[0])


def _told_here() -> dict[str, str]:
    """By destination, why mail was put off last, as this host's pools know."""
    statuses = (ask_process(record).status or {} for record in records_meant(False)())
    told = [one for status in statuses for one in objects(status.get("deliveries"))]
    told.sort(key=lambda one: number(one.get("deferred_at")))
    return {str(one.get("destination")): words for one in told if (words := str(one.get("last_words") or ""))}


def _records(home: Layout) -> list[ClosureRecord]:
    try:
        return _closures(home).records()
    except (MaildeferError, OSError):  # the disk is full, or can't be written to, which a sure look needs
        return Closures(home, now=time.time).records(touch=False)


def _closures(home: Layout) -> Closures:
    return Closures(home, now=clock_of(home).now)


def _entries(
    queues: dict[str, Layout], destinations: Destinations, folders: tuple[Folder, ...] = _WAITING
) -> Iterator[tuple[FoundEntry, str, str]]:
    """The entries of the queues, each with the name of its destination, and the recipient's domain."""
    for layout in queues.values():
        for folder in folders:
            for one in entries.list_entries(layout, folder):
                envelope = envelope_of(one.path)
                to = "" if envelope is None else envelope.recipient
                yield one, destinations.of(to).name, to.rpartition("@")[2].lower()


def _facts(
    name: str, waiting: _DestinationEntries, down: ClosureRecord | None, words: str
) -> dict[str, object]:
    facts = {"destination": name, "waiting": waiting.entries, "oldest": waiting.oldest}
    if down is None:
        said = {"last_words": words} if words else {}
        return facts | {"next": min(waiting.due, default=None)} | said
    return facts | {
        "next": down.closure.due_seconds,
        "down_since": down.since_seconds,
        "failures": down.closure.failures,
        "is_tried": down.closure.is_tried,
        "last_words": down.words,
    }


def _row(facts: Mapping[str, Any]) -> tuple[object, ...]:
    now, due, state = time.time(), facts["next"], "up"
    following = f"in {output.duration(due - now)}" if due is not None and due > now else "-"
    if "down_since" in facts:
        state = f"down for {output.duration(now - facts['down_since'])}"
        following = "now" if facts["is_tried"] else following if following != "-" else "with the next message"
    oldest = "-" if facts["oldest"] is None else output.duration(now - facts["oldest"])
    words = facts.get("last_words") or "-"
    return facts["destination"], facts["waiting"], oldest, state, following, words
