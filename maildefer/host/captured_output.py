"""What a process's handlers print, and what C code and child programs write to descriptors 1 and 2, as log events.

Python's own streams make events at once. C code and child programs write to a file in memory, which needs no reader,
outlives the process for the process that made it, and is read after each attempt: so each line is about its message.
"""

from __future__ import annotations

import fcntl
import io
import math
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from ctypes import CDLL, c_int, c_long
from typing import Final, NoReturn

from maildefer import events, log_context
from maildefer.host.linux.process_title import set_title

EVENT: Final = "handler.printed"
_CHUNK_BYTES: Final = 4096
_LINE_BYTES: Final = 8192  # a longer one is several
_LOOK_SECONDS: Final = 0.5
_HIGH: Final = 1000
_MOST_LEFT_BYTES: Final = 1 << 20
_KEPT_BYTES: Final = 1 << 20  # of what was read, until its memory is given back
_PUNCH_HOLE: Final = 3  # fallocate(2): FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE

_made: Final[set[int]] = set()


def make() -> int:
    """A file for one process, before its fork. Its offset, which both share, is how far it was read. Raises OSError."""
    descriptor = os.memfd_create("maildefer-output", os.MFD_CLOEXEC)
    _made.add(descriptor)
    return descriptor


def close(*, but: int = -1) -> None:
    """In a child: close the files that its parent has made for others."""
    for descriptor in _made - {but}:
        os.close(descriptor)
        _made.discard(descriptor)


def high(descriptor: int) -> int:
    """Duplicate a descriptor to a high number, which is hardly used again should a handler close it.

    Else the log lines would go into the files of a handler that closes all and opens others. Raises OSError.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    least = _HIGH if limit < 0 else max(3, min(_HIGH, limit - 24))
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, least)


def is_unread(descriptor: int) -> bool:
    return descriptor >= 0 and os.fstat(descriptor).st_size > os.lseek(descriptor, 0, os.SEEK_CUR)


def emit_rest(descriptor: int, facts: Mapping[str, object]) -> None:
    """Emit the unread output of a process that has ended, up to a limit: the file may be a huge hole."""
    if descriptor < 0:
        return
    CapturedOutput(descriptor, lambda: facts).drain(most_bytes=_MOST_LEFT_BYTES)
    if (left := os.fstat(descriptor).st_size - os.lseek(descriptor, 0, os.SEEK_CUR)) > 0:
        events.emit(EVENT, text=f"and {left} bytes more, which are left out", **facts)
    _made.discard(descriptor)
    os.close(descriptor)


class CapturedOutput:
    """The file of one process, read as events; `about` returns further facts."""

    def __init__(
        self, descriptor: int, about: Callable[[], Mapping[str, object]] = log_context.facts
    ) -> None:
        self._descriptor = descriptor
        self._about = about
        self._rest = b""
        self._released = 0
        self._writer = -1
        self._seen = 0
        self._begun: set[_Stream] = set()  # which have a line without its end

    def capture(self) -> None:
        """From now on, descriptors 1 and 2, `sys.stdout` and `sys.stderr` are events; the log is where 2 was.

        An attempt's end reads what has come. Called once, before any project code. Raises OSError.
        """
        events.write_log_to(high(2))
        self._write_here()
        sys.stdout, sys.stderr = _Stream(1, "stdout", self._begun), _Stream(2, "stderr", self._begun)
        os.register_at_fork(after_in_child=_leave_to_parent)

    def move_to(self, descriptor: int) -> None:
        """Go on with a file of its own, in a forked child, whose streams stay those that project code may hold.

        A negative descriptor: what C code and child programs write goes to the log. Raises OSError.
        """
        for parents in (self._descriptor, self._writer):
            os.close(parents)
        for stream in tuple(self._begun):
            stream.forget_line()
        self._rest, self._released, self._seen, self._descriptor = b"", 0, 0, descriptor
        if descriptor >= 0:
            self._write_here()
        else:
            self._writer = -1
            for standard in (1, 2):
                os.dup2(events.descriptor(), standard)
            events.write_log_to(2)

    def _write_here(self) -> None:
        """Have descriptors 1 and 2 write to this file. Raises OSError."""
        writer = os.open(f"/proc/self/fd/{self._descriptor}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        given, self._descriptor = self._descriptor, high(self._descriptor)
        os.close(given)
        for descriptor in (1, 2):
            os.dup2(writer, descriptor)
        self._writer = high(writer)
        os.close(writer)
        log_context.ended = self.end_attempt

    def end_attempt(self) -> None:
        """Emit what the attempt has printed. On the hot path: one lseek(2) where nothing was printed."""
        if self._begun:
            for stream in tuple(self._begun):
                stream.end()
        try:
            end = os.lseek(self._writer, 0, os.SEEK_END)  # which appends, wherever it stands
            if end != self._seen:
                self._seen = end
                self.drain()
        except OSError:  # a handler has closed all descriptors
            return

    def drain(self, *, whole: bool = True, most_bytes: float = math.inf) -> None:
        """Tell what has come; unless `whole`, the beginning of a line waits for its end."""
        while most_bytes > 0 and (data := _read(self._descriptor)):
            most_bytes -= len(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._emit_line(line)
            if len(self._rest) >= _LINE_BYTES:
                self._emit_rest()
        if whole and self._rest:
            self._emit_rest()

    @property
    def descriptor(self) -> int:
        return self._descriptor

    def _emit_rest(self) -> None:
        line, self._rest = self._rest, b""
        self._emit_line(line)

    def _emit_line(self, line: bytes) -> None:
        if line:
            events.emit(EVENT, text=line.decode("utf-8", "backslashreplace"), **self._about())
        read = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        if read - self._released > _KEPT_BYTES:
            CDLL(None).fallocate(c_int(self._descriptor), c_int(_PUNCH_HOLE), c_long(0), c_long(read))
            self._released = read


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _CHUNK_BYTES)
    except OSError:  # a handler has closed all descriptors
        return b""


def capture_here(stopped: threading.Event) -> None:
    """Capture in a process without a supervisor: read after each attempt and twice a second, until `stopped`.

    A child process waits for the end of this process, however it ends, and then emits the rest. Called in the main
    thread, before there are others. Raises OSError.
    """
    descriptor = make()
    output = CapturedOutput(descriptor)
    output.capture()
    lock = threading.RLock()

    def end_attempt() -> None:
        with lock:
            output.end_attempt()

    def read_on() -> None:
        while not stopped.wait(_LOOK_SECONDS):
            with lock:
                output.drain(whole=False)

    log_context.ended = end_attempt
    ended, lifeline = os.pipe2(os.O_CLOEXEC)
    if not (child := os.fork()):
        if os.fork():  # twice, so that it is not ended with what handlers have left behind
            os._exit(0)
        _outlive(output, ended)
    os.waitpid(child, 0)
    os.close(ended)  # the lifeline ends with us
    threading.Thread(target=read_on, name="output", daemon=True).start()
    assert lifeline


def _outlive(output: CapturedOutput, ended: int) -> NoReturn:
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_IGN)
    keep = {output.descriptor, events.descriptor(), ended}
    for descriptor in {int(name) for name in os.listdir("/proc/self/fd")} - keep:
        try:
            os.close(descriptor)
        except OSError:  # the listing's own
            pass
    set_title("output")
    os.read(ended, 1)
    output.drain()
    os._exit(0)


class _Stream(io.TextIOBase):
    """A `sys.stdout` or `sys.stderr` of which each line is an event, emitted by the thread that ends the line."""

    def __init__(self, descriptor: int, name: str, begun: set[_Stream]) -> None:
        self._descriptor = descriptor
        self._name = name
        self._begun = begun
        self._line = threading.local()

    encoding = "utf-8"
    errors = "backslashreplace"

    def write(self, text: str) -> int:
        *lines, rest = (getattr(self._line, "text", "") + text).split("\n")
        self._line.text = rest
        if rest:
            self._begun.add(self)
        for line in lines:
            self._emit_line(line)
        return len(text)

    def forget_line(self) -> None:
        """Leave an unfinished line to the process from which this one was forked."""
        self._begun.discard(self)
        self._line.text = ""

    def end(self) -> None:
        """Emit an unfinished line, since it ends with the attempt."""
        self._begun.discard(self)
        text, self._line.text = getattr(self._line, "text", ""), ""
        self._emit_line(text)

    def _emit_line(self, line: str) -> None:
        for begin in range(0, len(line), _LINE_BYTES):
            piece = line[begin : begin + _LINE_BYTES]
            events.emit(EVENT, stream=self._name, text=piece, **log_context.facts())

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    @property
    def buffer(self) -> io.RawIOBase:
        return _ByteStream(self)


class _ByteStream(io.RawIOBase):
    """The binary buffer of a stream, for handlers that write bytes to `sys.stdout.buffer`."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # whatever has a buffer
        view = bytes(data)
        self._stream.write(view.decode("utf-8", "backslashreplace"))
        return len(view)

    def fileno(self) -> int:
        return self._stream.fileno()


def _leave_to_parent() -> None:
    """Leave the file to the parent, in a handler's own child."""
    log_context.ended = None
