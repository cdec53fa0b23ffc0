"""Asking pools for a reload, here by a signal and elsewhere through the mount, and waiting for their verdicts.

A pool numbers the requests for a reload, and its status has the number up to which it has answered: a command reads
that before its request, and waits for a higher one. So the probe whose verdict it shows began after the command.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from maildefer.control.local_processes import PidFileStatus, must_run, signal_process
from maildefer.control.requests import LiveLease, file_request, read_leases
from maildefer.errors import MaildeferError
from maildefer.host import status_socket
from maildefer.host.bounded_call import TimedOut, bounded

Outcome = Literal["accepted", "refused", "unknown"]

SECONDS: Final = 90.0  # a look may take 60
_POLL_SECONDS: Final = 0.1
_MOUNT_POLL_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadVerdict:
    """The answer of one process, or of one host's pool; `text` says it in words."""

    subject: str
    outcome: Outcome
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadRequest:
    """A process or pool that was asked, and the number up to which it had answered before."""

    subject: str
    answered: int | None  # None: it does not tell
    up_seconds: float = 0.0
    then: str = ": its workers are replaced one at a time"

    def verdict(self, outcome: Outcome, text: str) -> ReloadVerdict:
        return ReloadVerdict(subject=self.subject, outcome=outcome, text=text)


def reload_here(found: Iterable[PidFileStatus], seconds: float = SECONDS) -> Iterator[ReloadVerdict]:
    """Signal all of these processes, then yield the answer of each. Raises NotRunning, MaildeferError."""
    asked = [(one, _before(one)) for one in found]
    for one, _ in asked:
        signal_process(one, "reload")
    deadline = time.monotonic() + seconds
    for one, before in asked:
        yield _await_process(one, before, deadline, seconds)


def reload_there(queue: str, names: Iterable[str], seconds: float = SECONDS) -> Iterator[ReloadVerdict]:
    """Ask the pools with these leases, through the mount, then yield the answer of each as it comes.

    Raises QueueMissing, and StorageFault's kinds; MaildeferError where the mount hangs.
    """
    states = _states(queue)
    waiting: dict[str, ReloadRequest] = {}
    for name in names:
        if isinstance(bounded(lambda name=name: file_request(queue, name, "reload")), TimedOut):  # type: ignore[misc]
            raise MaildeferError(f"{queue} does not answer: its filesystem hangs")
        answer = _reload_answer(states[name].status.get("reload")) if name in states else None
        waiting[name] = ReloadRequest(subject=name, answered=answer[0] if answer else 0)
    deadline = time.monotonic() + seconds
    while waiting and time.monotonic() < deadline:
        time.sleep(_MOUNT_POLL_SECONDS)
        states = _states(queue)
        for name, asked in list(waiting.items()):
            if (verdict := _verdict_of_lease(states.get(name), asked)) is not None:
                del waiting[name]
                yield verdict
    for name, asked in waiting.items():
        why = "no answer through the mount" if name in states else "it is not seen any more"
        yield asked.verdict("unknown", f"{why} within {seconds:g} s; the request stands")


def _before(found: PidFileStatus) -> ReloadRequest:
    """Ask a process for its number of answers before the reload. Raises NotRunning where none is known to run."""
    must_run(found)
    status = _ask(found)
    answer = _reload_answer(status.get("reload"))
    subject = f"process {found.process.pid} of {found.path}"
    asked = ReloadRequest(subject=subject, answered=answer[0] if answer else None, up_seconds=_up(status))
    return asked if found.process.kind == "supervise" else replace(asked, then="")


def _up(status: Mapping[str, object]) -> float:
    seconds = status.get("up_seconds")
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def _await_process(
    found: PidFileStatus, asked: ReloadRequest, deadline: float, seconds: float
) -> ReloadVerdict:
    if asked.answered is None:
        return asked.verdict("unknown", "was signalled, and does not tell how it went: see its log")
    while time.monotonic() < deadline:
        status = _ask(found)
        answer = _reload_answer(status.get("reload"))
        verdict = None if answer is None else _verdict(asked, *answer)
        # One that drains has accepted them, and starts anew with them.
        if verdict is not None and not status.get("draining"):
            return verdict
        if answer is not None and _up(status) < asked.up_seconds:
            return asked.verdict("accepted", "accepted: it has started anew with the new settings")
        if status.get("draining") and verdict is None:
            return asked.verdict("unknown", "not answered: it is about to end, or to start anew")
        time.sleep(_POLL_SECONDS)
    text = f"no answer within {seconds:g} s: `maildefer status` and its log show how it goes"
    return asked.verdict("unknown", text)


def _verdict_of_lease(state: LiveLease | None, asked: ReloadRequest) -> ReloadVerdict | None:
    if state is None:
        text = "its lease is gone: it has ended, or starts anew with other settings"
        return asked.verdict("unknown", text)
    answer = _reload_answer(state.status.get("reload"))
    return None if answer is None else _verdict(asked, *answer)


def _verdict(asked: ReloadRequest, answered: int, refused: str | None) -> ReloadVerdict | None:
    if asked.answered is None or answered <= asked.answered:
        return None
    if refused is None:
        return asked.verdict("accepted", f"accepted{asked.then}")
    return asked.verdict("refused", f"refused, and what it had loaded goes on: {refused}")


def _reload_answer(facts: object) -> tuple[int, str | None] | None:
    """The number up to which a process has answered, and why it refused; None where its status has neither."""
    if not isinstance(facts, Mapping) or not isinstance(answered := facts.get("answered"), int):
        return None
    refused = facts.get("refused")
    return answered, None if refused is None else str(refused)


def _ask(found: PidFileStatus) -> dict[str, object]:
    if found.record is None or found.record.status_socket is None:
        return {}
    try:
        return status_socket.ask_status(found.record.status_socket)
    except (OSError, ValueError):  # it hangs, or executes itself anew just now
        return {}


def _states(queue: str) -> dict[str, LiveLease]:
    found = bounded(lambda: read_leases(queue))
    return {} if isinstance(found, TimedOut) else {lease.name: lease for lease in found}
