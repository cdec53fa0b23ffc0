"""What a process has that its forks can't use beside each other: connections, positions in files, threads, children."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import threading
from collections.abc import Iterator
from typing import Final

from maildefer.host.linux import descendants

_WRITTEN_AT_THE_END: Final = os.O_WRONLY | os.O_APPEND
_KINDS: Final = {
    "anon_inode:[eventpoll]": "an event loop or selector (epoll)",
    "anon_inode:[io_uring]": "an io_uring",
    "anon_inode:inotify": "an inotify instance",
}


def open_descriptors() -> frozenset[int]:
    """The numbers of the descriptors that are open now; not that by which they are listed."""
    return frozenset(filter(_is_open, map(int, os.listdir("/proc/self/fd"))))


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def find_unshareable(known: frozenset[int]) -> list[str]:
    """Describe what forks of this process would share to their harm; descriptors that are `known` are left out.

    A directory, a device such as /dev/null, and a file that is only appended to can be shared.
    """
    return [*_threads(), *_children(), *_descriptors(known)]


def _threads() -> Iterator[str]:
    tasks = {int(name) for name in os.listdir("/proc/self/task")} - {os.getpid()}
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    for task in sorted(tasks):
        yield f"the thread {names.get(task) or _comm(task)}"


def _comm(task: int) -> str:
    try:
        with open(f"/proc/self/task/{task}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:  # it has just ended
        return str(task)


def _children() -> Iterator[str]:
    for process in sorted(descendants.processes_below(os.getpid()), key=lambda one: one.pid):
        yield f"the child process {process.pid}"


def _descriptors(known: frozenset[int]) -> Iterator[str]:
    for descriptor in sorted(open_descriptors() - known):
        mode, leads_to = os.fstat(descriptor).st_mode, os.readlink(f"/proc/self/fd/{descriptor}")
        if stat.S_ISSOCK(mode):
            yield _socket(descriptor)
        elif stat.S_ISFIFO(mode):
            yield "a pipe" if leads_to.startswith("pipe:") else f"the pipe {leads_to}"
        elif stat.S_ISREG(mode):
            if (
                fcntl.fcntl(descriptor, fcntl.F_GETFL) & (_WRITTEN_AT_THE_END | os.O_RDWR)
                != _WRITTEN_AT_THE_END
            ):
                yield f"the file {leads_to}"
        elif not (stat.S_ISDIR(mode) or stat.S_ISCHR(mode)):
            yield _KINDS.get(leads_to, leads_to)


def _socket(descriptor: int) -> str:
    with socket.socket(fileno=os.dup(descriptor)) as found:
        try:
            return f"a connection to {_address(found.getpeername())}"
        except OSError:  # it has no peer
            return f"a socket at {_address(found.getsockname())}"


def _address(name: object) -> str:
    if isinstance(name, tuple) and len(name) >= 2:
        return f"{name[0]}:{name[1]}"
    return str(name) or "no name"
