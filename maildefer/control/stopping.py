"""Stopping what pid files name: this host's processes by signal, other hosts' by a request through the mount.

Nobody is signalled who is not verified to be the very process that wrote the file.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

from maildefer.control.look import Found
from maildefer.control.requests import live_names, request, withdraw
from maildefer.errors import (
    FormatUnknown,
    MaildeferError,
    NotRunning,
    PidFileUnusable,
    QueueMissing,
    StorageFault,
)
from maildefer.host import pidfile as pidfiles
from maildefer.host.bounded import TimedOut, bounded
from maildefer.host.pidfile import PidFile
from maildefer.host.process import Process, wait_any
from maildefer.maildir.layout import Format, Layout, read_format

What = Literal[
    "signalled", "requested", "stopped", "removed", "killed", "skipped",  # as it should be
    "would-not-stop", "refused", "unverified", "no-keeper", "no-answer", "unusable",  # failed
]  # fmt: skip

FAILURES: Final[frozenset[What]] = frozenset(
    ("would-not-stop", "refused", "unverified", "no-keeper", "no-answer", "unusable")
)
_GLANCE_SECONDS: Final = 0.2
_AFTER_KILL_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that was done or found, as a line for the operator."""

    path: str
    what: What
    text: str
    pid: int | None = None
    host: str = ""

    @property
    def failed(self) -> bool:
        return self.what in FAILURES


def stop(
    found: Iterable[Found], *, timeout_seconds: float = 40.0, kill: bool = False, this_host_only: bool = False
) -> Iterator[Step]:
    """Ask all of them to end, wait for all together, and tell each step when it happens.

    `kill` ends a process of this host that has not ended in time by KILL; its children die with it, and what they had
    in hand is reclaimed. Other hosts' supervisors can only be asked. The command failed if any step did.
    """
    local: list[_Local] = []
    remote: list[_Remote] = []
    for item in found:
        match item.verdict:
            case "running":
                yield from _signal(item, local)
            case "stale":
                yield _tidy(item)
            case "other-host" if this_host_only:
                yield _step(item, "skipped", f"left alone: it belongs to host {item.process.host}")
            case "other-host":
                yield from _ask(item, remote)
            case "unverified":
                text = f"does not say whose process {item.process.pid} is: if it is what you mean, `kill` it yourself"
                yield _step(item, "unverified", text)
            case "unusable" | "no-answer":
                yield Step(path=item.path, what=item.verdict, text=item.problem)
    deadline = time.monotonic() + timeout_seconds
    while (local or remote) and time.monotonic() < deadline:
        yield from _await_local(local, min(_GLANCE_SECONDS, max(deadline - time.monotonic(), 0)))
        yield from _await_remote(remote)
    yield from _give_up(local, remote, kill, timeout_seconds)


@dataclass(slots=True)
class _Local:
    found: Found
    process: Process


@dataclass(slots=True)
class _Remote:
    found: Found
    lease: str
    gone_since: float | None = None
    beats: set[int] = field(default_factory=set)  # that were seen of it meanwhile
    beat_seconds: float = Format().beat_seconds


@dataclass(frozen=True, slots=True)
class _Glance:
    """What the mount shows of another host's process."""

    pidfile: PidFile | None
    beat: int | None  # of the lease; None: there is no such lease any more
    beat_seconds: float


def _step(item: Found, what: What, text: str) -> Step:
    return Step(path=item.path, what=what, text=text, pid=item.process.pid, host=item.process.host)


def _signal(item: Found, local: list[_Local]) -> Iterator[Step]:
    pid = item.process.pid
    try:
        process = Process(pid, item.process.start_time)
        process.send(signal.SIGTERM)
        # Somebody may have stopped it (SIGSTOP), and then it would not hear of the TERM. systemd does the same.
        process.send(signal.SIGCONT)
    except ProcessLookupError:
        yield _tidy(item)
    except PermissionError:
        yield _step(
            item, "refused", f"process {pid} belongs to another user: stop it as that one, or as root"
        )
    else:
        local.append(_Local(item, process))
        yield _step(item, "signalled", f"process {pid} was sent TERM")


def _tidy(item: Found) -> Step:
    """Remove the pid file of a process of this host that has ended."""
    process = item.process
    if process.foreign:
        # Perhaps another host's: it does not say.
        text = f"names process {process.pid}, which this host does not have, and no host: remove it yourself"
        return _step(item, "unverified", text)
    removed = _remove(item)
    if isinstance(removed, str):
        return _step(
            item, "refused", f"process {process.pid} has ended, but its pid file is still there: {removed}"
        )
    return _step(item, "removed", f"process {process.pid} had ended already; its pid file was removed")


def _remove(item: Found) -> str | None:
    """Remove the pid file if it still means that process; says what went wrong."""
    try:
        removed = bounded(lambda: pidfiles.remove(item.path, item.process))
    except (OSError, MaildeferError) as fault:
        return str(fault)
    return "the filesystem does not answer" if isinstance(removed, TimedOut) else None


def _ask(item: Found, remote: list[_Remote]) -> Iterator[Step]:
    process = item.process
    if process.lease is None or not process.queues:
        text = f"belongs to host {process.host} and has no keeper that could be asked: stop it there"
        yield _step(item, "no-keeper", text)
        return
    problem = _request(process, process.lease)
    if problem:
        yield _step(item, "no-answer", f"host {process.host} can't be asked to stop it: {problem}")
        return
    remote.append(_Remote(item, process.lease))
    yield _step(item, "requested", f"host {process.host} was asked to stop process {process.pid}")


def _request(process: PidFile, lease: str) -> str:
    """File the request in each queue, so that one that hangs does not matter; what went wrong if none took it."""
    problems: list[str] = []
    for queue in process.queues:
        try:
            if isinstance(bounded(partial(request, queue, lease, "stop")), TimedOut):
                problems.append(f"{queue} does not answer")
        except MaildeferError as error:
            problems.append(str(error))
    return "; ".join(problems) if len(problems) == len(process.queues) else ""


def _await_local(local: list[_Local], seconds: float) -> Iterator[Step]:
    if not local:
        time.sleep(seconds)
        return
    ended = wait_any([waiting.process for waiting in local], seconds)
    for waiting in [waiting for waiting in local if waiting.process in ended]:
        local.remove(waiting)
        waiting.process.close()
        # Its keeper removes it as a rule. If not, and the mount hangs, a stale file does no harm.
        _remove(waiting.found)
        yield _step(waiting.found, "stopped", f"process {waiting.found.process.pid} has ended")


def _await_remote(remote: list[_Remote]) -> Iterator[Step]:
    for waiting in tuple(remote):
        found, process = waiting.found, waiting.found.process
        glance = bounded(partial(_glance, found))
        if isinstance(glance, TimedOut) or glance is None:
            continue
        if glance.pidfile is None or not glance.pidfile.same_process(process):
            remote.remove(waiting)
            _withdraw(process, waiting.lease)
            yield _step(found, "stopped", f"host {process.host} has stopped process {process.pid}")
        elif glance.pidfile.lease is not None and glance.pidfile.lease != waiting.lease:
            # It was fenced, and has joined anew: the old request reaches nobody.
            _withdraw(process, waiting.lease)
            waiting.lease, waiting.gone_since = glance.pidfile.lease, None
            problem = _request(glance.pidfile, waiting.lease)
            text = f"host {process.host} had joined anew, and was asked again to stop process {process.pid}"
            yield _step(found, "requested", f"{text}: {problem}" if problem else text)
        elif glance.beat is not None:
            waiting.gone_since = None
            waiting.beats.add(glance.beat)
            waiting.beat_seconds = glance.beat_seconds
        elif waiting.gone_since is None:
            waiting.gone_since = time.monotonic()
        elif time.monotonic() - waiting.gone_since > 2 * glance.beat_seconds + _GLANCE_SECONDS:
            # Two beats without joining anew: it has left, or died and was fenced.
            remote.remove(waiting)
            _withdraw(process, waiting.lease)
            _remove(found)
            text = f"host {process.host} holds no lease for process {process.pid} any more; its pid file was removed"
            yield _step(found, "stopped", text)


def _glance(found: Found) -> _Glance | None:
    """None where the mount's answer proves nothing."""
    seconds = Format().beat_seconds
    beats: list[int] = []
    try:
        current = pidfiles.read(found.path)
    except NotRunning:
        return _Glance(None, None, seconds)
    except PidFileUnusable:
        return None
    for queue in current.queues:
        try:
            beats += [beat for name, beat in live_names(queue).items() if name == current.lease]
            seconds = read_format(Layout(queue)).beat_seconds
        except (QueueMissing, FormatUnknown):  # a queue that is gone has no leases
            pass
        except StorageFault:
            return None
    return _Glance(current, max(beats, default=None), seconds)


def _withdraw(process: PidFile, lease: str) -> None:
    for queue in process.queues:
        try:
            bounded(partial(withdraw, queue, lease, "stop"))
        except (OSError, MaildeferError):  # a request nobody reads any more: untidy, nothing worse
            pass


def _give_up(local: list[_Local], remote: list[_Remote], kill: bool, waited: float) -> Iterator[Step]:
    if kill:
        for waiting in local:
            pid = waiting.process.pid
            try:
                waiting.process.send(signal.SIGKILL)
            except ProcessLookupError:  # just in time
                continue
            yield _step(
                waiting.found, "killed", f"process {pid} would not stop within {waited:g} s and was killed"
            )
    deadline = time.monotonic() + (_AFTER_KILL_SECONDS if kill else 0)
    while local and time.monotonic() < deadline:
        yield from _await_local(local, _GLANCE_SECONDS)
    for waiting in local:
        waiting.process.close()
        hint = (
            "not even by KILL: it hangs in the kernel" if kill else f"within {waited:g} s: --force kills it"
        )
        yield _step(waiting.found, "would-not-stop", f"process {waiting.process.pid} would not stop {hint}")
    for asked in remote:
        process = asked.found.process
        text = f"host {process.host} has not stopped process {process.pid} within {waited:g} s; the request stands"
        if len(asked.beats) == 1 and waited > 3 * asked.beat_seconds:
            text += "; its lease has not beaten meanwhile: if that host is down for good, remove the pid file"
        yield _step(asked.found, "would-not-stop", text)
