"""Handlers' own logging, in the pool's line format: what they say through `logging` or structlog.

Nothing is imported for it that the application has not imported itself: structlog alone is 18 MB a process.
"""

from __future__ import annotations

import sys
import time
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from maildefer import events

if TYPE_CHECKING:
    import logging

EVENT = "handler.logged"


def adopt(level: str = "INFO") -> None:
    """Have this process's `logging` and structlog write event lines, as far as the application uses them.

    Called once the application is loaded. An application that has set handlers or processors itself keeps them.
    """
    if "logging" in sys.modules:
        _adopt_logging(level)
    if "structlog" in sys.modules:
        _adopt_structlog()


def _adopt_logging(level: str) -> None:
    import logging

    root = logging.getLogger()
    if root.handlers:
        return

    class EventHandler(logging.Handler):
        """Each record is one line; a traceback is one of its facts."""

        def emit(self, record: logging.LogRecord) -> None:
            try:
                events.emit(EVENT, **_facts(record))
            except Exception:  # noqa: BLE001  # logging's own way with a broken record: tell it, and go on
                self.handleError(record)

    root.addHandler(EventHandler())
    root.setLevel(level)


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    trace = None
    if record.exc_info:
        import traceback

        trace = "".join(traceback.format_exception(*record.exc_info))
    return {
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
        "traceback": trace,
    }


def _adopt_structlog() -> None:
    import structlog

    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _rendered,
        ],
        logger_factory=lambda *_: _LineLogger(),
        cache_logger_on_first_use=True,
    )


def _rendered(logger: object, method: str, facts: MutableMapping[str, Any]) -> str:
    said = facts.pop("event", "")
    return events.render(EVENT, {"level": facts.pop("level", method), "message": said, **facts}, time.time())


class _LineLogger:
    """What structlog's chain ends in: one line, in one write."""

    def msg(self, line: str) -> None:
        events.write(line + "\n")

    log = debug = info = warning = warn = error = critical = exception = fatal = failure = err = msg
