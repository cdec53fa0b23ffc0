"""The lines to a writer's threads: a socket for each, with at most one batch at a time (decision 97)."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import cast

from maildefer import events
from maildefer.intake.socket_transport import SocketTransport, suits
from maildefer.intake.writer.protocol import FrameReader

_READ_BUFFER = memoryview(bytearray(64 << 10))
_PAUSE_SECONDS = 1.0  # after a line that could not be had


class WriterLines:
    """The lines of one writer, opened as they are needed; the one that was used last is used first. Event loop only.

    `note_answer` gets the answer to each frame, and raises where it is none; `note_gone`: the writer has ended, or is
    to end.
    """

    def __init__(
        self,
        control: socket.socket,
        most: int,
        note_answer: Callable[[bytes], None],
        note_gone: Callable[[], None],
    ) -> None:
        """`control`: to the writer, which makes a thread for each descriptor that it is given there."""
        control.setblocking(False)
        self._note_gone = note_gone
        self._control = control
        self._most = most
        self._note_answer = note_answer
        self._loop = asyncio.get_running_loop()
        self._all: list[_Line] = []
        self._idle: list[_Line] = []
        self._coming: list[_Line] = []  # whose thread has not said that it is there
        self._frames: deque[bytes] = deque()  # that wait for a line
        self._not_before = 0.0
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the first line. Raises OSError."""
        await self._open_line()

    def send(self, frame: bytes) -> None:
        """Send a frame by the next line that is free."""
        self._frames.append(frame)
        if self._idle:
            self._write(self._idle.pop())
        elif self._opening is None and self._is_another_needed():
            self._opening = self._loop.create_task(self._open_more())

    def close(self) -> None:
        """Let the writer end. Frames that wait are not sent."""
        if self._opening is not None:
            self._opening.cancel()
        for line in list(self._all):
            line.transport.close()
        self._control.close()

    def take_answer(self, line: _Line, frame: bytes) -> None:
        """Note an answer, and send the next frame that waits first. Raises what is wrong with it."""
        if not line.is_asked:
            raise ValueError("nothing was asked")
        if line in self._coming:
            self._coming.remove(line)
        line.is_asked = False
        if self._frames:
            self._write(line)
        else:
            self._idle.append(line)
        self._note_answer(frame)

    def note_lost(self, line: _Line) -> None:
        """Note that a line has ended: the writer with it, unless that had no descriptor or thread left for the line."""
        if line not in self._coming or len(self._all) == 1:
            self._note_gone()
            return
        self._all.remove(line)
        self._coming.remove(line)
        self._not_before = self._loop.time() + _PAUSE_SECONDS

    def _is_another_needed(self) -> bool:
        """Whether a line is to be opened. Where none can be had, frames wait for those there are."""
        is_any_left = len(self._all) < self._most and self._loop.time() >= self._not_before
        return is_any_left and len(self._frames) > len(self._coming)

    def _write(self, line: _Line) -> None:
        line.is_asked = True
        line.transport.write(self._frames.popleft())

    async def _open_more(self) -> None:
        try:
            while self._is_another_needed():
                await self._open_line()
        except OSError:  # no descriptor
            self._not_before = self._loop.time() + _PAUSE_SECONDS
        finally:
            self._opening = None

    async def _open_line(self) -> None:
        ours, theirs = socket.socketpair()
        line = _Line(self)
        try:
            with theirs:
                socket.send_fds(self._control, [b"\0"], [theirs.fileno()])
            ours.setblocking(False)
            if suits(self._loop):
                SocketTransport(self._loop, ours, line).open()
            else:
                await self._loop.create_connection(lambda: line, sock=ours)
        except BaseException:
            ours.close()
            raise
        self._all.append(line)
        self._coming.append(line)


class _Line(asyncio.BufferedProtocol):
    """The connection to one of the writer's threads.

    `is_asked`: it has a frame, and has not answered, or its thread has not said that it is there.
    """

    def __init__(self, lines: WriterLines) -> None:
        self.is_asked = True
        self.transport: asyncio.Transport
        self._lines = lines
        self._frames = FrameReader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        self._frames.feed(_READ_BUFFER[:nbytes])
        try:
            while (frame := self._frames.next_frame()) is not None:
                self._lines.take_answer(self, frame)
        except Exception as fault:  # noqa: BLE001  # whatever a broken writer sends, no push may wait for it
            events.emit(
                "child.misbehaved", kind="writer", reason=f"what it said is no answer: {fault!r:.200}"
            )
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._lines.note_lost(self)
