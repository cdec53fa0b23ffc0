"""The log line of each attempt, and what the journal notes of it.

It is on the hot path, so only its facts are kept then; lines are made and written together when the worker is idle or
100 ms have passed, which takes less than a microsecond for each, where structlog's chain and a write take 10. Their
time is that of the attempt's end, in milliseconds like all times in the log.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Final

from maildefer import events, log_context
from maildefer.handling.handler_marks import raised_by
from maildefer.handling.outcomes import Deferred, Outcome, word_of
from maildefer.maildir.system import boottime

LOG = logging.getLogger("maildefer.handler")
FLUSH_SECONDS = 0.1
_MOST_LINES = 1000
_Ended = tuple[float, str, str, str, str, int, float, str | None]
_FACTS: Final = ("reason", "error", "queue", "seconds")  # of outcomes that have them


def log_failure(outcome: Outcome, message: object, handler: str, *, last: bool) -> None:
    """Log the exception in which the attempt failed, if any, through `logging`: to Sentry, mail, a file.

    At level ERROR after the last attempt, else WARNING. What a handler asks for, such as a `Reject`, is no failure.
    """
    if isinstance(outcome, Deferred) and (fault := outcome.fault) is not None:
        level = logging.ERROR if last else logging.WARNING
        log_context.run_handlers(partial(_log, message, handler, level), fault)


def _log(message: object, handler: str, level: int, fault: BaseException) -> None:
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

    __slots__ = ("_ended", "_flush_at", "_format", "_shown", "_waiting")

    def __init__(self, waiting: Callable[[float], None] = lambda since: None) -> None:
        self._waiting = waiting
        self._format = events.current_format()
        self._shown = events.shows("attempt.ended")
        self._ended: list[_Ended] = []
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
        reason: str | None = None,
    ) -> None:
        """Note one attempt that ended at `now` (boot clock). `key` may be any text; `queue` and `handler` are ours."""
        if not self._shown:
            return
        if not self._ended:
            self._flush_at = now + FLUSH_SECONDS
            self._waiting(now)
        self._ended.append((now, queue, key, handler, outcome, attempt, seconds, reason))
        if now >= self._flush_at or len(self._ended) >= _MOST_LINES:
            self.flush()

    def flush(self) -> None:
        """Write the lines that wait. A signal handler calls it too, so it may interrupt any method here."""
        ended, self._ended = self._ended, []
        if ended:
            self._waiting(0.0)
            pid, ahead = os.getpid(), time.time() - boottime()
            events.write("".join([self._line(pid, ahead, facts) for facts in ended]))

    def _line(self, pid: int, ahead: float, ended: _Ended) -> str:
        now, queue, key, handler, outcome, attempt, seconds, reason = ended
        stamp = _stamp(int((now + ahead) * 1000))
        is_plain = reason is None and " " not in key and '"' not in key and key.isprintable()
        if is_plain and self._format == "logfmt":
            return (
                f"ts={stamp} event=attempt.ended queue={queue} key={key} handler={handler or '-'}"
                f" outcome={outcome} attempt={attempt} duration_ms={seconds * 1000:.3f} pid={pid}\n"
            )
        facts = {
            "queue": queue,
            "key": key,
            "handler": handler or "-",
            "outcome": outcome,
            "attempt": attempt,
            "duration_ms": events.ms(seconds),
            "pid": pid,
            **({} if reason is None else {"reason": reason}),
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


@lru_cache(maxsize=8)  # a busy worker has tens of lines in a millisecond
def _stamp(milliseconds: int) -> str:
    second, rest = divmod(milliseconds, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))}.{rest:03d}Z"


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
