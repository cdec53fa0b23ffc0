"""Write a new project: a copy of the reference application that the package carries."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from maildefer.errors import MaildeferError
from maildefer.maildir import durable
from maildefer.maildir.rights.modes import Rights
from maildefer.maildir.system import token


class ProjectExists(MaildeferError):
    """A file or folder is where the new project should be written."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists: choose another place, or give --force")
        self.path = path


def write_project(target: Path, *, force: bool = False) -> list[Path]:
    """Write a runnable project to `target` and return the files written, in order of name.

    Raises ProjectExists when something is there, unless `force`, which overwrites the skeleton's own files and
    leaves all others alone.
    """
    if target.exists() and not force and (not target.is_dir() or any(target.iterdir())):
        raise ProjectExists(target)
    source = Path(str(files("maildefer"))) / "skeleton"
    written = []
    for path in sorted(_files(source)):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        # Not its mode: a system-wide install is often read-only. Nor through a link that lies there.
        data, draft, rights = path.read_bytes(), f"{copy}.{token(8)}", Rights(file_mode=0o666)
        durable.replace_file(str(copy), data, draft, durably=False, rights=rights)
        written.append(copy)
    return written


def set_aside(path: Path) -> Path:
    """Rename what is there to the first free `PATH.old`, `PATH.old-2`, …, and return that."""
    for number in itertools.count(1):
        aside = path.with_name(f"{path.name}.old{f'-{number}' if number > 1 else ''}")
        if not os.path.lexists(aside):
            path.rename(aside)
            return aside
    raise AssertionError("there is a free number")


def _files(folder: Path) -> Iterator[Path]:
    # In a checkout, workers, conf and tests are symbolic links: is_dir follows them, as it should.
    for path in folder.iterdir():
        if path.is_dir() and path.name != "__pycache__":
            yield from _files(path)
        elif path.is_file() and path.suffix != ".pyc":
            yield path
