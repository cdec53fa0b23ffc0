"""Finds the absolute path and the queue that a path means: of the project, whatever the working directory is.

A missing queue is made if the settings list it. One that they do not list is refused where they list queues, since
messages that are pushed to a mistyped name would lie there unseen. Outside of a project it is made, without parents.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

from maildefer import events
from maildefer.errors import ConfigurationError, MessageHasNoKey, QueueError, QueueMissing, QueueUnlisted
from maildefer.handling.project import finder, settings
from maildefer.handling.project.setting_place import place as place_of
from maildefer.host.runtime_dir import must_not_be_away
from maildefer.maildir import journal
from maildefer.maildir.drafts.synced import recover
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.outbox import current
from maildefer.message import once

if TYPE_CHECKING:
    from maildefer.maildir.outbox.publish import Outboxes

redirect: Callable[[str], str] | None = None
"""Gives the path in the tests' store that stands for a path; set by `maildefer.testing`."""
refuse_emptying: Callable[[str], None] | None = None
"""Raises an error for a queue that a test may not empty; set by `maildefer.testing`."""
_outside: str | None = None  # where relative paths began before a project was known
in_service = False
"""Whether this process handles real mail, so that it must not import `maildefer.testing`."""

journal.report_with(events.emit)


def located(path: str) -> str:
    """The absolute path for a path that the settings, a task or a program names.

    Raises ConfigurationError for a relative path in a process without a project whose working directory is `/`, as it
    is for daemons: each host has a `/run`. It also raises ConfigurationError where settings were loaded after a
    relative path had another meaning, since one path has to be one queue.
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
    """The place itself; in tests, the one in their store that stands for it."""
    return place if redirect is None else redirect(place)


def refuse_to_empty(place: str) -> None:
    """In tests, raise RealQueueRefused for a place outside of their store."""
    if refuse_emptying is not None:
        refuse_emptying(place)


def queue_at(path: str) -> Layout:
    """Open the queue at that path; make it if the settings list it, or outside of a project.

    Raises QueueMissing where it is not, NotAQueue, FormatUnknown, ConfigurationError, StorageFault's kinds.
    """
    meant = located(path)
    place = redirected(meant)
    if not os.path.isdir(place):
        _refuse_unless_listed(meant, parents=place != meant)
    must_not_be_away(place)
    layout = create_queue(place)
    with suppress(OSError):  # no pool need ever look, which would tell of it
        recover(layout)
    return layout


def must_be_served(path: str) -> None:
    """Raise QueueMissing for a queue that would be made anew and is in no settings, so that nobody would serve it."""
    place = located(path)
    if redirect is None and not os.path.isdir(f"{place}/new"):
        module = settings.loaded_settings() or (settings.load_settings() if finder.is_project() else None)
        if module is None or place not in listed_queues(module):
            raise QueueMissing(
                place, "or not in the settings here: start the pool that serves it, which makes it"
            )


def home_queue(otherwise: str) -> Layout:
    """The settings' first queue, in which is what concerns all of them; `otherwise` a path for where there are none.

    Raises what `queue_at` raises.
    """
    module = settings.loaded_settings()
    path = settings.pool_settings(module).first_queue if module is not None else otherwise
    place = redirected(located(path))
    return Layout(place) if os.path.isdir(f"{place}/.maildefer") else queue_at(path)


def effects_home(message: Any) -> Layout | None:
    """The queue that remembers what a message has done: the settings' first, at all its handoffs.

    None in tests for a message that is from no queue. Raises MessageHasNoKey, and what `queue_at` raises.
    """
    if not message.key or not message.queue:
        if redirect is None:
            raise MessageHasNoKey
        return None
    return home_queue(message.queue)


once.home_of = effects_home
current.open_named = queue_at


def keeps_outputs(module: ModuleType | None = None) -> bool:
    """Whether handlers' pushes are seen once these have returned: where `relay_config` names a queue for mail."""
    config = getattr(module or settings.loaded_settings(), "relay_config", None)
    return isinstance(config, Mapping) and bool(config.get("queue"))


def project_outboxes() -> Outboxes:
    """The outboxes of the settings' queues, which are made if they are missing; in tests, of those in their store."""
    from maildefer.maildir.outbox.publish import Outboxes  # few processes need it

    def queues() -> list[Layout]:
        module = settings.loaded_settings() or (settings.load_settings() if finder.is_project() else None)
        return [_opened(path) for path in dict.fromkeys(listed_queues(module))] if module else []

    return Outboxes(queues)


def _opened(path: str) -> Layout:
    try:
        return queue_at(path)
    except QueueError:  # it is away, which stops only what needs it
        return Layout(redirected(path))


def listed_queues(module: ModuleType) -> list[str]:
    """The absolute paths of all queues in the settings. Raises ConfigurationError."""
    known = settings.pool_settings(module)
    return [
        os.path.normpath(os.path.join(known.project, path))
        for path in (*known.queues, *known.kept, known.first_queue)
    ]


def _refuse_unless_listed(place: str, *, parents: bool) -> None:
    if os.path.isdir(place):
        return
    module = settings.loaded_settings()
    if module is None and finder.is_project():
        if _is_being_loaded():  # by the settings themselves, which are not known yet
            return
        module = settings.load_settings()
    if module is not None and finder.has_our_settings(module):
        listed, folder = listed_queues(module), settings.project()
        if place in listed:
            return
        if place.startswith(os.path.join(folder, "")):
            if hasattr(module, "queues"):
                raise QueueUnlisted(place, place_of(module, "queues"), os.path.relpath(place, folder))
            return
    if not parents and not os.path.isdir(os.path.dirname(place)):
        remedy = f"make that folder, or name the project in {finder.PROJECT}"
        raise QueueMissing(place, f"nor a folder {os.path.dirname(place)} to make it in: {remedy}")


def _is_being_loaded() -> bool:
    found = sys.modules.get(finder.settings_module()[0])
    return bool(getattr(getattr(found, "__spec__", None), "_initializing", False))
