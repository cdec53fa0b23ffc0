"""How a client behaves: it is slowed down as it makes errors, and sent away when it makes too many."""

from __future__ import annotations

from typing import Final

from maildefer.intake import replies
from maildefer.intake.options import FrontEndOptions

# What brings a message on. Other commands (RSET, NOOP, VRFY, EHLO …) are harmless, but not without end.
_FORWARD: Final = ("250 2.1.", "354 ")


class ErrorLimits:
    """One connection's. A message that is taken clears the account, as it does in Postfix."""

    def __init__(self, limits: FrontEndOptions, *, lenient: bool) -> None:
        """`lenient`: one of our own relays, which passes on what others do."""
        self._limits = limits
        self._lenient = lenient
        self._errors = self._idle_commands = 0

    def note(self, reply: str) -> float:
        """Account for a reply before it is sent; returns how many seconds to wait with it."""
        if self._lenient or not reply or reply.startswith(_FORWARD):
            return 0.0
        if replies.is_queued(reply):
            self._errors = self._idle_commands = 0
            return 0.0
        if replies.is_chunk_taken(reply):
            return 0.0
        self._idle_commands += 1
        if reply[0] not in "45":
            return 0.0
        self._errors += 1
        over = self._errors - self._limits.max_errors // 2
        if over <= 0 or not self._limits.tarpit_seconds:
            return 0.0
        return min(self._limits.tarpit_seconds * 2.0 ** min(over - 1, 30), self._limits.tarpit_max_seconds)

    def verdict(self) -> str:
        """The reply with which to send it away; empty while it may stay."""
        if self._errors >= self._limits.max_errors:
            return replies.TOO_MANY_ERRORS
        if self._idle_commands >= self._limits.max_commands:
            return replies.TOO_MANY_COMMANDS
        return ""
