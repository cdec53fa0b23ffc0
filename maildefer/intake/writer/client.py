"""The front end's client of its writer: awaitable pushes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from maildefer.intake.outcomes import Refusal, Stored
from maildefer.intake.writer.batcher import MAX_JOBS, WriterBatcher
from maildefer.intake.writer.lines import WriterLines
from maildefer.intake.writer.protocol import Job, Message, pack, unpack_answers
from maildefer.intake.writer.shared_memory import Span, WriterLink

Done = Callable[[list[Stored]], None]

_KNOWN_SECONDS = 1.0
_ANSWER_SECONDS = 5.0
_SILENT = "the storage does not answer"
_NO_BATCH = 0  # the number of a job that is sent alone, at once


class WriterClient:
    """The client of one writer. Event loop only. `closed`: the writer has ended, and this process should too."""

    def __init__(self, link: WriterLink, threads: int) -> None:
        self.closed = asyncio.Event()
        self._blocks = link.blocks
        self._loop = asyncio.get_running_loop()
        self._lines = WriterLines(link.socket, threads, self._note_answers, self._note_writer_gone)
        # Parts of large messages are not synced, and should not wait for syncs: one thread is left to them.
        self._messages = _BatchQueue(max(1, threads - 1), link.local)
        self._parts = _BatchQueue(threads, link.local)
        self._batches: dict[int, _SentBatch] = {}
        self._pending: dict[int, tuple[Message | None, Done]] = {}
        self._spans: dict[int, Span] = {}
        self._number = self._batch = self._draft = 0
        self._shortage = ""
        self._ask_at = 0.0

    @classmethod
    async def open(cls, link: WriterLink, *, threads: int) -> WriterClient:
        """`threads`: the most threads that the writer is to have. Raises OSError."""
        client = cls(link, threads)
        await client._lines.open()
        return client

    async def push(self, message: Message) -> list[Stored]:
        """Push a message: the outcome for each recipient in their order, with keys once all is durable (I1)."""
        ended: asyncio.Future[list[Stored]] = self._loop.create_future()
        stored = self.begin_push(message, partial(_end, ended))
        return await ended if stored is None else stored

    def begin_push(self, message: Message, done: Done) -> list[Stored] | None:
        """Push a message, and call `done` as `push` returns; the outcomes at once where the writer is gone."""
        if self.closed.is_set():
            return _gone(message)
        self._ask(message, done)
        return None

    def fresh_draft(self) -> int:
        """A number for a message that comes in parts; each is pushed once the one before is answered."""
        self._draft += 1
        return self._draft

    def drop_draft(self, draft: int) -> None:
        """Drop a message whose end will not come; not while a part of it is being pushed."""
        self._send(_NO_BATCH, [Job(0, Message("", (), (), "", "", False, draft))])

    def known_shortage(self) -> str | None:
        """What is short as far as it is known, or an empty text; None where `shortage` has to ask."""
        return self._shortage if time.monotonic() < self._ask_at else None

    @property
    def last_shortage(self) -> str:
        """The shortage as last heard of."""
        return self._shortage

    async def shortage(self) -> str:
        """What is short, or an empty text; the writer is asked at most once a second."""
        if time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + _KNOWN_SECONDS
            answered: asyncio.Future[list[Stored]] = self._loop.create_future()
            if not self.closed.is_set():
                self._ask(None, partial(_end, answered))
                await asyncio.wait([answered], timeout=_ANSWER_SECONDS)
            if self.closed.is_set() or not answered.done():
                self._shortage = _SILENT
        return self._shortage

    async def close(self) -> None:
        """Let the writer end. Jobs that wait are not sent; their clients have no 250."""
        for queue in (self._messages, self._parts):
            queue.stop_timer()
        self._lines.close()

    def _note_shortage(self, shortage: str) -> None:
        self._shortage = shortage
        self._ask_at = time.monotonic() + _KNOWN_SECONDS

    def _ask(self, message: Message | None, done: Done) -> None:
        number = self._number = self._number + 1
        self._pending[number] = message, done
        job = Job(number, message)
        if message is None or (message.once and message.whole):  # which has syncs of its own
            self._send(_NO_BATCH, [job])
        else:
            queue = self._messages if message.whole else self._parts
            queue.batcher.add_job(job, now=self._loop.time())
            self._send_batches(queue)

    def _send_batches(self, queue: _BatchQueue) -> None:
        """Send the batches that are due, and set a timer for the rest; parts wait for free blocks."""
        now = self._loop.time()
        while batch := queue.batcher.next_batch(now=now, most=self._max_jobs(queue)):
            self._batch += 1
            self._batches[self._batch] = _SentBatch(queue, len(batch), now)
            self._send(self._batch, batch)
        if (due := queue.batcher.due) is not None and self._max_jobs(queue):
            queue.set_timer(self._loop, due, self._send_due)

    def _max_jobs(self, queue: _BatchQueue) -> int:
        """How many jobs can be sent; after 0 the next answer frees a block."""
        return self._blocks.free_blocks if queue is self._parts else MAX_JOBS

    def _send_due(self, queue: _BatchQueue) -> None:
        queue.stop_timer()
        self._send_batches(queue)

    def _send(self, batch: int, jobs: list[Job]) -> None:
        self._lines.send(pack(batch, [(job, self._shared_span(job)) for job in jobs]))

    def _shared_span(self, job: Job) -> Span | None:
        """Put the message into shared memory, up to the answer; None where it is packed instead."""
        if job.message is None or (span := self._blocks.put(job.message.pieces)) is None:
            return None
        self._spans[job.number] = span
        return span

    def _note_writer_gone(self) -> None:
        """Fail all pushes: this process is about to end, and with its sockets the writer."""
        self.closed.set()
        pending, self._pending = self._pending, {}
        for message, done in pending.values():
            self._tell(done, [] if message is None else _gone(message))

    def _note_answers(self, frame: bytes) -> None:
        """Send what waits before telling the answers, so that the writer works meanwhile."""
        batch, answers = unpack_answers(frame)
        answered = []
        for answer in answers:
            if (span := self._spans.pop(answer.number, None)) is not None:
                self._blocks.release_block(span)
            self._note_shortage(answer.shortage)
            if (pending := self._pending.pop(answer.number, None)) is not None:
                answered.append((pending[1], answer.stored))
        if batch != _NO_BATCH:
            queue, jobs, sent = self._batches.pop(batch)
            queue.batcher.end_batch(jobs, sent=sent, now=self._loop.time())
            self._send_batches(queue)
            if queue is self._messages:  # some of which may have had blocks
                self._send_batches(self._parts)
        for done, stored in answered:
            self._tell(done, stored)

    def _tell(self, done: Done, stored: list[Stored]) -> None:
        try:
            done(stored)
        except Exception as fault:  # noqa: BLE001  # of one client, and no other may wait for ever
            self._loop.call_exception_handler({"message": "a reply has failed", "exception": fault})


def _end(future: asyncio.Future[list[Stored]], stored: list[Stored]) -> None:
    if not future.done():  # else its client has left, and it is stored all the same
        future.set_result(stored)


def _gone(message: Message) -> list[Stored]:
    return [Stored("", Refusal.STORAGE_FAILED, "the writer is gone")] * len(message.recipients)


class _BatchQueue:
    """The waiting messages, or parts, and the timer for their next batch."""

    def __init__(self, threads: int, local: bool) -> None:
        self.batcher: WriterBatcher[Job] = WriterBatcher(threads=threads, local=local)
        self._timer: asyncio.TimerHandle | None = None

    def set_timer(
        self, loop: asyncio.AbstractEventLoop, due: float, call: Callable[[_BatchQueue], None]
    ) -> None:
        """Have a call made when it is due, or before."""
        if self._timer is None or due < self._timer.when():
            self.stop_timer()
            self._timer = loop.call_at(due, call, self)

    def stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _SentBatch(NamedTuple):
    """A batch that is not answered."""

    queue: _BatchQueue
    jobs: int
    sent: float
