"""Procrastinate with PostgreSQL, whose every commit is synced; a worker is woken by NOTIFY."""

from __future__ import annotations

import asyncio
import getpass
from functools import cache

from procrastinate import App, PsycopgConnector

from benchmarks.contenders.peers import job
from benchmarks.contenders.peers.forks import fork_workers

# A worker without a heartbeat for so long is dead: 30 seconds, as it comes, with a heartbeat each ten.
STALLED_SECONDS = 5
SHORT_WAITS = {"update_heartbeat_interval": 1}

app = App(connector=PsycopgConnector(conninfo=f"host={job.SOCKETS} dbname=peers user={getpass.getuser()}"))


async def run(number: int, milliseconds: int) -> None:
    job.run(number, milliseconds)


task = app.task(run, name="run")


def enqueue(number: int, milliseconds: int) -> None:
    _open()
    task.defer(number=number, milliseconds=milliseconds)


@cache
def _open() -> None:
    app.open()
    if not app.check_connection():  # no tables yet
        app.schema_manager.apply_schema()


def work(workers: int) -> None:
    options = SHORT_WAITS if job.SHORT_WAITS else {}
    fork_workers(workers, lambda: app.run_worker(concurrency=1, **options))


def recover() -> None:
    """What its documents have an application do in a periodic task."""
    asyncio.run(_retry_stalled())


async def _retry_stalled() -> None:
    async with app.open_async():
        jobs = app.job_manager
        for stalled in await jobs.get_stalled_jobs(seconds_since_heartbeat=STALLED_SECONDS):
            await jobs.retry_job(stalled)
