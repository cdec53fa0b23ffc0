"""Pid files and processes that look like supervisors."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from maildefer.host import pidfile
from maildefer.host.identity import this_host

Spawn = Callable[..., subprocess.Popen[bytes]]

_CODE = """
import signal, sys
from maildefer.host.linux.process_title import set_title
set_title("supervisor of a test")
for name in sys.argv[1:]:
    if name == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    elif name == "draining":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(getattr(signal, name), lambda signum, frame: print(signal.Signals(signum).name, flush=True))
print("up", flush=True)
while sys.stdin.readline() == "go on\\n":
    pass
"""


@contextmanager
def spawning() -> Iterator[Spawn]:
    """A function that starts a process, which prints the signals named as arguments.

    If `draining`, it ignores TERM, if `stubborn`, QUIT as well.
    """
    running: list[subprocess.Popen[bytes]] = []

    def spawn(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _CODE, *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        running.append(process)
        return process

    yield spawn
    for process in running:
        process.kill()
        process.communicate()


def write(path: Path, pid: int, **facts: object) -> pidfile.PidFile:
    content = pidfile.for_process(pid, this_host(), kind="supervise")
    content = dataclasses.replace(content, **facts)  # type: ignore[arg-type]
    pidfile.write(str(path), content)
    return content
