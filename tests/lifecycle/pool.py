"""A running pool, to be watched, signalled and killed: `python -m maildefer.pool` in a project of a test."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import processes
from maildefer.host import status_socket
from maildefer.host.identity import label
from maildefer.host.runtime_dir import stem
from tests.lifecycle.project import PATIENCE_SECONDS, Project, eventually

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process for a block, so that another takes what comes."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Pool:
    """One supervisor and its children, of one host identity. `settings` are set over the project's own.

    Not `privileged`, it may not read what its user may not, even where that is root. `host` names its files, and the
    host itself where it has no `host_id`.
    """

    def __init__(
        self,
        project: Project,
        *,
        workers: int | None = 2,
        host: str = "a",
        host_id: str = "",
        settings: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
        privileged: bool = True,
        **plan: object,
    ) -> None:
        self.project = project
        self.host = host
        self.host_id = host_id or host
        self.workers = 1 if workers is None else workers  # else as the settings say
        self.pidfile = str(project.path / f"run/{host}.pid")
        self.log_path = project.path / f"{host}.log"
        self.runtime = project.path / "runtime"
        self._plan = {
            "project": str(project.path),
            "pidfile": self.pidfile,
            "workers": workers,
            "log_format": "json",
            **plan,
        }
        overrides = {f"MAILDEFER_{name.upper()}": str(value) for name, value in (settings or {}).items()}
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MAILDEFER_")},
            "PYTHONPATH": str(ROOT),
            "MAILDEFER_RUNTIME_DIR": str(self.runtime),
            "MAILDEFER_HOST_ID": self.host_id,
            **overrides,
            **(environ or {}),
        }
        self._privileged = privileged
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self.process is not None, "not started"
        return self.process.pid

    def start(self) -> Pool:
        """Begin, without waiting for anything."""
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "maildefer.pool", json.dumps(self._plan)],
                cwd=self.project.path,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=None if self._privileged else _heed_permissions,
            )
        return self

    def await_ready(self) -> Pool:
        """Until every worker waits for messages, and every queue may be claimed from."""
        eventually(self._is_ready, f"pool {self.host} is ready; its log: {self.log_path}")
        return self

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the pool has ended:\n{self.log()}"
        status = self.status()
        idle = [worker for worker in status.get("workers", ()) if worker["state"] in ("idle", "handling")]
        return len(idle) >= self.workers and all(queue["state"] == "served" for queue in status["queues"])

    # Looking

    def status(self) -> dict[str, Any]:
        """What the pool says of itself; empty while it does not answer."""
        hosts = label(self.host_id, self.host_id)
        try:
            path = str(self.runtime / hosts / f"{stem(self.pidfile)}.sock")
            return status_socket.ask_status(path, PATIENCE_SECONDS)
        except (OSError, ValueError):  # not yet, or no longer
            return {}

    def worker_pids(self) -> list[int]:
        """Those of live workers."""
        alive = ("starting", "idle", "busy", "handling")
        return [worker["pid"] for worker in self.status().get("workers", ()) if worker["state"] in alive]

    def child(self, kind: str) -> int:
        """The pid of the newest keeper or scout."""
        self.await_event("child.started", kind=kind)  # the child itself may have been seen before its line is
        return int(self.events("child.started", kind=kind)[-1]["pid"])

    def tree(self) -> list[int]:
        return processes.tree(self.pid)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def events(self, name: str, **facts: object) -> list[dict[str, Any]]:
        """The events of that name in the log, oldest first, those with these facts."""
        found = []
        for line in self.log().rpartition("\n")[0].splitlines():  # the last line may be half there yet
            if f'"{name}"' in line:
                event = json.loads(line)
                if event["event"] == name and facts.items() <= event.items():
                    found.append(event)
        return found

    def await_event(
        self, name: str, count: int = 1, seconds: float = PATIENCE_SECONDS, **facts: object
    ) -> dict[str, Any]:
        """Until the log has so many of these events; returns the last."""
        what = f"{count} × {name} {facts} in {self.log_path}"
        return eventually(lambda: self.events(name, **facts)[count - 1 :], what, seconds)[-1]

    # Ending

    def signal(self, signum: signal.Signals) -> None:
        os.kill(self.pid, signum)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Until the supervisor has ended; its exit code."""
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the pool has not ended within {seconds:g} s:\n{self.log()}") from None

    def stop(self, seconds: float = PATIENCE_SECONDS) -> int:
        """TERM, and wait; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def kill_tree(self) -> list[int]:
        """SIGKILL for the supervisor and all its children at once; returns who that was."""
        members = self.tree()
        processes.kill(members)
        assert self.process is not None
        self.process.wait()
        return members


def _heed_permissions() -> None:
    """Make root a user for whom files' modes count: after the exec, it is without the two capabilities."""
    prctl, drop_from_bounding_set = ctypes.CDLL(None).prctl, 24
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: capabilities(7)
        prctl(drop_from_bounding_set, capability, 0, 0, 0)


def survivors(project: Path) -> list[int]:
    """The live processes of any pool of a project, by the environment that they were started with."""
    mark = f"MAILDEFER_RUNTIME_DIR={project}/runtime\0".encode()
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if mark in Path(f"/proc/{name}/environ").read_bytes():
                found.append(int(name))
        except OSError:  # it has just ended, or is somebody else's
            continue
    return found
