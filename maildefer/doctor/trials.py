"""The operations that the doctor tries, in a folder that it makes and removes again."""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from maildefer.doctor.findings import Finding, ok, refuse, warn
from maildefer.events import plain
from maildefer.maildir.durable import NEW
from maildefer.maildir.rights.folder import TRIAL, TRIALS, Folder, clear_draft
from maildefer.maildir.system import token

RACES: Final = 200
_LOOKS: Final = 10
_RACE_TIMEOUT_SECONDS: Final = 30.0
_SLOW_SIGHT_SECONDS: Final = 1.0
_WORD: Final = 8
_POSIX_NAMES: Final = "use a filesystem with POSIX names"


@contextmanager
def trial_folder(parent: Folder) -> Iterator[Folder]:
    """Make a folder whose name is no entry's; after a crash the sweep of `tmp/` removes it.

    A user that may write to `parent` could put another folder in its place: so it is opened once, and only files that
    were made in it are removed.
    """
    name = f"{TRIALS}{os.getpid()}-{token(8)}"
    parent.mkdir(name, 0o700)
    try:
        with parent.folder(name) as folder:
            try:
                yield folder
            finally:
                clear_draft(folder, TRIALS)
    finally:
        parent.rmdir(name)


def try_names(folder: Folder) -> Finding:
    """Try a name of 255 bytes, with every character that names of entries have."""
    name = (f"{TRIAL},a=1,S=2:1," + "x" * 255)[:255]
    try:
        _touch(folder, name)
    except OSError as fault:
        if fault.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EPROTO):
            fact = f"a name of 255 bytes with a colon is refused: {fault.strerror}"
            return refuse("names", fact, _POSIX_NAMES)
        raise
    listed = folder.names()
    clear_draft(folder, TRIALS)
    if listed != [name]:
        return refuse("names", f"a name came back changed: {plain(', '.join(listed))}"[:300], _POSIX_NAMES)
    return ok("names", "255 bytes, unchanged")


def try_race(folder: Folder, rounds: int = RACES) -> Finding:
    """Have two processes rename one file to names of their own, `rounds` times: exactly one may succeed each time."""
    for number in range(rounds):
        _touch(folder, f"{TRIAL}-s{number}")
    board = mmap.mmap(-1, 2 * (rounds + 1) * _WORD)
    words = memoryview(board).cast("Q")  # for each process: its present round, then the result of each rename
    child = os.fork()
    if child == 0:
        _in_child(lambda: _race(folder, words, 0, rounds))
    try:
        finished = _race(folder, words, 1, rounds)
    except OSError:
        finished = False
    if not finished:
        os.kill(child, 9)
    status = os.waitpid(child, 0)[1]
    says = [words[side * (rounds + 1) + 1 : (side + 1) * (rounds + 1)].tolist() for side in (0, 1)]
    words.release()
    listed = folder.names()
    clear_draft(folder, TRIALS)
    if status or not finished:
        fact = "two processes that rename at once failed, or did not come to an end"
        return refuse("rename", fact, "see the kernel's log")
    won = [[f"{TRIAL}-d{n}.{side}" in listed for side in (0, 1)] for n in range(rounds)]
    wrong = [n for n in range(rounds) if sum(won[n]) != 1 or f"{TRIAL}-s{n}" in listed]
    both = [n for n in range(rounds) if says[0][n] == says[1][n] == _WON]
    if wrong or both:
        fact = f"in {len({*wrong, *both})} of {rounds} races for one file not exactly one process won"
        return refuse("rename", fact, "use a filesystem whose rename is atomic")
    return ok("rename", f"atomic: in {rounds} races of two processes exactly one won each")


_WON, _LOST = 1, 2


def _race(folder: Folder, words: memoryview, side: int, rounds: int) -> bool:
    mine, other = side * (rounds + 1), (1 - side) * (rounds + 1)
    deadline = time.monotonic() + _RACE_TIMEOUT_SECONDS
    for number in range(rounds):
        words[mine] = number + 1
        while words[other] <= number:  # until both are in this round
            if time.monotonic() > deadline:
                return False
            os.sched_yield()
        try:
            _rename(folder, f"{TRIAL}-s{number}", f"{TRIAL}-d{number}.{side}")
            words[mine + 1 + number] = _WON
        except FileNotFoundError:
            words[mine + 1 + number] = _LOST
    return True


def try_sight(folder: Folder, looks: int = _LOOKS) -> Finding:
    """Measure how soon a fresh listing shows another process's rename; the child confirms each rename by a pipe."""
    answers, answering = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _in_child(lambda: _rename_on(folder, answering, looks))
    os.close(answering)
    longest, seen = 0.0, True
    for number in range(looks):
        if os.read(answers, 1) != b".":
            break
        began = time.monotonic()
        while f"{TRIAL}-v{number}" not in folder.names():
            if time.monotonic() - began > _SLOW_SIGHT_SECONDS * 5:
                seen = False
                break
            time.sleep(0.001)
        longest = max(longest, time.monotonic() - began)
    os.close(answers)
    status = os.waitpid(child, 0)[1]
    clear_draft(folder, TRIALS)
    if status or not seen:
        fact = "a rename did not show in a fresh listing by another process"
        return refuse("visibility", fact, "use a filesystem whose listings are fresh")
    text = f"a rename shows in another process's listing after {longest * 1000:.1f} ms"
    if longest > _SLOW_SIGHT_SECONDS:
        return warn("visibility", text, "expect messages to wait as long; see the mount's caching options")
    return ok("visibility", f"{text} at most")


def _rename_on(folder: Folder, answering: int, looks: int) -> bool:
    for number in range(looks):
        _touch(folder, f"{TRIAL}-w{number}")
        _rename(folder, f"{TRIAL}-w{number}", f"{TRIAL}-v{number}")
        os.write(answering, b".")
    return True


def try_sync(folder: Folder) -> Finding:
    """Try fsync of a file and of its folder, for which each push waits (I1)."""
    took: list[float] = []
    for number in range(5):
        began = time.monotonic()
        descriptor, what = create(folder, f"{TRIAL}-f{number}"), "file"
        try:
            os.write(descriptor, b"x" * 2048)
            os.fsync(descriptor)
            what = "folder"
            os.fsync(folder.descriptor)
        except OSError as fault:
            fact = f"fsync of a {what} fails: {fault.strerror}"
            return refuse("fsync", fact, "use a filesystem that can sync")
        finally:
            os.close(descriptor)
        took.append(time.monotonic() - began)
    clear_draft(folder, TRIALS)
    middle = sorted(took)[len(took) // 2]
    text = f"a durable file takes {middle * 1000:.2f} ms"
    if middle > 1:
        return warn("fsync", text, "each push waits for that: look for what else keeps the disk busy")
    return ok("fsync", text)


def create(folder: Folder, name: str) -> int:
    """Create a file there; returns its descriptor, opened for writing."""
    return os.open(name, NEW, 0o600, dir_fd=folder.descriptor)


def _touch(folder: Folder, name: str) -> None:
    os.close(create(folder, name))


def _rename(folder: Folder, name: str, new_name: str) -> None:
    os.rename(name, new_name, src_dir_fd=folder.descriptor, dst_dir_fd=folder.descriptor)


def _in_child(action: Callable[[], bool]) -> None:
    status = 1
    try:
        status = 0 if action() else 1
    finally:
        os._exit(status)
