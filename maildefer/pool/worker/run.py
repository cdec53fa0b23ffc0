"""The life of a worker's process, from a loaded application on: it serves until it is asked to end.

The application is loaded by the template of which the worker is a fork, or by the worker where the application can't be
shared: then it has new code as soon as it is a new worker.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final

from maildefer import events, log_context, logs
from maildefer.errors import ConfigurationError
from maildefer.handling.application import Application
from maildefer.handling.calls import event_loop
from maildefer.handling.outgoing import delivery_count
from maildefer.handling.project import finder, queue_paths
from maildefer.host import working_directory
from maildefer.host.captured_output import CapturedOutput
from maildefer.host.linux.process_title import set_title
from maildefer.host.working_directory import WorkingDirectory
from maildefer.maildir import due
from maildefer.pool.context import PoolContext
from maildefer.pool.messages import EntryDeferred, send
from maildefer.pool.scoreboard_views import free_slots
from maildefer.pool.worker.worker import Worker

EXIT_APPLICATION_BROKEN: Final = 78
_SPARE_SLOTS: Final = 2  # for workers whose slot waits until the claims of a dead one are reclaimed


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedApplication:
    """The application, what makes a worker of it, and the workers that are made already, by slot."""

    application: Application
    kind: type[Worker]
    workers: dict[int, Worker] = field(default_factory=dict)

    def make_workers(self, shared: PoolContext) -> None:
        """Make the workers of the slots that are free now, so that their processes share what they are made of."""
        for slot in islice(free_slots(shared.board), shared.settings.workers + _SPARE_SLOTS):
            self.workers[slot] = self.kind(shared, slot, self.application)
            if shared.counts is not None:
                shared.counts.own_slot(slot)


def enter_project(shared: PoolContext) -> WorkingDirectory:
    """Make this process one that runs the project's code. Raises OSError."""
    queue_paths.in_service = True
    os.environ[finder.PROJECT] = shared.project  # else it is looked for, also by children
    return working_directory.enter_directory(shared.project)


def load_application(shared: PoolContext, directory: WorkingDirectory) -> LoadedApplication:
    """Load the application, with its logging, and choose the worker for it. Raises ConfigurationError."""
    application = Application.load(shared.settings.module, probed=True)
    directory.put_back()  # if a module of the project has moved
    logs.adopt(events.current_level().upper(), application.log_processors)
    return LoadedApplication(application=application, kind=_kind_of_worker(shared, application))


def refuse(shared: PoolContext, fault: ConfigurationError | OSError) -> str:
    """Log why the application can't be used, and return that."""
    error = f"{shared.project}: {fault.strerror}" if isinstance(fault, OSError) else str(fault)
    events.emit("application.broken", error=error, pid=os.getpid())
    return error


def run(
    shared: PoolContext,
    slot: int,
    number: int,
    captured: CapturedOutput,
    directory: WorkingDirectory,
    loaded: LoadedApplication | None,
) -> int:
    """Run a worker in its own process; returns the exit code. What is not loaded yet, it loads itself."""
    try:
        if not directory.put_back():
            raise ConfigurationError(f"{shared.project}: the project's folder is gone")
        loaded = loaded or load_application(shared, directory)
        loaded.application.run_after_fork()
        log_context.begin_process()
    except (ConfigurationError, OSError) as fault:
        refuse(shared, fault)
        return EXIT_APPLICATION_BROKEN
    if shared.counts is not None:
        delivery_count.count = shared.counts.own_slot(slot).count_delivery
    worker = loaded.workers.get(slot) or loaded.kind(shared, slot, loaded.application)
    worker.begin_process()
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


def _kind_of_worker(shared: PoolContext, application: Application) -> type[Worker]:
    """Choose, and import, the worker for the application's handlers."""
    if any(application.has_async(queue.name) for queue in shared.queues):
        from maildefer.pool.worker.in_flight.async_worker import AsyncWorker  # and asyncio

        return AsyncWorker
    if not any(application.batches_of(queue.name) for queue in shared.queues):
        return Worker
    from maildefer.pool.worker.batch_worker import BatchWorker  # few pools need it

    return BatchWorker
