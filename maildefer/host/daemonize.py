"""Starting a process that outlives its starter, and waiting until it serves.

The new process gets a descriptor, and writes `READY` there once it serves. Its starter learns of a failure by the end
of the pipe, and of the exit code from wait(2).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from maildefer.host.linux.readiness import await_readable

READY: Final = b"READY\n"
_TAIL_BYTES: Final = 4000


@dataclass(frozen=True, slots=True)
class LaunchFailed:
    """The process ended (`code`), or was killed as it was not ready in time; `last_words` are the end of its log."""

    code: int
    last_words: str


def launch(
    command: Callable[[int], list[str]],
    *,
    log_path: str,
    keep: tuple[int, ...] = (),
    before: Callable[[], None] | None = None,
    timeout_seconds: float = 60.0,
) -> int | LaunchFailed:
    """Start `command(ready_fd)` in a session of its own, its output appended to a log; the pid once it is ready.

    `keep` are descriptors that it inherits; `before` runs in the child before exec. Raises OSError.
    """
    os.makedirs(os.path.dirname(log_path), exist_ok=True)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with open(log_path, "ab", buffering=0, opener=lambda path, flags: os.open(path, flags, 0o640)) as log:
        began_at = log.tell()
        try:
            child = subprocess.Popen(
                command(writer),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(*keep, writer),
                preexec_fn=before,
            )
        finally:
            os.close(writer)
    try:
        if _is_ready(reader, timeout_seconds):
            child.returncode = 0  # subprocess is not to wait for it
            return child.pid
    finally:
        os.close(reader)
    code = _end(child)
    return LaunchFailed(code, _tail(log_path, began_at))


def _is_ready(reader: int, timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    data = b""
    while await_readable(reader, deadline - time.monotonic()):
        chunk = os.read(reader, 64)
        data += chunk
        if READY in data:
            return True
        if not chunk:
            return False
    return False


def _end(child: subprocess.Popen[bytes]) -> int:
    """Return the exit code of a process; one that neither serves nor ends is killed, with all that it started."""
    try:
        return child.wait(1.0)
    except subprocess.TimeoutExpired:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:  # just now
            pass
        child.wait()
        return 1


def _tail(path: str, began_at: int) -> str:
    try:
        with open(path, "rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(began_at, size - _TAIL_BYTES))
            return log.read().decode("utf-8", "backslashreplace").strip()
    except OSError:  # the log is the lesser trouble
        return ""
