"""The process that writes: it pushes what the front end received, and it alone touches the queue's filesystem.

Apart from the front end's event loop for two reasons. A hung mount must not hang who talks to clients. And threads that
do system calls all the time take the interpreter from the event loop at every turn (measured: with the pushes in
threads beside it, a `send` cost the loop 50 to 100 µs, without 24).

The threads take turns in reading: one waits for a batch, and while it pushes that, with one directory sync, the next
one reads. How many jobs make a batch, and how many batches overlap, the front end decides (`batching`).
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Iterable
from functools import partial
from itertools import islice

from maildefer import events
from maildefer.errors import MaildeferError, QueueError
from maildefer.host.identity import this_host
from maildefer.host.linux.parallel_fsync import fsync_all
from maildefer.host.linux.process_title import set_title
from maildefer.host.mounts import is_local
from maildefer.intake.options import FrontEndOptions
from maildefer.intake.outcomes import Refusal, Stored, refusal_of
from maildefer.intake.writer import shared_memory
from maildefer.intake.writer.capacity import QueueCapacity
from maildefer.intake.writer.drafts import DraftStore
from maildefer.intake.writer.protocol import (
    FrameReader,
    Job,
    Message,
    WriterAnswer,
    pack_answers,
    unpack,
)
from maildefer.intake.writer.shared_memory import WriterLink
from maildefer.maildir import journal
from maildefer.maildir.layout import Layout, create_queue, open_queue
from maildefer.maildir.push import Compose, Pusher
from maildefer.message.envelope import block

_READ_BYTES = 256 << 10
journal.report_with(events.emit)


def fork(
    queue: str, limits: FrontEndOptions, *, hostname: str, closing: Iterable[int | None] = ()
) -> WriterLink:
    """Start a queue's writer, before there is any thread; returns our end of the link with it.

    `closing`: descriptors that are not for it. Raises QueueError's kinds.
    """
    layout = _opened(queue)
    ours, theirs = shared_memory.pair(limits.buffer_bytes, local=is_local(layout.path))
    if os.fork():
        shared_memory.part(ours, theirs)
        return ours
    try:
        shared_memory.part(theirs, ours)
        for descriptor in closing:
            if descriptor is not None:
                os.close(descriptor)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)  # it ends when the line does, with its last push
        set_title(f"intake writer {queue}")
        threading.excepthook = _end_with_thread
        Writer(layout, limits, theirs, hostname=hostname).run()
    except BaseException:  # noqa: BLE001  # the last stop: tell it; the front end ends with us
        traceback.print_exc()
    finally:
        os._exit(0)


def _end_with_thread(failure: threading.ExceptHookArgs) -> None:
    """What came over the line was no job, and its client would wait for ever: end, and the front end with us."""
    threading.__excepthook__(failure)
    os._exit(1)


def _opened(path: str) -> Layout:
    """What is there is left as it is: who may only write to `tmp/` and `new/` can serve it too."""
    try:
        return open_queue(path)
    except QueueError:  # none yet, or one to be completed; else it says so again
        return create_queue(path)


class Writer:
    """The threads and what they share."""

    def __init__(
        self, layout: Layout, limits: FrontEndOptions, end: WriterLink, *, hostname: str = ""
    ) -> None:
        # Not on a mount, where it would make a writer that waits for its server proof against SIGKILL.
        sync_all = fsync_all if end.local else None
        self._pusher = Pusher(layout, host=this_host().label, sync_all=sync_all)
        self._room = QueueCapacity(
            layout, min_free_bytes=limits.min_free_bytes, max_backlog=limits.max_backlog
        )
        self._hostname = hostname or os.uname().nodename
        self._spool = DraftStore(self._pusher, self._top)
        self._threads = limits.threads
        self._line, self._arena = end.socket, end.arena
        self._frames = FrameReader()
        self._reading = threading.Lock()
        self._writing = threading.Lock()

    def run(self) -> None:
        """Serve until the line ends."""
        threads = [threading.Thread(target=self._serve) for _ in range(self._threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._spool.drop_all()

    def _serve(self) -> None:
        while (frame := self._next_frame()) is not None:
            batch, jobs = unpack(frame, self._arena)
            said = pack_answers(batch, self.answer(jobs))
            with self._writing:
                try:
                    self._line.sendall(said)
                except OSError:  # the front end is gone; what is pushed stays, though nobody was told
                    return

    def _next_frame(self) -> bytes | None:
        with self._reading:
            while (frame := self._frames.take()) is None:
                try:
                    data = self._line.recv(_READ_BYTES)
                except OSError:
                    data = b""
                if not data:
                    return None
                self._frames.feed(data)
            return frame

    def answer(self, batch: list[Job]) -> list[WriterAnswer]:
        """Push a batch; when it returns, what has a key is durable (I1)."""
        shortage = self._room.look() or ""
        whole = (
            []
            if shortage
            else [job.message for job in batch if job.message is not None and job.message.whole]
        )
        pushed = iter(self._push(whole))
        answers = []
        for number, message in batch:
            stored: list[Stored] = []
            if message is not None and shortage:
                self._spool.drop(message.draft)
                stored = [Stored("", Refusal.QUEUE_FULL, shortage)] * len(message.recipients)
            elif message is not None and not message.whole:
                stored = self._keep(message)
            elif message is not None:
                stored = next(pushed)
                if message.together and not all(each.key for each in stored):
                    self._withdraw(stored)
            answers.append(WriterAnswer(number, stored, shortage))
        return answers

    def _keep(self, message: Message) -> list[Stored]:
        """A part of a large message goes to `tmp/`; nothing is to be said of it but a fault."""
        try:
            self._spool.add(message)
        except MaildeferError as fault:
            return [_stored(fault)]
        return []

    def _push(self, messages: list[Message]) -> list[list[Stored]]:
        """For each message, how it went for each of its recipients."""
        composes: list[Compose] = []
        counts = []
        for message in messages:
            made = self._composes(message)
            composes += made
            counts.append(len(made))
        try:
            results = list(map(_stored, self._pusher.push_all(composes)))
        except Exception as fault:  # noqa: BLE001  # the thread must go on, and the clients must hear of it
            results = [Stored("", Refusal.INTERNAL_ERROR, f"{type(fault).__name__}: {fault}")] * len(composes)
        rest = iter(results)
        stored = [list(islice(rest, count)) for count in counts]
        for message, each in zip(messages, stored, strict=True):
            if message.draft and each:
                each.insert(0, each.pop())  # see DraftStore.composes
        return stored

    def _composes(self, message: Message) -> list[Compose]:
        if not message.draft:
            return [partial(self._composed, message, to) for to in message.recipients]
        if not message.recipients:
            self._spool.drop(message.draft)
            return []
        return self._spool.composes(message)

    def _composed(self, message: Message, recipient: str, stem: str) -> tuple[bytes | memoryview, ...]:
        return self._top(stem, message, recipient), *message.pieces

    def _top(self, stem: str, message: Message, recipient: str) -> bytes:
        if not recipient:  # pushed without an envelope, which SMTP never does
            return b""
        return block(
            stem,
            message.sender,
            recipient,
            host=self._hostname,
            when=time.time(),
            via=message.via,
            client=message.client,
        )

    def _withdraw(self, stored: list[Stored]) -> None:
        """Take back what was pushed before another push failed, lest each new try of the client doubles it.

        What a worker has taken meanwhile may still come twice.
        """
        for each in stored:
            if each.key:
                self._pusher.withdraw(each.key)


def _stored(result: str | MaildeferError) -> Stored:
    if isinstance(result, str):
        return Stored(result)
    return Stored("", refusal_of(result), str(result))
