"""How a client behaves: it is slowed down as it makes errors, and sent away when it makes too many."""

from __future__ import annotations

from maildefer.backoff import backoff_seconds
from maildefer.intake import replies
from maildefer.intake.options import FrontEndOptions
from maildefer.intake.replies import Progress, Reply


class ErrorLimits:
    """One connection's. A message that is taken clears the account, as it does in Postfix."""

    def __init__(self, limits: FrontEndOptions, *, lenient: bool) -> None:
        """`lenient`: one of our own relays, which passes on what others do."""
        self._limits = limits
        self._lenient = lenient
        self._errors = self._idle_commands = 0

    def note(self, *said: Reply) -> float:
        """Account for an answer before it is sent; returns how many seconds to wait with it."""
        if self._lenient or not said:
            return 0.0
        if any(reply.progress is Progress.STORED for reply in said):
            self._errors = self._idle_commands = 0
            return 0.0
        if said[0].progress is Progress.ONWARD:
            return 0.0
        self._idle_commands += 1
        if not said[0].failed:
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

    def verdict(self) -> Reply | None:
        """The reply with which to close the connection; None while the client may stay."""
        if self._errors >= self._limits.max_errors:
            return replies.TOO_MANY_ERRORS
        if self._idle_commands >= self._limits.max_commands:
            return replies.TOO_MANY_COMMANDS
        return None
