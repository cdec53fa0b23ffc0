"""Celery with Redis, as its documents have it for safety: acked when a job is done, one job reserved a process."""

from __future__ import annotations

from celery import Celery

from benchmarks.contenders.peers import job

# After the first a job that is reserved and not acked is another worker's: an hour, as it comes; the others say how
# often that is looked for: each 100 seconds.
SHORT_WAITS = {"visibility_timeout": 5, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}

app = Celery("peers", broker=f"redis+socket://{job.SOCKETS}/redis")
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_transport_options=SHORT_WAITS if job.SHORT_WAITS else {},
)
task = app.task(job.run, name="run")


def enqueue(number: int, milliseconds: int) -> None:
    task.delay(number, milliseconds)


def work(workers: int) -> None:
    app.worker_main(["worker", f"--concurrency={workers}", "--loglevel=WARNING"])
