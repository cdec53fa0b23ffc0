"""The queue of a task's calls, by the settings: one that has handlers of the task's module."""

from __future__ import annotations

import os
from types import ModuleType

from maildefer.errors import ConfigurationError
from maildefer.handling.project.queue_paths import listed_queues, located
from maildefer.handling.project.setting_place import place
from maildefer.handling.project.settings import pool_settings


def listing_queue(settings: ModuleType, line: str, task: str) -> str:
    """The first queue that lists the module of a task without a queue of its own; where none lists any, the first one.

    `line` is where the task is, for errors. Raises ConfigurationError where other modules are listed only.
    """
    known, module = pool_settings(settings), task.rpartition(".")[0]
    for queue, modules in known.queues.items():
        if module in modules:
            return os.path.join(known.project, queue)
    if not known.queues:
        return os.path.join(known.project, known.first_queue)
    where = place(settings, "queues")
    raise ConfigurationError(f"{line}@task on {task}: no queue has handlers {_remedy(module, where)}")


def refuse_unlisted(settings: ModuleType, line: str, task: str, queue: str) -> None:
    """Raise ConfigurationError for a queue that no setting lists, or that does not list the task's module."""
    path, module, where = located(queue), task.rpartition(".")[0], place(settings, "queues")
    if path not in listed_queues(settings):
        raise ConfigurationError(
            f"{line}@task on {task}: no setting lists the queue {queue}: correct its name, "
            f"or add {queue!r}: [{module!r}] to `queues` of {where}"
        )
    for listed, modules in pool_settings(settings).queues.items():
        if located(listed) == path and module not in modules:
            raise ConfigurationError(
                f"{line}@task on {task}: the queue {listed} has no handlers {_remedy(module, where)}"
            )


def _remedy(module: str, where: str) -> str:
    if module == "__main__":
        return (
            "of __main__, which is the program that runs here, and no worker imports: "
            f"move the function to a module of its own, and list that in {where}"
        )
    return f"of that module, so its calls would be buried: add {module!r} in {where}"
