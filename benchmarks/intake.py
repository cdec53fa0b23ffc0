"""Durable accepts per second over SMTP, beside Postfix and a naive aiosmtpd handler that syncs; processor time, memory.

The load is Postfix's smtp-source: 1, 8, 32 and 100 connections, kept open for many messages or made anew for each,
2 KiB and 1 MiB.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks import filesystem, native, postfix, processes, product
from benchmarks.figures import OURS, Figure, Limit, compare, interleave
from benchmarks.filler import RECIPIENT, make_maildir
from benchmarks.places import PYTHON, ROOT
from maildefer.doctor.one_sync import take_one
from maildefer.maildir.layout import create_queue

NAIVE, POSTFIX, ONE_SYNC = "naive aiosmtpd", "Postfix, held", "one sync"
SMALL, LARGE = 2 << 10, 1 << 20
LIMITS = {
    8: {NAIVE: Limit(bound=2), POSTFIX: Limit(bound=1)},
    32: {NAIVE: Limit(bound=2), POSTFIX: Limit(bound=1.5)},
}
PROCESSOR_TIME = {POSTFIX: Limit(bound=1.2, at_most=True)}
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What smtp-source sends; `kept`: many messages per connection, else one."""

    connections: int
    kept: bool = True
    message_bytes: int = SMALL

    @property
    def messages(self) -> int:
        """A second's worth or two."""
        if self.message_bytes == LARGE:
            return 120
        return {1: 300, 8: 1200}.get(self.connections, 2400)

    @property
    def limits(self) -> dict[str, Limit]:
        """The same for short and long messages, and however many there are on a connection."""
        return LIMITS.get(self.connections, {})

    @property
    def rounds(self) -> int:
        """More for the load that everybody looks at."""
        return 7 if self.limits and self.kept and self.message_bytes == SMALL else 3

    def __str__(self) -> str:
        size = "2 KiB" if self.message_bytes == SMALL else "1 MiB"
        return f"{self.connections} × {'many' if self.kept else 'one'}, {size}"


@dataclass(frozen=True, slots=True)
class Server:
    """One that takes mail: where, whose processes they are, how many messages it has taken."""

    port: int
    pid: int
    count: Callable[[], int]


Contender = Callable[[str], AbstractContextManager[Server]]


def loads(quick: bool) -> list[Load]:
    """All of them; `quick`, one of each kind."""
    if quick:
        return [Load(connections=8), Load(connections=32), Load(connections=32, message_bytes=LARGE)]
    return [
        Load(connections=connections, kept=kept, message_bytes=size)
        for size in (SMALL, LARGE)
        for kept in (True, False)
        for connections in (1, 8, 32, 100)
    ]


def measure(quick: bool) -> list[Figure]:
    """Rates of all contenders in turn, then what memory each takes under the same load."""
    figures = []
    with filesystem.ext4() as base:
        for load in loads(quick):
            rounds = 3 if quick else load.rounds
            rate = {name: partial(_rate, base, load, server) for name, server in CONTENDERS.items()}
            if load.message_bytes == SMALL:
                rate[ONE_SYNC] = partial(_rate, base, load, _one_sync)
            samples = interleave(rate, rounds, note=print)
            if (ours := samples.pop(ONE_SYNC, None)) is not None:
                pair = {POSTFIX: samples[POSTFIX], OURS: ours}
                figures += compare("intake", f"ext4, {load}, {ONE_SYNC}", pair, "msg/s", {})
            figures += compare("intake", f"ext4, {load}", samples, "msg/s", load.limits)
        for load in (Load(connections=8), Load(connections=8, kept=False)):
            used = {name: partial(_processor_time, base, load, CONTENDERS[name]) for name in (POSTFIX, OURS)}
            samples = interleave(used, 3 if quick else 7, note=print)
            figures += compare("intake", f"processor time, {load}", samples, "µs/msg", PROCESSOR_TIME)
        for load in (Load(connections=32), Load(connections=100), Load(connections=32, message_bytes=LARGE)):
            memory = {name: partial(_memory, base, load, server) for name, server in CONTENDERS.items()}
            samples = interleave(memory, 1, note=print)
            figures += compare("intake", f"memory, {load}", samples, "MB PSS", {})
    return figures


def _rate(base: str, load: Load, contender: Contender) -> float:
    return load.messages / _seconds(base, load, contender)[0]


def _processor_time(base: str, load: Load, contender: Contender) -> float:
    """Microseconds a message, of all processes of the server.

    Those count that have ended meanwhile: Postfix's smtpd and cleanup do after a hundred connections or messages.
    """
    return _seconds(base, load, contender)[1] * 1e6 / load.messages


def _seconds(base: str, load: Load, contender: Contender) -> tuple[float, float]:
    """How long the load takes, and its processor time."""
    with filesystem.fresh_directory(base) as directory, contender(directory) as server:
        _send(server, load, load.connections)  # warms it up
        used, begin = processes.cpu_ns(server.pid), time.perf_counter()
        _send(server, load, load.messages)
        seconds, used = time.perf_counter() - begin, processes.cpu_ns(server.pid) - used
        if (taken := server.count()) != load.messages + load.connections:
            raise RuntimeError(f"{load.messages + load.connections} messages sent, {taken} are there")
    return seconds, used / 1e9


def _memory(base: str, load: Load, contender: Contender) -> float:
    """The most that all processes of the server had at a time, in megabytes."""
    most = 0
    with filesystem.fresh_directory(base) as directory, contender(directory) as server:
        command, env = _command(server, load, load.messages)
        with subprocess.Popen(command, env=env) as sender:
            while sender.poll() is None:
                most = max(most, sum(map(_pss_bytes, processes.tree(server.pid))))
                time.sleep(_LOOK_SECONDS)
        if sender.returncode:
            raise RuntimeError(f"{command[0]} ended with {sender.returncode}")
    return most / 1e6


def _pss_bytes(pid: int) -> int:
    try:
        return processes.pss_bytes(pid)
    except (OSError, RuntimeError):  # one of Postfix's has just ended
        return 0


def _send(server: Server, load: Load, messages: int) -> None:
    command, env = _command(server, load, messages)
    subprocess.run(command, env=env, check=True)


def _command(server: Server, load: Load, messages: int) -> tuple[list[str], dict[str, str]]:
    program, env = native.postfix_program("smtp-source")
    command = [program, *(["-d"] if load.kept else []), "-s", str(load.connections), "-m", str(messages)]
    command += ["-l", str(load.message_bytes), "-f", "sender@example.org", "-t", RECIPIENT]
    return [*command, f"127.0.0.1:{server.port}"], env


@contextmanager
def _postfix(directory: str) -> Iterator[Server]:
    with postfix.holding(directory) as held:
        yield Server(held.port, held.pid, held.count)


@contextmanager
def _maildefer(directory: str) -> Iterator[Server]:
    queue = make_maildir(os.path.join(directory, "queue"))
    with product.intake(queue) as (port, pid):
        yield Server(port, pid, lambda: _entries(queue))


@contextmanager
def _one_sync(directory: str) -> Iterator[Server]:
    """The same with one sync for a push, but for large messages (decision 90)."""
    queue = make_maildir(os.path.join(directory, "queue"))
    take_one(create_queue(queue))
    with product.intake(queue) as (port, pid):
        yield Server(port, pid, lambda: _entries(queue))


@contextmanager
def _naive(directory: str) -> Iterator[Server]:
    queue = make_maildir(os.path.join(directory, "queue"))
    command = [PYTHON, "-m", "benchmarks.contenders.naive_smtp", queue]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Server(int(process.stdout.readline()), process.pid, lambda: _entries(queue))
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def _entries(queue: str) -> int:
    return len(os.listdir(os.path.join(queue, "new")))


CONTENDERS: dict[str, Contender] = {POSTFIX: _postfix, NAIVE: _naive, OURS: _maildefer}
