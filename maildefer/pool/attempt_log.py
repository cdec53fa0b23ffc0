"""The log line of each attempt, and what the journal notes of it.

The line is formatted here and buffered, since it is on the hot path: structlog's chain costs 10 µs and a write a line;
these lines cost 1 µs, and are written together when the worker is idle or 100 ms have passed. Their time is that of the
attempt's end, in milliseconds like all times in the log.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from typing import Final

from maildefer import events, log_context
from maildefer.handling.handler_marks import raised_by
from maildefer.handling.outcomes import Deferred, Outcome, word_of

LOG = logging.getLogger("maildefer.handler")
FLUSH_SECONDS = 0.1
_MOST_LINES = 1000
_FACTS: Final = ("reason", "error", "queue", "seconds")  # of outcomes that have them


def log_failure(outcome: Outcome, message: object, handler: str, *, last: bool) -> None:
    """Log the exception in which the attempt failed, if any, through `logging`: to Sentry, mail, a file.

    At level ERROR after the last attempt, else WARNING. What a handler asks for, such as a `Reject`, is no failure.
    """
    if isinstance(outcome, Deferred) and (fault := outcome.fault) is not None:
        log_context.run_handlers(_log, fault, message, handler, logging.ERROR if last else logging.WARNING)


def _log(fault: BaseException, message: object, handler: str, level: int) -> None:
    log_context.begin_handler(message, handler)
    try:
        text = f"{type(fault).__name__}: {_said(fault)}".removesuffix(": ")
        if middleware := raised_by(fault):
            text = f"middleware {middleware}: {text}"
        LOG.log(level, "%s", text, exc_info=fault)
    except Exception as another:  # noqa: BLE001  # a handler of the project's own; the message is settled
        events.emit("log.unusable", error=f"{type(another).__name__}: {_said(another)}")


def _said(fault: BaseException) -> str:
    try:
        return str(fault)
    except Exception:  # noqa: BLE001  # of a class of the project's own
        return "<exception str() failed>"  # as in a traceback


class AttemptLog:
    """Attempt lines of one worker. Flush before sleeping and before ending.

    `waiting` is called with the time since when lines wait, in boot-clock seconds, or 0.0 when none do: a handler that
    runs for long must not hold them back, so the supervisor has them flushed by a signal.
    """

    __slots__ = ("_flush_at", "_format", "_lines", "_pid", "_second", "_shown", "_stamp", "_waiting")

    def __init__(self, waiting: Callable[[float], None] = lambda since: None) -> None:
        self._waiting = waiting
        self._format = events.current_format()
        self._shown = events.shows("attempt.ended")
        self._lines: list[str] = []
        self._pid = os.getpid()
        self._second = -1
        self._stamp = ""
        self._flush_at = 0.0

    def add(
        self,
        queue: str,
        key: str,
        handler: str,
        outcome: str,
        attempt: int,
        seconds: float,
        now: float,
        **more: object,
    ) -> None:
        """Note one attempt that ended at `now` (boot clock). `key` may be any text; `queue` and `handler` are ours."""
        if not self._shown:
            return
        wall = time.time()
        if (second := int(wall)) != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        stamp = f"{self._stamp}.{int((wall - second) * 1000):03d}Z"
        if not self._lines:
            self._flush_at = now + FLUSH_SECONDS
            self._waiting(now)
        if self._format == "logfmt" and not more and " " not in key and '"' not in key and key.isprintable():
            line = (
                f"ts={stamp} event=attempt.ended queue={queue} key={key} handler={handler or '-'}"
                f" outcome={outcome} attempt={attempt} duration_ms={seconds * 1000:.3f} pid={self._pid}\n"
            )
        else:
            line = self._slow(stamp, queue, key, handler, outcome, attempt, seconds, more)
        self._lines.append(line)
        if now >= self._flush_at or len(self._lines) >= _MOST_LINES:
            self.flush()

    def flush(self) -> None:
        """Write the lines that wait. A signal handler calls it too, so it may interrupt any method here."""
        lines, self._lines = self._lines, []
        if lines:
            self._waiting(0.0)
            events.write("".join(lines))

    def _slow(
        self,
        stamp: str,
        queue: str,
        key: str,
        handler: str,
        outcome: str,
        attempt: int,
        seconds: float,
        more: dict[str, object],
    ) -> str:
        facts = {
            "queue": queue,
            "key": key,
            "handler": handler or "-",
            "outcome": outcome,
            "attempt": attempt,
            "duration_ms": events.ms(seconds),
            "pid": self._pid,
            **{name: value for name, value in more.items() if value is not None},
        }
        if self._format == "json":
            return json.dumps({"ts": stamp, "event": "attempt.ended", **facts}) + "\n"
        if self._format == "console":
            pairs = " ".join(
                f"{name}={events.quoted(value)}" for name, value in facts.items() if name != "pid"
            )
            return f"{stamp[11:23]} attempt.ended      {pairs}\n"
        pairs = " ".join(f"{name}={events.quoted(value)}" for name, value in facts.items())
        return f"ts={stamp} event=attempt.ended {pairs}\n"


def attempted(outcome: Outcome, handler: str, attempt: int, seconds: float) -> dict[str, object]:
    """What came of an attempt that is about to be settled."""
    facts: dict[str, object] = {"handler": handler, "attempt": attempt, "ms": f"{seconds * 1000:.0f}"}
    facts["outcome"] = word_of(outcome)
    for name in _FACTS:
        if (value := getattr(outcome, name, None)) is not None:
            facts[name] = value
    return facts


def sent(keys: Iterable[tuple[str, str]]) -> dict[str, object]:
    """What the handlers of an attempt have sent: queues and keys."""
    return {"sent": " ".join(f"{os.path.basename(queue)}/{key}" for queue, key in keys)}
