"""The keeper's paperwork: the pid file that was asked for, which may lie on the mount, and the doctor's look at a queue."""

from __future__ import annotations

import threading

from maildefer import events
from maildefer.pool import pidfile
from maildefer.pool.shared import Shared


class Clerk:
    """Writes the pid file in a thread of its own, since its folder may hang."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._again = threading.Event()
        self._closing = False
        self._written: pidfile.PidFile | None = None
        self._thread = threading.Thread(target=self._run, name="clerk", daemon=True)

    def start(self) -> None:
        """Begin; there is nothing to do where no pid file was asked for."""
        if self._shared.pidfile:
            self._again.set()
            self._thread.start()

    def write_again(self) -> None:
        """The leases have changed. Any thread."""
        self._again.set()

    def close(self) -> None:
        """Remove the pid file; waits no longer than the folder lets it within five seconds."""
        if self._shared.pidfile:
            self._closing = True
            self._again.set()
            self._thread.join(5.0)

    def check(self, index: int) -> None:
        """Refuse a queue on a mount that could lose mail, by raising UnsafeMount; warn of lesser things."""

    def _run(self) -> None:
        while True:
            self._again.wait()
            self._again.clear()
            try:
                if self._closing:
                    if self._written is not None:
                        pidfile.remove(self._shared.pidfile, self._written)
                    return
                self._write()
            except OSError as fault:
                events.emit("queue.unsafe", pidfile=self._shared.pidfile, error=str(fault))

    def _write(self) -> None:
        shared = self._shared
        leases = [lease for i in range(len(shared.queues)) if (lease := shared.board.lease(i))]
        self._written = pidfile.for_process(
            shared.supervisor,
            shared.host,
            kind="supervise",
            lease=leases[0] if leases else None,
            queues=tuple(queue.layout.path for queue in shared.queues),
        )
        pidfile.write(shared.pidfile, self._written)
