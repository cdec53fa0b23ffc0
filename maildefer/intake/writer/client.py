"""The front end's end of the line to its writer: awaitable pushes."""

from __future__ import annotations

import asyncio
import time

from maildefer import events
from maildefer.intake.outcomes import Refusal, Stored
from maildefer.intake.writer.batcher import MOST, WriterBatcher
from maildefer.intake.writer.protocol import (
    LENGTH_BYTES,
    Job,
    Message,
    WriterAnswer,
    pack,
    unpack_answers,
)
from maildefer.intake.writer.shared_memory import Span, WriterLink

_LOOK_SECONDS = 1.0
_PATIENCE_SECONDS = 5.0
_SILENT = "the storage does not answer"
_NO_BATCH = 0  # the number of what goes alone, at once


class WriterClient:
    """One for the process; event loop only. `closed` is set when the writer is gone: the process should end too."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: WriterLink, threads: int
    ) -> None:
        self.closed = asyncio.Event()
        self._reader = reader
        self._writer = writer
        self._arena = link.arena
        self._loop = asyncio.get_running_loop()
        # Parts of large messages wait for no sync, and should not for others': one thread is theirs.
        self._messages = _Lane(max(1, threads - 1), link.local)
        self._parts = _Lane(threads, link.local)
        self._batches: dict[int, _Lane] = {}
        self._pending: dict[int, asyncio.Future[WriterAnswer]] = {}
        self._lent: dict[int, Span] = {}
        self._number = self._batch = self._draft = 0
        self._shortage = ""
        self._look_at = 0.0
        self._task = asyncio.create_task(self._listen())

    @classmethod
    async def open(cls, link: WriterLink, *, threads: int) -> WriterClient:
        """`threads`: that the writer has."""
        return cls(*await asyncio.open_connection(sock=link.socket, limit=1 << 20), link, threads)

    async def push(self, message: Message) -> list[Stored]:
        """For each recipient, in their order; with keys only once all is durable (I1)."""
        try:
            answer = await self._ask(message)
        except ConnectionError:
            return [Stored("", Refusal.STORAGE_FAILED, "the writer is gone")] * len(message.recipients)
        self._note(answer.shortage)
        return answer.stored

    def fresh_draft(self) -> int:
        """The number of a message that comes in parts, each pushed once the last is answered."""
        self._draft += 1
        return self._draft

    def drop(self, draft: int) -> None:
        """Forget a message whose end will not come; not while a part of it is being pushed."""
        self._send(_NO_BATCH, [Job(0, Message("", (), (), "", "", False, draft))])

    def known_shortage(self) -> str | None:
        """The same without asking; None when it has to be asked for."""
        return self._shortage if time.monotonic() < self._look_at else None

    @property
    def last_shortage(self) -> str:
        """What was last heard of it."""
        return self._shortage

    async def shortage(self) -> str:
        """What there is too little of, or an empty text; asked for no more than once a second."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_SECONDS
            try:
                self._note((await asyncio.wait_for(self._ask(None), _PATIENCE_SECONDS)).shortage)
            except (TimeoutError, ConnectionError):
                self._shortage = _SILENT
        return self._shortage

    async def close(self) -> None:
        """Let the writer end. What waits to be sent is not, and nobody was told that it is stored."""
        for lane in (self._messages, self._parts):
            if lane.timer is not None:
                lane.timer.cancel()
        self._writer.close()
        self._task.cancel()

    def _note(self, shortage: str) -> None:
        self._shortage = shortage
        self._look_at = time.monotonic() + _LOOK_SECONDS

    async def _ask(self, message: Message | None) -> WriterAnswer:
        if self.closed.is_set():
            raise ConnectionError
        number = self._number = self._number + 1
        future: asyncio.Future[WriterAnswer] = self._loop.create_future()
        self._pending[number] = future
        job = Job(number, message)
        if message is None:
            self._send(_NO_BATCH, [job])
        else:
            lane = self._messages if message.whole else self._parts
            lane.jobs.add(job, now=self._loop.time())
            self._advance(lane)
        try:
            return await future
        finally:
            self._pending.pop(number, None)

    def _advance(self, lane: _Lane) -> None:
        """Send what is to be sent now, and see to the rest in time; parts wait for blocks of the arena."""
        while batch := lane.jobs.next(now=self._loop.time(), most=self._room(lane)):
            self._batch += 1
            self._batches[self._batch] = lane
            self._send(self._batch, batch)
        if lane.timer is None and (due := lane.jobs.due) is not None and self._room(lane):
            lane.timer = self._loop.call_at(due, self._time_is_up, lane)

    def _room(self, lane: _Lane) -> int:
        """For so many jobs; when there is none, the next answer makes some."""
        return self._arena.free if lane is self._parts else MOST

    def _time_is_up(self, lane: _Lane) -> None:
        lane.timer = None
        self._advance(lane)

    def _send(self, batch: int, jobs: list[Job]) -> None:
        self._writer.write(pack(batch, [(job, self._placed(job)) for job in jobs]))

    def _placed(self, job: Job) -> Span | None:
        """Where its message is in the arena, which is up to the answer."""
        if job.message is None or (span := self._arena.put(job.message.pieces)) is None:
            return None
        self._lent[job.number] = span
        return span

    async def _listen(self) -> None:
        try:
            while True:
                size = int.from_bytes(await self._reader.readexactly(LENGTH_BYTES))
                self._answered(*unpack_answers(await self._reader.readexactly(size)))
        except (asyncio.IncompleteReadError, ConnectionError):
            self._give_up()
        except Exception as fault:  # noqa: BLE001  # a broken writer's: whatever it is, nobody may wait for more of it
            events.emit(
                "child.misbehaved", kind="writer", reason=f"what it said is no answer: {fault!r:.200}"
            )
            self._give_up()

    def _give_up(self) -> None:
        """The writer is gone, or has to be: this process ends, and with the line the writer."""
        self.closed.set()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(ConnectionError("the writer is gone"))

    def _answered(self, batch: int, answers: list[WriterAnswer]) -> None:
        for answer in answers:
            if (span := self._lent.pop(answer.number, None)) is not None:
                self._arena.give_back(span)
            future = self._pending.pop(answer.number, None)
            if future is not None and not future.done():  # its client has gone: stored all the same
                future.set_result(answer)
        if batch != _NO_BATCH:
            lane = self._batches.pop(batch)
            lane.jobs.end()
            self._advance(lane)
            if lane is self._messages:  # of which some may have had blocks
                self._advance(self._parts)


class _Lane:
    """With the timer of what waits in it."""

    def __init__(self, threads: int, local: bool) -> None:
        self.jobs: WriterBatcher[Job] = WriterBatcher(threads=threads, local=local)
        self.timer: asyncio.TimerHandle | None = None
