"""Where a project is, and its settings and boot modules: in `conf/`, or `config/`, where Salmon's projects have them.

Relative paths begin at the project's folder, wherever the process stands. `MAILDEFER_PROJECT` names it; else it is the
working directory if the settings are there, or the nearest folder above that has them, or where settings come from that
the program has imported, or that a variable names on the import path. A folder above is believed only if nobody but
this user and root may write to it, since its settings would be run.
"""

from __future__ import annotations

import os
import stat
import sys
from types import ModuleType
from typing import Final

from maildefer.errors import ConfigurationError

PACKAGES: Final = ("conf", "config")
DEFAULT_MODULE: Final = "conf.settings"
VARIABLES: Final = ("MAILDEFER_SETTINGS_MODULE", "SALMON_SETTINGS_MODULE")
PROJECT: Final = "MAILDEFER_PROJECT"

_BOOT: Final = "config.boot"
_INSTALLED: Final = ("site-packages", "dist-packages")


def settings_module() -> tuple[str, str]:
    """The module's name, and what says so: a variable, else what lies in the project's folder."""
    for variable in VARIABLES:
        if name := os.environ.get(variable):
            return name, variable
    folder = project()
    for package in PACKAGES:
        if _file_in(folder, f"{package}.settings"):
            return f"{package}.settings", "the settings module"
    for package in PACKAGES:
        if f"{package}.settings" in sys.modules:
            return f"{package}.settings", "the settings module"
    return DEFAULT_MODULE, "the settings module"


def is_project() -> bool:
    """Whether there are settings to be loaded. Those that an installed package happens to have are not meant."""
    name, source = settings_module()
    return source in VARIABLES or name in sys.modules or bool(_file_in(project(), name))


def project() -> str:
    """The folder of the project that this process would load; the working directory where there is none.

    Once settings are loaded, `maildefer.handling.settings.project` tells. Raises ConfigurationError for a
    `MAILDEFER_PROJECT` that is no absolute path of a folder.
    """
    if (folder := named_project()) is not None:
        return folder
    here = _working_directory()
    return _at_or_above(here) or _of_imported() or here


def named_project() -> str | None:
    """What `MAILDEFER_PROJECT` says."""
    if not (folder := os.environ.get(PROJECT)):
        return None
    if not os.path.isabs(folder) or not os.path.isdir(folder):
        raise ConfigurationError(
            f"{PROJECT}={folder!r} is no folder: give the project's absolute path, or unset it"
        )
    return os.path.normpath(folder)


def folder_of(module: ModuleType) -> str | None:
    """The folder from which the module was imported; None for one of an installed package, which is in no project."""
    file: str | None = getattr(module, "__file__", None)
    if not file or any(part in _INSTALLED for part in file.split(os.sep)):
        return None
    path = os.path.abspath(file)
    for _ in range(module.__name__.count(".") + 1 + (os.path.basename(path) == "__init__.py")):
        path = os.path.dirname(path)
    return path


def settings_beside(module: ModuleType) -> str | None:
    """The settings module of the project that the module is of, as far as its place tells."""
    folder = folder_of(module)
    if folder is None:
        return None
    return next((name for name in _names() if _file_in(folder, name)), None)


def boot_module(name: str, settings: str) -> str:
    """The default boot module stands beside the settings: `conf.boot` beside `conf.settings`. Others are as named."""
    if name != _BOOT:
        return name
    beside = f"{settings.rpartition('.')[0] or 'conf'}.boot"
    return beside if _is_here(beside) or not _is_here(name) else name


def refuse_another(name: str, found: ModuleType) -> None:
    """Raises ConfigurationError where the process has another module under the name of the project's settings."""
    wanted, file = _file_in(project(), name), getattr(found, "__file__", None)
    if wanted and file and not os.path.samefile(wanted, file):
        raise ConfigurationError(
            f"{name} is {file} in this process, and not {wanted}: "
            f"rename one of the packages, and name the settings in {VARIABLES[0]}"
        )


def _names() -> list[str]:
    said = [name for variable in VARIABLES if (name := os.environ.get(variable))]
    return said[:1] or [f"{package}.settings" for package in PACKAGES]


def _at_or_above(folder: str) -> str | None:
    names = _names()
    if any(_file_in(folder, name) for name in names):
        return folder
    while (above := os.path.dirname(folder)) != folder:
        folder = above
        for name in names:
            if (file := _file_in(folder, name)) and _is_ours(folder, file):
                return folder
    return None


def _of_imported() -> str | None:
    """The project of settings that a program has imported by itself, or that a variable names on the import path."""
    for name in _names():
        module = sys.modules.get(name)
        if module is not None and (folder := folder_of(module)):
            return folder
    if not any(os.environ.get(variable) for variable in VARIABLES):
        return None
    places = (os.path.abspath(entry) for entry in sys.path if not set(_INSTALLED) & set(entry.split(os.sep)))
    return next((place for place in places if _file_in(place, _names()[0])), None)


def _is_ours(folder: str, file: str) -> bool:
    """Whether only this user and root may change the file, or put another in its place below the folder."""
    users = (os.geteuid(), 0)
    while len(file) >= len(folder):
        found = os.stat(file)
        if found.st_uid not in users or found.st_mode & stat.S_IWOTH:
            return False
        file = os.path.dirname(file)
    return True


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed, which need not trouble who gives absolute paths
        return "/"


def _is_here(module: str) -> bool:
    return module in sys.modules or bool(_file_in(project(), module))


def _file_in(folder: str, module: str) -> str | None:
    path = os.path.join(folder, module.replace(".", "/"))
    return next((file for file in (f"{path}.py", f"{path}/__init__.py") if os.path.exists(file)), None)
