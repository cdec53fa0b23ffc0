"""Which place a path means, and which queue: those of the project, wherever the process stands.

A queue that is not there is made if the settings list it. One that they don't list is refused where they list queues,
since what is pushed to a mistyped name would lie there unseen. Outside of a project it is made, its parents are not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType

from maildefer import events
from maildefer.errors import ConfigurationError, QueueMissing, QueueUnlisted
from maildefer.handling.project import finder, settings
from maildefer.maildir import journal
from maildefer.maildir.layout import Layout, create_queue

redirect: Callable[[str], str] | None = None
"""Where tests have what else lies at that place; set by `maildefer.testing`."""
refuse_emptying: Callable[[str], None] | None = None
"""What refuses to have a queue emptied by a test; set by `maildefer.testing`."""
_outside: str | None = None  # where relative paths began while no project was known
in_service = False
"""Whether this process handles real mail, which `maildefer.testing` would keep from its queues."""

journal.report_with(events.emit)


def located(path: str) -> str:
    """The absolute place of a path that the settings, a task or a program names.

    Raises ConfigurationError for a relative one where a process without a project stands in `/`, as daemons do: there
    is a `/run` on each host. And where settings were loaded after a relative path meant another place: one path is one
    queue.
    """
    global _outside
    if os.path.isabs(path):
        return os.path.normpath(path)
    folder = settings.project()
    if settings.loaded_settings() is None and not finder.is_project():
        if folder == "/":
            raise ConfigurationError(
                f"{path} is in no project, as this process stands in /: "
                f"give an absolute path, or name the project in {finder.PROJECT}"
            )
        _outside = folder
    elif _outside not in (None, folder):
        raise ConfigurationError(
            f"{path} would be in {folder} now, whose settings were found since this process used relative paths in "
            f"{_outside}: import the settings before, or name the project in {finder.PROJECT}"
        )
    return os.path.normpath(os.path.join(folder, path))


def redirected(place: str) -> str:
    """The place itself; in tests, one in their own store."""
    return place if redirect is None else redirect(place)


def refuse_to_empty(place: str) -> None:
    """In tests, raises RealQueueRefused for what is not in their own store."""
    if refuse_emptying is not None:
        refuse_emptying(place)


def queue_at(path: str) -> Layout:
    """Open the queue at that path, and make it where that is meant.

    Raises QueueMissing where it is not, NotAQueue, FormatUnknown, ConfigurationError, StorageFault's kinds.
    """
    meant = located(path)
    place = redirected(meant)
    if not os.path.isdir(place):
        _refuse_unless_meant(meant, parents=place != meant)
    return create_queue(place)


def listed_queues(module: ModuleType) -> list[str]:
    """The places of all queues that the settings name. Raises ConfigurationError."""
    known = settings.pool_settings(module)
    return [
        os.path.normpath(os.path.join(known.project, path))
        for path in (*known.queues, *known.kept, known.first_queue)
    ]


def _refuse_unless_meant(place: str, *, parents: bool) -> None:
    if os.path.isdir(place):
        return
    module = settings.loaded_settings()
    if module is None and finder.is_project():
        if _is_being_loaded():  # by the settings themselves, of which nothing is known yet
            return
        module = settings.load_settings()
    if module is not None and finder.has_our_settings(module):
        listed, folder = listed_queues(module), settings.project()
        if place in listed:
            return
        if place.startswith(os.path.join(folder, "")):
            if hasattr(module, "queues"):
                raise QueueUnlisted(place, settings.place(module, "queues"), os.path.relpath(place, folder))
            return
    if not parents and not os.path.isdir(os.path.dirname(place)):
        raise QueueMissing(
            place,
            f"nor a folder {os.path.dirname(place)} to make it in: make that folder, "
            f"or name the project in {finder.PROJECT}",
        )


def _is_being_loaded() -> bool:
    found = sys.modules.get(finder.settings_module()[0])
    return bool(getattr(getattr(found, "__spec__", None), "_initializing", False))
