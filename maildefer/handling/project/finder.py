"""Finds a project's folder, its settings and its boot module, in `conf/`, or in `config/` as in Salmon's projects.

Relative paths begin at the project's folder, whatever the working directory is. `MAILDEFER_PROJECT` names the folder;
else it is the working directory if the settings are there, or the nearest folder above that has them, or the folder
from which the program has imported them, or could. A folder above counts only if nobody but this user and root may
write to it, since its settings would be run. A module of that name without any of our settings belongs to another
program, unless a variable names it.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from functools import lru_cache
from types import ModuleType
from typing import Final

from maildefer.errors import ConfigurationError

PACKAGES: Final = ("conf", "config")
DEFAULT_MODULE: Final = "conf.settings"
VARIABLES: Final = ("MAILDEFER_SETTINGS_MODULE", "SALMON_SETTINGS_MODULE")
PROJECT: Final = "MAILDEFER_PROJECT"

_SETTINGS: Final = frozenset(
    "queues handlers queue_handlers queue_config receiver receiver_config web_config relay relay_config "
    "outgoing_config router_defaults template_config authentication_config dkim_config".split()
)
_STAR: Final = re.compile(rb"^\s*from\s+(\.*)([\w.]*)\s+import\s*\(?\s*\*", re.MULTILINE)
_OWN_FOLDER: Final = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
)  # the folder that maildefer is imported from is no project
_checked = ("", "")  # what `MAILDEFER_PROJECT` said when it was checked last, and that path
BOOT: Final = "conf.boot"
_BOOTS: Final = tuple(f"{package}.boot" for package in PACKAGES)
_INSTALLED: Final = ("site-packages", "dist-packages")


def settings_module() -> tuple[str, str]:
    """The name of the settings module, and its source: a variable, else the project's folder."""
    for variable in VARIABLES:
        if name := os.environ.get(variable):
            return name, variable
    folder = project()
    if here := [name for name in _names() if _settings_in(folder, name)]:
        # The first of equals.
        ours = max(here, key=lambda name: _assigns_our_settings(_file_in(folder, name) or ""))
        return ours, "the settings module"
    for package in PACKAGES:
        if _is_imported(f"{package}.settings"):
            return f"{package}.settings", "the settings module"
    return DEFAULT_MODULE, "the settings module"


def is_project() -> bool:
    """Whether there are settings to be loaded. Modules of that name in installed packages do not count."""
    name, source = settings_module()
    return source in VARIABLES or _is_imported(name) or bool(_settings_in(project(), name))


def has_our_settings(module: ModuleType) -> bool:
    """Whether the module has any of our settings: the settings of a web site may have the same name."""
    if getattr(getattr(module, "__spec__", None), "_initializing", False) and module.__file__:
        return _assigns_our_settings(module.__file__)
    return any(hasattr(module, name) for name in _SETTINGS)


def project() -> str:
    """The folder of the project that this process would load; the working directory where there is none.

    Once settings are loaded, `maildefer.handling.project.settings.project` tells. Raises ConfigurationError for a
    `MAILDEFER_PROJECT` that is no absolute path of a folder with settings.
    """
    if (folder := named_project()) is not None:
        return folder
    here = _working_directory()
    return _folder_at_or_above(here) or _folder_of_imported() or _folder_of_importable() or here


def named_project() -> str | None:
    """The folder in `MAILDEFER_PROJECT`, or None. Raises ConfigurationError if it is no folder, or has no settings."""
    global _checked
    if not (folder := os.environ.get(PROJECT)) or folder == _checked[0]:
        return _checked[1] if folder else None
    if not os.path.isabs(folder) or not os.path.isdir(folder):
        raise ConfigurationError(
            f"{PROJECT}={folder!r} is no folder: give the project's absolute path, or unset it"
        )
    names = _names()
    if not _is_named() and not any(_file_in(folder, name) for name in names):
        files = " or ".join(f"{name.replace('.', '/')}.py" for name in names)
        above = os.path.dirname(os.path.normpath(folder))
        meant = f", {above}" if any(_file_in(above, name) for name in names) else ""
        raise ConfigurationError(
            f"{PROJECT}={folder!r} has no {files}: give the folder that has one of them{meant}, "
            f"or name its settings in {VARIABLES[0]}"
        )
    _checked = (folder, os.path.normpath(folder))
    return _checked[1]


def folder_of(module: ModuleType) -> str | None:
    """The folder from which the module was imported; None for a module of an installed package."""
    file: str | None = getattr(module, "__file__", None)
    if not file or any(part in _INSTALLED for part in file.split(os.sep)):
        return None
    path = os.path.abspath(file)
    for _ in range(module.__name__.count(".") + 1 + (os.path.basename(path) == "__init__.py")):
        path = os.path.dirname(path)
    return path


def settings_beside(module: ModuleType) -> str | None:
    """The settings module in the folder from which `module` was imported; None if there is none."""
    folder = folder_of(module)
    if folder is None or (folder == _OWN_FOLDER and not _is_named()):
        return None
    return next((name for name in _names() if _settings_in(folder, name)), None)


def boot_module(name: str, settings: str) -> str:
    """The boot module beside the settings, `conf.boot` beside `conf.settings`; any other name is returned as it is."""
    if name not in _BOOTS:
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


def _is_named() -> bool:
    return any(os.environ.get(variable) for variable in VARIABLES)


def _folder_at_or_above(folder: str) -> str | None:
    names = _names()
    if any(_settings_in(folder, name) for name in names):
        return folder
    while (above := os.path.dirname(folder)) != folder:
        folder = above
        for name in names:
            if (file := _settings_in(folder, name)) and _is_ours(folder, file):
                return folder
    return None


def _folder_of_imported() -> str | None:
    """The project whose settings the program has imported itself."""
    for name in _names():
        if _is_imported(name) and (folder := folder_of(sys.modules[name])):
            return folder
    return None


def _folder_of_importable() -> str | None:
    """The project whose settings an import would find. The folder that maildefer is imported from is none."""
    from importlib.util import find_spec  # only for programs outside of a project

    for name in _names():
        package = name.partition(".")[0]
        try:
            spec = find_spec(package)
        except ValueError:  # there is a module of that name that was never imported
            continue
        for place in (spec and spec.submodule_search_locations) or ():
            folder = os.path.dirname(os.path.abspath(place))
            if set(_INSTALLED) & set(folder.split(os.sep)) or (folder == _OWN_FOLDER and not _is_named()):
                continue
            if _settings_in(folder, name):
                return folder
    return None


def _is_imported(name: str) -> bool:
    module = sys.modules.get(name)
    return module is not None and (_is_named() or has_our_settings(module))


def _settings_in(folder: str, name: str) -> str | None:
    """The file of the settings module of that name, if it has our settings, or a variable names it."""
    file = _file_in(folder, name)
    if file is None or _is_named() or os.environ.get(PROJECT):
        return file
    return file if _assigns_our_settings(file) else None


def _assigns_our_settings(file: str, seen: tuple[str, ...] = ()) -> bool:
    """Whether the file assigns, or imports, one of our settings, also by `import *`. It is not run.

    A file that can't be read counts as settings, so that loading it reports the mistake.
    """
    try:
        found = os.stat(file)
        names, stars = _names_and_star_imports(file, found.st_mtime_ns, found.st_size)
    except (OSError, SyntaxError, ValueError):
        return True
    return not names.isdisjoint(_SETTINGS) or any(
        other not in seen and _assigns_our_settings(other, (*seen, file)) for other in stars if other != file
    )


@lru_cache(maxsize=32)
def _names_and_star_imports(file: str, mtime_ns: int, size: int) -> tuple[frozenset[str], tuple[str, ...]]:
    """The names that a module assigns or imports, and the files of the modules that it imports by `*`."""
    from symtable import symtable  # only for the search of a project

    with open(file, "rb") as source:
        text = source.read()
    names = {
        symbol.get_name()
        for symbol in symtable(text, file, "exec").get_symbols()  # type: ignore[arg-type]
        if symbol.is_assigned() or symbol.is_imported()
    }
    stars = []
    for dots, module in _STAR.findall(text):
        folder = os.path.dirname(file)
        for _ in dots[1:] if dots else (b"",) * (1 + (os.path.basename(file) == "__init__.py")):
            folder = os.path.dirname(folder)
        if other := _file_in(folder, module.decode()):
            stars.append(other)
    return frozenset(names), tuple(stars)


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
    except FileNotFoundError:  # it was removed; absolute paths still work
        return "/"


def _is_here(module: str) -> bool:
    return module in sys.modules or bool(_file_in(project(), module))


def _file_in(folder: str, module: str) -> str | None:
    path = os.path.join(folder, module.replace(".", "/"))
    return next((file for file in (f"{path}.py", f"{path}/__init__.py") if os.path.exists(file)), None)
