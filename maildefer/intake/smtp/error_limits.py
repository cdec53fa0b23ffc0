"""Slows a client down as it makes errors, and closes its connection when it makes too many."""

from __future__ import annotations

from maildefer.backoff import backoff_seconds
from maildefer.intake import replies
from maildefer.intake.options import FrontEndOptions
from maildefer.intake.replies import Progress, Reply

_ONWARD, _STORED = Progress.ONWARD, Progress.STORED  # a look-up in an enum takes 100 ns


class ErrorLimits:
    """The errors and idle commands of one connection. A message that is stored clears them, as it does in Postfix."""

    def __init__(self, limits: FrontEndOptions, *, exempt: bool) -> None:
        """`exempt`: a relay of our own, which forwards what others send, is not limited."""
        self._limits = limits
        self._exempt = exempt
        self._errors = self._idle_commands = 0

    def note_replies(self, *answers: Reply) -> float:
        """Account for replies before they are sent; returns how many seconds to delay them."""
        if self._exempt or not answers:
            return 0.0
        if answers[0].progress is _ONWARD:
            return 0.0
        for reply in answers:
            if reply.progress is _STORED:
                self._errors = self._idle_commands = 0
                return 0.0
        self._idle_commands += 1
        if not answers[0].failed:
            return 0.0
        self._errors += 1
        over = self._errors - self._limits.max_errors // 2
        if over <= 0 or not self._limits.tarpit_seconds:
            return 0.0
        return backoff_seconds(
            over - 1,
            first_seconds=self._limits.tarpit_seconds,
            longest_seconds=self._limits.tarpit_max_seconds,
        )

    def limit_reached(self) -> Reply | None:
        """The reply with which to close the connection; None while the client may stay."""
        if self._errors >= self._limits.max_errors:
            return replies.TOO_MANY_ERRORS
        if self._idle_commands >= self._limits.max_commands:
            return replies.TOO_MANY_COMMANDS
        return None
