"""The demo's project: a fresh copy of the skeleton, its processes, and what can be counted in its folders."""

from __future__ import annotations

import json
import mailbox
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.ports import free_port
from maildefer.cli.project_skeleton import write_project

HOME: Final = Path(os.path.relpath(Path(__file__).resolve().parent.parent / ".cache" / "demo"))
QUEUES: Final = ("run/queue", "run/posts")
_NAME: Final = re.compile(r"([a-z0-9_-]+)@osb\.localhost", re.IGNORECASE)


class Trouble(Exception):
    """The demo cannot go on."""


class Log:
    """The pool's log, read as it grows; only what the demo counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.posted = self.rebuilt = self.deferred = self.reclaimed = 0
        self._offset = 0

    def read(self) -> None:
        with open(self.path, "rb") as log:
            log.seek(self._offset)
            fresh = log.read()
        whole = fresh.rfind(b"\n") + 1  # the last line may be half written
        self._offset += whole
        for line in fresh[:whole].splitlines():
            if line.startswith(b"{"):
                self._count(json.loads(line))

    def _count(self, event: dict[str, Any]) -> None:
        if event["event"] == "claim.reclaimed":
            self.reclaimed += 1
        elif event["event"] == "attempt.ended":
            outcome = event["outcome"]
            self.deferred += outcome.startswith("defer")
            self.posted += outcome.startswith("hand")
        elif event["event"] == "handler.logged":
            self.rebuilt += event.get("handler") == "workers.index.START"


class Project:
    """A running project, under `.cache/demo` unless told otherwise."""

    def __init__(self, home: Path, smtp_port: int, sink_port: int) -> None:
        self.home, self.smtp_port, self.sink_port = home, smtp_port, sink_port
        self.command = os.path.relpath(Path(sys.executable).with_name("maildefer"), home)
        self.log = Log(home / "run" / "supervise.log")
        self.killed = 0
        self._pool: subprocess.Popen[bytes] | None = None
        self._seen: dict[int, psutil.Process] = {}

    @classmethod
    def fresh(cls, home: Path = HOME) -> Project:
        """A new project in place of the last demo's, on ports that are free."""
        shutil.rmtree(home, ignore_errors=True)
        write_project(home)
        smtp_port, sink_port = free_port(), free_port()
        settings = home / "conf" / "settings.py"
        text = settings.read_text().replace("8823", str(smtp_port)).replace("8825", str(sink_port))
        settings.write_text(text)
        (home / "run").mkdir()
        return cls(home, smtp_port, sink_port)

    def start(self, *, workers: int) -> None:
        """The sink for answers, the front end, the pool: as the README's reader would."""
        self._maildefer("log", "--port", str(self.sink_port))
        self._maildefer("start")
        with open(self.log.path, "wb") as log:
            self._pool = subprocess.Popen(
                [self._program(), "supervise", "--workers", str(workers)],
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=os.environ | {"MAILDEFER_LOG_FORMAT": "json"},
            )
        for port in (self.sink_port, self.smtp_port):
            self._wait_for(port)

    def stop(self) -> str:
        """`maildefer stop --all run/`; returns what it printed."""
        self._look()
        done = subprocess.run(
            [self._program(), "stop", "--all", "run/"],
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )
        if self._pool is not None:
            try:
                self._pool.wait(60)
            except subprocess.TimeoutExpired:
                self._pool.kill()
        said = "\n".join(f"  {line}" for line in (done.stdout + done.stderr).splitlines())
        return f"maildefer stop --all run/   (exit code {done.returncode})\n{said}\n"

    def alive(self) -> list[int]:
        """Those of our processes that `stop` left behind."""
        _, left = psutil.wait_procs(list(self._seen.values()), timeout=5)
        return [process.pid for process in left]

    def must_live(self) -> None:
        if self._pool is None or self._pool.poll() is not None:
            raise Trouble(f"the pool ended; its log:\n{self.log.path.read_text()[-2000:]}")

    def kill_a_worker(self) -> int | None:
        """Kill -9 the worker with the most work done, if there is one."""
        self._look()
        workers = [process for process in self._seen.values() if _is_worker(process)]
        if not workers:
            return None
        victim = max(workers, key=lambda worker: sum(worker.cpu_times()[:2]))
        victim.send_signal(signal.SIGKILL)
        self.killed += 1
        return victim.pid

    def drained(self) -> bool:
        return not sum(self.left().values())

    def left(self) -> dict[str, int]:
        """Entries in each folder that work is taken from."""
        folders = [f"{q}/{folder}" for q in QUEUES for folder in ("new", "cur", ".later/new", ".later/cur")]
        return {folder: count for folder in folders if (count := len(self._entries(folder)))}

    def dead(self) -> Counter[str]:
        """The posts in the dead letters, by name."""
        found: Counter[str] = Counter()
        for folder in (f"{q}/.dead/{sub}" for q in QUEUES for sub in ("new", "cur")):
            for name in self._entries(folder):
                head = (self.home / folder / name).read_bytes()[:2000].decode("latin-1")
                found.update(match[1] for match in [_NAME.search(head)] if match)
        return found

    def pages(self) -> set[str]:
        return {path.stem for path in (self.home / "run/blog").glob("[!.]*.html")} - {"index"}

    def listed(self) -> set[str]:
        front = self.home / "run/blog/index.html"
        return set(re.findall(r'href="([^"]+)\.html"', front.read_text())) if front.exists() else set()

    def answers(self) -> Counter[str]:
        """The answers in the sink, by the post they are for."""
        found: Counter[str] = Counter()
        for answer in mailbox.Maildir(self.home / "run/log", create=True):
            found.update(match[1] for match in [_NAME.search(str(answer["From"]))] if match)
        return found

    def _entries(self, folder: str) -> list[str]:
        try:
            return [name for name in os.listdir(self.home / folder) if not name.startswith(".")]
        except FileNotFoundError:  # made at first use
            return []

    def _look(self) -> None:
        """Remember the processes that work in this project, so that those left behind can be told."""
        home = str(self.home.resolve())
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and process.cwd() == home:
                    self._seen[process.pid] = process
            except psutil.Error:  # gone, or not ours
                pass
        self._seen = {pid: process for pid, process in self._seen.items() if process.is_running()}

    def _program(self) -> str:
        return str(Path(sys.executable).with_name("maildefer"))

    def _maildefer(self, *arguments: str) -> None:
        done = subprocess.run(
            [self._program(), *arguments],
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise Trouble(f"maildefer {' '.join(arguments)} failed with {done.returncode}:\n{done.stdout}")

    def _wait_for(self, port: int) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:  # not yet
                time.sleep(0.05)
        raise Trouble(f"nothing listens on port {port}; see {self.home}/logs and {self.log.path}")


def _is_worker(process: psutil.Process) -> bool:
    try:
        return (
            " ".join(process.cmdline()).startswith("maildefer: worker")
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.Error:
        return False
