"""One User-Mode Linux guest, and the serial line on which its init is told what to run.

Every guest sees the host's files read-only at the same paths, so the host's Python and this checkout run in it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from tests.mount.wire import Wire

KERNEL = "/usr/bin/linux.uml"
GRACE_SECONDS = 10  # NFSv4 lease and grace time and lockd's grace time; the kernel takes no less


_numbers = itertools.count(1)


class BedError(Exception):
    """The bed could not do what was asked; the text says what and in which guest."""


@dataclass(frozen=True, slots=True)
class Job:
    """A command in a guest; its output streams into the host's files `out` and `err`."""

    guest: Guest
    out: Path
    err: Path
    code: Future[int] = field(default_factory=Future)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code as a shell tells it, 137 where the guest was killed; TimeoutError if there is none yet."""
        return self.code.result(timeout)


class Guest:
    """One User-Mode Linux process, and the serial line to its init."""

    def __init__(
        self,
        name: str,
        port: int,
        *,
        directory: Path,
        wire: Wire,
        environment: Mapping[str, str],
        disk: str = "",
        memory_mebibytes: int = 256,
    ) -> None:
        self.name, self.port = name, port
        self.address, self.log = f"10.77.0.{port}", directory / f"{name}.log"
        self._directory, self._wire, self._environment, self._disk = directory, wire, environment, disk
        self._memory_mebibytes = memory_mebibytes
        self.process: subprocess.Popen[bytes] | None = None
        self._jobs: dict[int, Job] = {}

    def boot(self) -> None:
        self.kill()
        ready: Future[None] = Future()
        wire, vec0 = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line, ssl0 = socket.socketpair()
        home = self._directory
        command = f"{KERNEL} mem={self._memory_mebibytes}M umid={self.name} uml_dir={home} "
        command += "con=null con0=null,fd:1 ssl=null quiet "
        command += f"ssl0=fd:{ssl0.fileno()} vec0:transport=fd,fd={vec0.fileno()},mac=02:00:00:00:00:{self.port:02x} "
        command += (
            f"root=/dev/root rootfstype=hostfs rootflags=/ ro init={home}/init BED={home} ROLE={self.name} "
        )
        command += f"ADDRESS={self.address} GRACE={GRACE_SECONDS} "
        command += f"ubd0={self._disk}" if self._disk else ""
        with vec0, ssl0, open(self.log, "ab") as output:
            self.process = subprocess.Popen(
                command.split(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                pass_fds=(vec0.fileno(), ssl0.fileno()),
                start_new_session=True,
            )
        self._wire.plug(self.name, self.port, wire)
        threading.Thread(target=self._listen, args=(self._line, ready), daemon=True).start()
        ready.result(60)

    def kill(self) -> None:
        """SIGKILL, the crash of a host: what its kernel had not written to disk is lost."""
        if self.process and self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._wire.unplug(self.name)

    def freeze(self) -> None:
        """SIGSTOP to the kernel alone, as a program may not get one; it stops by itself at its next system call."""
        if self.process:
            self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGCONT)

    def run(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Job:
        """Start a command in a session of its own."""
        base, number = self._directory, next(_numbers)
        job = self._jobs[number] = Job(self, base / f"{number}.out", base / f"{number}.err")
        words = ["env", *(f"{key}={value}" for key, value in (env or {}).items()), *argv]
        (base / f"{number}.sh").write_text(f"exec {shlex.join(words)}\n")
        job.out.touch()
        job.err.touch()
        self._line.sendall(f"{number}\n".encode())
        return job

    def check(self, argv: Sequence[str], timeout: float = 60) -> str:
        """Run a command to its end and return its output; an exit code but 0 is a BedError."""
        job = self.run(argv)
        if job.wait(timeout) != 0:
            raise BedError(f"{shlex.join(argv)} in {self.name} ended in {job.wait()}: {job.err.read_text()}")
        return job.out.read_text()

    def _listen(self, line: socket.socket, ready: Future[None]) -> None:
        with line, contextlib.suppress(OSError), line.makefile("r", errors="replace") as lines:
            for text in lines:
                match text.split():
                    case ["ready"]:
                        ready.set_result(None)
                    case ["exit", job, code]:
                        self._jobs.pop(int(job)).code.set_result(int(code))
        if not ready.done():
            ready.set_exception(
                BedError(f"{self.name} died at boot; its log ends: {self.log.read_text()[-2000:]}")
            )
        for number in list(self._jobs):
            self._jobs.pop(number).code.set_result(128 + signal.SIGKILL)
