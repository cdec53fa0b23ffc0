"""A `System` for the paths of one queue that follows no link below the queue's own path.

Each folder is opened from the queue's own path on, one part of the path after the other, and each call is relative to
the folder of the name. So a user who may put a link in a folder's place can't lead a process out of the queue, neither
before a call nor during it. The queue's own path is trusted, and may have links in it.

Claims, settles and pushes do not use it, since they would have to open folders for each message: see docs/security.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

from maildefer.maildir.system import SYSTEM, System

_PATH_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_LIST_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def confined_to(queue_path: str, system: System = SYSTEM) -> System:
    """Confine a System to the queue; for one thread. For a folder that is a link, or below one, calls raise
    NotADirectoryError."""
    return (
        system if isinstance(system, _ConfinedSystem) else cast(System, _ConfinedSystem(queue_path, system))
    )


def unconfined(system: System) -> System:
    """Return the System that `confined_to` was given."""
    return system.system if isinstance(system, _ConfinedSystem) else system


@contextmanager
def one_round(system: System) -> Iterator[None]:
    """Open each folder only once during the `with` block; no descriptor is kept after it, or after a fault (I10)."""
    if not isinstance(system, _ConfinedSystem):
        yield
        return
    with system.keep_folders_open():
        yield


class _ConfinedSystem:
    """A System by its methods and attributes; paths outside of the queue are passed on unchanged."""

    def __init__(self, queue_path: str, system: System) -> None:
        self.system = system
        self._queue = queue_path
        self._below = f"{queue_path}/"
        self._folders: dict[str, int] = {}
        self._rounds = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.system, name)

    def rename(self, source: str, destination: str, **folders: int) -> None:
        if folders:
            self.system.rename(source, destination, **folders)
            return
        with self._folders_closed_after():
            (old, at), (new, there) = self._located(source), self._located(destination)
            self.system.rename(old, new, src_dir_fd=at, dst_dir_fd=there)

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        with self._folders_closed_after():
            name, at = self._located(path, dir_fd)
            self.system.unlink(name, dir_fd=at)

    def mkdir(self, path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        with self._folders_closed_after():
            name, at = self._located(path, dir_fd)
            self.system.mkdir(name, mode, dir_fd=at)

    def rmdir(self, path: str, *, dir_fd: int | None = None) -> None:
        with self._folders_closed_after():
            name, at = self._located(path, dir_fd)
            self.system.rmdir(name, dir_fd=at)

    def lstat(self, path: str, *, dir_fd: int | None = None) -> os.stat_result:
        with self._folders_closed_after():
            name, at = self._located(path, dir_fd)
            return self.system.lstat(name, dir_fd=at)

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        with self._folders_closed_after():
            name, at = self._located(path, dir_fd)
            follows = 0 if at is None else os.O_NOFOLLOW
            return self.system.open(name, flags | follows, mode, dir_fd=at)

    def utime(self, path: str) -> None:
        with self._opened_to_list(path) as folder:
            self.system.utime(folder)

    def listdir(self, path: str | int) -> list[str]:
        with self._opened_to_list(path) as folder:
            return self.system.listdir(folder)

    def scandir(self, path: str) -> Any:
        with self._opened_to_list(path) as folder:
            return self.system.scandir(folder)  # it duplicates the descriptor

    @contextmanager
    def keep_folders_open(self) -> Iterator[None]:
        self._rounds += 1
        try:
            yield
        finally:
            self._rounds -= 1
            self._close_folders()

    @contextmanager
    def _opened_to_list(self, path: str | int) -> Iterator[Any]:
        """Open a folder to list it, anew each time, since a listing has to be fresh."""
        if isinstance(path, int) or not path.startswith(self._below):
            yield path
            return
        with self._folders_closed_after():
            name, at = self._located(path)
            folder = self.system.open(name, _LIST_FLAGS, dir_fd=at)
        try:
            yield folder
        finally:
            self.system.close(folder)

    @contextmanager
    def _folders_closed_after(self) -> Iterator[None]:
        """Close the folders after a call, or keep them for a round; after a fault close them: one may be replaced."""
        try:
            yield
        except OSError:
            self._close_folders()
            raise
        finally:
            if not self._rounds:
                self._close_folders()

    def _located(self, path: str, folder: int | None = None) -> tuple[str, int | None]:
        """Return a name, and the descriptor of the folder that it is relative to."""
        if folder is not None or not path.startswith(self._below):
            return path, folder
        above, _, name = path.rpartition("/")
        return name, self._folder(above)

    def _folder(self, path: str) -> int:
        found = self._folders.get(path)
        if found is None:
            if path == self._queue:
                found = self.system.open(path, _PATH_FLAGS)
            else:
                above, _, name = path.rpartition("/")
                found = self.system.open(name, _PATH_FLAGS | os.O_NOFOLLOW, dir_fd=self._folder(above))
            self._folders[path] = found
        return found

    def _close_folders(self) -> None:
        while self._folders:
            self.system.close(self._folders.popitem()[1])
