"""Files that a keeper reads and writes on the mount for others: requests of operators, its status, hosts' shares."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Final, get_args

from maildefer import events
from maildefer.maildir import durable
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.rights.modes import rights_in
from maildefer.maildir.system import System
from maildefer.maildir.upkeep.failed_moves import FailedMoves
from maildefer.maildir.upkeep.leases import STATUS_LIMIT_BYTES
from maildefer.pool import status_record
from maildefer.pool.context import PoolContext
from maildefer.pool.keeper.heartbeat import Heartbeat
from maildefer.pool.messages import ReloadProgress, RequestReceived, Verb, send
from maildefer.pool.scoreboard_views import QueueRecordView
from maildefer.pool.status_record import Rates
from maildefer.untrusted import UntrustedRecord, read_record

_STATUS_EVERY_SECONDS: Final = 30.0
_READ_EACH_BEAT: Final = (
    4  # status files of other hosts: all of few, and of many no more requests than of few
)
_CHANGING: Final = {"beat_age_seconds", "beats", "clock_offset_seconds", "paused_seconds"}
_VERBS: Final[dict[str, Verb]] = {verb: verb for verb in get_args(Verb)}


class MountFiles:
    """Files of one queue; used by the thread of its chores."""

    def __init__(self, context: PoolContext, index: int, heartbeat: Heartbeat, system: System) -> None:
        self._context = context
        self._index = index
        self._heartbeat = heartbeat
        self._layout = heartbeat.queue.layout
        self._name = heartbeat.queue.name
        self._system = confined_to(self._layout.path, system)
        self.reload: ReloadProgress | None = None  # how the last one went
        self._rates = Rates(context.board)
        self.refusals = FailedMoves(system=system)  # requests that could not be consumed
        self._status: dict[str, object] = {}
        self._status_at = 0.0
        self._last_path = ""  # the last status file
        self._idle: dict[str, bool] = {}  # other leases, the one whose status was read longest ago first
        self._random = system.token(8)  # for its draft; one, so that a fault reads the same each time

    def share(self, others: list[str]) -> None:
        """Write to the scoreboard which share of the keys this host offers first: one for each lease that claims.

        Of many leases only some are looked at, in turn, new ones first; until then these count as claiming.
        """
        known = {lease: is_idle for lease, is_idle in self._idle.items() if lease in set(others)}
        for lease in [*(lease for lease in others if lease not in known), *known][:_READ_EACH_BEAT]:
            known.pop(lease, None)
            known[lease] = self._is_idle(lease)
        self._idle, own = known, self._heartbeat.lease
        leases = sorted([*(lease for lease in others if not known.get(lease)), own])
        record = QueueRecordView(self._context.board, self._index)
        record.index_of_host, record.hosts = leases.index(own), len(leases)

    def _is_idle(self, lease: str) -> bool:
        """Whether its host claims nothing: it is paused, or only holds conversation tokens here."""
        path = f"{self._layout.status}/{lease}.json"
        try:
            status = read_record(path, limit_bytes=STATUS_LIMIT_BYTES, files=self._system)
        except (OSError, UntrustedRecord):
            return False
        return bool(status.get("paused") or status.get("guest"))

    def answer_requests(self) -> None:
        """Pass on what operators asked of this lease through the mount, consumed by a rename. Raises OSError."""
        mark = f"{self._heartbeat.lease}."
        listed = self._system.listdir(self._layout.requests)
        self.refusals.keep(listed)
        for name in listed:
            verb = _VERBS.get(name.removeprefix(mark)) if name.startswith(mark) else None
            if verb is not None and self.refusals.may_try(name):
                try:
                    is_ours = self._consume(name)
                except FileNotFoundError:
                    raise
                except OSError as fault:  # not carried out, since it would be again with each beat
                    self.refusals.note(name, fault)
                    continue
                self.refusals.forget(name)
                if is_ours:
                    events.emit("request.received", queue=self._name, verb=verb)
                    send(self._context.keeper[1], RequestReceived(verb=verb))

    def _consume(self, name: str) -> bool:
        """Move a request away; False where it was withdrawn. Raises FileNotFoundError for want of a folder."""
        try:
            self._system.rename(f"{self._layout.requests}/{name}", f"{self._layout.requests_done}/{name}")
        except FileNotFoundError:
            self._system.lstat(self._layout.requests_done)
            return False
        return True

    def write_status(self) -> None:
        """Write the status for other hosts; one that has not changed only twice a minute. Raises OSError."""
        more: dict[str, object] = {"lease": self._heartbeat.lease}
        more["rate_per_second"] = self._rates.noted(self._system.boottime())
        more["reload"] = None if self.reload is None else asdict(self.reload)
        status = status_record.queue_record(self._context, self._index) | more
        steady = {name: value for name, value in status.items() if name not in _CHANGING}
        if steady == self._status and self._system.boottime() < self._status_at:
            return
        path = self._status_path()
        draft = f"{self._layout.tmp}/.status-{self._heartbeat.lease}-{self._random}"
        if self._last_path not in ("", path):  # under a fenced lease: it may have been written after that
            durable.discard(self._last_path, self._system)
        self._last_path = path
        durable.discard(draft, self._system)
        data = json.dumps(status | {"time": self._system.time()}).encode()
        try:
            rights = rights_in(self._layout.path, self._system)
            durable.replace_file(path, data, draft, durably=False, rights=rights, system=self._system)
        except FileNotFoundError:  # done, and the reply was lost
            for folder in (self._layout.tmp, self._layout.status):
                self._system.lstat(folder)  # or one of these is missing
        self._status, self._status_at = steady, self._system.boottime() + _STATUS_EVERY_SECONDS

    def discard_status(self) -> None:
        """Remove the status, which may have been written after the lease was left."""
        durable.discard(self._status_path(), self._system)

    def _status_path(self) -> str:
        return f"{self._layout.status}/{self._heartbeat.lease}.json"
