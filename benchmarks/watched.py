"""What it costs a worker to be watched: metrics, a scrape a second, two open pages, queues that are bad to look at."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from benchmarks import filesystem, processes
from benchmarks.drain import maildir_empty
from benchmarks.figures import Figure, Limit, interleave
from benchmarks.filler import fill
from benchmarks.places import PYTHON
from benchmarks.product import Pool, environment, wait_until
from maildefer.maildir.layout import create_queue
from maildefer.maildir.operator.pause_mark import pause_queue

WORKERS = 2
UNCOUNTED, ALONE, WATCHED = "no metrics", "nobody looks", "a scrape a second, two pages"
LIMITS = {f"{WATCHED}, beside {ALONE}": Limit(bound=1.02, at_most=True)}
_EVIL = "\x1b[2J\u202e<b>"


def measure(quick: bool) -> list[Figure]:
    """Processor time of the workers for a message, beside a full queue: a million waiting, 100,000 dead letters."""
    entries, rounds, waiting, dead = (4_000, 3, 20_000, 5_000) if quick else (60_000, 9, 1_000_000, 100_000)
    with filesystem.ext4() as base, filesystem.tmpfs() as memory:
        full = _fill_up(f"{memory}/full", waiting, dead)
        contenders = {
            name: partial(_microseconds, base, full, entries, name) for name in (UNCOUNTED, ALONE, WATCHED)
        }
        samples = interleave(contenders, rounds, note=print)
    beside = {
        f"{name}, beside {other}": [a / b for a, b in zip(samples[name], samples[other], strict=True)]
        for name, other in ((ALONE, UNCOUNTED), (WATCHED, ALONE))
    }
    case = f"{entries:,} messages, {waiting:,} waiting, {dead:,} dead"
    return [
        *(_figure(case, name, "µs/msg", taken) for name, taken in samples.items()),
        *(_figure(case, name, "times", ratios, LIMITS.get(name)) for name, ratios in beside.items()),
    ]


def _fill_up(path: str, waiting: int, dead: int) -> str:
    """A paused queue with so many entries, all links to one file, some of whose names are no text for a terminal."""
    layout = create_queue(path)
    pause_queue(layout, user="", host="")
    with open(f"{layout.tmp}/one", "wb") as file:
        file.write(b"Subject: x\n\n")
    for folder, count in ((layout.new, waiting), (layout.dead_new, dead)):
        for number in range(count):
            word = _EVIL if number % 10 == 0 else ""
            os.link(f"{layout.tmp}/one", f"{folder}/1700000000.M{number}P1Q1Rab{word}.bench")
    os.unlink(f"{layout.tmp}/one")
    return layout.path


def _microseconds(base: str, full: str, entries: int, name: str) -> float:
    with filesystem.fresh_directory(base) as directory:
        queue = create_queue(f"{directory}/queue").path
        os.environ |= {
            "WATCHED_QUEUE": queue,
            "WATCHED_FULL": full,
            "MAILDEFER_HEALTH": "off" if name == UNCOUNTED else "",
        }
        with Pool(None, workers=WORKERS, application="watched") as pool:
            pool.pause()
            fill(queue, entries)
            filesystem.settle_disk(base)
            with (
                _watchers(pool, queue, full, len(os.listdir(f"{full}/new")) / 1e5)
                if name == WATCHED
                else _nobody()
            ):
                workers = processes.by_role(pool.pid)["worker"]
                before = sum(map(processes.own_cpu_ns, workers))
                pool.resume()
                wait_until(lambda: maildir_empty(queue), 60 + entries / 1_000, "the drain", 0.05)
                used = sum(map(processes.own_cpu_ns, workers)) - before
    return used / entries / 1_000


@contextmanager
def _watchers(pool: Pool, queue: str, full: str, settle_seconds: float) -> Iterator[None]:
    """Scrape each second, and keep two pages open."""
    ended = threading.Event()
    page = subprocess.Popen(
        [PYTHON, "-m", "maildefer.cli", "web", queue, full, "--socket", f"{pool.directory}/web.sock"],
        cwd=pool.directory,
        env=environment(pool.directory, None),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for name in ("health.sock", "web.sock"):
            wait_until(partial(_answers, f"{pool.directory}/{name}"), 30, f"{name} answers", 0.05)
        threads = [threading.Thread(target=_scrape, args=(f"{pool.directory}/health.sock", ended))]
        streams = [_request(f"{pool.directory}/web.sock", "/news") for _ in range(2)]
        threads += [threading.Thread(target=_read_all, args=(stream,)) for stream in streams]
        for thread in threads:
            thread.start()
        time.sleep(
            settle_seconds
        )  # the first looks are taken at once, and later ones in a twentieth of the time
        yield
        ended.set()
        for stream in streams:
            assert stream.sock is not None
            stream.sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
    finally:
        ended.set()
        page.kill()
        page.wait()


@contextmanager
def _nobody() -> Iterator[None]:
    yield


def _scrape(path: str, ended: threading.Event) -> None:
    while not ended.wait(1.0):
        connection = _request(path, "/metrics")
        text = connection.getresponse().read()
        if b"maildefer_attempts_total" not in text:
            raise RuntimeError("the metrics have no attempts")


def _read_all(connection: http.client.HTTPConnection) -> None:
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"the page has no news: {response.status}")
    with suppress(http.client.IncompleteRead):  # at the end
        while response.read1(1 << 16):
            pass


def _answers(path: str) -> bool:
    try:
        return bool(_request(path, "/").getresponse().status)
    except OSError:
        return False


def _request(path: str, target: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(60)
    connection.sock.connect(path)
    connection.request("GET", target)
    return connection


def _figure(case: str, name: str, unit: str, samples: list[float], limit: Limit | None = None) -> Figure:
    return Figure(benchmark="watched", case=case, name=name, unit=unit, samples=samples, limit=limit)
