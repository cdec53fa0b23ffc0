"""`push`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Annotated

import typer

from maildefer.cli import output
from maildefer.cli.lazy import EX_TEMPFAIL
from maildefer.cli.light import Commands
from maildefer.cli.places import open_or_make
from maildefer.errors import MaildeferError, StorageFault
from maildefer.host.identity import this_host
from maildefer.maildir.push import Pusher
from maildefer.message.envelope import block, split

app = Commands()
_THREADS = 16  # that wait for the disk together and share directory syncs


@app.command()
def push(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's directory.")],
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE]...", help="One message each; standard input without, or `-`."),
    ] = None,
    recipients: Annotated[
        list[str] | None,
        typer.Option(
            "--recipient", "-r", metavar="ADDRESS", help="One entry for each; may be given many times."
        ),
    ] = None,
    sender: Annotated[
        str | None, typer.Option("--sender", "-f", metavar="ADDRESS", help="The reverse-path; '' for none.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON Lines.")] = False,
) -> None:
    """Put messages into a queue."""
    layout = open_or_make(queue)
    pusher = Pusher(layout, host=this_host().label)
    number = 0
    try:
        for file, key in _pushed(pusher, files or ["-"], recipients or [], sender):
            number += 1
            facts: dict[str, object] = {"queue_id": key, "queue": layout.path, "file": file}
            output.record(facts) if json else output.line(output.clean(key))
    except StorageFault as fault:
        output.complain(f"{fault} (pushed so far: {number})")
        raise typer.Exit(EX_TEMPFAIL if fault.temporary else 1) from fault
    entries = output.count(number, "entry is", "entries are")
    output.say(f"{entries} durable in {queue}: `maildefer queue list {queue}` shows what waits")


def _pushed(
    pusher: Pusher, files: list[str], recipients: list[str], sender: str | None
) -> Iterator[tuple[str, str]]:
    """Each file with each of its keys, in order."""

    def one(file: str) -> list[str]:
        return list(_push(pusher, _read(file), recipients, sender))

    keys: Iterable[list[str]]
    if len(files) == 1:
        keys = map(one, files)
    else:
        from concurrent.futures import ThreadPoolExecutor  # for many files only

        keys = ThreadPoolExecutor(_THREADS).map(one, files)
    for file, each in zip(files, keys, strict=True):
        for key in each:
            yield file, key


def _push(pusher: Pusher, data: bytes, recipients: list[str], sender: str | None) -> Iterator[str]:
    """An entry's file that is pushed again keeps its envelope, as far as it is not given anew."""
    host = this_host().label
    envelope, offset = split(data)
    message = data[offset:]
    if envelope is not None and offset:
        recipients = recipients or [envelope.recipient]
        sender = envelope.sender if sender is None else sender
    if not recipients:
        if sender is not None:
            raise MaildeferError("a sender without a recipient is no envelope: give --recipient too")
        yield pusher.push(lambda _: [data])
    for recipient in recipients:
        yield pusher.push(
            lambda stem, to=recipient: [  # type: ignore[misc]
                block(stem, sender or "", to, host=host, when=time.time(), via="push"),
                message,
            ]
        )


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    with open(file, "rb") as source:
        return source.read()
