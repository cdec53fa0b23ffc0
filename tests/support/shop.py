"""The shop of the pictures, in whatever state it is to be looked at: pools, and a shell in it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import processes
from benchmarks.places import APPLICATIONS
from maildefer.maildir.layout import Format, Layout, create_queue
from maildefer.queue import Queue
from tests.support.front_end import ROOT, SECONDS, wait_until

QUEUES = ("run/orders", "run/newsletter")


class Shop:
    """A project in a folder, its processes, and a shell in it. `host` names the machine on which something is done."""

    def __init__(self, home: Path) -> None:
        self.home = home
        shutil.copytree(APPLICATIONS / "shop", home, ignore=shutil.ignore_patterns("__pycache__"))
        self.queues = {
            name: create_queue(f"{home}/{name}", format=Format(beat_seconds=0.6, ttl_seconds=6.0))
            for name in QUEUES
        }
        self.running: list[subprocess.Popen[bytes]] = []
        (home / "bin").mkdir()
        (home / "logs").mkdir()
        self.write("bin/maildefer", f'#!/bin/sh\nexec {sys.executable} -m maildefer "$@"\n').chmod(0o755)

    def write(self, name: str, text: str) -> Path:
        (self.home / name).write_text(text)
        return self.home / name

    def settings(self, more: str) -> None:
        with open(self.home / "conf/settings.py", "a") as file:
            file.write(more)

    def environ(self, host: str) -> dict[str, str]:
        own = {
            name: text for name, text in os.environ.items() if not name.startswith(("MAILDEFER_", "PYTEST"))
        }
        path = f"{self.home}/bin:{os.environ['PATH']}"
        return own | {
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MAILDEFER_HOST_ID": host,
            "MAILDEFER_RUNTIME_DIR": f"{self.home}/runtime-{host}",
        }

    def sh(self, line: str, host: str = "mail1") -> str:
        """What a command line prints: its data, then all else."""
        ended = subprocess.run(
            line,
            shell=True,
            cwd=self.home,
            env=self.environ(host),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        return ended.stdout + ended.stderr

    def start(self, *options: str, host: str = "mail1", workers: int = 2) -> subprocess.Popen[bytes]:
        """A pool that is up."""
        command = ["maildefer", "supervise", "--workers", str(workers), *options, "--pid", f"run/{host}.pid"]
        environ = self.environ(host) | {"MAILDEFER_HEALTH": "off"}
        with open(self.log(host), "ab") as log:
            process = subprocess.Popen(
                command, cwd=self.home, env=environ, stdin=subprocess.DEVNULL, stderr=log
            )
        self.running.append(process)
        wait_until(
            lambda: (
                self.has_logged("worker.started", workers, host) and self.has_logged("lease.joined", 2, host)
            )
        )
        return process

    def has_logged(self, event: str, times: int = 1, host: str = "mail1") -> bool:
        return self.log(host).read_text().count(event) >= times

    def log(self, host: str = "mail1") -> Path:
        return self.home / "logs" / f"{host}.log"

    def push(self, recipient: str, subject: str, count: int = 1, queue: str = "run/orders") -> None:
        for number in range(count):
            message = f"From: ann{number}@example.com\nTo: {recipient}\nSubject: {subject}\n\nHello\n"
            Queue(f"{self.home}/{queue}").push(
                message.encode(), sender=f"ann{number}@example.com", recipient=recipient
            )

    def count(self, folder: str, queue: str = "run/orders") -> int:
        layout: Layout = self.queues[queue]
        return len(os.listdir(getattr(layout, folder)))


@contextmanager
def shop(home: Path) -> Iterator[Shop]:
    """A shop whose processes end with the block."""
    made = Shop(home)
    try:
        yield made
    finally:
        for process in made.running:
            members = processes.tree(process.pid)
            for pid in members:
                processes.kill([pid])
            process.wait()


def freeze(process: subprocess.Popen[bytes]) -> None:
    """Stop a pool with all its processes, as in a machine that is suspended."""
    for pid in processes.tree(process.pid):
        os.kill(pid, signal.SIGSTOP)
