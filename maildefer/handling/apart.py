"""The tests' own store: where a process that runs tests has what would else lie in the project.

For `maildefer.testing`. What a test names by the settings' names, it gets here; real queues are refused.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from typing import Final

from maildefer.errors import MaildeferError
from maildefer.handling import finding, queues, settings

VARIABLE: Final = "MAILDEFER_TEST_STORE"

_folder: str | None = None
_projects: dict[str, None] = {}  # what lies in them is kept apart


class RealQueueRefused(MaildeferError):
    """A helper for tests was pointed at a queue with mail that is not the tests'."""


def store(folder: str | None = None) -> str:
    """The folder of this process's tests, made where it is not there; from now on `folder`, if one is given.

    A relative one is the project's. Raises RealQueueRefused where the tests' queues would be those of the settings.
    """
    global _folder
    begin()
    if folder is not None or _folder is None:
        _folder = _chosen(folder or os.environ.get(VARIABLE))
    return _folder


def begin() -> None:
    """Keep apart from now on; any number of times. Raises RealQueueRefused in a process that handles real mail."""
    if queues.in_service:
        raise RealQueueRefused(
            "maildefer.testing is imported by a process that handles real mail: import it in tests only"
        )
    _projects[settings.project()] = None
    queues.apart = _apart


def end() -> None:
    """Be an ordinary process again."""
    global _folder
    _folder = None
    _projects.clear()
    queues.apart = None


def own_place(path: str) -> str:
    """Where the tests' queue of that name lies. Raises RealQueueRefused for an absolute path of the settings'."""
    folder, place = store(), queues.located(path)
    if os.path.isabs(path) and place in _real_queues():
        raise RealQueueRefused(
            f"{place} is a queue of {_settings_name()}, whose mail is real: give its name in the settings, such as "
            f"'run/queue', for the tests' own in {folder}"
        )
    place = queues.kept_apart(place)
    refuse_real(place)
    return place


def refuse_real(place: str) -> None:
    """Raises RealQueueRefused for a queue of the settings, and for one that somebody serves."""
    if place in _real_queues():
        raise RealQueueRefused(
            f"{place} is a queue of {_settings_name()}, whose mail is real: leave the tests theirs"
        )
    _refuse_served(place)


def _apart(place: str) -> str:
    """Where tests have what else lies there: the same path below their store."""
    folder = store()
    if _is_in(folder, place):
        return place
    for project in sorted(_projects, key=len, reverse=True):
        if _is_in(project, place):
            return _made_for(os.path.join(folder, os.path.relpath(place, project)))
    if place in _real_queues():
        return _made_for(os.path.join(folder, "elsewhere", place.lstrip(os.sep)))
    return place


def _made_for(place: str) -> str:
    os.makedirs(os.path.dirname(place), exist_ok=True)
    return place


def _chosen(folder: str | None) -> str:
    if folder is None:
        made = tempfile.mkdtemp(prefix="maildefer-tests-")
        atexit.register(_remove, made, os.getpid())
        return made
    place = queues.located(folder)
    real = _real_queues()
    mapped = {
        os.path.normpath(os.path.join(place, os.path.relpath(each, settings.project()))) for each in real
    }
    if clash := sorted(mapped & set(real)) or [each for each in real if _is_in(each, place)]:
        raise RealQueueRefused(
            f"tests can't have their store in {place}: {clash[0]} is a queue of {_settings_name()}; give another folder"
        )
    os.makedirs(place, exist_ok=True)
    return place


def _real_queues() -> list[str]:
    """Those of the settings, as far as there are any."""
    module = settings.loaded_settings()
    if module is None and finding.is_project():
        module = settings.load_settings()
    return [] if module is None else queues.listed_queues(module)


def _settings_name() -> str:
    return getattr(settings.loaded_settings(), "__file__", None) or "the settings"


def _refuse_served(place: str) -> None:
    try:
        leases = [name for name in os.listdir(f"{place}/.maildefer/leases") if not name.startswith(".")]
    except FileNotFoundError:  # no queue yet, or one that nobody has ever served
        return
    if leases:
        raise RealQueueRefused(
            f"somebody serves the queue {place} (`maildefer status {place}` tells who): "
            f"stop that, or give the tests a folder of their own, by {VARIABLE} or `store`"
        )


def _is_in(folder: str, place: str) -> bool:
    return place == folder or place.startswith(os.path.join(folder, ""))


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # and not in a child that it has forked
        shutil.rmtree(folder, ignore_errors=True)
