"""A command on a terminal of its own, as somebody in front of it sees it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pyte

ROOT = Path(__file__).parents[2]
_SECONDS = 60.0


class TerminalUser:
    """`maildefer …` in a pseudo-terminal. `rows` is what it shows; the shell's own mode is known from before."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        environ: Mapping[str, str] = {},
        code: str = "",
        size: tuple[int, int] = (80, 24),
    ) -> None:
        """`code` is Python that is executed before the command, to put faults in its way."""
        self.screen = pyte.Screen(*size)
        self.written = b""
        self._stream = pyte.ByteStream(self.screen)
        start = (
            f"import sys; sys.argv[1:] = {list(arguments)!r}\n{code}\nfrom maildefer.cli import main; main()"
        )
        self._master, slave = pty.openpty()
        self.resize(*size)
        self.mode = termios.tcgetattr(slave)
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            for standard in range(3):
                os.dup2(slave, standard)
            os.closerange(3, 100)
            os.chdir(folder)
            named = {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **environ}
            os.execve(sys.executable, [sys.executable, "-c", start], {**os.environ, **named})
        self._slave = slave  # kept open, so that its mode can be read after the end
        self._status: int | None = None

    @property
    def rows(self) -> list[str]:
        return list(self.screen.display)

    @property
    def text(self) -> str:
        return "\n".join(self.rows)

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def until(self, seen: Callable[[str], object]) -> str:
        """What it shows, once that is true."""
        deadline = time.monotonic() + _SECONDS
        while not seen(self.text):
            assert time.monotonic() < deadline, self.text
            self._take(0.2)
        return self.text

    def ended(self) -> int:
        """Until it has ended; its exit code, or the number of the signal below zero."""
        deadline = time.monotonic() + _SECONDS
        while self._status is None:
            assert time.monotonic() < deadline, self.text
            self._take(0.1)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = status
        self._take(0.0)
        return os.waitstatus_to_exitcode(self._status)

    def is_restored(self) -> bool:
        """Whether the terminal is as it was: its mode, the main screen, the cursor."""
        shown = self.written.rfind(b"\x1b[?25h") > self.written.rfind(b"\x1b[?25l")
        left = self.written.count(b"\x1b[?1049h") == self.written.count(b"\x1b[?1049l")
        return shown and left and termios.tcgetattr(self._slave) == self.mode

    def close(self) -> None:
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._master)
        os.close(self._slave)

    def _take(self, seconds: float) -> None:
        while select.select([self._master], [], [], seconds)[0]:
            data = os.read(self._master, 1 << 16)
            self.written += data
            self._stream.feed(data)
            seconds = 0.0
