"""The supervisor's record in the host's runtime directory, which `stop` and `status` read first."""

from __future__ import annotations

import os
import time

from maildefer.host import runtime_dir
from maildefer.host.identity import start_time
from maildefer.host.runtime_dir import RuntimeRecord
from maildefer.pool.context import PoolContext


class RuntimeRegistration:
    """Writes and removes the record. It lies on the host's own disk, so it may be written at any time."""

    def __init__(self, context: PoolContext) -> None:
        self._context = context
        self._started = time.time()

    def write(self) -> None:
        runtime_dir.write_record(self._record(), self._context.host)

    def remove(self) -> None:
        runtime_dir.remove_record(self._record())

    def _record(self) -> RuntimeRecord:
        context = self._context
        leases = {queue.layout.path: context.board.lease(index) for index, queue in enumerate(context.queues)}
        return RuntimeRecord(
            pid=os.getpid(),
            start_time=start_time(os.getpid()) or 0,
            kind="supervise",
            pidfile=context.pidfile,
            started=self._started,
            leases={path: lease for path, lease in leases.items() if lease},
            queues=tuple(queue.layout.path for queue in context.queues),
            project=context.project,
            status_socket=runtime_dir.socket_path(context.pidfile),
        )
