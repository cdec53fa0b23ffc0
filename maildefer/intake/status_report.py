"""What `maildefer status` shows of a front end: written to memory shared with its starter, who is asked for it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from typing import Final

from maildefer import events
from maildefer.intake.writer.client import WriterClient

REPORT_BYTES: Final = 4096
_TELL_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 5.0  # for a shortage, where no client asks for it
_REASON_CHARACTERS: Final = 200


class IntakeStatus:
    """One for the process; without a descriptor it only logs when a queue can take no more, and when it can again."""

    def __init__(
        self, facts: Callable[[], dict[str, object]], lines: Mapping[str, WriterClient], fd: int | None
    ) -> None:
        """`lines`: to the writer of each queue."""
        self._facts = facts
        self._lines = lines
        self._fd = fd
        self._told = b""
        self._shortages: dict[str, str] = {}

    async def keep(self) -> None:
        """Until it is cancelled."""
        loop, look_at = asyncio.get_running_loop(), 0.0
        while True:
            look = loop.time() >= look_at
            if look:
                look_at = loop.time() + _LOOK_SECONDS
            for queue, line in self._lines.items():
                self._note(queue, await line.shortage() if look else line.last_shortage)
            self._tell()
            await asyncio.sleep(_TELL_SECONDS)

    def _note(self, queue: str, shortage: str) -> None:
        if shortage:
            if queue not in self._shortages:
                events.emit("intake.closed", queue=queue, reason=shortage)
            self._shortages[queue] = shortage[:_REASON_CHARACTERS]
        elif self._shortages.pop(queue, None):
            events.emit("intake.opened", queue=queue)

    def _tell(self) -> None:
        if self._fd is None:
            return
        told = _fitting(self._facts(), self._shortages).ljust(REPORT_BYTES)
        if told != self._told:
            os.pwrite(self._fd, told, 0)
            self._told = told


def _fitting(facts: dict[str, object], shortages: dict[str, str]) -> bytes:
    """As much as there is room for, since half a record would be none: without some shortages, or all texts."""
    told = dict(shortages)
    while len(data := json.dumps({**facts, "shortages": told}).encode()) > REPORT_BYTES:
        if not told:
            return json.dumps(
                {name: value for name, value in facts.items() if not isinstance(value, str)}
            ).encode()
        told.popitem()
    return data
