"""The tests' store: the folder in which a process that runs tests has its queues and states.

For `maildefer.testing`. Names of the settings' queues mean queues in this store; real queues are refused.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from shlex import quote
from typing import Final

from maildefer.errors import MaildeferError
from maildefer.handling.project import finder, queue_paths, settings

VARIABLE: Final = "MAILDEFER_TEST_STORE"

_folder: str | None = None
_projects: dict[str, None] = {}  # paths in these folders are redirected


class RealQueueRefused(MaildeferError):
    """A test tried to use a queue whose mail is not the tests' own."""


def store(folder: str | None = None) -> str:
    """The folder of this process's tests, made if it is missing; from now on `folder`, if one is given.

    A relative one is the project's. Raises RealQueueRefused where the tests' queues would be those of the settings.
    """
    global _folder
    begin()
    if folder is not None or _folder is None:
        _folder = _chosen(folder or os.environ.get(VARIABLE))
    return _folder


def begin() -> None:
    """Redirect paths from now on; may be called again. Raises RealQueueRefused in a process that handles real mail."""
    if queue_paths.in_service:
        raise RealQueueRefused(
            "maildefer.testing is imported by a process that handles real mail: import it in tests only"
        )
    _projects[settings.project()] = None
    queue_paths.redirect, queue_paths.refuse_emptying = _redirect, refuse_to_empty


def end() -> None:
    """End the redirection of paths."""
    global _folder
    _folder = None
    _projects.clear()
    queue_paths.redirect = queue_paths.refuse_emptying = None


def test_queue_path(path: str) -> str:
    """The path of the tests' queue of that name. Raises RealQueueRefused for an absolute path of the settings."""
    folder, place = store(), queue_paths.located(path)
    if os.path.isabs(path) and _in_real_queue(place):
        raise RealQueueRefused(
            f"{place} is a queue of {_settings_name()}, whose mail is real: give its name in the settings, such as "
            f"'run/queue', for the tests' own in {folder}"
        )
    place = queue_paths.redirected(place)
    _refuse_served(place)
    return place


def refuse_to_empty(place: str) -> None:
    """Raise RealQueueRefused for a queue or states outside of the tests' store, and for a queue that is served."""
    if _in_real_queue(place):
        raise RealQueueRefused(
            f"{place} is a queue of {_settings_name()}, whose mail is real: leave the tests theirs"
        )
    _refuse_served(place)
    if not _is_in(store(), place):
        raise RealQueueRefused(
            f"{place} is not in the tests' store {store()}, so what it holds may be real, and tests don't delete it: "
            f"use one of the store, or name a folder that is the tests' own, by {VARIABLE} or `store`"
        )


def _redirect(place: str) -> str:
    """The path in the tests' store that stands for a place, by whatever link the place was named."""
    folder = store()
    if _is_in(folder, place):
        return place
    if (own := _below(folder, place)) or (queue := _in_real_queue(place)) is None:
        return _made_for(own) if own else place
    return _made_for(_below(folder, queue) or os.path.join(folder, "elsewhere", queue.lstrip(os.sep)))


def _below(folder: str, place: str) -> str | None:
    """The path in the tests' store for a place in one of the projects; None for any other place."""
    for project in sorted(_projects, key=len, reverse=True):
        if place == project or place.startswith(os.path.join(project, "")):
            return os.path.join(folder, os.path.relpath(place, project))
        if _is_in(project, place):
            return os.path.join(folder, os.path.relpath(os.path.realpath(place), os.path.realpath(project)))
    return None


def _in_real_queue(place: str) -> str | None:
    """The same place, by the settings' name of the queue in which it lies; None if it is in none of their queues."""
    for queue in _real_queues():
        if _is_same(queue, place):
            return queue
        if _is_in(queue, place):
            return os.path.join(queue, os.path.relpath(os.path.realpath(place), os.path.realpath(queue)))
    return None


def _made_for(place: str) -> str:
    os.makedirs(os.path.dirname(place), exist_ok=True)
    return place


def _chosen(folder: str | None) -> str:
    if folder is None:
        made = tempfile.mkdtemp(prefix="maildefer-tests-")
        atexit.register(_remove, made, os.getpid())
        return made
    place = queue_paths.located(folder)
    if clash := [each for each in _real_queues() if _is_in(place, each) or _is_in(each, place)]:
        raise RealQueueRefused(
            f"tests can't have their store in {place}: {clash[0]} is a queue of {_settings_name()}; give another folder"
        )
    os.makedirs(place, exist_ok=True)
    return place


def _real_queues() -> list[str]:
    """The queues of the settings, if there are any."""
    module = settings.loaded_settings()
    if module is None and finder.is_project():
        module = settings.load_settings()
    return [] if module is None else queue_paths.listed_queues(module)


def _settings_name() -> str:
    return getattr(settings.loaded_settings(), "__file__", None) or "the settings"


def _refuse_served(place: str) -> None:
    try:
        leases = [name for name in os.listdir(f"{place}/.maildefer/leases") if not name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):  # never served; or a shelf of states
        return
    if leases:
        raise RealQueueRefused(
            f"somebody serves the queue {place} (see `maildefer status {quote(place)}`): "
            f"stop that, or give the tests a folder of their own, by {VARIABLE} or `store`"
        )


def _is_in(folder: str, place: str) -> bool:
    """Whether the place lies in the folder, whatever links lead to either."""
    folder, place = os.path.realpath(folder), os.path.realpath(place)
    return place == folder or place.startswith(os.path.join(folder, ""))


def _is_same(one: str, other: str) -> bool:
    """Whether both are one folder, also by another mount of it."""
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them is not there
        return os.path.realpath(one) == os.path.realpath(other)


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # and not in a forked child
        shutil.rmtree(folder, ignore_errors=True)
