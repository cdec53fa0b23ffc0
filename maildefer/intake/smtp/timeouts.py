"""How long a client may take: to begin a command, to end it, to end a message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from maildefer.intake.options import FrontEndOptions


class Timeouts:
    """One connection's. A timer for each command would cost: here one looks whether the last one is long ago."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, limits: FrontEndOptions, at_end: Callable[[], bool]
    ) -> None:
        """`at_end` returns whether there is still something to be patient for."""
        self._loop = loop
        self._limits = limits
        self._at_end = at_end
        self._timer: asyncio.TimerHandle | None = None
        self._armed_at = self._deadline = 0.0
        self._line_until: float | None = None
        self._body_until: float | None = None
        self._message_until = 0.0

    def message_begins(self) -> None:
        self._message_until = self._loop.time() + self._limits.data_seconds

    def body_begins(self) -> None:
        """The message, or some of it."""
        self._body_until = self._message_until

    def is_over(self) -> bool:
        """Whether the time of the message has passed that is coming: a chunk may begin in time, and end at once."""
        return self._loop.time() >= self._message_until

    def body_ends(self) -> None:
        self._body_until = None

    def line_ends(self) -> None:
        self._line_until = None

    def something_came(self, *, in_line: bool) -> None:
        """Wait anew, but for no longer than the message, or the line that has begun, may take in all."""
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
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if now < self._deadline:
            self._arm(self._deadline)
        elif self._at_end():
            self._arm(now + self._limits.idle_seconds)
