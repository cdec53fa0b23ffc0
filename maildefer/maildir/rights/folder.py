"""A folder that other users may write to: opened once, with all calls relative to its descriptor.

So nobody can put a link, or another folder, in its place between a check and the call that depends on it. It is used
for clean-up, trials and drafts only: doubts are settled by path, and no descriptor is kept for longer (I10).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from maildefer.maildir.system import SYSTEM, System

TOKENS = ".tokens-"  # the beginning of the name, in `tmp/`, of a folder of tokens that is being made
MARK = (
    "made"  # a file that stays in such a folder, so that it is never empty, even if all its tokens are taken
)
RATES = ".rates-"  # and of a folder of a rate's slots that is being made, or was removed
PERIODIC = ".periodic-"  # the same, of the folder of a periodic task
ONCE = ".once-"  # of the name of a marker that is being made (maildir/idempotency)
EFFECT = ".effect-"  # and of the record of an effect
FRESH = ".fresh-"  # and of a folder that is to replace one that has grown; nothing is in it
TRIALS = ".doctor-"  # the beginning of the name of the doctor's folder,
TRIAL = "trial"  # and of the names of all files that the doctor makes there
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_WAY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Folder:
    """An opened folder. Names have no slash. All calls raise OSError."""

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
        """Remove these files, if they exist; faults are ignored. For names that we make ourselves only."""
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
        """Open a folder in this one; a link is refused."""
        descriptor = self.open(name, _FLAGS | os.O_NOFOLLOW)
        try:
            yield Folder(descriptor, self._system)
        finally:
            self._system.close(descriptor)


@contextmanager
def open_folder(path: str, *below: str, listing: bool = True, system: System = SYSTEM) -> Iterator[Folder]:
    """Open the folder at `path`, which is trusted, or a folder below it; links below are refused. Raises OSError.

    The folders in between need not be readable; nor, without `listing`, the last one.
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


def token_names(prefix: str) -> list[str]:
    """Return the names of the files in a folder of tokens that was just made."""
    return [MARK, *(f"{prefix}{digit:x}" for digit in range(16))]


OURS = {  # by the beginning of a folder's name: the names of the files that we make in it
    TOKENS: re.compile(rf"{MARK}|[0-9a-f]{{4}}").fullmatch,
    RATES: re.compile(r".*,d=.*").fullmatch,
    PERIODIC: re.compile(r"[0-9]+,").fullmatch,
    ONCE: re.compile(r"[0-9A-Za-z]{32}").fullmatch,  # a fingerprint
    EFFECT: re.compile(r"[0-9]+,(begun|done),[0-9a-f]+").fullmatch,
    FRESH: re.compile(r"(?!)").fullmatch,
    TRIALS: re.compile(rf"{TRIAL}.*").fullmatch,
}


def clear_draft(draft: Folder, name: str) -> None:
    """Remove our files from a folder of that name in `tmp/`, or of a name that begins as such names do."""
    for begin, is_ours in OURS.items():
        if name.startswith(begin):
            draft.remove(filter(is_ours, draft.names()))
