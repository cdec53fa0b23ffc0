"""What goes over the line between the front end and its writer: length, then a marshalled tuple, both ways.

`marshal` is the quickest that Python has, and safe here: both ends are one program, forked apart.
"""

from __future__ import annotations

import marshal
from typing import Any, NamedTuple

from maildefer.intake.link import Arena, Span

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


class Stored(NamedTuple):
    """How the push for one recipient ended: `key` is empty when it failed; the reply is for the client."""

    key: str
    reply: str
    reason: str = ""


class Job(NamedTuple):
    """A message to be pushed, or with None the question whether there is room."""

    number: int
    message: Message | None


class Answer(NamedTuple):
    """For each recipient of the job; for the question, what there is too little of, or an empty text."""

    number: int
    stored: list[Stored]
    shortage: str


def pack(job: Job, span: Span | None = None) -> bytes:
    """`span`: where the message's pieces are in the arena, and not to be sent."""
    number, message = job
    if message is None:
        return _framed((number, None, None))
    if span is not None:
        message = message._replace(pieces=())
    return _framed((number, tuple(message), span and tuple(span)))


def unpack(frame: bytes, arena: Arena) -> Job:
    """Pieces in the arena are there up to the answer."""
    number, fields, span = marshal.loads(frame)
    if fields is None:
        return Job(number, None)
    message = Message(*fields)
    return Job(number, message if span is None else message._replace(pieces=(arena.get(Span(*span)),)))


def pack_answers(answers: list[Answer]) -> bytes:
    return _framed(
        [(number, [tuple(each) for each in stored], shortage) for number, stored, shortage in answers]
    )


def unpack_answers(frame: bytes) -> list[Answer]:
    return [
        Answer(number, [Stored(*each) for each in stored], shortage)
        for number, stored, shortage in marshal.loads(frame)
    ]


class Frames:
    """Cuts a stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def take(self, most: int) -> list[bytes]:
        """The complete frames, at most so many."""
        frames: list[bytes] = []
        buffer = self._buffer
        while len(frames) < most and (end := self._end()):
            frames.append(bytes(memoryview(buffer)[self._at + LENGTH_BYTES : end]))
            self._at = end
        if self._at and not self._end():  # once in a batch: moving the rest costs
            del buffer[: self._at]
            self._at = 0
        return frames

    def _end(self) -> int:
        """Where the next frame ends; 0 when it is not whole."""
        begin = self._at + LENGTH_BYTES
        if len(self._buffer) < begin:
            return 0
        end = begin + int.from_bytes(self._buffer[self._at : begin])
        return end if len(self._buffer) >= end else 0


def _framed(value: Any) -> bytes:
    data = marshal.dumps(value)
    return len(data).to_bytes(LENGTH_BYTES) + data
