"""Processes that are started as systemd starts those of a socket unit."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.front_end import ROOT, SECONDS

# Systemd's side of it: the sockets are 3, 4, …, and the process knows that they are meant for it.
_ACTIVATE = """
import fcntl, os, sys
kept = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in sys.argv[1].split(",")]
for at, each in enumerate(kept):
    os.dup2(each, 3 + at, inheritable=True)
    os.close(each)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(kept)), LISTEN_FDNAMES=sys.argv[2])
os.execvp(sys.argv[3], sys.argv[3:])
"""


@contextmanager
def service(
    listeners: Sequence[socket.socket], names: str, *command: str, folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with these sockets under these names, apart by colons; ended with the block, and they stay open."""
    descriptors = [each.fileno() for each in listeners]
    argv = [sys.executable, "-c", _ACTIVATE, ",".join(map(str, descriptors)), names, *command]
    with open(folder / "log", "ab") as log:
        process = subprocess.Popen(
            argv,
            pass_fds=descriptors,
            cwd=folder,
            env=environment(folder),
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(SECONDS)
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def activated(names: str, *command: str, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """The same with a socket of its own for each name; gives their ports too."""
    bound = [socket.create_server(("127.0.0.1", 0)) for _ in names.split(":")]
    ports = [each.getsockname()[1] for each in bound]
    with service(bound, names, *command, folder=folder) as process:
        for each in bound:
            each.close()
        yield process, ports


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "MAILDEFER_RUNTIME_DIR": str(folder / "runtime")}
