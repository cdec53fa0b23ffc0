"""Redis and PostgreSQL of a benchmark's own: they listen in a private folder only, and sync what they acknowledge."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from benchmarks import processes
from benchmarks.places import Unavailable
from benchmarks.product import wait_until

START_SECONDS = 30


class Server:
    """One server's process, its data in a folder of `base`."""

    name: str
    stop_signal = signal.SIGTERM

    def __init__(self, base: str, sockets: str) -> None:
        self.data, self.sockets = os.path.join(base, self.name), sockets
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers. Raises Unavailable where it is not installed."""
        with open(f"{self.sockets}/{self.name}.log", "ab") as log:
            self._process = self._run(log.fileno())
        wait_until(self.answers, START_SECONDS, f"{self.name} answers", 0.02)

    def stop(self) -> None:
        """Ends it, and all of its processes."""
        if self._process is not None:
            members = processes.tree(self._process.pid)
            self._process.send_signal(self.stop_signal)
            try:
                self._process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                processes.kill(members)
                self._process.wait()

    def kill(self) -> None:
        """Kills all of its processes at once."""
        assert self._process is not None
        processes.kill(processes.tree(self._process.pid))
        self._process.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _run(self, log: int) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def empty(self) -> None:
        """Removes all jobs."""
        raise NotImplementedError


class Redis(Server):
    """Redis with an append-only file that is synced before each answer."""

    name = "redis"

    def _run(self, log: int) -> subprocess.Popen[bytes]:
        os.makedirs(self.data, exist_ok=True)
        path = f"{self.sockets}/redis"
        command = [_program("redis-server", "redis-server"), "--port", "0", "--unixsocket", path]
        command += ["--unixsocketperm", "700", "--dir", self.data, "--save", "", "--appendonly", "yes"]
        return subprocess.Popen([*command, "--appendfsync", "always"], stdout=log, stderr=log)

    def answers(self) -> bool:
        try:
            return self._ask("PING") == "+PONG"
        except OSError:
            return False

    def empty(self) -> None:
        self._ask("FLUSHALL")

    def sync(self, when: str) -> None:
        """`always`, or `everysec`."""
        if (said := self._ask(f"CONFIG SET appendfsync {when}")) != "+OK":
            raise RuntimeError(f"Redis says {said}")

    def _ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(START_SECONDS)
            client.connect(f"{self.sockets}/redis")
            client.sendall(f"{command}\r\n".encode())
            return client.recv(4096).decode().strip()


class Postgres(Server):
    """PostgreSQL as initdb makes it: a commit is synced before it is answered. It lets in its own user only."""

    name = "postgres"
    stop_signal = signal.SIGINT  # a fast shutdown

    def _run(self, log: int) -> subprocess.Popen[bytes]:
        if not os.path.exists(self.data):
            self._make()
        command = [
            _postgres_program("postgres"),
            "-D",
            self.data,
            "-k",
            self.sockets,
            "-c",
            "listen_addresses=",
        ]
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.data, user=_owner())

    def _make(self) -> None:
        os.mkdir(self.data, 0o700)
        if os.geteuid() == 0:  # it refuses to run as root
            owner = pwd.getpwnam("postgres")
            os.chown(self.data, owner.pw_uid, owner.pw_gid)
            os.chown(self.sockets, owner.pw_uid, owner.pw_gid)
            for path in Path(self.data).parents[:2]:  # temporary folders
                path.chmod(path.stat().st_mode | 0o011)
        command = [_postgres_program("initdb"), "-D", self.data, "-U", getpass.getuser(), "--auth=peer"]
        done = subprocess.run(command, capture_output=True, text=True, user=_owner(), cwd="/")
        if done.returncode:
            raise Unavailable(f"initdb: {done.stderr.strip()}")

    def answers(self) -> bool:
        command = [_postgres_program("pg_isready"), "--quiet", "-h", self.sockets]
        return subprocess.run(command).returncode == 0

    def empty(self) -> None:
        for tool, *options in (("dropdb", "--force", "--if-exists"), ("createdb",)):
            command = [_postgres_program(tool), *options, "-h", self.sockets, "peers"]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def _owner() -> str | None:
    return "postgres" if os.geteuid() == 0 else None


def _postgres_program(name: str) -> str:
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / name).exists():
            return str(folder / name)
    return _program(name, "postgresql")


def _program(name: str, package: str) -> str:
    if (path := shutil.which(name)) is None:
        raise Unavailable(f"{name} is missing: as root, apt-get install {package}")
    return path
