"""A folder that others may write to: opened once for a round, and what is done in it is done relative to it.

So nobody can put a link, or another folder, in its place between a look at it and what follows from that look. For
clearing away, trials and drafts only: doubts are settled by path, and no descriptor outlives its round (I10).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from maildefer.maildir.system import SYSTEM, System

TOKENS = ".tokens-"  # how the name of a folder of tokens begins that is in the making, in `tmp/`
MARK = "made"  # stays in such a folder, which is never empty therefore, whoever has its tokens
TRIALS = ".doctor-"  # how the name of the doctor's folder begins,
TRIAL = "trial"  # and those of all that it makes there
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_WAY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Folder:
    """Names are of one part. All calls raise OSError."""

    def __init__(self, descriptor: int, system: System) -> None:
        self.descriptor = descriptor
        self._system = system

    def names(self) -> list[str]:
        return self._system.listdir(self.descriptor)

    def lstat(self, name: str) -> os.stat_result:
        return self._system.lstat(name, dir_fd=self.descriptor)

    def open(self, name: str, flags: int, mode: int = 0o600) -> int:
        return self._system.open(name, flags, mode, dir_fd=self.descriptor)

    def unlink(self, name: str) -> None:
        self._system.unlink(name, dir_fd=self.descriptor)

    def mkdir(self, name: str, mode: int) -> None:
        self._system.mkdir(name, mode, dir_fd=self.descriptor)

    def rmdir(self, name: str) -> None:
        self._system.rmdir(name, dir_fd=self.descriptor)

    def remove(self, names: Iterable[str]) -> None:
        """As far as they are there: names of our own making only. Faults are passed over."""
        for name in names:
            try:
                self.unlink(name)
            except OSError:
                pass

    def rename(self, name: str, destination: Folder, new_name: str) -> None:
        self._system.rename(name, new_name, src_dir_fd=self.descriptor, dst_dir_fd=destination.descriptor)

    def sync(self) -> None:
        self._system.fsync(self.descriptor)

    @contextmanager
    def folder(self, name: str) -> Iterator[Folder]:
        """One in it, and no link to one."""
        descriptor = self.open(name, _FLAGS | os.O_NOFOLLOW)
        try:
            yield Folder(descriptor, self._system)
        finally:
            self._system.close(descriptor)


@contextmanager
def opened(path: str, *below: str, listing: bool = True, system: System = SYSTEM) -> Iterator[Folder]:
    """The folder at `path`, which is trusted, or the one below it, to which no link leads. Raises OSError.

    Those on the way are gone through, and need not be readable; nor the last one, without `listing`.
    """
    last = _FLAGS if listing else _WAY
    descriptor = system.open(path, _WAY if below else last)
    try:
        for number, name in enumerate(below, 1):
            flags = last if number == len(below) else _WAY
            above, descriptor = descriptor, system.open(name, flags | os.O_NOFOLLOW, dir_fd=descriptor)
            system.close(above)
        yield Folder(descriptor, system)
    finally:
        system.close(descriptor)


def clear_trials(trials: Folder) -> None:
    """What the doctor has made there."""
    trials.remove(name for name in trials.names() if name.startswith(TRIAL))


def token_names(prefix: str) -> list[str]:
    """What is in a folder of tokens that was just made."""
    return [MARK, *(f"{prefix}{digit:x}" for digit in range(16))]


def clear_tokens(draft: Folder, name: str) -> None:
    """One that is in the making under that name."""
    draft.remove(token_names(name.removeprefix(TOKENS).partition("-")[0]))
