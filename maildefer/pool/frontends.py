"""The supervisor's front ends: intake processes, executed anew so that no handler code is in them (I11)."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from maildefer import events
from maildefer.errors import ConfigurationError
from maildefer.host.privileges import resolve
from maildefer.intake import configured
from maildefer.maildir.system import boottime
from maildefer.pool import children, sockets
from maildefer.pool.plan import Plan
from maildefer.pool.shared import Shared
from maildefer.pool.sockets import Listener
from maildefer.pool.throttle import Throttle


class FrontEnds:
    """Binds `receiver_config`'s addresses once, and keeps its `processes` on them. None without `--intake`."""

    def __init__(self, shared: Shared, plan: Plan, probed: Mapping[str, Any]) -> None:
        """Raises ConfigurationError when there is no usable address or queue to front."""
        self._shared = shared
        self._pids: dict[int, float] = {}
        self._throttle = Throttle()
        self._listeners: list[Listener] = []
        self._log_file = plan.log_file
        self._wanted = 0
        self._retiring = False
        if plan.intake:
            self._config = dict(shared.settings.receiver_config or {})
            configured.refuse_unknown(self._config)
            self._queue = shared.queues[0]
            if name := self._config.get("queue"):
                self._queue = self._named(str(name))
            self._wanted = int(self._config.get("processes", 1))
            self._identity = self._checked(plan)
            self._routes = os.memfd_create("routes")  # readable for whoever the children become
            self._listeners = sockets.listen(
                configured.addresses(self._config),
                folder=shared.project,
                mode=configured.socket_mode(self._config),
            )
            self._write_routes(probed)

    def __len__(self) -> int:
        return len(self._pids)

    def refill(self) -> None:
        """Execute whatever is missing."""
        while self._listeners and len(self._pids) < self._wanted and not self._throttle.wait(boottime()):
            keep = [*(listener.socket.fileno() for listener in self._listeners), self._routes]
            pid = children.spawn(self._argv(), cwd=self._shared.project, keep=keep)
            self._pids[pid] = boottime()
            events.emit("child.started", kind="intake", pid=pid, address=" ".join(map(str, self._listeners)))

    def bury(self, pid: int, status: int) -> bool:
        """Note that a child has ended; False when it is none of ours."""
        if pid not in self._pids:
            return False
        lived = boottime() - self._pids.pop(pid)
        if not self._retiring:
            events.emit("child.died", kind="intake", pid=pid, code=os.waitstatus_to_exitcode(status))
            self._throttle.note_death(int(lived > 60), boottime())
        return True

    def reload(self, probed: Mapping[str, Any]) -> None:
        """The routes have changed: the children read them again."""
        if self._listeners:
            self._write_routes(probed)
            self._signal_all(signal.SIGHUP)

    def reopen_log(self) -> None:
        """The log file was moved away."""
        if self._log_file is not None:
            self._signal_all(signal.SIGUSR1)

    def retire_all(self) -> None:
        """Finish the transactions in hand, and end; new connections are refused from now on."""
        self._retiring = True
        self._wanted = 0
        self._signal_all(signal.SIGTERM)
        for listener in self._listeners:
            listener.socket.close()
        self._listeners = []

    def kill_all(self) -> None:
        self._signal_all(signal.SIGKILL)

    def _signal_all(self, signum: signal.Signals) -> None:
        for pid in self._pids:
            try:
                os.kill(pid, signum)
            except ProcessLookupError:  # ended, and reaped in a moment
                pass

    def _named(self, name: str) -> Any:
        path = os.path.normpath(os.path.join(self._shared.project, name))
        for queue in self._shared.queues:
            if queue.layout.path == path:
                return queue
        raise ConfigurationError(
            f"receiver_config: this pool does not serve the queue {name}: name one that it does"
        )

    def _checked(self, plan: Plan) -> dict[str, str]:
        """Whom the children become, who find out too late for the one who starts us. Raises ConfigurationError."""
        user = plan.user or str(self._config.get("user", ""))
        group = plan.group or str(self._config.get("group", ""))
        if not user and not group:
            return {}
        resolve(user, group)
        return {"user": user, "group": group}

    def _argv(self) -> list[str]:
        argv = [sys.executable, "-m", "maildefer.intake"]
        for listener in self._listeners:
            argv += ["--socket-fd", listener.option]
        argv += ["--queue", self._queue.layout.path, "--routes", f"/proc/self/fd/{self._routes}"]
        argv += ["--log-format", events.current_format()]
        if self._log_file is not None:
            argv += ["--log-file", self._log_file]
        return argv + configured.arguments(self._config | self._identity)

    def _write_routes(self, probed: Mapping[str, Any]) -> None:
        """Only the routes of the queue behind us: what a later queue handles is not for the network."""
        routes = [route for route in probed["routes"] if route["queue"] == self._queue.name]
        data = json.dumps({"routes": routes}).encode()
        before = os.fstat(self._routes).st_size
        os.pwrite(self._routes, data.ljust(before), 0)  # never shorter for a moment: a child may be reading
        os.ftruncate(self._routes, len(data))
