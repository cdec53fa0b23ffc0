"""What aiohttp logs, as events of ours: else each request that makes no sense would be a page of the log."""

from __future__ import annotations

import logging
import traceback

from aiohttp.http_exceptions import HttpProcessingError

from maildefer import events


class AccessLogHandler(logging.Handler):
    """Takes the records of the server's logger."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):  # the client's fault, told in several lines
            reason = " ".join(str(error).split())
        else:
            reason = record.getMessage()
            if error is not None:
                reason += "\n" + "".join(traceback.format_exception(error))
        events.emit("intake.refused", reason=reason)


def logger() -> logging.Logger:
    """For aiohttp's server; nobody else's handlers see what it says."""
    server = logging.Logger("maildefer.intake.http")  # in no hierarchy, and so nobody's to set up
    server.addHandler(AccessLogHandler())
    return server
