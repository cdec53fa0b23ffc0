"""The processes of one front end of a pool, kept on its sockets."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from maildefer import events
from maildefer.host.fork_throttle import ForkThrottle
from maildefer.intake import connection_table
from maildefer.intake.connection_table import TableRow
from maildefer.intake.startup import EARLY_SIGNALS
from maildefer.maildir.system import boottime
from maildefer.pool import fork
from maildefer.pool.frontend.intake_command import IntakeCommand
from maildefer.pool.frontend.listeners import stop_listening
from maildefer.pool.frontend.status_report import read_report
from maildefer.untrusted import UntrustedRecord

_STEADY_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class GroupMember:
    """A process, the memory to which it writes its status, and its row in the table of connections."""

    began: float
    report: int
    row: TableRow


class ProcessGroup:
    """Keeps `wanted` processes of one kind; its sockets are bound once, so that no client is refused at a death."""

    def __init__(self, kind: str, command: IntakeCommand, *, folder: str, wanted: int = 1) -> None:
        """`folder`: the working directory in which the processes are executed."""
        self._kind = kind
        self._command = command
        self._folder = folder
        self._wanted = wanted
        self._table = connection_table.make_table()
        self._members: dict[int, GroupMember] = {}
        self._retiring: set[int] = set()
        self._misbehaved: set[int] = set()
        self._throttle = ForkThrottle()
        self._ended: Counter[str] = Counter()  # what the processes counted that have ended
        self._any_came_up = False
        self._is_unusable = False

    def __len__(self) -> int:
        return len(self._members)

    @property
    def pids(self) -> list[int]:
        return list(self._members)

    @property
    def address(self) -> str:
        return " ".join(map(str, self._command.listeners))

    def refill(self) -> None:
        """Execute whatever is missing."""
        while len(self._members) - len(self._retiring) < self._wanted and not self._throttle.wait(boottime()):
            report = os.memfd_create(f"{self._kind} report")
            row = self._free_row()
            image = self._command.image(report_fd=report, connection_row=row)
            pid = fork.spawn(
                image.argv,
                cwd=self._folder,
                environ=image.environ,
                keep=image.inherited,
                hold=EARLY_SIGNALS,
                confined=True,
            )
            self._members[pid] = GroupMember(boottime(), report, row)
            events.emit("child.started", kind=self._kind, pid=pid, address=self.address)

    def note_death(self, pid: int, status: int) -> bool:
        """Note that a child has ended and was reaped; False when it is none of these."""
        member = self._members.pop(pid, None)
        if member is None:
            return False
        code = os.waitstatus_to_exitcode(status)
        self._any_came_up = self._any_came_up or _has_reported(member)
        self._is_unusable = code == os.EX_CONFIG and not self._any_came_up
        self._ended += _counts(member)
        os.close(member.report)
        self._misbehaved.discard(pid)
        if pid in self._retiring:
            self._retiring.discard(pid)
        else:
            connection_table.clear_row(member.row)
            if self._wanted:
                how = fork.how_died(code)
                events.emit("child.died", kind=self._kind, pid=pid, how=how)
                self._throttle.note_death(int(boottime() - member.began > _STEADY_SECONDS), boottime())
        self._stop_listening_if_empty()
        return True

    def why_none_comes_up(self) -> str:
        """Say why to end rather than execute processes for ever; empty where any has ever come up, or may yet."""
        if not self._is_unusable:
            return ""
        return f"the front end ({self._kind}) can't be started with its settings; the log says why"

    def replace_all(self, options: Sequence[str], wanted: int, environment: Sequence[str]) -> None:
        """Replace all processes by new ones with these options; the old ones first finish their transactions."""
        self._command = replace(self._command, options=options, environment=environment)
        self._wanted = wanted
        self._throttle.note_success()
        self._retiring = set(self._members)
        # Those that retire count among themselves, as those that come may have other limits.
        os.close(self._table)
        self._table = connection_table.make_table()
        self.signal(signal.SIGTERM)
        self.refill()

    def retire(self) -> None:
        """Let all processes finish their transactions and end; once all have ended, connections are refused."""
        self._wanted = 0
        self.signal(signal.SIGTERM)
        self._stop_listening_if_empty()

    def signal(self, signum: signal.Signals) -> None:
        for pid in self._members:
            try:
                os.kill(pid, signum)
            except ProcessLookupError:  # ended, and reaped in a moment
                pass

    def _free_row(self) -> TableRow:
        """Find a free row in the table of connections; processes that retire have no row in it."""
        taken = {member.row.number for pid, member in self._members.items() if pid not in self._retiring}
        number = next(number for number in range(self._wanted) if number not in taken)
        return TableRow(self._table, number, self._wanted)

    def close_in_child(self) -> None:
        """Close what another child of the supervisor has inherited; called before it does anything else."""
        for listener in self._command.listeners:
            listener.socket.close()
        for descriptor in (self._table, *(member.report for member in self._members.values())):
            os.close(descriptor)

    def _stop_listening_if_empty(self) -> None:
        """Stop listening, also for handlers' programs that have inherited the sockets: no client may wait in vain."""
        if not self._wanted and not self._members:
            for listener in self._command.listeners:
                stop_listening(listener.socket)
            self._command = replace(self._command, listeners=())

    def facts(self) -> list[dict[str, Any]]:
        """What each process says of itself, for `maildefer status`; from memory only."""
        address = self.address
        return [
            {"kind": self._kind, "address": address, **self._reported(pid, member), "pid": pid}
            for pid, member in self._members.items()
        ]

    def health(self) -> dict[str, Any]:
        """How many of the processes that are wanted are up, and whether they die again and again."""
        staying = [member for pid, member in self._members.items() if pid not in self._retiring]
        up = [member for pid, member in self._members.items() if self._reported(pid, member)]
        is_steady = len(staying) >= self._wanted and all(
            boottime() - member.began > _STEADY_SECONDS for member in staying
        )
        counts = sum(map(_counts, self._members.values()), self._ended)
        return {
            "kind": self._kind,
            "address": self.address,
            "accepted": counts["accepted"],
            "refused": {kind[1:]: count for kind, count in counts.items() if kind[0] == "-"},
            "wanted": self._wanted,
            "up": len(up),
            "deaths": 0 if is_steady else self._throttle.deaths,
            "throttled_seconds": round(self._throttle.wait(boottime()), 1),
        }

    def _reported(self, pid: int, member: GroupMember) -> dict[str, object]:
        """Read the report of a process; a process whose report is invalid is killed, and has no facts."""
        try:
            return read_report(member.report).facts()
        except UntrustedRecord as fault:
            if pid not in self._misbehaved:
                self._misbehaved.add(pid)
                events.emit("child.misbehaved", kind=self._kind, pid=pid, reason=f"its report {fault}")
                os.kill(pid, signal.SIGKILL)
            return {}


def _counts(member: GroupMember) -> Counter[str]:
    """Count what the process has accepted, and has refused, by kind after a hyphen."""
    try:
        found = read_report(member.report)
    except UntrustedRecord:
        return Counter()
    return Counter(
        accepted=found.accepted or 0, **{f"-{kind}": count for kind, count in found.refused.items()}
    )


def _has_reported(member: GroupMember) -> bool:
    try:
        return bool(read_report(member.report).facts())
    except UntrustedRecord:
        return True
