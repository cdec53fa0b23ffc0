"""The processes of one front end: executed anew, so that no handler code is in them (I11), and kept on its sockets."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from maildefer import events
from maildefer.host import environment as variables
from maildefer.host.fork_throttle import ForkThrottle
from maildefer.intake import connection_table
from maildefer.intake.connection_table import TableRow
from maildefer.intake.startup import EARLY_SIGNALS
from maildefer.maildir.system import boottime
from maildefer.pool import fork
from maildefer.pool.frontend.listeners import let_go
from maildefer.pool.frontend.status_report import read_report
from maildefer.untrusted import UntrustedRecord

_STEADY_SECONDS = 60.0


class BoundSocket(Protocol):
    """A bound socket; as text, its address."""

    @property
    def socket(self) -> socket.socket: ...

    @property
    def option(self) -> str: ...


@dataclass(frozen=True, slots=True)
class GroupMember:
    """One process, the memory to which it writes how it is, and its place in the book of all."""

    began: float
    report: int
    place: TableRow


class ProcessGroup:
    """Keeps `wanted` processes of one kind; its sockets are bound once, so that no death of one refuses anybody."""

    def __init__(
        self,
        kind: str,
        module: str,
        *,
        folder: str,
        listeners: Sequence[BoundSocket],
        options: Sequence[str],
        keep: Sequence[int] = (),
        wanted: int = 1,
        environment: Sequence[str] = (),
    ) -> None:
        """`module` is executed with `options`; `keep` are descriptors that those name, `environment` more variables."""
        self._kind = kind
        self._module = module
        self._folder = folder
        self._listeners = list(listeners)
        self._options = list(options)
        self._keep = list(keep)
        self._wanted = wanted
        self._environment = environment
        self._book = connection_table.make_table()
        self._hands: dict[int, GroupMember] = {}
        self._leaving: set[int] = set()
        self._liars: set[int] = set()
        self._throttle = ForkThrottle()

    def __len__(self) -> int:
        return len(self._hands)

    @property
    def address(self) -> str:
        return " ".join(map(str, self._listeners))

    def refill(self) -> None:
        """Execute whatever is missing."""
        while len(self._hands) - len(self._leaving) < self._wanted and not self._throttle.wait(boottime()):
            report = os.memfd_create(f"{self._kind} report")
            place = self._free_place()
            argv = [sys.executable, "-m", self._module, "--report-fd", str(report), "--guestbook", str(place)]
            for listener in self._listeners:
                argv += ["--socket-fd", listener.option]
            keep = [
                *(listener.socket.fileno() for listener in self._listeners),
                report,
                self._book,
                *self._keep,
            ]
            pid = fork.spawn(
                [*argv, *self._options],
                cwd=self._folder,
                environ=variables.listed(self._environment),
                keep=keep,
                hold=EARLY_SIGNALS,
                confined=True,
            )
            self._hands[pid] = GroupMember(boottime(), report, place)
            events.emit("child.started", kind=self._kind, pid=pid, address=self.address)

    def bury(self, pid: int, status: int) -> bool:
        """Note that a child has ended; False when it is none of ours."""
        hand = self._hands.pop(pid, None)
        if hand is None:
            return False
        os.close(hand.report)
        self._liars.discard(pid)
        if pid in self._leaving:
            self._leaving.discard(pid)
        else:
            connection_table.clear_row(hand.place)
            if self._wanted:
                how = fork.how_died(os.waitstatus_to_exitcode(status))
                events.emit("child.died", kind=self._kind, pid=pid, how=how)
                self._throttle.note_death(int(boottime() - hand.began > _STEADY_SECONDS), boottime())
        self._leave_if_empty()
        return True

    def follow(self, options: Sequence[str], wanted: int, environment: Sequence[str]) -> None:
        """Put others in the place of all that are there, who finish what they have in hand."""
        self._options, self._wanted, self._environment = list(options), wanted, environment
        self._throttle.note_good()
        self._leaving = set(self._hands)
        # Those who go count among themselves, as those who come may have other limits.
        os.close(self._book)
        self._book = connection_table.make_table()
        self.signal(signal.SIGTERM)
        self.refill()

    def retire(self) -> None:
        """Finish the transactions in hand, and end; once all have, connections are refused."""
        self._wanted = 0
        self.signal(signal.SIGTERM)
        self._leave_if_empty()

    def signal(self, signum: signal.Signals) -> None:
        for pid in self._hands:
            try:
                os.kill(pid, signum)
            except ProcessLookupError:  # ended, and reaped in a moment
                pass

    def _free_place(self) -> TableRow:
        """In the book of those who are to stay."""
        taken = {hand.place.number for pid, hand in self._hands.items() if pid not in self._leaving}
        number = next(number for number in range(self._wanted) if number not in taken)
        return TableRow(self._book, number, self._wanted)

    def close_in_child(self) -> None:
        """In another child of the supervisor's, before it does anything else."""
        for listener in self._listeners:
            listener.socket.close()
        for descriptor in (self._book, *(hand.report for hand in self._hands.values())):
            os.close(descriptor)

    def _leave_if_empty(self) -> None:
        """Whoever still has the sockets, such as a handler's process: nobody must wait in vain there."""
        if not self._wanted and not self._hands:
            for listener in self._listeners:
                let_go(listener.socket)
            self._listeners = []

    def facts(self) -> list[dict[str, Any]]:
        """What each process says of itself, for `maildefer status`; from memory only."""
        address = self.address
        return [
            {"kind": self._kind, "address": address, **self._reported(pid, hand), "pid": pid}
            for pid, hand in self._hands.items()
        ]

    def _reported(self, pid: int, hand: GroupMember) -> dict[str, object]:
        """Nothing of one that reports nonsense: it dies for it."""
        try:
            return read_report(hand.report).facts()
        except UntrustedRecord as fault:
            if pid not in self._liars:
                self._liars.add(pid)
                events.emit("child.misbehaved", kind=self._kind, pid=pid, reason=f"its report {fault}")
                os.kill(pid, signal.SIGKILL)
            return {}
