"""Asking supervisors of other hosts to stop, through the mount, and watching their leases until they have.

A request may be lost, or reach a lease that has ended meanwhile, so it is filed again for as long as somebody waits.
Being asked twice to stop is being asked once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from maildefer.control.local_processes import PidFileStatus, remove_pidfile
from maildefer.control.pidfile_proof import is_trusted
from maildefer.control.requests import file_request, live_names, withdraw_request
from maildefer.control.stop_steps import StopStep
from maildefer.errors import (
    FormatUnknown,
    MaildeferError,
    NotRunning,
    PidFileUnusable,
    QueueMissing,
    StorageFault,
)
from maildefer.host import pidfile as pidfiles
from maildefer.host.bounded_call import TimedOut, bounded
from maildefer.host.pidfile import PidFile
from maildefer.maildir.layout import Format, Layout, read_format

_AGAIN_BEATS: Final = 3  # its keeper looks at each beat
_FAILED_SECONDS: Final = 1.0
_SLACK_SECONDS: Final = 0.2


@dataclass(slots=True)
class _StopRequest:
    """A supervisor that was asked, and what was seen of its lease since."""

    found: PidFileStatus
    lease: str
    filed: bool = False  # the request lay in a queue at least once
    problem: str = ""  # of the last request
    asked_at: float = 0.0  # monotonic, as all times here
    gone_since: float | None = None
    beats: set[int] = field(default_factory=set)
    first_seen: float | None = None  # with a lease
    last_seen: float = 0.0
    beat_seconds: float = Format().beat_seconds

    @property
    def whose(self) -> str:
        """The host of the supervisor, in words."""
        host = f"host {self.found.process.host}"
        return f"{host} (this one before its boot, or a clone)" if self.found.verdict == "unproven" else host

    @property
    def ask_at(self) -> float:
        """The time at which to ask again."""
        return self.asked_at + (_FAILED_SECONDS if self.problem else _AGAIN_BEATS * self.beat_seconds)


@dataclass(frozen=True, slots=True)
class _RemoteView:
    """What the mount shows of another host's process."""

    pidfile: PidFile | None
    beat: int | None  # of the lease; None: there is no such lease any more
    beat_seconds: float


class StopRequests:
    """All requests of one stop; true while any supervisor is still waited for."""

    def __init__(self) -> None:
        self._waiting: list[_StopRequest] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def begin(self, item: PidFileStatus) -> Iterator[StopStep]:
        """Ask the process for the first time."""
        process = item.process
        if process.lease is not None and process.queues:
            asked = _StopRequest(item, process.lease)
            self._waiting.append(asked)
            yield from _ask(asked, process, f"{asked.whose} was asked to stop process {process.pid}")
        elif item.verdict == "unproven":
            text = (
                f"names process {process.pid} of this host before its boot, or of a clone of it, and no lease to look "
                "for: remove the file if no clone of this host runs"
            )
            yield StopStep.of(item, "unverified", text)
        else:
            text = f"belongs to host {process.host} and has no keeper that could be asked: stop it there"
            yield StopStep.of(item, "no-keeper", text)

    def look(self) -> Iterator[StopStep]:
        """Yield the supervisors that have stopped meanwhile, and ask the others again from time to time."""
        for asked in tuple(self._waiting):
            view = bounded(partial(_view_remote, asked.found))
            if not isinstance(view, TimedOut) and view is not None:
                yield from self._judge(asked, view)

    def _judge(self, asked: _StopRequest, view: _RemoteView) -> Iterator[StopStep]:
        found, process = asked.found, asked.found.process
        if view.pidfile is None or not view.pidfile.same_process(process):
            self._end(asked)
            yield StopStep.of(found, "stopped", f"{asked.whose} has stopped process {process.pid}")
        elif view.pidfile.lease is not None and view.pidfile.lease != asked.lease:
            # It was fenced, and has joined anew: the old request reaches nobody.
            _withdraw(process, asked.lease)
            asked.lease, asked.gone_since, asked.filed = view.pidfile.lease, None, False
            text = f"{asked.whose} had joined anew, and was asked again to stop process {process.pid}"
            yield from _ask(asked, view.pidfile, text)
        elif view.beat is not None:
            asked.gone_since = None
            asked.beats.add(view.beat)
            asked.last_seen = time.monotonic()
            asked.first_seen = asked.first_seen or asked.last_seen
            asked.beat_seconds = view.beat_seconds
            if time.monotonic() >= asked.ask_at:
                text = f"{asked.whose} was asked to stop process {process.pid}"
                yield from _ask(asked, view.pidfile, text)
        elif asked.gone_since is None:
            asked.gone_since = time.monotonic()
        elif time.monotonic() - asked.gone_since > 2 * view.beat_seconds + _SLACK_SECONDS:
            # Two beats without joining anew: it has left, or died and was fenced.
            self._end(asked)
            remove_pidfile(found)  # or not: a stale file does no harm
            text = (
                f"{asked.whose} holds no lease for process {process.pid} any more; its pid file was removed"
            )
            yield StopStep.of(found, "stopped", text)

    def _end(self, asked: _StopRequest) -> None:
        self._waiting.remove(asked)
        _withdraw(asked.found.process, asked.lease)

    def give_up(self, waited: float) -> Iterator[StopStep]:
        """Yield the supervisors that have not stopped."""
        for asked in self._waiting:
            process = asked.found.process
            if not asked.filed:
                text = f"{asked.whose} can't be asked to stop process {process.pid}: {asked.problem}"
                yield StopStep.of(asked.found, "no-answer", text)
                continue
            text = (
                f"{asked.whose} has not stopped process {process.pid} within {waited:g} s; the request stands"
            )
            watched = asked.last_seen - (asked.first_seen or asked.last_seen)
            if len(asked.beats) == 1 and watched > 3 * asked.beat_seconds:
                text += (
                    "; its lease has not beaten meanwhile: if that host is down for good, remove the pid file"
                )
            yield StopStep.of(asked.found, "would-not-stop", text)


def _ask(asked: _StopRequest, process: PidFile, text: str) -> Iterator[StopStep]:
    """File the request, and report the first one that could be filed."""
    asked.problem = _request(process, asked.lease)
    asked.asked_at = time.monotonic()
    if not asked.problem and not asked.filed:
        asked.filed = True
        yield StopStep.of(asked.found, "requested", text)


def _request(process: PidFile, lease: str) -> str:
    """File the request in each queue, so that one that hangs does not matter; what went wrong if none took it."""
    problems: list[str] = []
    for queue in process.queues:
        try:
            if isinstance(bounded(partial(file_request, queue, lease, "stop")), TimedOut):
                problems.append(f"{queue} does not answer")
        except MaildeferError as error:
            problems.append(str(error))
    return "; ".join(problems) if len(problems) == len(process.queues) else ""


def _view_remote(found: PidFileStatus) -> _RemoteView | None:
    """Look at a lease once; None where the mount's answer proves nothing."""
    seconds, answered = Format().beat_seconds, False
    beats: list[int] = []
    try:
        current = pidfiles.read(found.path)
    except NotRunning:
        return _RemoteView(None, None, seconds)
    except PidFileUnusable:
        return None
    if not is_trusted(current):  # put in its place meanwhile
        return None
    for queue in current.queues:
        try:
            beats += [beat for name, beat in live_names(queue).items() if name == current.lease]
            answered = True
            seconds = read_format(Layout(queue)).beat_seconds
        except (QueueMissing, FormatUnknown):  # it may be gone, or not be mounted here
            pass
        except StorageFault:
            return None
    return _RemoteView(current, max(beats, default=None), seconds) if answered else None


def _withdraw(process: PidFile, lease: str) -> None:
    for queue in process.queues:
        try:
            bounded(partial(withdraw_request, queue, lease, "stop"))
        except (OSError, MaildeferError):  # a request nobody reads any more: untidy, nothing worse
            pass
