"""What the supervisor tells its keeper of an application: how reloads stand, and which tasks are periodic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from maildefer.handling.application import PoolSettings
from maildefer.handling.periodic.schedule import Schedule
from maildefer.handling.periodic.table import PeriodicTask
from maildefer.maildir.layout import Layout
from maildefer.pool.context import QueueOfPool
from maildefer.pool.messages import PeriodicTable, ReloadProgress, from_supervisor, pair, receive
from maildefer.pool.options import PoolOptions
from maildefer.pool.probe import ProbeReport
from maildefer.pool.supervisor.reload import Reloader

DIGEST = PeriodicTask(name="workers.nightly.digest", queue="run/slow", schedule=Schedule(every_seconds=60))
REPORT = ProbeReport(
    settings=PoolSettings(project="/", module="", queues={}, router_defaults={}),
    routes=(),
    files=(),
    reload=False,
)


class Told:
    """A reloader, and the keeper's end of its socket."""

    def __init__(self) -> None:
        self.ours, self.keepers = pair(identified=True)
        names = (("run/tokens", True), ("run/queue", False), ("run/slow", False))
        queues = [QueueOfPool(name=name, layout=Layout(f"/{name}"), tokens_only=only) for name, only in names]
        self.context: Any = SimpleNamespace(keeper=(self.ours, self.keepers), queues=tuple(queues))

    def reloader(self, report: ProbeReport) -> Reloader:
        return Reloader(PoolOptions(project="/", pidfile=""), report, self.context)

    def tables(self) -> list[PeriodicTable]:
        return [
            message
            for message in receive(self.keepers, from_supervisor)
            if isinstance(message, PeriodicTable)
        ]


@pytest.fixture
def told() -> Iterator[Told]:
    told = Told()
    yield told
    told.ours.close()
    told.keepers.close()


def test_an_application_without_periodic_tasks_sends_no_table(told: Told) -> None:
    told.reloader(REPORT).tell_keeper()
    assert list(receive(told.keepers, from_supervisor)) == [ReloadProgress(asked=0, answered=0, refused=None)]


def test_each_queue_that_the_pool_serves_has_its_table(told: Told) -> None:
    """A queue in which it only holds tokens is other pools' to serve."""
    first = replace(DIGEST, queue="run/tokens")
    told.reloader(replace(REPORT, periodic=(DIGEST, first))).tell_keeper()
    tables = sorted(told.tables(), key=lambda table: table.queue)
    assert tables == [PeriodicTable(queue=1, tasks=()), PeriodicTable(queue=2, tasks=(DIGEST,))]


def test_a_table_that_finds_no_room_is_sent_later(told: Told) -> None:
    reloader = told.reloader(replace(REPORT, periodic=(DIGEST,)))
    try:
        while True:
            told.ours.send(b"x" * 30_000, 64)  # MSG_DONTWAIT
    except BlockingIOError:
        pass
    reloader.tell_keeper()
    assert told.tables() == []
    reloader.poll()
    assert [table.queue for table in told.tables()] == [2, 1]
