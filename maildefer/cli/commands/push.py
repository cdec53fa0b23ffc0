"""`push`."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import islice
from shlex import quote
from typing import IO, Annotated, NoReturn

import typer

import maildefer.message.origin  # noqa: F401  # notes where what is pushed is from
from maildefer.cli import output
from maildefer.cli.defaults import open_or_make
from maildefer.cli.due_time import After, At, due
from maildefer.cli.group import EX_NOPERM, EX_TEMPFAIL
from maildefer.cli.parameters import Commands
from maildefer.cli.progress import counted
from maildefer.errors import MaildeferError, MountMissing, PermissionRefused, StorageFault, UniqueKeyRefused
from maildefer.host.identity import this_host
from maildefer.maildir.markers.names import hash_of
from maildefer.maildir.markers.unique import PushedKey, push_unique
from maildefer.maildir.push import Compose, Planned, Pusher
from maildefer.maildir.scan import PRIORITIES
from maildefer.message import mbox as streams
from maildefer.message.dsn.parameters import ParameterRefused, checked
from maildefer.message.envelope import block, split
from maildefer.message.mbox import StreamMessage

app = Commands()
_THREADS = 16  # that wait for the disk together and share directory syncs
_AHEAD = 4 * _THREADS  # messages in memory

Put = Callable[[Compose], str]  # pushes one entry, and returns its key
Work = tuple[str, Callable[[], list[str]]]  # where it is from, and the push, which returns its keys


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
    mbox: Annotated[bool, typer.Option("--mbox", help="Each file holds many messages, as an mbox.")] = False,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="Each file holds many messages, with a NUL behind each.")
    ] = False,
    after: After = None,
    at: At = None,
    unique: Annotated[
        str | None,
        typer.Option(
            "--unique", metavar="TEXT", help="Store nothing while an entry of this unique key has not ended."
        ),
    ] = None,
    priority: Annotated[
        str,
        typer.Option(
            "--priority",
            metavar="PRIORITY",
            help="high, normal or low: which are handled first.",
            autocompletion=lambda: list(PRIORITIES),
        ),
    ] = "normal",
    dsn: Annotated[
        str,
        typer.Option(
            "--dsn",
            metavar="TEXT",
            help="What is asked of reports: 'NOTIFY=NEVER', 'RET=HDRS ENVID=x' (RFC 3461).",
        ),
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON Lines.")] = False,
) -> None:
    """Put messages into a queue, to be handled at once, or later."""
    if unique is not None:
        _must_be_unique_key(unique)
    if mbox and null:
        raise typer.BadParameter("--mbox and --null are two ways to hold many messages: give one.")
    if unique is not None and (mbox or null or len(files or []) > 1 or len(recipients or []) > 1):
        raise typer.BadParameter("--unique is for one message to one recipient at most.")
    if priority not in PRIORITIES:
        raise typer.BadParameter(f"--priority: {priority!r} is none of {', '.join(PRIORITIES)}.")
    dsn = _checked_dsn(dsn, recipients)
    try:
        layout = open_or_make(queue)
        pusher = Pusher(layout, host=this_host().label)
        put = _put_for(pusher, due(pusher, after, at), unique, priority)
    except (StorageFault, MountMissing) as refusal:
        _give_up(refusal)
    reader = streams.mbox if mbox else streams.null_separated if null else None
    number, found = 0, ""
    fault: Exception | None = None
    works = _works(put, files or ["-"], reader, recipients or [], sender, dsn)
    for file, result in counted(_pushed(works), "pushed"):
        if isinstance(result, Exception):
            fault = fault or result
            continue
        for key in result:
            number += 1
            facts: dict[str, object] = {"queue_id": key, "queue": layout.path, "file": file}
            if isinstance(key, PushedKey):
                facts["new"] = key.is_new
                found = "" if key.is_new else key
            output.record(facts) if json else output.line(output.clean(key))
    if isinstance(fault, StorageFault | MountMissing):
        _give_up(fault, f" (pushed so far: {number})")
    if fault is not None:
        if number:
            output.say(f"pushed before that: {number}")
        raise fault
    if found:
        output.say(f"nothing stored: {found}, of the same unique key, has not ended")
        return
    entries = output.count(number, "entry is", "entries are")
    output.say(f"{entries} durable in {queue}: `maildefer queue list {quote(queue)}` shows what waits")


def _give_up(fault: StorageFault | MountMissing, more: str = "") -> NoReturn:
    """Exit with 75, which asks the caller to try again, or with 77 where only another user could do it."""
    output.complain(f"{fault}{more}")
    code = EX_NOPERM if isinstance(fault, PermissionRefused) else EX_TEMPFAIL if fault.temporary else 1
    raise typer.Exit(code) from fault


def _pushed(works: Iterator[Work]) -> Iterator[tuple[str, list[str] | Exception]]:
    """The key or the error of each message, in order; after the first error only messages begun before it."""
    first = list(islice(works, 2))
    if len(first) < 2:
        for file, work in first:
            yield file, _outcome(work)
        return
    from concurrent.futures import Future, ThreadPoolExecutor  # for many messages only

    with ThreadPoolExecutor(_THREADS) as executor:
        under_way: deque[tuple[str, Future[list[str] | Exception]]] = deque()
        waiting: Iterator[Work] = iter(first)
        failed = False
        while True:
            while not failed and len(under_way) < _AHEAD:
                if (next_one := next(waiting, None) or next(works, None)) is None:
                    break
                under_way.append((next_one[0], executor.submit(_outcome, next_one[1])))
            if not under_way:
                return
            file, future = under_way.popleft()
            result = future.result()
            failed = failed or isinstance(result, Exception)
            yield file, result


def _outcome(work: Callable[[], list[str]]) -> list[str] | Exception:
    try:
        return work()
    except (MaildeferError, OSError, ValueError) as fault:
        return fault


def _must_be_unique_key(text: str) -> None:
    try:
        hash_of(text)
    except UniqueKeyRefused as refusal:
        raise typer.BadParameter(str(refusal)) from refusal


def _checked_dsn(text: str, recipients: list[str] | None) -> str:
    if text and not recipients:
        raise typer.BadParameter("--dsn is about an envelope: give --recipient too.")
    try:
        return checked(text)
    except ParameterRefused as refusal:
        raise typer.BadParameter(f"--dsn: {refusal}.") from refusal


def _put_for(pusher: Pusher, when: int | None, unique: str | None, priority: str) -> Put:
    def put(compose: Compose) -> str:
        planned = Planned(compose=compose, due=when, priority=priority)
        if unique is None:
            return pusher.push(planned)
        return push_unique(pusher.layout, unique, planned, host=pusher.host)

    return put


def _works(
    put: Put,
    files: list[str],
    reader: Callable[[IO[bytes]], Iterator[StreamMessage]] | None,
    recipients: list[str],
    sender: str | None,
    dsn: str,
) -> Iterator[Work]:
    for file in files:
        if reader is None:
            # mypy infers no type for a lambda with a default, here and below.
            yield file, lambda file=file: _push(put, _read(file), recipients, sender, dsn)  # type: ignore[misc]
            continue
        try:
            with _opened(file) as source:
                for found in reader(source):
                    by = found.sender if sender is None and recipients else sender
                    yield file, partial(_push, put, found.data, recipients, by, dsn)
        except streams.NotAnMbox as fault:
            yield file, partial(_fail, MaildeferError(f"{file}: {fault}"))
        except OSError as fault:
            yield file, partial(_fail, fault)


def _fail(fault: Exception) -> list[str]:
    raise fault


def _push(put: Put, data: bytes, recipients: list[str], sender: str | None, dsn: str) -> list[str]:
    """Push one message; a file that has an envelope keeps it, as far as no other is given."""
    host = this_host().label
    envelope, offset = split(data)
    message = data[offset:]
    if envelope is not None and offset:
        recipients = recipients or [envelope.recipient]
        dsn = dsn or (envelope.dsn if sender in (None, envelope.sender) else "")
        sender = envelope.sender if sender is None else sender
    if not recipients:
        if sender is not None:
            raise MaildeferError("a sender without a recipient is no envelope: give --recipient too")
        return [put(lambda _: [data])]
    return [
        put(
            lambda stem, to=recipient: [  # type: ignore[misc]
                block(stem, sender or "", to, host=host, when=time.time(), via="push", dsn=dsn),
                message,
            ]
        )
        for recipient in recipients
    ]


def _opened(file: str) -> IO[bytes]:
    # A context manager with a stream in it, which is all that is made of either.
    return nullcontext(sys.stdin.buffer) if file == "-" else open(file, "rb")  # type: ignore[return-value]


def _read(file: str) -> bytes:
    with _opened(file) as source:
        return source.read()
