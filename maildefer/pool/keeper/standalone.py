"""A keeper for a process without a supervisor: executed, not forked, since that process may have threads.

`python -m maildefer.pool.keeper.standalone FACTS`: FACTS names the descriptors that it inherits: the scoreboard, and
its ends of the sockets. It ends with the process that started it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, assert_never

from maildefer import events
from maildefer.handling.project.settings import PoolSettings
from maildefer.host.identity import this_host
from maildefer.host.linux.prctl import die_with_parent
from maildefer.maildir.layout import Layout
from maildefer.pool.context import PoolContext, QueueOfPool
from maildefer.pool.keeper import keeper
from maildefer.pool.messages import (
    ChildMisbehaved,
    FromKeeper,
    InvalidMessage,
    JoinFailed,
    LeaseJoined,
    LeaseLost,
    MountRefused,
    RequestReceived,
    SlotReclaimed,
    from_keeper,
    pair,
    receive,
)
from maildefer.pool.scoreboard import Scoreboard

SLOTS = 2  # the process itself, and one to spare


@dataclass(slots=True)
class StandaloneKeeper:
    """A process's own keeper, and what the two share."""

    context: PoolContext
    process: subprocess.Popen[bytes] | None = None
    refused: str = ""  # why the mount is unsafe
    trouble: str = ""  # why the queue could not be joined at the last try

    @classmethod
    def prepare(cls, path: str, *, max_crashes: int) -> StandaloneKeeper:
        """Make everything but the keeper's process itself."""
        settings = PoolSettings(
            project="/", module="", queues={path: ()}, router_defaults={}, max_crashes=max_crashes
        )
        context = PoolContext(
            settings=settings,
            project="/",
            pidfile="",
            host=this_host(),
            queues=(QueueOfPool(name=path, layout=Layout(path)),),
            board=Scoreboard.inheritable(1, SLOTS),
            offers=(),
            keeper=pair(identified=True),
            deferrals=pair(identified=True),
            not_paused=-1,
            supervisor=os.getpid(),
        )
        return cls(context)

    def start(self) -> None:
        """Execute the keeper, also in the place of one that died."""
        context = self.context
        descriptors = (context.board.descriptor, context.keeper[1].fileno(), context.deferrals[0].fileno())
        facts = {
            "queue": context.queues[0].layout.path,
            "max_crashes": context.settings.max_crashes,
            "parent": context.supervisor,
            "board": descriptors[0],
            "keeper": descriptors[1],
            "deferrals": descriptors[2],
        }
        argv = [sys.executable, "-m", "maildefer.pool.keeper.standalone", json.dumps(facts)]
        self.process = subprocess.Popen(
            argv,
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stderr=events.descriptor(),
            cwd="/",
            env=_environ(),
        )

    def receive_messages(self) -> None:
        """Note what the keeper has said; one that sends what is no message is killed."""
        received: Iterator[FromKeeper | InvalidMessage] = receive(self.context.keeper[0], from_keeper)
        for message in received:
            match message:
                case MountRefused(why=why):
                    self.refused = why
                case JoinFailed(why=why):
                    self.trouble = why
                case LeaseJoined() | LeaseLost() | SlotReclaimed():  # the scoreboard shows these
                    pass
                case RequestReceived() | ChildMisbehaved():  # there is no pool to stop, and no child to end
                    pass
                case InvalidMessage(pid=pid, reason=reason):
                    self._end_misbehaving(pid, reason)
                case _:
                    assert_never(message)

    def _end_misbehaving(self, pid: int, reason: str) -> None:
        if self.is_running() and self.process is not None and self.process.pid == pid:
            events.emit("child.misbehaved", kind="keeper", pid=pid, reason=reason)
            self.process.kill()
            self.process.wait()

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None


def _environ() -> dict[str, str]:
    """Make its environment: ours, the folder of this package, which may be on our path only, and the log's format."""
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    path = os.environ.get("PYTHONPATH", "")
    log = {"MAILDEFER_LOG_FORMAT": events.current_format(), "MAILDEFER_LOG_LEVEL": events.current_level()}
    return {**os.environ, **log, "PYTHONPATH": f"{home}{os.pathsep}{path}" if path else home}


def main() -> int:
    facts: dict[str, Any] = json.loads(sys.argv[1])
    die_with_parent(facts["parent"])
    events.configure()
    prepared = StandaloneKeeper.prepare(facts["queue"], max_crashes=facts["max_crashes"])
    context = PoolContext(
        settings=prepared.context.settings,
        project="/",
        pidfile="",
        host=prepared.context.host,
        queues=prepared.context.queues,
        board=Scoreboard(1, SLOTS, facts["board"]),
        offers=(),
        keeper=(prepared.context.keeper[0], socket.socket(fileno=facts["keeper"])),
        deferrals=(socket.socket(fileno=facts["deferrals"]), prepared.context.deferrals[1]),
        not_paused=-1,
        supervisor=facts["parent"],
    )
    return keeper.run(context)


if __name__ == "__main__":
    sys.exit(main())
