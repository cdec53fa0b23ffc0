"""The loss journal: the real records, each one request, and in the end the real ledger over all of them."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from maildefer.control.key_ledger import KeyLedger
from maildefer.maildir.journal import Journal, Kind
from maildefer.maildir.journal_file import REPEATED, JournalFile, quoted
from maildefer.maildir.layout import Layout
from tests.simulation.name_cache import entry_in

if TYPE_CHECKING:
    from tests.simulation.oracle import Oracle
    from tests.simulation.scheduler import Process


@dataclass(slots=True)
class Records:
    """What is in the journals of all queues, by file."""

    files: dict[str, bytearray] = field(default_factory=dict)  # by path
    journals: dict[tuple[int, str], SimulatedJournal] = field(default_factory=dict)  # by pid and queue

    def journal(self, process: Process, layout: Layout) -> SimulatedJournal:
        """The one of a process for a queue."""
        found = self.journals.get((process.pid, layout.path))
        if found is None:
            found = self.journals[process.pid, layout.path] = SimulatedJournal(self, process, layout)
        return found

    def has_push(self, key: str) -> bool:
        """Whether a push is on record, or that a second one was told of it."""
        records = (f" push {quoted(key)} .".encode(), f" note {quoted(key)} {REPEATED}=1 .".encode())
        return any(record in data for data in self.files.values() for record in records)

    def check(self, oracle: Oracle) -> None:
        """In the end there is, of each push on record, the record of an end, or a dead letter.

        What a pop was about to unlink, and found gone, the audit names as unproven: whether its own request, whose
        reply was lost, did it, nobody can know.
        """
        with TemporaryDirectory() as home:
            queues = [Layout(f"{home}{layout.path}") for layout in oracle.layouts]
            for queue in queues:
                os.makedirs(queue.journal)
            for path, data in self.files.items():
                with open(f"{home}{path}", "wb") as file:
                    file.write(data)
            ledger = KeyLedger(queues)
            ledger.read()
        for number, layout in enumerate(oracle.layouts):
            dead = oracle.world.server.directories[layout.dead_new].names
            ledger.locate(number, "dead", map(entry_in, dead))
        for missing in ledger.missing():
            if not missing.kept:
                oracle.fail("audit", f"an end without a record: {missing.key}")


class SimulatedJournal(Journal):
    """The journal of one process, which may die before a record is written."""

    def __init__(self, records: Records, process: Process, layout: Layout) -> None:
        client = process.client
        super().__init__(layout, host=process.name[0], boot=f"boot.{process.pid}", system=client.system)
        unlocked: Any = nullcontext()  # a thread that waits here would stop all others
        self._lock = unlocked
        self._records, self._client = records, client

    def _file(self, kind: Kind, now: float) -> JournalFile:
        path = f"{self._layout.journal}/2023-11-14.{self._writer}.{kind}"
        return _SimulatedFile(self._records.files.setdefault(path, bytearray()), self._client)


@dataclass(slots=True)
class _SimulatedFile:
    """A file of a journal, to which each record is a request."""

    data: bytearray
    client: Any
    descriptor: int = -1

    def write(self, data: bytes) -> bool:
        self.client._send_over_network(changes=False)
        self.data.extend(data)
        return True

    def close(self) -> None:
        pass
