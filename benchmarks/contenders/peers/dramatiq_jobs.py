"""Dramatiq with Redis, as it comes: processes of one thread each, a job is acked when it is done."""

from __future__ import annotations

import dramatiq
from dramatiq import cli
from dramatiq.brokers.redis import RedisBroker

from benchmarks.contenders.peers import job

# A process without a heartbeat for so many ms is dead: 60,000, as it comes; and so many of a million commands look for
# the jobs of the dead: 1,000.
SHORT_WAITS = {"heartbeat_timeout": 5_000, "maintenance_chance": 100_000}

broker = RedisBroker(url=f"unix://{job.SOCKETS}/redis", **SHORT_WAITS if job.SHORT_WAITS else {})
dramatiq.set_broker(broker)
actor = dramatiq.actor(job.run)


def enqueue(number: int, milliseconds: int) -> None:
    actor.send(number, milliseconds)


def work(workers: int) -> None:
    arguments = [__name__, "--processes", str(workers), "--threads", "1"]
    cli.main(cli.make_argument_parser().parse_args(arguments))
