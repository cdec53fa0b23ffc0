"""The frames between the front end and its writer: a length, then a marshalled tuple, in both directions.

`marshal` is the fastest format of the standard library, and safe here: both ends are one program, forked.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable
from typing import Any, NamedTuple

from maildefer.intake.outcomes import Refusal, Stored
from maildefer.intake.writer.shared_memory import SharedBlocks, Span

LENGTH_BYTES = 4


class Message(NamedTuple):
    """One message: its envelope, its bytes in pieces with LF as line ends, the protocol and the client.

    `together`: it is pushed for all recipients or for none, as SMTP has one reply for all.
    With a `draft`, the pieces are a part of it, and where it is `whole` the last one; without recipients it is dropped.
    """

    sender: str
    recipients: tuple[str, ...]
    pieces: tuple[bytes | memoryview, ...]
    via: str
    client: str
    together: bool
    draft: int = 0
    whole: bool = True
    once: str = ""
    """With a name, it is pushed once for all messages of that name: see `maildir/idempotency`."""
    fingerprint: str = ""
    """Of this message; another one of its name is refused."""
    after_seconds: float | None = None
    at: str = ""
    """In ISO 8601, with a zone."""
    dsn: dict[str, str] = {}  # noqa: RUF012  # a default that nobody changes
    """By recipient, what the sender asks of reports, where it does: see `message/dsn/parameters`."""


class Job(NamedTuple):
    """A message to push; without a message, a question whether the queue can take more."""

    number: int
    message: Message | None


class WriterAnswer(NamedTuple):
    """The outcomes for the recipients of a job, and what is short, or an empty text."""

    number: int
    stored: list[Stored]
    shortage: str


def pack(batch: int, jobs: Iterable[tuple[Job, Span | None]]) -> bytes:
    """Pack a batch with its number; pieces of a message with a span are in shared memory, and are not packed."""
    return _frame((batch, [_pack_job(job, span) for job, span in jobs]))


def unpack(frame: bytes, blocks: SharedBlocks) -> tuple[int, list[Job]]:
    """Unpack a batch; pieces in shared memory are there up to the answer."""
    batch, packed = marshal.loads(frame)
    return batch, [_unpack_job(blocks, *each) for each in packed]


def pack_answers(batch: int, answers: list[WriterAnswer]) -> bytes:
    packed = [(number, list(map(_pack_outcome, stored)), shortage) for number, stored, shortage in answers]
    return _frame((batch, packed))


def unpack_answers(frame: bytes) -> tuple[int, list[WriterAnswer]]:
    batch, packed = marshal.loads(frame)
    answers = [
        WriterAnswer(number, [_unpack_outcome(*each) for each in stored], shortage)
        for number, stored, shortage in packed
    ]
    return batch, answers


class FrameReader:
    """Cuts a stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0

    def feed(self, data: bytes | memoryview) -> None:
        self._buffer += data

    def next_frame(self) -> bytes | None:
        """The next frame; None before it is complete."""
        buffer = self._buffer
        if not (end := self._frame_end()):
            return None
        frame = bytes(memoryview(buffer)[self._at + LENGTH_BYTES : end])
        self._at = end
        if not self._frame_end():  # moves the rest once for many frames
            del buffer[: self._at]
            self._at = 0
        return frame

    def _frame_end(self) -> int:
        """Where the next frame ends; 0 before it is complete."""
        begin = self._at + LENGTH_BYTES
        if len(self._buffer) < begin:
            return 0
        end = begin + int.from_bytes(self._buffer[self._at : begin])
        return end if len(self._buffer) >= end else 0


def _pack_job(job: Job, span: Span | None) -> tuple[Any, ...]:
    number, message = job
    if message is None:
        return number, None, None
    if span is None:
        return number, tuple(message), None
    return number, tuple(message._replace(pieces=())), tuple(span)


def _unpack_job(
    blocks: SharedBlocks, number: int, fields: tuple[Any, ...] | None, span: tuple[int, int] | None
) -> Job:
    if fields is None:
        return Job(number, None)
    message = Message(*fields)
    return Job(number, message if span is None else message._replace(pieces=(blocks.get(Span(*span)),)))


def _pack_outcome(stored: Stored) -> tuple[str, str | None, str, bool]:
    key, fault, reason, is_repeated = stored
    return key, None if fault is None else fault.value, reason, is_repeated


def _unpack_outcome(key: str, fault: str | None, reason: str, is_repeated: bool) -> Stored:
    return Stored(key, None if fault is None else Refusal(fault), reason, is_repeated)


def _frame(value: Any) -> bytes:
    data = marshal.dumps(value)
    return len(data).to_bytes(LENGTH_BYTES) + data
