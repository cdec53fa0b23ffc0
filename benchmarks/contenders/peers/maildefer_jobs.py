"""maildefer: `Queue.push`, and a pool under its supervisor."""

from __future__ import annotations

import os
import shutil

from benchmarks.contenders.peers import job
from benchmarks.places import APPLICATIONS
from benchmarks.product import environment, supervise_command
from maildefer.maildir.layout import create_queue
from maildefer.queue import Queue

PATH = f"{job.PLACE}/queue"
MESSAGE = b"Subject: a job\n\n"

queue = Queue(create_queue(PATH).path)


def enqueue(number: int, milliseconds: int) -> None:
    recipient = f"job-{number}-{milliseconds}@osb.example.org"
    queue.push(MESSAGE, sender="sender@example.org", recipient=recipient)


def work(workers: int) -> None:
    directory = f"{job.PLACE}/application"
    shutil.copytree(APPLICATIONS / "peer", directory, dirs_exist_ok=True)
    os.chdir(directory)
    command = supervise_command(PATH, workers, f"{directory}/pool.pid")
    os.execve(command[0], command, environment(directory, PATH))
