"""The one place that knows how maildefer is started: its command lines, and what a pool looks like in /proc."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from benchmarks import processes
from benchmarks.places import APPLICATIONS, PYTHON, ROOT, Unavailable

START_SECONDS = 20
STOP_SECONDS = 40


def supervise_command(queue: str, workers: int, pid_path: str) -> list[str]:
    """A pool in the foreground; its log goes to stderr."""
    return [PYTHON, "-m", "maildefer.cli", "supervise", "--workers", str(workers), "--pid", pid_path, queue]


class Pool:
    """A running pool, in a copy of an application's directory; made and used by one process.

    On entry every worker is up and idle. On exit it is stopped, or killed if it does not stop.
    """

    def __init__(self, queue: str, *, workers: int, application: Path | str = "noop", host_id: str | None = None) -> None:
        _require("maildefer.cli.__main__")
        self.queue, self.workers = queue, workers
        self.directory = tempfile.mkdtemp(prefix="maildefer-pool-")
        self._application = application if isinstance(application, Path) else APPLICATIONS / application
        self._host_id = host_id
        self.log_path = os.path.join(self.directory, "pool.log")
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Pool:
        for part in ("conf", "workers"):
            shutil.copytree(self._application / part, os.path.join(self.directory, part))
        env = os.environ | {"PYTHONPATH": str(ROOT), "BENCHMARK_QUEUE": self.queue}
        env |= {"BENCHMARK_NOTES": self.notes_path} | ({"MAILDEFER_HOST_ID": self._host_id} if self._host_id else {})
        command = supervise_command(self.queue, self.workers, os.path.join(self.directory, "pool.pid"))
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.directory, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self.wait_until_idle()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    @property
    def notes_path(self) -> str:
        """Where handlers of the benchmarks' applications leave notes."""
        return os.path.join(self.directory, "notes")

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self.process is not None
        return self.process.pid

    def wait_until_idle(self) -> None:
        """Returns when all workers live and the pool has used next to no CPU for a while."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            before = processes.cpu_ns(self.pid)
            time.sleep(0.3)
            if self.process is None or self.process.poll() is not None:
                break
            grown = processes.cpu_ns(self.pid) - before
            if len(processes.tree(self.pid)) >= self.workers + 2 and grown < 6_000_000:
                return
        raise RuntimeError(f"the pool did not come up; its log ends:\n{self._log_end()}")

    def pause(self) -> None:
        """Stops claiming; returns when the pool had time to note it."""
        os.kill(self.pid, signal.SIGTSTP)
        time.sleep(0.5)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self.process is not None
        members = processes.tree(self.pid)
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                processes.kill(members)
                self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _log_end(self) -> str:
        return Path(self.log_path).read_text(errors="replace")[-3000:]


def set_beat(queue: str, *, beat_seconds: float, ttl_seconds: float) -> None:
    """Makes `queue` maildefer's, with its own beat and TTL in its format file. Before any pool joins it."""
    raise Unavailable("the format file is not there yet")


def wait_until(condition: Callable[[], bool], seconds: float, what: str, poll_seconds: float = 0.005) -> None:
    """Polls `condition`; RuntimeError names `what` did not happen in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {seconds:g} s")
        time.sleep(poll_seconds)


def _require(module: str) -> None:
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise Unavailable(f"{module} is not there yet")
