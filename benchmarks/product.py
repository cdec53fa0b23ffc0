"""The one place that knows how maildefer is started: its command lines, its settings, its public names."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks import processes
from benchmarks.places import APPLICATIONS, PYTHON, ROOT, Unavailable
from maildefer.maildir.layout import Format, create_queue

START_SECONDS = 20
STOP_SECONDS = 40


def supervise_command(queue: str | None, workers: int, pid_path: str) -> list[str]:
    """A pool in the foreground, its log on stderr; without a queue it serves all of the settings'."""
    command = [PYTHON, "-m", "maildefer.cli", "supervise", "--workers", str(workers), "--pid", pid_path]
    return command if queue is None else [*command, queue]


def intake_command(queue: str, socket_fd: int, routes_path: str) -> list[str]:
    """A front end on an inherited listening socket."""
    return [
        *(PYTHON, "-m", "maildefer.intake"),
        *("--socket-fd", str(socket_fd), "--queue", queue, "--routes", routes_path),
    ]


def probe_command() -> list[str]:
    """Prints the application's routes as JSON."""
    return [PYTHON, "-m", "maildefer.pool.probe_process"]


def environment(directory: str, queue: str | None, host_id: str | None = None) -> dict[str, str]:
    """What the applications of the benchmarks read, and where maildefer is."""
    env = {"PYTHONPATH": str(ROOT), "BENCHMARK_QUEUE": queue or "", "BENCHMARK_NOTES": f"{directory}/notes"}
    return os.environ | env | ({"MAILDEFER_HOST_ID": host_id} if host_id else {})


class Pool:
    """A running pool, in a copy of an application's directory; made and used by one process.

    On entry every worker is up and idle. On exit it is stopped, or killed if it does not stop.
    """

    def __init__(
        self,
        queue: str | None,
        *,
        workers: int,
        application: Path | str = "noop",
        host_id: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`settings`: environment variables."""
        require("maildefer.cli.commands.supervise")
        self.queue, self.workers = queue, workers
        self._application = APPLICATIONS / application  # an absolute path stays what it is
        self._host_id = host_id
        self._settings = dict(settings or {})

    def __enter__(self) -> Pool:
        self.directory = application_directory(self._application)
        self.notes_path = os.path.join(self.directory, "notes")  # where handlers leave notes
        Path(self.notes_path).touch()
        self.log_path = os.path.join(self.directory, "pool.log")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                supervise_command(self.queue, self.workers, os.path.join(self.directory, "pool.pid")),
                cwd=self.directory,
                env=environment(self.directory, self.queue, self._host_id) | self._settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.wait_until_idle()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return self.process.pid

    def wait_until_idle(self) -> None:
        """Returns when all workers live and the pool has used next to no CPU for a while."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            before = processes.cpu_ns(self.pid)
            time.sleep(0.3)
            used = processes.cpu_ns(self.pid) - before if self.process.poll() is None else 0
            if len(processes.tree(self.pid)) >= self.workers + 2 and used < 6_000_000:
                return
        log = Path(self.log_path).read_text(errors="replace")
        raise RuntimeError(f"the pool is not up and idle; its log ends:\n{log[-3000:]}")

    def pause(self) -> None:
        """Stops claiming; returns when the pool had time to do so."""
        os.kill(self.pid, signal.SIGTSTP)
        time.sleep(0.5)

    def resume(self) -> None:
        """Goes on claiming."""
        os.kill(self.pid, signal.SIGCONT)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        members = processes.tree(self.pid)
        try:
            self.process.terminate()
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            processes.kill(members)
            self.process.wait()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)


@contextmanager
def intake(queue: str) -> Iterator[tuple[int, int]]:
    """maildefer's front end for `queue`, with the routes of the no-op application; gives its port and its pid."""
    require("maildefer.intake.__main__")
    require("maildefer.pool.probe_process")
    directory = application_directory(APPLICATIONS / "noop")
    env, routes = environment(directory, queue), os.path.join(directory, "routes.json")
    try:
        with open(routes, "wb") as file:
            subprocess.run(probe_command(), cwd=directory, env=env, stdout=file, check=True)
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            command, port = intake_command(queue, listener.fileno(), routes), listener.getsockname()[1]
            with open(os.path.join(directory, "intake.log"), "wb") as log:
                process = subprocess.Popen(
                    command, cwd=directory, env=env, stdout=log, stderr=log, pass_fds=[listener.fileno()]
                )
        try:
            _await_banner(port, os.path.join(directory, "intake.log"))
            yield port, process.pid
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _await_banner(port: int, log_path: str) -> None:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS) as client:
            banner = client.recv(512)
    except OSError as error:
        banner = str(error).encode()
    if not banner.startswith(b"220"):
        log = Path(log_path).read_text(errors="replace")
        raise RuntimeError(f"the front end greets with {banner!r}; its log ends:\n{log[-3000:]}")


def opened(queue: str) -> Any:
    """The public `Queue` of a path."""
    require("maildefer.queue")
    return importlib.import_module("maildefer.queue").Queue(queue)


def set_beat(queue: str, *, beat_seconds: float, ttl_seconds: float) -> None:
    """Makes `queue` maildefer's, with its own beat and TTL. Before any pool joins it."""
    create_queue(queue, format=Format(beat_seconds=beat_seconds, ttl_seconds=ttl_seconds))


def application_directory(application: Path) -> str:
    """A copy of an application's code in a directory of its own, so that its `run/` is not the project's."""
    directory = tempfile.mkdtemp(prefix="maildefer-benchmark-")
    for part in ("conf", "workers"):
        shutil.copytree(application / part, os.path.join(directory, part))
    return directory


def wait_until(condition: Callable[[], bool], seconds: float, what: str, poll_seconds: float = 0.005) -> None:
    """Polls `condition`; RuntimeError names `what` did not happen in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {seconds:g} s")
        time.sleep(poll_seconds)


def require(module: str) -> None:
    """Unavailable unless maildefer has `module`."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise Unavailable(f"{module} is not there yet")
