"""What goes over the line between the front end and its writer: length, then a marshalled tuple, both ways.

`marshal` is the quickest that Python has, and safe here: both ends are one program, forked apart.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable
from typing import Any, NamedTuple

from maildefer.intake.outcomes import Refusal, Stored
from maildefer.intake.writer.shared_memory import SharedBlocks, Span

LENGTH_BYTES = 4


class Message(NamedTuple):
    """One message as it came: its envelope, its bytes with LF as line ends, in pieces, how, and from whom.

    `together`: all recipients' pushes or none, as SMTP's one reply wants it.
    With a `draft`, the pieces are a part of it, and the last one where it is `whole`; that without recipients drops it.
    """

    sender: str
    recipients: tuple[str, ...]
    pieces: tuple[bytes | memoryview, ...]
    via: str
    client: str
    together: bool
    draft: int = 0
    whole: bool = True


class Job(NamedTuple):
    """A message to be pushed, or with None the question whether there is room."""

    number: int
    message: Message | None


class WriterAnswer(NamedTuple):
    """For each recipient of the job; for the question, what there is too little of, or an empty text."""

    number: int
    stored: list[Stored]
    shortage: str


def pack(batch: int, jobs: Iterable[tuple[Job, Span | None]]) -> bytes:
    """A batch with its number; with each job where its message's pieces are in the arena, and then not to be sent."""
    return _framed((batch, [_packed(job, span) for job, span in jobs]))


def unpack(frame: bytes, arena: SharedBlocks) -> tuple[int, list[Job]]:
    """Pieces in the arena are there up to the answer."""
    batch, packed = marshal.loads(frame)
    return batch, [_unpacked(arena, *each) for each in packed]


def pack_answers(batch: int, answers: list[WriterAnswer]) -> bytes:
    packed = [(number, list(map(_packed_outcome, stored)), shortage) for number, stored, shortage in answers]
    return _framed((batch, packed))


def unpack_answers(frame: bytes) -> tuple[int, list[WriterAnswer]]:
    batch, packed = marshal.loads(frame)
    answers = [
        WriterAnswer(number, [_unpacked_outcome(*each) for each in stored], shortage)
        for number, stored, shortage in packed
    ]
    return batch, answers


class FrameReader:
    """Cuts a stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def take(self) -> bytes | None:
        """The next one; None where it is not complete."""
        buffer = self._buffer
        if not (end := self._end()):
            return None
        frame = bytes(memoryview(buffer)[self._at + LENGTH_BYTES : end])
        self._at = end
        if not self._end():  # once for many: moving the rest costs
            del buffer[: self._at]
            self._at = 0
        return frame

    def _end(self) -> int:
        """Where the next frame ends; 0 when it is not whole."""
        begin = self._at + LENGTH_BYTES
        if len(self._buffer) < begin:
            return 0
        end = begin + int.from_bytes(self._buffer[self._at : begin])
        return end if len(self._buffer) >= end else 0


def _packed(job: Job, span: Span | None) -> tuple[Any, ...]:
    number, message = job
    if message is None:
        return number, None, None
    if span is None:
        return number, tuple(message), None
    return number, tuple(message._replace(pieces=())), tuple(span)


def _unpacked(
    arena: SharedBlocks, number: int, fields: tuple[Any, ...] | None, span: tuple[int, int] | None
) -> Job:
    if fields is None:
        return Job(number, None)
    message = Message(*fields)
    return Job(number, message if span is None else message._replace(pieces=(arena.get(Span(*span)),)))


def _packed_outcome(stored: Stored) -> tuple[str, str | None, str]:
    key, fault, reason = stored
    return key, None if fault is None else fault.value, reason


def _unpacked_outcome(key: str, fault: str | None, reason: str) -> Stored:
    return Stored(key, None if fault is None else Refusal(fault), reason)


def _framed(value: Any) -> bytes:
    data = marshal.dumps(value)
    return len(data).to_bytes(LENGTH_BYTES) + data
