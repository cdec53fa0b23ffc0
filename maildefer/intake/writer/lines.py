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
        self.note_gone = note_gone
        self._control = control
        self._most = most
        self._note_answer = note_answer
        self._loop = asyncio.get_running_loop()
        self._all: list[_Line] = []
        self._idle: list[_Line] = []
        self._frames: deque[bytes] = deque()  # that wait for a line
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the first line. Raises OSError."""
        await self._open_line()

    def send(self, frame: bytes) -> None:
        """Send a frame by the next line that is free."""
        self._frames.append(frame)
        if self._idle:
            self._write(self._idle.pop())
        elif self._opening is None and len(self._all) < self._most:
            self._opening = self._loop.create_task(self._open_more())

    def close(self) -> None:
        """Let the writer end. Frames that wait are not sent."""
        if self._opening is not None:
            self._opening.cancel()
        for line in self._all:
            line.transport.close()
        self._control.close()

    def take_answer(self, line: _Line, frame: bytes) -> None:
        """Note an answer, and send the next frame that waits first. Raises what is wrong with it."""
        if not line.is_asked:
            raise ValueError("nothing was asked")
        self._use(line)
        self._note_answer(frame)

    def _write(self, line: _Line) -> None:
        line.is_asked = True
        line.transport.write(self._frames.popleft())

    async def _open_more(self) -> None:
        """Open a line for each frame that waits. Without a descriptor for it, frames wait for the lines there are."""
        try:
            while self._frames and len(self._all) < self._most:
                await self._open_line()
        except OSError:
            pass
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
        self._use(line)

    def _use(self, line: _Line) -> None:
        line.is_asked = False
        if self._frames:
            self._write(line)
        else:
            self._idle.append(line)


class _Line(asyncio.BufferedProtocol):
    """The connection to one of the writer's threads. `is_asked`: it has a frame, and has not answered."""

    def __init__(self, lines: WriterLines) -> None:
        self.is_asked = False
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
        self._lines.note_gone()
