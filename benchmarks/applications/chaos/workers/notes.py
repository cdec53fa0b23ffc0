"""What handlers write down: when they begin and end, and who runs beside them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

MEAN_SECONDS = float(os.environ.get("CHAOS_HANDLER_SECONDS", "0.01"))
HOST = os.environ.get("MAILDEFER_HOST_ID", "")
_journals: dict[int, str] = {}  # by process: workers are forks of one that has imported this


def journal() -> str:
    """One file for each process, since what counts in the end is on what a killed process was."""
    own = os.getpid()
    if own not in _journals:
        _journals[own] = os.path.join("journal", f"{own}-{time.monotonic_ns()}-{os.getppid()}")
    return _journals[own]


def note(word: str, key: str, *more: object) -> None:
    """One write for each line, so that a killed process leaves whole lines only."""
    line = " ".join(map(str, (word, key, time.monotonic(), *more)))
    descriptor = os.open(journal(), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def note_when_settled(key: str) -> None:
    """To be called where an async handler ends: the worker settles it before its event loop goes on."""
    asyncio.get_running_loop().call_soon(note, "settled", key)


def work() -> None:
    time.sleep(random.expovariate(1 / MEAN_SECONDS))


@contextmanager
def one_of(name: str, most: int, key: str) -> Iterator[None]:
    """Run as one of those of that name, and note them all where there are more than `most`.

    A lock tells that a process runs: the kernel frees it only when that has ended, also where it was frozen meanwhile.
    """
    folder = os.path.join("running", name)
    os.makedirs(folder, exist_ok=True)
    own = f"{os.getpid()}.{os.getppid()}"
    descriptor = os.open(f"{folder}/.{own}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.rename(f"{folder}/.{own}", f"{folder}/{own}")  # from here on, others find it locked
        running = [one for one in os.listdir(folder) if one == own or _is_locked(f"{folder}/{one}")]
        if len(running) > most:
            note("over", key, name, most, *running)
        yield
        os.unlink(f"{folder}/{own}")
    finally:
        os.close(descriptor)


def _is_locked(path: str) -> bool:
    if os.path.basename(path).startswith("."):
        return False
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:  # its process is dead
        with suppress(FileNotFoundError):
            os.unlink(path)
        return False
    finally:
        os.close(descriptor)
