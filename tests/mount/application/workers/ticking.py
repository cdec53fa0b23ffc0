"""A periodic task, which notes each call."""

from __future__ import annotations

from maildefer.tasks import task
from workers.journal import Journal

journal = Journal("ticks")


@task(every=2, catch_up="all")
def tick() -> None:
    journal.note("tick")
