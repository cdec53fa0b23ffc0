"""The life of a worker's process: the application is loaded, then the worker serves until it is asked to end.

The application is loaded after the fork, so that the modules of its handlers are the worker's own: a new worker has
their new code.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Final

from maildefer import events, logs
from maildefer.errors import ConfigurationError
from maildefer.handling.application import Application
from maildefer.handling.calls import event_loop
from maildefer.handling.outgoing import delivery_count
from maildefer.handling.project import finder, queue_paths
from maildefer.host import working_directory
from maildefer.host.captured_output import CapturedOutput
from maildefer.host.linux.process_title import set_title
from maildefer.maildir import due
from maildefer.pool.context import PoolContext
from maildefer.pool.messages import EntryDeferred, send
from maildefer.pool.worker.worker import Worker

EXIT_APPLICATION_BROKEN: Final = 78


def run(shared: PoolContext, slot: int, number: int, output: int = -1) -> int:
    """Run a worker in its own process; returns the exit code. `output` is the file for what its code prints."""
    captured = CapturedOutput(output) if output >= 0 else None
    try:
        if captured is not None:
            captured.capture()
        queue_paths.in_service = True
        os.environ[finder.PROJECT] = shared.project  # else it is looked for, also by children
        directory = working_directory.enter_directory(shared.project)
        application = Application.load(shared.settings.module, probed=True)
        directory.put_back()  # if a module of the project has moved
    except (ConfigurationError, OSError) as fault:
        error = f"{shared.project}: {fault.strerror}" if isinstance(fault, OSError) else str(fault)
        events.emit("application.broken", error=error, pid=os.getpid())
        return EXIT_APPLICATION_BROKEN
    logs.adopt(events.current_level().upper(), application.log_processors)
    if shared.counts is not None:
        delivery_count.count = shared.counts.own_slot(slot).count_delivery
    worker = _make_worker(shared, slot, application)
    worker.output, worker.directory = captured, directory
    set_title(f"worker {number} {' '.join(queue.name for queue in shared.queues)}")
    due.report_pushes_with(partial(_report_push, shared))
    events.emit("worker.started", worker=number, pid=os.getpid())
    worker.serve()
    event_loop.close()
    return 0


def _report_push(shared: PoolContext, path: str) -> None:
    """Have the keeper know of an entry that a handler has pushed for later at once, not at its next listing."""
    folder, _, name = path.rpartition("/")
    for index, queue in enumerate(shared.queues):
        if queue.layout.later_new == folder:
            send(shared.deferrals[1], EntryDeferred(queue=index, name=name))


def _make_worker(shared: PoolContext, slot: int, application: Application) -> Worker:
    if any(application.has_async(queue.name) for queue in shared.queues):
        from maildefer.pool.worker.in_flight.async_worker import AsyncWorker  # and asyncio

        return AsyncWorker(shared, slot, application)
    if not any(application.batches_of(queue.name) for queue in shared.queues):
        return Worker(shared, slot, application)
    from maildefer.pool.worker.batch_worker import BatchWorker  # few pools need it

    return BatchWorker(shared, slot, application)
