"""Checks a name and a password, by a file or by a function of the project in a process of its own."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from maildefer import events
from maildefer.intake import replies
from maildefer.intake.access import passwords
from maildefer.intake.access.policy_client import PolicyClient
from maildefer.intake.client import Client
from maildefer.intake.options import IntakeOptions
from maildefer.intake.replies import Reply

_MOST_WAITING: Final = 50  # a check takes a good part of a second: after so many, a client is to try again
_CHECK_PROCESSES: Final = 1


class Credentials:
    """The checks of one process. One thread computes hashes, so that guesses by many clients take one core at most."""

    def __init__(self, options: IntakeOptions) -> None:
        """Raises ConfigurationError."""
        self._path = options.auth_file
        self._check = options.auth_check
        self._seconds = options.policy_seconds
        self._function: PolicyClient | None = None
        self._known: dict[str, str] = {}
        self._unknown_hash = passwords.hashed("")  # an unknown name takes as long as a known one
        self._thread = ThreadPoolExecutor(1, "passwords")
        self._waiting = 0
        self.read()

    def start_process(self) -> None:
        """Start the process of `auth_check`, where that is set; called once there is an event loop."""
        if self._check:
            self._function = PolicyClient(self._check, seconds=self._seconds, processes=_CHECK_PROCESSES)

    def read(self) -> None:
        """Read the file, again at HUP. Raises ConfigurationError."""
        if self._path:
            self._known = passwords.read(self._path)
        self.replace_process()

    def replace_process(self) -> None:
        """Have another process of `auth_check` take the present one's place."""
        if self._function is not None:
            self._function.reload()

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._function is not None:
            await self._function.close()

    async def refusal(self, user: str, password: str, client: Client) -> Reply | None:
        """Check a name and a password: None where they belong together, else the reply."""
        if self._function is not None:
            refusal = await self._function.check_password(user, password)
            if refusal is not None and not refusal.permanent:
                refusal = replies.AUTH_LATER
        else:
            refusal = await self._look_up(user, password)
        if refusal is not None:
            events.emit("intake.refused", client=str(client), user=user, reason=str(refusal))
        return refusal

    async def _look_up(self, user: str, password: str) -> Reply | None:
        if self._waiting >= _MOST_WAITING:
            return replies.AUTH_LATER
        known = self._known.get(user)
        loop = asyncio.get_running_loop()
        self._waiting += 1
        try:
            right = await loop.run_in_executor(
                self._thread, passwords.matches, password, known or self._unknown_hash
            )
        finally:
            self._waiting -= 1
        return None if right and known is not None else replies.AUTH_FAILED
