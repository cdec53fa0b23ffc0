"""`python -m benchmarks.chaos`: two hosts on one directory, whose processes are killed and frozen all the time.

Each means of maildefer is a kind of message in `chaos_loads`, with a handler in `applications/chaos/workers`; what it
promises besides that nothing is lost is judged in `chaos_means`.

Ten kills a second: workers, and at times a keeper, a scout, a process of a front end, a supervisor or a whole host.
It prints what happened, and ends with 1 if a message was lost, left over, buried without reason, or handled once more
than dead workers and claims lost in the frost account for; or if `maildefer audit` says anything but that all is
proven. The random choices come from a seed, which is printed; the timing does not.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import filesystem, processes
from benchmarks.chaos_faults import Faults
from benchmarks.chaos_loads import PushLoad, RequestLoad
from benchmarks.chaos_means import MeansFacts
from benchmarks.chaos_sending import SendingFacts
from benchmarks.chaos_verdict import Facts, Verdict, judge
from benchmarks.mail_load import Door, MailLoad
from benchmarks.places import APPLICATIONS, Unavailable
from maildefer.control.audit import audit
from maildefer.maildir import scan
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName
from maildefer.maildir.operator.entries import list_entries, requeue
from maildefer.maildir.reasons import read_reason
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import TTL_SECONDS, Project, eventually
from tests.support import next_server

HOSTS = ("a", "b")
WORKERS = 4  # on each
KILLS_PER_SECOND = 10.0
RATE = 333.0  # messages a second, where nothing else is said
REQUESTS = 0.02  # for each message, by HTTP with an Idempotency-Key
TOKEN = "a-token-for-the-chaos"
MAIL = 0.2  # of the messages comes by SMTP
CONNECTIONS = 4
PUSHING = 0.7  # of the time: the rest is for the backlog
BUSY = 0.6  # of the workers' time goes to handlers, the rest to dying and being born
PATIENCE = 10  # times the planned time, then what is still there is left over
LEAST_PATIENCE_SECONDS = 420.0  # a busy machine may need three minutes for a thousand messages
REST_SECONDS = 120.0  # what waits for a limit, and whose keeper has died, waits for up to a minute at a time


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument(
        "--seconds", type=float, help=f"how long handling them is to take, about ({RATE:g} messages a second)"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument(
        "--directory", help="where to do it, and leave everything (a tmpfs, and nothing is left)"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    print(
        f"chaos: {options.messages} messages, {len(HOSTS)} hosts of {WORKERS} workers, seed {options.seed}",
        flush=True,
    )
    with _directory(options.directory) as directory:
        verdict = run(
            Path(directory),
            options.messages,
            options.seconds or options.messages / RATE,
            options.seed,
            progress=sys.stdout.isatty(),
        )
    print(verdict.table())
    return int(bool(verdict.violations))


def run(directory: Path, messages: int, seconds: float, seed: int, *, progress: bool = False) -> Verdict:
    """Push, handle and kill until everything is handled; then judge."""
    chaos = Chaos(directory, messages, seconds, seed)
    try:
        return chaos.run(progress)
    finally:
        chaos.end()


class Chaos:
    """One run."""

    def __init__(self, directory: Path, messages: int, seconds: float, seed: int) -> None:
        self._messages, self._seconds = messages, seconds
        self._project = Project(
            directory, APPLICATIONS / "chaos", queues=("run/queue", "run/ticks", "run/outgoing"), journal=True
        )
        self._context = ExitStack()
        self._next_server = self._context.enter_context(next_server.running())
        (directory / "journal").mkdir()
        token_file = directory / "tokens"
        token_file.touch(0o600)
        token_file.write_text(f"{TOKEN}\n")
        handler_seconds = seconds * BUSY * len(HOSTS) * WORKERS / messages
        environ = {
            "CHAOS_HANDLER_SECONDS": f"{handler_seconds:.6f}",
            "CHAOS_NEXT_PORT": str(self._next_server.port),
        }
        self._pools = [
            Pool(self._project, host=host, workers=WORKERS, environ=environ, intake=True) for host in HOSTS
        ]
        self._faults = Faults(random.Random(seed), self._pools)
        self._doors = [Door(pool.log_path) for pool in self._pools]
        by_mail = int(messages * MAIL) // CONNECTIONS
        every = seconds * PUSHING / (by_mail or 1)
        self._mail = [
            MailLoad(partial(self._door, number), lambda: "chaos@test", by_mail, every)
            for number in range(CONNECTIONS)
        ]
        doors = [Door(pool.log_path, "web") for pool in self._pools]
        requests = max(CONNECTIONS, int(messages * REQUESTS))
        self._requests = RequestLoad(
            doors, TOKEN, requests, seconds * PUSHING / requests, random.Random(seed)
        )
        self._pushes = PushLoad(self._project, messages - by_mail * CONNECTIONS, seconds * PUSHING)
        self._loads: list[PushLoad | RequestLoad | MailLoad] = [self._pushes, self._requests, *self._mail]
        self._halt = threading.Event()
        self._requeued = 0

    def run(self, progress: bool) -> Verdict:
        began = time.monotonic()
        for pool in self._pools:
            pool.start()
        for pool in self._pools:
            pool.await_ready()
        senders = [load.thread for load in self._loads]
        for thread in senders:
            thread.start()
        self._strike_until_handled(senders, progress)
        for load in self._loads:
            load.stop()
        for thread in senders:
            thread.join()
        self._faults.end()
        self._settle()
        survivors = self._survivors()
        codes = [pool.stop(60) for pool in self._pools]
        return judge(self._facts(survivors, codes, time.monotonic() - began))

    def _survivors(self) -> dict[int, float]:
        """The workers that live, and when each began."""
        found = {}
        for pid in [pid for pool in self._pools for pid in pool.worker_pids()]:
            try:
                found[pid] = processes.began(pid)
            except OSError:  # one that was killed at the very last, and has ended by now
                continue
        return found

    def end(self) -> None:
        """Leave no process behind, whatever happened."""
        self._halt.set()
        for load in self._loads:
            load.stop()
        for pool in self._pools:
            if pool.process is not None and pool.process.poll() is None:
                pool.kill_tree()
        self._context.close()

    def _door(self, number: int) -> int | None:
        """Each sender has one host's front end; it hears where that listens now."""
        return self._doors[number % len(self._doors)].port()

    def _strike_until_handled(self, senders: list[threading.Thread], progress: bool) -> None:
        now = began = shown = due = time.monotonic()
        while any(thread.is_alive() for thread in senders) or not self._project.is_empty():
            if now - began > max(self._seconds * PATIENCE, LEAST_PATIENCE_SECONDS):
                return
            due += 1 / KILLS_PER_SECOND
            self._halt.wait(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            self._faults.strike(now)
            if progress and now - shown > 1:
                shown = now
                sys.stdout.write(f"\r{now - began:4.0f} s, {len(self._keys())} accepted ")
                sys.stdout.flush()
        if progress:
            print()

    def _keys(self) -> list[str]:
        return [
            *self._pushes.keys,
            *(key for load in self._mail for key in load.told.keys),
            *self._requests.keys(),
        ]

    def _settle(self) -> None:
        """Let the pools finish in peace: whatever still lies about afterwards is left over."""
        for pool in self._pools:
            pool.await_ready()
        self._requeue(self._project.layouts["run/outgoing"])
        try:
            eventually(self._project.is_empty, "all is handled", REST_SECONDS)
            eventually(
                lambda: len(self._project.leases()) == len(HOSTS), "old leases are fenced", TTL_SECONDS * 5
            )
        except AssertionError as failure:
            print(failure)

    def _facts(self, survivors: dict[int, float], codes: list[int], seconds: float) -> Facts:
        events = [event for pool in self._pools for event in _events(pool.log_path)]
        named = Counter(event["event"] for event in events)
        return Facts(
            project=self._project,
            pushed=self._keys(),
            wanted=self._messages,
            means=MeansFacts(
                unique=self._pushes.unique,
                answers=self._requests.answers,
                unanswered=self._requests.unanswered,
                fenced={
                    int(event["lease"].rsplit("-", 2)[1]): _monotonic(event)
                    for event in events
                    if event["event"] == "lease.fenced"
                },
                overlapped={
                    event["pid"]: _monotonic(event)
                    for event in events
                    if event["event"] == "limit.overlapped"
                },
                thawed=self._faults.thawed,
            ),
            sending=self._sending(),
            doubtful=sum(load.told.doubtful for load in self._mail),
            survivors=survivors,
            acked=[event["key"] for event in events if event.get("outcome") == "acked"],
            lost_claims=[
                EntryName.parse(event["name"]).key for event in events if event["event"] == "claim.lost"
            ],
            audited=audit([self._project.queue.path], timeout_seconds=10),
            instants=[event["instant"] for event in events if event["event"] == "tick.pushed"],
            counts={
                **self._faults.counts,
                "messages accepted by SMTP": sum(len(load.told.keys) for load in self._mail),
                "sent by SMTP without a good reply": sum(load.told.doubtful for load in self._mail),
                "leases fenced": named["lease.fenced"],
                "worker deaths told by supervisors": named["worker.died"],
            },
            exit_codes=codes,
            seconds=seconds,
        )

    def _sending(self) -> SendingFacts:
        outgoing = self._project.layouts["run/outgoing"]
        taken = [one.lower() for _, recipients, _ in self._next_server.messages for one in recipients]
        return SendingFacts(
            keys=self._pushes.sending,
            copies=Counter(taken),
            requeued=self._requeued,
            buried=[read_reason(outgoing, found.entry) for found in list_entries(outgoing, "dead")],
            left=sum(scan.count(path) for path in (outgoing.new, outgoing.cur, outgoing.later_new)),
            suspects=audit([outgoing.path], timeout_seconds=10).suspects,
        )

    def _requeue(self, queue: Layout) -> None:
        """Have what has met with too many deaths tried once more."""
        for found in list(list_entries(queue, "dead")):
            if read_reason(queue, found.entry).get("error") == "crash limit":
                requeue(queue, found)
                self._requeued += 1


def _events(log_path: Path) -> Iterator[dict[str, Any]]:
    """The log, but for lines in which their writer was killed."""
    with log_path.open(errors="replace") as log:
        for line in log:
            try:
                yield json.loads(line)
            except ValueError:
                continue


def _monotonic(event: Mapping[str, Any]) -> float:
    """When it was logged, on the monotonic clock; the wall clock is not set meanwhile."""
    return datetime.fromisoformat(event["ts"]).timestamp() - time.time() + time.monotonic()


@contextmanager
def _directory(chosen: str | None) -> Iterator[str]:
    if chosen:
        Path(chosen).mkdir(parents=True)
        yield chosen
        return
    try:
        with filesystem.tmpfs() as base:
            yield base
    except Unavailable:
        with tempfile.TemporaryDirectory(prefix="maildefer-chaos-") as base:
            yield base


if __name__ == "__main__":
    sys.exit(main())
