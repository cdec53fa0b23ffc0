"""RQ, as it comes: a worker forks for each job. A job of a killed worker has failed, or is retried if it may be."""

from __future__ import annotations

import time

from redis import Redis
from rq import Queue, Retry, Worker
from rq.registry import StartedJobRegistry
from rq.worker_pool import WorkerPool

from benchmarks.contenders.peers import job

connection = Redis(unix_socket_path=f"{job.SOCKETS}/redis")
queue = Queue("peers", connection=connection)


def enqueue(number: int, milliseconds: int) -> None:
    queue.enqueue(job.run, number, milliseconds, result_ttl=0, retry=Retry(max=3))


def work(workers: int) -> None:
    WorkerPool([queue], connection=connection, num_workers=workers).start(logging_level="WARNING")


def recover() -> None:
    """What a worker does every ten minutes, as if the time had passed after which a job is taken for abandoned."""
    StartedJobRegistry(queue=queue).cleanup(timestamp=time.time() + 3600)
    taken = queue.intermediate_queue  # by a worker that had not begun them
    for key in taken.get_job_ids():
        connection.set(taken.get_first_seen_key(key), time.time() - 3600)
    taken.cleanup(Worker([queue], connection=connection), queue)
