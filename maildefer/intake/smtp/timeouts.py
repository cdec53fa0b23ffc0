"""How long a client may take to begin a command, to end it, and to end a message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from maildefer.intake.options import FrontEndOptions


class Timeouts:
    """The timeouts of one connection. It has one timer, which checks the time of the last input, not one a command."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, limits: FrontEndOptions, on_timeout: Callable[[], bool]
    ) -> None:
        """`on_timeout` returns True to go on waiting."""
        self._loop = loop
        self._limits = limits
        self._on_timeout = on_timeout
        self._timer: asyncio.TimerHandle | None = None
        self._armed_at = self._deadline = 0.0
        self._line_until: float | None = None
        self._body_until: float | None = None
        self._message_until = 0.0

    def message_begins(self) -> None:
        self._message_until = self._loop.time() + self._limits.data_seconds

    def body_begins(self) -> None:
        """Note that the message, or a chunk of it, begins."""
        self._body_until = self._message_until

    def message_overdue(self) -> bool:
        """Whether the time for the message has passed: a chunk that begins too late may still end at once."""
        return self._loop.time() >= self._message_until

    def body_ends(self) -> None:
        self._body_until = None

    def line_ends(self) -> None:
        self._line_until = None

    def note_input(self, *, in_line: bool) -> None:
        """Wait anew after input, but no longer than the message, or the line that has begun, may take."""
        now = self._loop.time()
        deadline = now + self._limits.idle_seconds
        if self._body_until is not None:
            deadline = min(deadline, self._body_until)
        elif in_line:
            if self._line_until is None:
                self._line_until = now + self._limits.command_seconds
            deadline = min(deadline, self._line_until)
        self._deadline = deadline
        if self._timer is None or deadline < self._armed_at:
            self._arm(deadline)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, when: float) -> None:
        self.stop()
        self._armed_at = when
        self._timer = self._loop.call_at(when, self._check)

    def _check(self) -> None:
        now = self._loop.time()
        if now < self._deadline:
            self._arm(self._deadline)
        elif self._on_timeout():
            self._arm(now + self._limits.idle_seconds)
