"""The front end's client of its writer: awaitable pushes."""

from __future__ import annotations

import asyncio
import time

from maildefer import events
from maildefer.intake.outcomes import Refusal, Stored
from maildefer.intake.socket_transport import SocketTransport
from maildefer.intake.writer.batcher import MAX_JOBS, WriterBatcher
from maildefer.intake.writer.protocol import FrameReader, Job, Message, WriterAnswer, pack, unpack_answers
from maildefer.intake.writer.shared_memory import Span, WriterLink

_KNOWN_SECONDS = 1.0
_ANSWER_SECONDS = 5.0
_SILENT = "the storage does not answer"
_READ_BUFFER = memoryview(bytearray(64 << 10))
_NO_BATCH = 0  # the number of a job that is sent alone, at once


class WriterClient(asyncio.BufferedProtocol):
    """The client of one writer. Event loop only. `closed`: the writer has ended, and this process should too."""

    def __init__(self, link: WriterLink, threads: int) -> None:
        self.closed = asyncio.Event()
        self._frames = FrameReader()
        self._blocks = link.blocks
        self._loop = asyncio.get_running_loop()
        # Parts of large messages are not synced, and should not wait for syncs: one thread is left to them.
        self._messages = _BatchQueue(max(1, threads - 1), link.local)
        self._parts = _BatchQueue(threads, link.local)
        self._batches: dict[int, _BatchQueue] = {}
        self._pending: dict[int, asyncio.Future[WriterAnswer]] = {}
        self._spans: dict[int, Span] = {}
        self._number = self._batch = self._draft = 0
        self._shortage = ""
        self._ask_at = 0.0
        link.socket.setblocking(False)
        self._transport = SocketTransport(self._loop, link.socket, self)
        self._transport.open()

    @classmethod
    async def open(cls, link: WriterLink, *, threads: int) -> WriterClient:
        """`threads`: the number of the writer's threads."""
        return cls(link, threads)

    async def push(self, message: Message) -> list[Stored]:
        """Push a message: the outcome for each recipient in their order, with keys once all is durable (I1)."""
        try:
            answer = await self._ask(message)
        except ConnectionError:
            return [Stored("", Refusal.STORAGE_FAILED, "the writer is gone")] * len(message.recipients)
        self._note_shortage(answer.shortage)
        return answer.stored

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
            try:
                self._note_shortage((await asyncio.wait_for(self._ask(None), _ANSWER_SECONDS)).shortage)
            except (TimeoutError, ConnectionError):
                self._shortage = _SILENT
        return self._shortage

    async def close(self) -> None:
        """Let the writer end. Jobs that wait are not sent; their clients have no 250."""
        for queue in (self._messages, self._parts):
            if queue.timer is not None:
                queue.timer.cancel()
        self._transport.close()

    def _note_shortage(self, shortage: str) -> None:
        self._shortage = shortage
        self._ask_at = time.monotonic() + _KNOWN_SECONDS

    async def _ask(self, message: Message | None) -> WriterAnswer:
        if self.closed.is_set():
            raise ConnectionError
        number = self._number = self._number + 1
        future: asyncio.Future[WriterAnswer] = self._loop.create_future()
        self._pending[number] = future
        job = Job(number, message)
        if message is None or (message.once and message.whole):  # which has syncs of its own
            self._send(_NO_BATCH, [job])
        else:
            queue = self._messages if message.whole else self._parts
            queue.batcher.add_job(job, now=self._loop.time())
            self._send_batches(queue)
        try:
            return await future
        finally:
            self._pending.pop(number, None)

    def _send_batches(self, queue: _BatchQueue) -> None:
        """Send the batches that are due, and set a timer for the rest; parts wait for free blocks."""
        while batch := queue.batcher.next_batch(now=self._loop.time(), most=self._max_jobs(queue)):
            self._batch += 1
            self._batches[self._batch] = queue
            self._send(self._batch, batch)
        if queue.timer is None and (due := queue.batcher.due) is not None and self._max_jobs(queue):
            queue.timer = self._loop.call_at(due, self._send_due, queue)

    def _max_jobs(self, queue: _BatchQueue) -> int:
        """How many jobs can be sent; after 0 the next answer frees a block."""
        return self._blocks.free_blocks if queue is self._parts else MAX_JOBS

    def _send_due(self, queue: _BatchQueue) -> None:
        queue.timer = None
        self._send_batches(queue)

    def _send(self, batch: int, jobs: list[Job]) -> None:
        self._transport.write(pack(batch, [(job, self._shared_span(job)) for job in jobs]))

    def _shared_span(self, job: Job) -> Span | None:
        """Put the message into shared memory, up to the answer; None where it is packed instead."""
        if job.message is None or (span := self._blocks.put(job.message.pieces)) is None:
            return None
        self._spans[job.number] = span
        return span

    def get_buffer(self, sizehint: int) -> memoryview:
        return _READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Note the answers that have come."""
        self._frames.feed(_READ_BUFFER[:nbytes])
        try:
            while (frame := self._frames.next_frame()) is not None:
                self._note_answers(*unpack_answers(frame))
        except Exception as fault:  # noqa: BLE001  # whatever a broken writer sends, no push may wait for it
            events.emit(
                "child.misbehaved", kind="writer", reason=f"what it said is no answer: {fault!r:.200}"
            )
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._note_writer_gone()

    def _note_writer_gone(self) -> None:
        """Fail all pushes: this process is about to end, and with its socket the writer."""
        self.closed.set()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(ConnectionError("the writer is gone"))

    def _note_answers(self, batch: int, answers: list[WriterAnswer]) -> None:
        for answer in answers:
            if (span := self._spans.pop(answer.number, None)) is not None:
                self._blocks.release_block(span)
            future = self._pending.pop(answer.number, None)
            # If it is done, its client has left, and it is stored all the same.
            if future is not None and not future.done():
                future.set_result(answer)
        if batch != _NO_BATCH:
            queue = self._batches.pop(batch)
            queue.batcher.end_batch()
            self._send_batches(queue)
            if queue is self._messages:  # some of which may have had blocks
                self._send_batches(self._parts)


class _BatchQueue:
    """The waiting messages, or parts, and the timer for their next batch."""

    def __init__(self, threads: int, local: bool) -> None:
        self.batcher: WriterBatcher[Job] = WriterBatcher(threads=threads, local=local)
        self.timer: asyncio.TimerHandle | None = None
