"""A call of a function that may hang on a mount, with a time limit: a forked child makes it.

A child that hangs in the kernel, where not even KILL reaches it, is left behind.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from maildefer.errors import MaildeferError

T = TypeVar("T")

LOOK_SECONDS: Final = 2.0

_abandoned: list[int] = []  # children that were not reaped yet


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The function had not returned after so many seconds; its process was killed, and not waited for."""

    seconds: float
    child: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class CallFailed:
    """The function raised this error."""

    error: Exception


def bounded(function: Callable[[], T], seconds: float = LOOK_SECONDS) -> T | TimedOut:
    """Run `function` in a forked child and hand over what it returns, or raises; TimedOut if that takes too long.

    What it returns is pickled. What it changes in this process's memory is lost. An exception that can't be pickled
    comes as a MaildeferError of the same text. For a process of one thread: the command line.
    """
    (result,) = side_by_side([function], seconds)
    if isinstance(result, CallFailed):
        raise result.error
    return result


def side_by_side(
    functions: Sequence[Callable[[], T]], seconds: float = LOOK_SECONDS
) -> list[T | TimedOut | CallFailed]:
    """Run several functions at a time, each in a child of its own, for so long in all; results in their order."""
    reap()
    deadline = time.monotonic() + seconds
    children = [begin_call(function) for function in functions]
    answers = _read_all([reader for _, reader in children], deadline)
    results: list[T | TimedOut | CallFailed] = []
    for child, reader in children:
        os.close(reader)
        _abandoned.append(child)
        if not _reap_soon(child, deadline):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        results.append(_result(answers[reader], seconds))
    return results


def begin_call(function: Callable[[], object]) -> tuple[int, int]:
    """Fork a child for a function; returns its pid and the descriptor that its answer comes from, for `end_call`."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _run(function, writer)
    os.close(writer)
    return child, reader


def end_call(child: int, reader: int, data: bytes | None, seconds: float) -> Any:
    """The result of a call of which so much was read up to its end; None: that did not come within so many seconds."""
    os.close(reader)
    _abandoned.append(child)
    if data is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    reap()
    return TimedOut(seconds, child) if data is None else _result(data, seconds)


def hangs_still(late: TimedOut) -> bool:
    """Whether the killed child of a call has not ended yet, so that another one would hang beside it."""
    reap()
    return late.child in _abandoned


def _result(data: bytes | None, seconds: float) -> Any:
    if data is None:
        return TimedOut(seconds)
    if not data:
        return CallFailed(MaildeferError("the process that looked at the mount died: see the kernel's log"))
    succeeded, value = pickle.loads(data)
    return value if succeeded else CallFailed(_rebuilt(*value))


def _run(function: Callable[[], object], writer: int) -> None:
    """Run in the child: nothing that it does may reach the parent's files, and it ends after its answer."""
    status = 1
    try:
        # Else a reader of the output would wait for a child that hangs, and a lock would stay held by it.
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)
        if writer != 3:
            os.dup2(writer, 3)
        os.closerange(4, os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") > 0 else 65536)
        # An event loop's, which is closed here: its number may become another file's.
        signal.set_wakeup_fd(-1)
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_DFL)
        data = memoryview(_outcome(function))
        while data:
            data = data[os.write(3, data) :]
        status = 0
    finally:
        os._exit(status)


def _outcome(function: Callable[[], object]) -> bytes:
    try:
        return pickle.dumps((True, function()))
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent raises it
        try:
            return pickle.dumps((False, (type(error), error.args, error.__dict__)))
        except Exception:  # noqa: BLE001 - an error that carries a lock, a socket, a local class
            return pickle.dumps((False, (MaildeferError, (str(error),), {})))


def _rebuilt(kind: type[Exception], arguments: tuple[object, ...], facts: dict[str, object]) -> Exception:
    """Make the error again, not by its constructor, which takes facts rather than the text in `args`."""
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(facts)
    return error


def _read_all(readers: Sequence[int], deadline: float) -> dict[int, bytes | None]:
    """Read each descriptor until its end of file; None where the end does not come in time."""
    poll = select.poll()
    for reader in readers:
        poll.register(reader, select.POLLIN)
    data = {reader: bytearray() for reader in readers}
    ended: dict[int, bytes | None] = dict.fromkeys(readers)
    waiting = len(readers)
    while waiting and (left := deadline - time.monotonic()) > 0:
        for reader, _ in poll.poll(left * 1000):
            if chunk := os.read(reader, 1 << 20):
                data[reader] += chunk
            else:
                poll.unregister(reader)
                ended[reader] = bytes(data[reader])
                waiting -= 1
    return ended


def _reap_soon(child: int, deadline: float) -> bool:
    """Reap the child, which has nothing left to do but end; says whether it did in time."""
    while child in _abandoned:
        reap()
        if child not in _abandoned:
            break
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0005)
    return True


def reap() -> None:
    """Take the exit status of what has ended of the children that were left."""
    for child in tuple(_abandoned):
        try:
            if os.waitpid(child, os.WNOHANG)[0] == child:
                _abandoned.remove(child)
        except ChildProcessError:  # somebody else's handler has reaped it
            _abandoned.remove(child)
