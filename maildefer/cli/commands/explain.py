"""`explain`: what has happened to a message, by the journals of its queues."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated

import typer

from maildefer.cli import output
from maildefer.cli.defaults import answered
from maildefer.cli.entries.patterns import address_pattern
from maildefer.cli.entries.selection import Json, keys_in, seconds_of
from maildefer.cli.parameters import Commands
from maildefer.cli.status_survey import project_queues
from maildefer.control import history
from maildefer.control.history import HistoryEvent, Sought
from maildefer.errors import MaildeferError
from maildefer.host.bounded_call import bounded
from maildefer.maildir.layout import Layout
from maildefer.maildir.operator.inspection import look_into_queue

app = Commands()
_MOST_KEYS = 20


def _keys(context: typer.Context, incomplete: str) -> list[str]:
    return keys_in(context.params.get("queue") or project_queues(), incomplete)


@app.command()
def explain(
    key: Annotated[
        str | None,
        typer.Argument(metavar="[KEY]", help="The entry's key, or how it begins.", autocompletion=_keys),
    ] = None,
    message_id: Annotated[
        str | None, typer.Option("--message-id", metavar="ID", help="The messages with this Message-ID.")
    ] = None,
    sender: Annotated[
        str | None, typer.Option("--sender", metavar="ADDRESS", help="Those from it; as in `queue list`.")
    ] = None,
    recipient: Annotated[
        str | None, typer.Option("--recipient", metavar="ADDRESS", help="Those for it; as in `queue list`.")
    ] = None,
    since: Annotated[
        str,
        typer.Option("--since", metavar="AGE", help="Those that were tried in the last 90s, 15m, 6h, 2d."),
    ] = "7d",
    queue: Annotated[
        list[str] | None,
        typer.Option("--queue", metavar="QUEUE", help="In this queue; may be given many times. Else in all."),
    ] = None,
    json: Json = False,
) -> None:
    """Tell what has happened to a message, when, where and why."""
    if key and (message_id or sender or recipient):
        raise typer.BadParameter("Give a key alone, or what the message is sought by.")
    queues = _looked_into(queue) if queue else _looked_into(project_queues(), passes_over=True)
    if not queues:
        raise typer.BadParameter("No queue of a project is here: name one by --queue.")
    sought = Sought(
        message_id=message_id,
        sender=address_pattern(sender) if sender else None,
        recipient=address_pattern(recipient) if recipient else None,
        since=time.time() - (seconds_of(since) or 0.0),
    )
    if key:
        keys = history.keys_that_begin(queues, key, _MOST_KEYS)
    elif message_id or sender or recipient:
        keys = history.find_keys(queues, sought, _MOST_KEYS)
    else:
        raise typer.BadParameter("Name a key, or a message by --message-id, --sender or --recipient.")
    if not keys:
        kept = any(os.path.isdir(one.journal) for one in queues)
        raise MaildeferError(
            f"nothing is known of it{'' if key else f' in the last {since}: give another --since'}"
            if kept
            else "no journal is kept: `maildefer audit --on QUEUE` begins one"
        )
    for one in keys:
        events = history.history_of(queues, one)
        if json:
            for event in events:
                output.record({"key": one, **_record(event)})
        else:
            output.line(output.clean(one))
            for line in _lines(events, several=len(queues) > 1):
                output.line(output.clean(line))
    if len(keys) == _MOST_KEYS:
        output.say(f"only the latest {_MOST_KEYS} are shown: say more of what you look for")


def _looked_into(paths: Sequence[str], *, passes_over: bool = False) -> list[Layout]:
    """The queues, once each; `passes_over`: one that can't be looked into is named, if another one can."""
    queues: dict[str, Layout] = {}
    faults: list[MaildeferError] = []
    for path in paths:
        try:
            one = answered(bounded(partial(look_into_queue, path)), path)
            queues.setdefault(os.path.realpath(one.path), one)
        except MaildeferError as fault:
            faults.append(fault)
    if faults and not (queues and passes_over):
        raise faults[0]
    for each in faults:
        output.complain(str(each))
    return list(queues.values())


def _record(event: HistoryEvent) -> dict[str, object]:
    return {
        "time": event.when,
        "host": event.host or None,
        "queue": event.queue,
        "event": event.event,
        "facts": event.facts,
    }


def _lines(events: Sequence[HistoryEvent], *, several: bool) -> Iterator[str]:
    """The events as lines; with the queue where there are several."""
    width = max((len(event.host) for event in events), default=0)
    names = {event.queue: f"{_shown(event.queue)}  " if several else "" for event in events}
    widest = max(map(len, names.values()), default=0)
    for event in events:
        seconds, thousandths = divmod(round(event.when * 1000), 1000)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        facts = "  ".join(f"{name}={value}" for name, value in event.facts.items())
        where = f"{event.host or '-':<{width}}  {names[event.queue]:<{widest}}"
        yield f"  {moment}.{thousandths:03d}Z  {where}{event.event}  {facts}".rstrip()


def _shown(queue: str) -> str:
    """A queue by its path from here, if it is below this folder."""
    return os.path.relpath(queue) if queue.startswith(f"{os.getcwd()}/") else queue
