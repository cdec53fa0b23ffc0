"""aiohttp's log records as events: else each request that it can't read would be a page of the log."""

from __future__ import annotations

import logging
import traceback

from aiohttp.http_exceptions import HttpProcessingError

from maildefer import events


class AccessLogHandler(logging.Handler):
    """Takes the records of the server's logger."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):  # its text quotes what the client sent, a token for one
            reason = f"{error.code} {type(error).__name__}"
        else:
            reason = record.getMessage()
            if error is not None:
                reason += "\n" + "".join(traceback.format_exception(error))
        events.emit("intake.refused", reason=reason)


def logger() -> logging.Logger:
    """The logger for aiohttp's server; no other handlers see its records."""
    # Outside the hierarchy, so that no configuration reaches it.
    server = logging.Logger("maildefer.intake.http")
    server.addHandler(AccessLogHandler())
    return server
