"""Deliveries per second of a full outgoing queue to a next server: a pool of 8 workers beside Postfix.

Both have the same messages, each to one recipient, in a queue on the same filesystem, and send them to the same sink,
Postfix's smtp-sink, which counts them: the clock begins with the pool's SIGCONT, and with the SIGHUP
that gives Postfix its queue manager. Postfix is as it comes, with up to 20 connections to a destination, and with 8.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks import filesystem, native, postfix
from benchmarks.drain import maildir_empty, refuse_unhandled
from benchmarks.figures import OURS, Figure, Limit, compare, interleave
from benchmarks.filler import ENTRY_BYTES, RECIPIENT, fill, make_maildir
from benchmarks.places import Unavailable
from benchmarks.ports import free_port
from benchmarks.product import Pool, require, wait_until

WORKERS = 8
AS_IT_COMES, WITH_EIGHT = "Postfix", f"Postfix, {WORKERS} connections"
LIMITS = {AS_IT_COMES: Limit(bound=1), WITH_EIGHT: Limit(bound=1)}
_SECONDS = 120.0
_TAKEN = re.compile(rb"mesg= *(\d+)").findall
_SETTINGS = """\
myhostname = postfix.example.org
mydestination =
local_recipient_maps =
disable_dns_lookups = yes
default_transport = smtp:[127.0.0.1]:{sink}
{limit}
"""
_SENDING = """\
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
retry unix - - n - - error
error unix - - n - - error
scache unix - - n - 1 scache
"""
_LIMIT = f"smtp_destination_concurrency_limit = {WORKERS}\nsmtp_initial_destination_concurrency = {WORKERS}"


def measure(quick: bool) -> list[Figure]:
    """Deliveries a second of each."""
    messages, rounds = (1_000, 3) if quick else (5_000, 7)
    with filesystem.ext4() as base:
        contenders: dict[str, Callable[[], float]] = {
            AS_IT_COMES: partial(_by_postfix, base, messages, ""),
            WITH_EIGHT: partial(_by_postfix, base, messages, _LIMIT),
            OURS: partial(_by_pool, base, messages),
        }
        samples = interleave(contenders, rounds, note=print)
    case = f"ext4, {messages} of {ENTRY_BYTES >> 10} KiB, {WORKERS} workers"
    return compare("outgoing", case, samples, "msg/s", LIMITS)


class Sink:
    """A running smtp-sink, which takes everything."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self._process = process

    def wait_for(self, messages: int) -> None:
        """Return as soon as it has taken so many. RuntimeError after two minutes."""
        assert self._process.stdout is not None
        deadline, told = time.monotonic() + _SECONDS, b""
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._process.stdout], [], [], left)[0]:
                told = (told + os.read(self._process.stdout.fileno(), 1 << 16))[-200:]
                if (counts := _TAKEN(told)) and int(counts[-1]) >= messages:
                    return
        raise RuntimeError(f"the sink has not taken {messages} messages within {_SECONDS:g} s: {told!r}")


@contextmanager
def sink() -> Iterator[Sink]:
    """Ended with the block."""
    program, env = native.postfix_program("smtp-sink")
    port = free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = [program, *user, "-c", f"127.0.0.1:{port}", "512"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as process:
        try:
            wait_until(lambda: _answers(port), 20, "smtp-sink answers")
            yield Sink(port, process)
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def _clock(messages: int, begin: Callable[[], None], taking: Sink, log: Path) -> float:
    start = time.perf_counter()
    begin()
    try:
        taking.wait_for(messages)
    except RuntimeError as fault:
        raise RuntimeError(f"{fault}; the sender says:\n{log.read_text(errors='replace')[-3000:]}") from fault
    return messages / (time.perf_counter() - start)


def _by_pool(base: str, messages: int) -> float:
    require("maildefer.handlers.outgoing")
    with filesystem.fresh_directory(base) as directory, sink() as taking:
        queue = make_maildir(os.path.join(directory, "queue"))
        os.environ["BENCHMARK_SINK"] = str(taking.port)
        with Pool(queue, workers=WORKERS, application="sending") as pool:
            pool.pause()
            fill(queue, messages)
            filesystem.settle_disk(queue)
            pool.wait_until_idle()
            rate = _clock(messages, pool.resume, taking, Path(pool.log_path))
            wait_until(lambda: maildir_empty(queue), 20, "the queue is empty")
            refuse_unhandled(queue)
        return rate


def _by_postfix(base: str, messages: int, limit: str) -> float:
    if os.geteuid() != 0 or not (postfix.DAEMONS / "master").exists():
        raise Unavailable("a Postfix of our own needs root and its package: apt-get install postfix")
    with (
        filesystem.fresh_directory(base) as directory,
        tempfile.TemporaryDirectory(prefix="postfix-") as folder,
        sink() as taking,
    ):
        home, queue, port = Path(folder), Path(directory, "spool"), free_port()
        settings = _SETTINGS.format(sink=taking.port, limit=limit)
        with postfix.running(home, queue, port, settings) as pid, open(home / "master.cf", "a") as master:
            _fill_postfix(port, messages)
            filesystem.settle_disk(directory)
            master.write(_SENDING)
            master.flush()
            return _clock(messages, lambda: os.kill(pid, signal.SIGHUP), taking, home / "log")


def _fill_postfix(port: int, messages: int) -> None:
    """They stay in `incoming/` while there is no queue manager."""
    program, env = native.postfix_program("smtp-source")
    command = [program, "-d", "-s", "20", "-m", str(messages), "-l", str(ENTRY_BYTES)]
    command += ["-f", "sender@example.org", "-t", RECIPIENT, f"127.0.0.1:{port}"]
    subprocess.run(command, env=env, check=True, timeout=_SECONDS)
