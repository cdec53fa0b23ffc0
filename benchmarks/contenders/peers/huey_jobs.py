"""Huey with SQLite, every commit synced; its processes poll, and a job leaves the queue when it begins."""

from __future__ import annotations

from huey import SqliteHuey

from benchmarks.contenders.peers import job

huey = SqliteHuey("peers", filename=f"{job.PLACE}/huey.db", fsync=True, results=False)
task = huey.task()(job.run)


def enqueue(number: int, milliseconds: int) -> None:
    task(number, milliseconds)


def work(workers: int) -> None:
    huey.create_consumer(workers=workers, worker_type="process").run()
