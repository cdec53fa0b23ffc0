"""The writer: the process that pushes received messages, and alone touches the queue's filesystem.

It is a process of its own for two reasons. A mount that hangs must not hang the event loop. And threads that make
system calls all the time take the interpreter lock from the event loop (measured: with the pushes in threads of its
process, a `send` cost the loop 50 to 100 µs, without them 24).

Each thread has a socket of its own, by which it gets one batch at a time and pushes that with one directory sync. The
front end opens these sockets as it needs them (decision 97), and decides how many jobs make a batch, and how many
batches overlap (`batcher`).
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from itertools import islice

import maildefer.message.origin  # noqa: F401  # notes where what is pushed is from
from maildefer import events
from maildefer.errors import MaildeferError, QueueError
from maildefer.host.identity import this_host
from maildefer.host.linux.parallel_fsync import fsync_all
from maildefer.host.linux.process_title import set_title
from maildefer.host.mounts import is_local
from maildefer.host.runtime_dir import must_not_be_away
from maildefer.intake.options import FrontEndOptions
from maildefer.intake.outcomes import Refusal, Stored, refusal_of
from maildefer.intake.writer import shared_memory
from maildefer.intake.writer.capacity import QueueCapacity
from maildefer.intake.writer.drafts import DraftStore, due_of, fail, planned
from maildefer.intake.writer.once import OnceWriter
from maildefer.intake.writer.protocol import FrameReader, Job, Message, WriterAnswer, pack_answers, unpack
from maildefer.intake.writer.shared_memory import WriterLink
from maildefer.maildir import journal
from maildefer.maildir.layout import Layout, create_queue, open_queue
from maildefer.maildir.push import Compose, Pusher
from maildefer.message.envelope import block

_READ_BYTES = 64 << 10


def _report(event: str, **facts: object) -> None:
    """Emit an event of a writer, which is not told that the log file was moved away."""
    events.reopen()
    events.emit(event, **facts)


journal.report_with(_report)


def fork(
    queue: str, limits: FrontEndOptions, *, hostname: str, closing: Iterable[int | None] = ()
) -> WriterLink:
    """Fork a queue's writer, before there is any thread; returns the front end's end of the link.

    `closing`: descriptors for the writer to close. Raises QueueError's kinds.
    """
    layout = _open_queue(queue)
    ours, theirs = shared_memory.make_links(limits.buffer_bytes, local=is_local(layout.path))
    if os.fork():
        shared_memory.keep_end(ours, theirs)
        return ours
    try:
        shared_memory.keep_end(theirs, ours)
        for descriptor in closing:
            if descriptor is not None:
                os.close(descriptor)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)  # it ends with the link, after its last push
        set_title(f"intake writer {queue}")
        threading.excepthook = _exit_with_thread
        Writer(layout, limits, theirs, hostname=hostname).run()
    except BaseException:  # noqa: BLE001  # report it, whatever it is; the front end ends with the writer
        events.reopen()
        traceback.print_exc()
    finally:
        os._exit(0)


def _exit_with_thread(failure: threading.ExceptHookArgs) -> None:
    """Exit, and the front end with it: an invalid frame came, and its client would wait for ever."""
    events.reopen()
    threading.__excepthook__(failure)
    os._exit(1)


def _open_queue(path: str) -> Layout:
    """Open a queue, or create it; an existing one is not changed, so that rights to `tmp/` and `new/` are enough."""
    try:
        return open_queue(path)
    except QueueError:  # missing or incomplete; another fault is raised again
        must_not_be_away(path)
        return create_queue(path)


class Writer:
    """The threads of the process, and what they share."""

    def __init__(
        self, layout: Layout, limits: FrontEndOptions, end: WriterLink, *, hostname: str = ""
    ) -> None:
        # Not on a mount, where SIGKILL could not end a writer that waits for the server in it.
        sync_all = fsync_all if end.local else None
        self._pusher = Pusher(layout, host=this_host().label, sync_all=sync_all)
        self._capacity = QueueCapacity(
            layout, min_free_bytes=limits.min_free_bytes, max_backlog=limits.max_backlog
        )
        self._hostname = hostname or os.uname().nodename
        self._drafts = DraftStore(self._pusher, self._envelope_block)
        self._once = OnceWriter(self._pusher, self._composes, host=this_host().label)
        self._socket, self._blocks = end.socket, end.blocks

    def run(self) -> None:
        """Serve until the front end closes the link. Where another thread can't be had, there are as many as there are.

        ValueError: the front end has said something else.
        """
        threads = []
        while (line := self._next_line()) is not None:
            thread = threading.Thread(target=self._serve, args=(line,))
            try:
                thread.start()
            except RuntimeError:
                line.close()
            else:
                threads.append(thread)
        for thread in threads:
            thread.join()
        self._drafts.drop_all()

    def _next_line(self) -> socket.socket | None:
        """The socket for another thread; None once the link is closed."""
        while True:
            said, descriptors, flags, _ = socket.recv_fds(self._socket, 1, 1)
            if not said:
                return None
            if not flags & socket.MSG_CTRUNC:  # else this process may have no more descriptors
                [descriptor] = descriptors
                return socket.socket(fileno=descriptor)

    def _serve(self, line: socket.socket) -> None:
        frames, buffer = FrameReader(), memoryview(bytearray(_READ_BYTES))
        with line:
            _send(line, pack_answers(0, []))  # the thread is there
            while size := _receive(line, buffer):
                frames.feed(buffer[:size])
                while (frame := frames.next_frame()) is not None:
                    batch, jobs = unpack(frame, self._blocks)
                    _send(line, pack_answers(batch, self.answer(jobs)))

    def answer(self, batch: list[Job]) -> list[WriterAnswer]:
        """Push a batch; each message with a key is durable when it returns (I1)."""
        shortage = self._capacity.shortage() or ""
        messages = [] if shortage else [job.message for job in batch if job.message is not None]
        pushed = iter(self._push([one for one in messages if one.whole and not one.once]))
        answers = []
        for number, message in batch:
            stored: list[Stored] = []
            if message is not None and message.once and message.whole:
                stored = self._push_once(message, shortage)
            elif message is not None and shortage:
                self._drafts.drop_draft(message.draft)
                stored = [Stored("", Refusal.QUEUE_FULL, shortage)] * len(message.recipients)
            elif message is not None and not message.whole:
                stored = self._keep_part(message)
            elif message is not None:
                stored = next(pushed)
                if message.together and not all(each.key for each in stored):
                    self._withdraw(stored)
            answers.append(WriterAnswer(number, stored, shortage))
        return answers

    def _keep_part(self, message: Message) -> list[Stored]:
        """Write a part of a large message to `tmp/`; the outcome is empty, or a fault."""
        try:
            self._drafts.add_part(message)
        except MaildeferError as fault:
            return [_outcome(fault)]
        return []

    def _push_once(self, message: Message, shortage: str) -> list[Stored]:
        try:
            return self._once.push(message, shortage)
        except Exception as fault:  # noqa: BLE001  # the thread must go on, and its client must have a reply
            return [_internal(fault)] * len(message.recipients)
        finally:
            self._drafts.drop_draft(message.draft)  # of a repetition

    def _push(self, messages: list[Message]) -> list[list[Stored]]:
        """Push messages; returns for each the outcome for each of its recipients."""
        composes: list[Compose] = []
        counts = []
        for message in messages:
            made = self._composes(message)
            composes += made
            counts.append(len(made))
        try:
            results = list(map(_outcome, self._pusher.push_all(composes)))
        except Exception as fault:  # noqa: BLE001  # the thread must go on, and each client must have a reply
            results = [_internal(fault)] * len(composes)
        rest = iter(results)
        stored = [list(islice(rest, count)) for count in counts]
        for message, each in zip(messages, stored, strict=True):
            if message.draft and each:
                each.insert(0, each.pop())  # see DraftStore.composes
        return stored

    def _composes(self, message: Message) -> list[Compose]:
        if not message.draft:
            try:
                due = due_of(self._pusher, message)
            except MaildeferError as fault:
                return [partial(fail, fault)] * len(message.recipients)
            return [planned(partial(self._compose, message, to), due) for to in message.recipients]
        if not message.recipients:
            self._drafts.drop_draft(message.draft)
            return []
        return self._drafts.composes(message)

    def _compose(self, message: Message, recipient: str, stem: str) -> tuple[bytes | memoryview, ...]:
        return self._envelope_block(stem, message, recipient), *message.pieces

    def _envelope_block(self, stem: str, message: Message, recipient: str) -> bytes:
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
            dsn=message.dsn.get(recipient, ""),
        )

    def _withdraw(self, stored: list[Stored]) -> None:
        """Withdraw what was pushed before another push failed, so that the client's next try does not double it.

        An entry that a worker has claimed meanwhile may be handled twice.
        """
        for each in stored:
            if each.key:
                self._pusher.withdraw(each.key)


def _receive(line: socket.socket, buffer: memoryview) -> int:
    """How many bytes have come; 0 where the front end is gone."""
    try:
        return line.recv_into(buffer)
    except OSError:
        return 0


def _send(line: socket.socket, answers: bytes) -> None:
    with suppress(OSError):  # the front end is gone; its clients will send again
        line.sendall(answers)


def _internal(fault: Exception) -> Stored:
    return Stored("", Refusal.INTERNAL_ERROR, f"{type(fault).__name__}: {fault}")


def _outcome(result: str | MaildeferError) -> Stored:
    if isinstance(result, str):
        return Stored(result)
    return Stored("", refusal_of(result), str(result))
