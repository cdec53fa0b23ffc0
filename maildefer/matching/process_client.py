"""Matches addresses in other processes, within a limit, for threads.

None is started before a route needs it; then there are as many as threads ask at a time, and two are kept (decision
23). They are executed, not forked, since this process has threads; they end with it, and are not shared with its forks.
"""

from __future__ import annotations

import atexit
import marshal
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from maildefer import events
from maildefer.errors import RouteUntried
from maildefer.host import environment
from maildefer.matching import process
from maildefer.matching.process import Answer, Question, Span, framed, received
from maildefer.untrusted import UntrustedRecord, value_in

ANSWER_SECONDS: Final = 30.0  # beyond the limit, which is of processor time
KEPT: Final = 2  # idle processes
_MOST: Final = 32  # processes: a receiver handles so many messages at a time
_TRIES: Final = 2
_MOST_BYTES: Final = 32 << 20  # of an answer: thousands of patterns with many groups each


class MatcherUnavailable(Exception):
    """No matching process can be started now."""


@dataclass(frozen=True, slots=True)
class MatchResult:
    """A match that another process has found."""

    named: dict[str, str | None]

    def groupdict(self) -> dict[str, Any]:
        return dict(self.named)


def matches(
    patterns: Sequence[re.Pattern[str]], what: str, address: str, limit_seconds: float
) -> list[MatchResult | None] | None:
    """Each pattern's match; None if all together take more processor time. Any thread may call.

    Raises RouteUntried, which names `what`, if no process can be started, or if it fails, dies or hangs.
    """
    try:
        question = [(one.pattern, one.flags) for one in patterns], address, limit_seconds
        found = _PROCESSES.ask(question, [1 + one.groups for one in patterns])
    except MatcherUnavailable as fault:
        why = f"no process for it can be started ({fault})"
        raise RouteUntried(what, address, why, failed=False) from fault
    except (OSError, EOFError, UntrustedRecord) as fault:
        raise RouteUntried.failing(
            what, address, f"its process dies, hangs or answers nonsense: {fault!r}"
        ) from fault
    if found is None:
        return None
    if isinstance(found, str):
        raise RouteUntried.failing(what, address, found)
    return [
        None if spans is None else MatchResult(_named(pattern, address, spans))
        for pattern, spans in zip(patterns, found, strict=True)
    ]


def end_idle() -> None:
    """End the processes that are idle; others are started when they are needed."""
    _PROCESSES.end_idle()


@contextmanager
def ended_afterwards() -> Iterator[None]:
    """End the idle processes when the block ends."""
    try:
        yield
    finally:
        end_idle()


def pids() -> list[int]:
    """The process ids of all matching processes."""
    return _PROCESSES.pids()


def _named(pattern: re.Pattern[str], address: str, spans: list[Span]) -> dict[str, str | None]:
    named: dict[str, str | None] = {}
    for name, group in pattern.groupindex.items():
        begin, end = spans[group]
        named[name] = None if begin < 0 else address[begin:end]
    return named


def _answer(found: object, spans: Sequence[int], length: int) -> Answer:
    """The answer to expressions with so many spans each, and an address of that length. Raises ValueError."""
    if found is None or isinstance(found, str):
        return found
    if not isinstance(found, list) or len(found) != len(spans):
        raise ValueError("not one match for each pattern")
    return [_spans(one, count, length) for one, count in zip(found, spans, strict=True)]


def _spans(found: object, count: int, length: int) -> list[Span] | None:
    if found is None:
        return None
    match found:
        case list() if len(found) == count:
            return [_span(one, length) for one in found]
    raise ValueError("not one span for each group")


def _span(found: object, length: int) -> Span:
    match found:
        case [int(begin), int(end)] if -1 <= begin <= end <= length:
            return begin, end
    raise ValueError("a span outside of the address")


class _MatchingProcess:
    """One matching process, used by one thread at a time."""

    def __init__(self) -> None:
        """Start the process. Raises OSError."""
        self.socket, theirs = socket.socketpair()
        # Its own interpreter only: no site packages, nothing of the program.
        argv = [sys.executable, "-I", "-S", "-W", "ignore", os.path.abspath(process.__file__)]
        try:
            with theirs:
                self.process = subprocess.Popen(
                    argv,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    cwd="/",
                    env=environment.passed_variables(),
                )
        except BaseException:
            self.socket.close()
            raise

    def ask(self, question: Question, spans: Sequence[int]) -> Answer:
        """Ask one question. Raises OSError, EOFError if the process is dead or silent; UntrustedRecord for no answer.

        `spans`: the number of spans in each expression's match.
        """
        _, address, limit_seconds = question
        self.socket.settimeout(limit_seconds + ANSWER_SECONDS)
        self.socket.sendall(framed(marshal.dumps(question)))
        try:
            return _answer(value_in(received(self.socket.recv, _MOST_BYTES)), spans, len(address))
        except ValueError as fault:
            reason = f"what it sent is no answer: {fault}"
            events.emit("child.misbehaved", kind="matcher", pid=self.process.pid, reason=reason)
            raise UntrustedRecord(reason) from fault

    def end(self) -> None:
        """Kill the process and reap it."""
        self.socket.close()
        self.process.kill()
        self.process.wait()

    def forget(self) -> None:
        """In a fork: drop the process, which is the parent's."""
        self.socket.close()
        self.process.returncode = 0


class _MatchingProcesses:
    """All matching processes of this process."""

    def __init__(self) -> None:
        self._reset()
        atexit.register(self.end_idle)
        os.register_at_fork(after_in_child=self._forget)

    def ask(self, question: Question, spans: Sequence[int]) -> Answer:
        """Ask an idle or new process. Raises MatcherUnavailable, and the error of a second failure."""
        started = 0
        with self._places:
            while True:
                one = self._take_idle()
                if one is None:
                    one = self._start()
                    started += 1
                try:
                    answer = one.ask(question, spans)
                except (OSError, EOFError, UntrustedRecord):  # it was killed or stopped
                    self._end(one)
                    if started == _TRIES:
                        raise
                except (
                    BaseException
                ):  # of a signal, for example: an answer may still come, and belongs to no question
                    self._end(one)
                    raise
                else:
                    self._keep_or_end(one)
                    return answer

    def end_idle(self) -> None:
        while (one := self._take_idle()) is not None:
            self._end(one)

    def pids(self) -> list[int]:
        with self._lock:
            return [one.process.pid for one in self._all]

    def _take_idle(self) -> _MatchingProcess | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _start(self) -> _MatchingProcess:
        try:
            one = _MatchingProcess()
        except OSError as fault:
            raise MatcherUnavailable(str(fault)) from fault
        with self._lock:
            self._all.add(one)
        return one

    def _keep_or_end(self, one: _MatchingProcess) -> None:
        with self._lock:
            if len(self._idle) < KEPT:
                self._idle.append(one)
                return
        self._end(one)

    def _end(self, one: _MatchingProcess) -> None:
        with self._lock:
            self._all.discard(one)
        one.end()

    def _forget(self) -> None:
        for one in self._all:
            one.forget()
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(_MOST)
        self._idle: list[_MatchingProcess] = []
        self._all: set[_MatchingProcess] = set()


_PROCESSES: Final = _MatchingProcesses()
