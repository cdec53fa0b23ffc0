"""Stopping the processes that pid files name: of this host by a signal, of other hosts by a request.

No process is signalled that is not verified to be the very one that wrote the file.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from maildefer.control.local_processes import PidFileStatus, remove_pidfile
from maildefer.control.stop_requests import StopRequests
from maildefer.control.stop_steps import StopStep
from maildefer.host.linux.pidfd import PidfdProcess, wait_any

_GLANCE_SECONDS: Final = 0.2
_AFTER_QUIT_SECONDS: Final = 5.0
_AFTER_KILL_SECONDS: Final = 5.0


def stop(
    found: Iterable[PidFileStatus],
    *,
    timeout_seconds: float = 40.0,
    kill: bool = False,
    this_host_only: bool = False,
) -> Iterator[StopStep]:
    """Ask all of them to end, wait for all together, and yield each step when it happens.

    `kill` ends a process of this host that has not ended in time by KILL: its children die with it, and what they had
    in hand is reclaimed, charged. So a supervisor is sent QUIT before, at which it ends at once and releases that
    uncharged. Other hosts' supervisors can only be asked. The command failed if any step did.
    """
    local: list[_Local] = []
    remote = StopRequests()
    for item in found:
        match item.verdict:
            case "running":
                yield from _signal(item, local)
            case "stale":
                yield _tidy(item)
            case "other-host" if this_host_only:
                yield StopStep.of(item, "skipped", f"left alone: it belongs to host {item.process.host}")
            case "unproven" if this_host_only:
                text = "left alone: it is of this host before its boot, or of a clone of it"
                yield StopStep.of(item, "skipped", text)
            case "other-host" | "unproven":
                yield from remote.begin(item)
            case "unverified":
                text = f"does not say whose process {item.process.pid} is: if it is what you mean, `kill` it yourself"
                if item.problem:
                    text = f"unverified: names process {item.process.pid} of {item.process.host}, and {item.problem}"
                yield StopStep.of(item, "unverified", text)
            case "unusable" | "no-answer":
                yield StopStep(path=item.path, what=item.verdict, text=item.problem)
    deadline = time.monotonic() + timeout_seconds
    while (local or remote) and time.monotonic() < deadline:
        yield from _await_local(local, min(_GLANCE_SECONDS, max(deadline - time.monotonic(), 0)))
        yield from remote.look()
    yield from _give_up(local, kill, timeout_seconds)
    yield from remote.give_up(timeout_seconds)


@dataclass(slots=True)
class _Local:
    found: PidFileStatus
    process: PidfdProcess


def _signal(item: PidFileStatus, local: list[_Local]) -> Iterator[StopStep]:
    pid = item.process.pid
    try:
        process = PidfdProcess(pid, item.process.start_time)
        process.send(signal.SIGTERM)
        # Somebody may have stopped it (SIGSTOP), and then it would not hear of the TERM. systemd does the same.
        process.send(signal.SIGCONT)
    except ProcessLookupError:
        yield _tidy(item)
    except PermissionError:
        text = f"process {pid} belongs to another user: stop it as that one, or as root"
        yield StopStep.of(item, "refused", text)
    else:
        local.append(_Local(item, process))
        yield StopStep.of(item, "signalled", f"process {pid} was sent TERM")


def _tidy(item: PidFileStatus) -> StopStep:
    """Remove the pid file of a process of this host that has ended."""
    process = item.process
    if process.foreign:
        # Perhaps another host's: it does not say.
        text = f"names process {process.pid}, which this host does not have, and no host: remove it yourself"
        return StopStep.of(item, "unverified", text)
    if problem := remove_pidfile(item):
        text = f"process {process.pid} has ended, but its pid file is still there: {problem}"
        return StopStep.of(item, "refused", text)
    return StopStep.of(item, "removed", f"process {process.pid} had ended already; its pid file was removed")


def _await_local(local: list[_Local], seconds: float) -> Iterator[StopStep]:
    if not local:
        time.sleep(seconds)
        return
    ended = wait_any([waiting.process for waiting in local], seconds)
    for waiting in [waiting for waiting in local if waiting.process in ended]:
        local.remove(waiting)
        waiting.process.close()
        # Its keeper removes it as a rule. If not, and the mount hangs, a stale file does no harm.
        remove_pidfile(waiting.found)
        yield StopStep.of(waiting.found, "stopped", f"process {waiting.found.process.pid} has ended")


def _await_all(local: list[_Local], seconds: float) -> Iterator[StopStep]:
    deadline = time.monotonic() + seconds
    while local and time.monotonic() < deadline:
        yield from _await_local(local, _GLANCE_SECONDS)


def _give_up(local: list[_Local], kill: bool, waited: float) -> Iterator[StopStep]:
    if kill:
        pools = [waiting for waiting in local if waiting.found.process.kind == "supervise"]
        for waiting in pools:
            with suppress(ProcessLookupError):  # just in time
                waiting.process.send(signal.SIGQUIT)
        yield from _await_all(local, _AFTER_QUIT_SECONDS if pools else 0)
        for waiting in local:
            pid = waiting.process.pid
            try:
                waiting.process.send(signal.SIGKILL)
            except ProcessLookupError:  # just in time
                continue
            text = f"process {pid} would not stop within {waited:g} s and was killed"
            yield StopStep.of(waiting.found, "killed", text)
        yield from _await_all(local, _AFTER_KILL_SECONDS)
    for waiting in local:
        waiting.process.close()
        hint = "not even by KILL: it hangs in the kernel"
        if not kill:
            hint = f"within {waited:g} s: --force kills it"
        text = f"process {waiting.process.pid} would not stop {hint}"
        yield StopStep.of(waiting.found, "would-not-stop", text)
