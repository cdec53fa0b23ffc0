"""What `maildefer status` shows of a front end: written to memory that it shares with its starter."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from typing import Final

from maildefer import events
from maildefer.intake.writer.client import WriterClient

REPORT_BYTES: Final = 4096
_WRITE_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 5.0  # for a shortage, where no client asks for it
_REASON_CHARACTERS: Final = 200


class IntakeStatus:
    """Reports the status of the process, and logs when a queue can take no more, and when it can again."""

    def __init__(
        self, facts: Callable[[], dict[str, object]], writers: Mapping[str, WriterClient], fd: int | None
    ) -> None:
        """`writers`: the writer of each queue; `fd`: the descriptor for the report, None for no report."""
        self._facts = facts
        self._writers = writers
        self._fd = fd
        self._written = b""
        self._shortages: dict[str, str] = {}

    async def keep_reporting(self) -> None:
        """Keep the report true until this is cancelled."""
        loop, look_at = asyncio.get_running_loop(), 0.0
        while True:
            look = loop.time() >= look_at
            if look:
                look_at = loop.time() + _LOOK_SECONDS
            for queue, writer in self._writers.items():
                self._note_shortage(queue, await writer.shortage() if look else writer.last_shortage)
            self._write_report()
            await asyncio.sleep(_WRITE_SECONDS)

    def _note_shortage(self, queue: str, shortage: str) -> None:
        if shortage:
            if queue not in self._shortages:
                events.emit("intake.closed", queue=queue, reason=shortage)
            self._shortages[queue] = shortage[:_REASON_CHARACTERS]
        elif self._shortages.pop(queue, None):
            events.emit("intake.opened", queue=queue)

    def _write_report(self) -> None:
        if self._fd is None:
            return
        told = _encode(self._facts(), self._shortages).ljust(REPORT_BYTES)
        if told != self._written:
            os.pwrite(self._fd, told, 0)
            self._written = told


def _encode(facts: dict[str, object], shortages: dict[str, str]) -> bytes:
    """The record in JSON; where it is too long, without some shortages, or without any text."""
    told = dict(shortages)
    while len(data := json.dumps({**facts, "shortages": told}).encode()) > REPORT_BYTES:
        if not told:
            return json.dumps(
                {name: value for name, value in facts.items() if not isinstance(value, str)}
            ).encode()
        told.popitem()
    return data
