"""What a person should be told before asking: found in the looks, and handed to a command of the settings."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

from maildefer import events
from maildefer.control import health
from maildefer.control.local_processes import LocalStatus
from maildefer.control.queue_status import EntryCounts
from maildefer.host.bounded_async import call_bounded
from maildefer.host.identity import this_host
from maildefer.monitoring.looks import Found, Looks, queue_name
from maildefer.untrusted import number, objects

_LOOK_SECONDS: Final = 2.0
_AGAIN_SECONDS: Final = 60.0
_YOUNG_SECONDS: Final = 30.0  # what a pool counted before was counted while nobody looked
_MOST_WAITING: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One thing to tell; all further ones of its kind are told together, once a minute."""

    event: str
    text: str
    queue: str = ""
    key: str = ""
    handler: str = ""
    count: int = 1


async def watch(looks: Looks, config: Mapping[str, Any]) -> None:
    """Look every other second, and have the command told what is new, until this is cancelled."""
    finder, command = AlertFinder(config), AlertCommand(config)
    running = asyncio.ensure_future(command.run())
    try:
        while not running.done():
            process = await looks.process.result()
            paths = process.record.queues if isinstance(process, LocalStatus) else ()
            queues = await looks.queues(paths)
            for alert in finder.find(process, queues, asyncio.get_running_loop().time()):
                command.add(alert)
            await asyncio.sleep(_LOOK_SECONDS)
        running.result()
    finally:
        running.cancel()


class AlertFinder:
    """Finds what is new since the last look."""

    def __init__(self, limits: Mapping[str, Any]) -> None:
        self._limits = limits
        self._counted: dict[tuple[object, ...], float] | None = None  # None: nothing was looked at yet
        self._lasting: set[tuple[object, ...]] = set()
        self._next: dict[tuple[object, ...], float] = {}

    def find(self, process: Found, queues: Mapping[str, Found], now: float) -> Iterator[Alert]:
        """Yield what is to be told at this time; of a process or queue that does not answer, nothing is known."""
        self._next = {name: then for name, then in self._next.items() if then > now}
        if isinstance(process, LocalStatus) and process.status is not None:
            yield from self._of_counts(process.status, now)
            refused = "".join(health.why_reload_refused(process.status))
            self._lasting -= {name for name in self._lasting if name[0] == "reload" and name[1] != refused}
            alert = Alert(event="reload_refused", text=refused)
            yield from self._lasts(("reload", refused), bool(refused), now, alert)
        for path, found in queues.items():
            if isinstance(found, EntryCounts):
                yield from self._of_queue(queue_name(path, process), found, now)

    def _of_counts(self, status: Mapping[str, Any], now: float) -> Iterator[Alert]:
        counts = {
            tuple(one.get(name) for name in ("queue", "event", "kind", "handler")): one
            for one in objects(status.get("notable"))
        }
        if self._counted is None:
            is_young = number(status.get("up_seconds")) < _YOUNG_SECONDS
            before = {} if is_young else counts
            self._counted = {name: number(one.get("count")) for name, one in before.items()}
        for name, one in counts.items():
            new = number(one.get("count")) - self._counted.get(name, 0)
            if new > 0 and name not in self._next:
                self._counted[name] = number(one.get("count"))
                self._next[name] = now + _AGAIN_SECONDS
                first, _, rest = str(one.get("last")).partition("\n")
                if one.get("event") == "fenced":
                    if ("fenced", first) in self._next:  # the same host, in another queue
                        continue
                    self._next["fenced", first] = now + _AGAIN_SECONDS
                texts = {"buried": (rest or first, first), "fenced": (f"the lease {first} was fenced", "")}
                text, key = texts.get(str(one.get("event")), (first, ""))
                facts = {part: str(one.get(part) or "") for part in ("event", "queue", "handler")}
                yield Alert(**facts, text=text, key=key, count=int(new))

    def _of_queue(self, name: str, found: EntryCounts, now: float) -> Iterator[Alert]:
        age, free = found.oldest_seconds or 0.0, found.free_bytes
        text = f"the oldest of {found.waiting} was pushed {age:.0f} s ago"
        old = Alert(event="queue_old", queue=name, text=text)
        full = Alert(event="disk_nearly_full", queue=name, text=f"{free} bytes are free")
        yield from self._lasts(("old", name), age > self._limits["oldest_seconds"], now, old)
        is_full = free is not None and free < self._limits["free_bytes"]
        yield from self._lasts(("full", found.filesystem or name), is_full, now, full)
        down = {("down", name, one.destination): one for one in found.down if one.is_server}
        self._lasting -= {what for what in self._lasting if what[:2] == ("down", name) and what not in down}
        for what, one in down.items():
            text = f"{one.destination} is down for {one.seconds:.0f} s: {one.words}"
            alert = Alert(event="destination_down", queue=name, text=text)
            yield from self._lasts(what, one.seconds > self._limits["down_seconds"], now, alert)

    def _lasts(self, name: tuple[object, ...], is_so: bool, now: float, alert: Alert) -> Iterator[Alert]:
        """Tell once of what lasts, and again only after it was over, a minute later at the earliest."""
        if not is_so:
            self._lasting.discard(name)
        elif name not in self._lasting and name not in self._next:
            self._lasting.add(name)
            self._next[name] = now + _AGAIN_SECONDS
            yield alert


class AlertCommand:
    """Runs the command, once at a time; what it does, and whether it does anything, holds up nothing else."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._waiting: deque[tuple[Alert, float]] = deque(maxlen=_MOST_WAITING)
        self._any = asyncio.Event()

    def add(self, alert: Alert) -> None:
        """Have an alert told in its turn; of very many that wait, the oldest are dropped."""
        if len(self._waiting) == _MOST_WAITING:
            events.emit(
                "alert.failed", alert=self._waiting[0][0].event, error="too many wait for the command"
            )
        self._waiting.append((alert, round(time.time(), 3)))
        self._any.set()

    async def run(self) -> None:
        """Tell all, until this is cancelled."""
        seconds = self._config["timeout_seconds"]
        while True:
            await self._any.wait()
            self._any.clear()
            while self._waiting:
                alert, when = self._waiting.popleft()
                told = asdict(alert) | {"host": this_host().label, "time": when}
                run = partial(_execute, self._config["command"], self._config["project"], told, seconds)
                try:
                    error = await call_bounded(run, seconds + 5.0)
                except OSError as fault:
                    error = fault
                facts = {"alert": alert.event, "queue": alert.queue or None}
                if error:
                    events.emit("alert.failed", **facts, error=str(error))
                else:
                    events.emit("alert.told", **facts, count=alert.count)


def _execute(argv: list[str], project: str, facts: dict[str, object], seconds: float) -> str:
    """Run the command in a child of the monitor; says what went wrong with it, if anything did."""
    told = {f"ALERT_{name.upper()}": _plain(str(value)) for name, value in facts.items()}
    try:
        process = subprocess.Popen(
            argv,
            cwd=project,
            env={**os.environ, **told},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as fault:
        return f"{argv[0]} can't be executed: {fault.strerror}"
    try:
        process.communicate(json.dumps(facts).encode(), timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"{argv[0]} took longer than {seconds:g} s, and was killed"
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # and what it has left running
        except ProcessLookupError:
            pass
    code = process.returncode
    return "" if code == 0 else f"{argv[0]} ended with {code}"


def _plain(text: str) -> str:
    """A text that the environment can hold."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "backslashreplace").decode()
