"""The probe: a child that loads the application and describes it, since the supervisor imports no user code.

Also the watch on its source files, by which it is known when to probe again.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from maildefer.errors import ConfigurationError
from maildefer.handling.periodic.table import PeriodicTask, task_in
from maildefer.handling.project.settings import PoolSettings
from maildefer.host.linux.readiness import await_readable
from maildefer.maildir.system import boottime
from maildefer.pool.fork import spawn

LIMIT_SECONDS = 60.0
_CHECK_SECONDS = 1.0  # of files
_MOST_BYTES: Final = 64 << 20  # hundreds of thousands of routes
_PLAIN: Final[dict[object, type | tuple[type, ...]]] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
}
_MOST: Final = 1e300  # beyond, sums overflow; NaN is not less either
_COMPOSED: Final = (dict, list, type(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedRoute:
    """A route of one queue."""

    queue: str
    pattern: str
    stateless: bool
    timeout_seconds: float | None = None  # the handler's own time limit
    exclusive: bool = False  # a `@batch` with one call at a time on all hosts
    limits: tuple[str, ...] = ()  # what its `@concurrency` and `@rate` say
    is_async: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """An application as the probe has found it."""

    settings: PoolSettings
    routes: tuple[ProbedRoute, ...]  # in the order in which they are tried
    periodic: tuple[PeriodicTask, ...] = ()
    files: tuple[str, ...]  # of the source
    reload: bool  # whether it is to be loaded anew when these change
    front_end_fault: str = ""  # why a front end can't use its settings, or a file that they name


class Probe:
    """A probe under way in a child; polled by the supervisor's loop, which never waits for it."""

    def __init__(self, project: str, limit_seconds: float = LIMIT_SECONDS) -> None:
        self._reader, writer = os.pipe2(os.O_CLOEXEC)
        self.pid = spawn([sys.executable, "-m", "maildefer.pool.probe_process"], cwd=project, stdout=writer)
        os.close(writer)
        os.set_blocking(self._reader, False)
        self._data = b""
        self._limit_seconds = limit_seconds
        self._deadline = boottime() + limit_seconds
        self._closed = False

    @property
    def descriptor(self) -> int:
        return self._reader

    def poll(self) -> ProbeReport | None:
        """Return the application once it is known; raises ConfigurationError if it is broken."""
        if boottime() > self._deadline:
            self.end()
            raise ConfigurationError(
                f"the application was not loaded within {self._limit_seconds:g} s: what does it wait for?"
            )
        while True:
            try:
                chunk = os.read(self._reader, 65536)
            except BlockingIOError:
                return None
            if not chunk:
                break
            self._data += chunk
            if len(self._data) > _MOST_BYTES:
                self.end(kill=True)
                raise ConfigurationError(
                    f"what loads the application said {_MOST_BYTES} bytes and more: what writes to its descriptors?"
                )
        self.end()
        return self._parsed()

    def wait(self) -> ProbeReport:
        """Wait for the application, at start, when there is nothing else to do.

        Raises ChildProcessError where the probe was killed, which says nothing of the application: a service manager
        is to try again, as it does not after exit code 78.
        """
        while True:
            await_readable(self._reader, 0.5)
            try:
                found = self.poll()
            except ConfigurationError as fault:
                if self._was_killed():
                    raise ChildProcessError(
                        "what loads the application was killed: is memory short?"
                    ) from fault
                raise
            if found is not None:
                os.waitpid(self.pid, 0)
                return found

    def _was_killed(self) -> bool:
        """Whether somebody else has killed it before it said anything."""
        if self._data or boottime() > self._deadline:
            return False
        process = os.pidfd_open(self.pid)
        await_readable(process, 1.0)  # its pipe is closed a moment before its end
        os.close(process)
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return ended is not None and (ended.si_code, ended.si_status) == (os.CLD_KILLED, signal.SIGKILL)

    def end(self, *, kill: bool = False) -> None:
        """Close the pipe; a probe that is late is killed. The supervisor reaps it."""
        if not self._closed:
            self._closed = True
            os.close(self._reader)
            if kill or boottime() > self._deadline:
                try:
                    os.kill(self.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass

    def _parsed(self) -> ProbeReport:
        if not self._data.endswith(b"\n"):  # half a line, or none
            raise ConfigurationError("the application ended its own process while being loaded")
        try:
            found = json.loads(self._data)
        except (ValueError, RecursionError):
            found = None
        match found:
            case {"error": str(text), "detail": str(detail)}:
                error = ConfigurationError(text)
                error.add_note(detail)
                raise error
            case dict() if _is_description(found):
                return _report_of(found)
        raise ConfigurationError(
            "what loads the application said what is no description of it: what writes to its descriptors?"
        )


class FileWatch:
    """Modification times of an application's source files, read once a second at most; without files, never."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = files
        self._times = self._read_times()
        self._next = boottime() + _CHECK_SECONDS

    def changed(self) -> bool:
        if not self._files or boottime() < self._next:
            return False
        self._next = boottime() + _CHECK_SECONDS
        before, self._times = self._times, self._read_times()
        return before != self._times

    def _read_times(self) -> list[float]:
        return [self._time(path) for path in self._files]

    @staticmethod
    def _time(path: str) -> float:
        try:
            return os.stat(path).st_mtime
        except OSError:  # being replaced by an editor
            return 0.0


def _report_of(found: dict[str, Any]) -> ProbeReport:
    return ProbeReport(
        settings=PoolSettings.from_json(found["settings"]),
        routes=tuple(
            ProbedRoute(
                queue=route["queue"],
                pattern=route["pattern"],
                stateless=route["stateless"],
                timeout_seconds=route["timeout_seconds"],
                exclusive=route["exclusive"],
                limits=tuple(route["limits"]),
                is_async=route["async"],
            )
            for route in found["routes"]
        ),
        periodic=tuple(filter(None, map(task_in, found.get("periodic", ())))),
        files=tuple(found["files"]),
        reload=bool(found.get("reload")),
        front_end_fault=str(found.get("front_end_fault", "")),
    )


def _is_description(found: dict[str, Any]) -> bool:
    """Whether all that is read later is of its type: the process that wrote it runs user code."""
    match found:
        case {"settings": {"queues": dict(served), **settings}, "routes": list(routes), "files": list(files)}:
            texts, periodic = [list(served), *served.values(), files], found.get("periodic", [])
            return (
                all(map(_are_texts, texts))
                and all(map(_is_route, routes))
                and isinstance(periodic, list)
                and None not in map(task_in, periodic)
                and _are_settings(settings)
            )
    return False


def _are_settings(found: Mapping[Any, Any]) -> bool:
    numbers = [value for value in found.values() if isinstance(value, int | float)]
    known = {field.name: _PLAIN.get(field.type, _COMPOSED) for field in fields(PoolSettings)}
    return all(abs(value) < _MOST for value in numbers) and all(
        isinstance(found.get(name), kind) for name, kind in known.items() if name != "queues"
    )


def _is_route(found: object) -> bool:
    match found:
        case {
            "queue": str(),
            "pattern": str(),
            "stateless": bool(),
            "exclusive": bool(),
            "async": bool(),
            "timeout_seconds": None | float() as seconds,
            "limits": list(limits),
        }:
            return (seconds is None or 0 < seconds < _MOST) and _are_texts(limits)
    return False


def _are_texts(found: object) -> bool:
    """Whether all are texts without NUL, with which no system call takes a path."""
    return isinstance(found, list | tuple) and all(isinstance(one, str) and "\0" not in one for one in found)
