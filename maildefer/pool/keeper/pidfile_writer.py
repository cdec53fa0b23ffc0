"""The pid file, which may lie on the mount, and the doctor's checks of a queue before it is joined."""

from __future__ import annotations

import threading

from maildefer import events
from maildefer.doctor import examine as doctor
from maildefer.host import pidfile
from maildefer.host.mounts import is_local
from maildefer.pool.context import PoolContext
from maildefer.pool.scoreboard_views import QueueRecordView


class PidFileWriter:
    """Writes the pid file in a thread of its own, since its folder may hang."""

    def __init__(self, context: PoolContext) -> None:
        self._context = context
        self._again = threading.Event()
        self._closing = False
        self._warned: set[str] = set()
        self._written: pidfile.PidFile | None = None
        self._thread = threading.Thread(target=self._run, name="pidfile", daemon=True)

    def start(self) -> None:
        """Start the thread, if a pid file was asked for."""
        if self._context.pidfile:
            self._again.set()
            self._thread.start()

    def write_again(self) -> None:
        """Have the pid file written again, since the leases have changed. Called by any thread."""
        self._again.set()

    def close(self) -> None:
        """Remove the pid file, waiting for its folder for five seconds at most."""
        if self._context.pidfile:
            self._closing = True
            self._again.set()
            self._thread.join(5.0)

    def check_mount(self, index: int) -> None:
        """Check a queue's mount before it is joined: raises UnsafeMount, unless forced; warns once.

        Also writes to the scoreboard whether the mount is local, where an ENOENT leaves no doubt.
        """
        layout, board = self._context.queues[index].layout, self._context.board
        findings = doctor.examine_at_join(layout)
        for finding in findings:
            text = f"{finding.fact}: {finding.remedy}"
            if finding.verdict != "ok" and text not in self._warned:
                self._warned.add(text)
                events.emit("queue.unsafe", queue=self._context.queues[index].name, error=text)
        if not self._context.force:
            doctor.refuse_unsafe(layout.path, findings)
        QueueRecordView(board, index).is_local = int(is_local(layout.path))

    def _run(self) -> None:
        while True:
            self._again.wait()
            self._again.clear()
            try:
                if self._closing:
                    if self._written is not None:
                        pidfile.remove(self._context.pidfile, self._written)
                    return
                self._write()
            except OSError as fault:
                events.emit("pidfile.failed", pidfile=self._context.pidfile, error=str(fault))

    def _write(self) -> None:
        context = self._context
        leases = [lease for i in range(len(context.queues)) if (lease := context.board.lease(i))]
        self._written = pidfile.for_process(
            context.supervisor,
            context.host,
            kind="supervise",
            lease=leases[0] if leases else None,
            queues=tuple(queue.layout.path for queue in context.queues),
        )
        pidfile.write(context.pidfile, self._written)
