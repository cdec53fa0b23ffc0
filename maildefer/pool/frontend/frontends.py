"""The supervisor's front ends: their processes, and what those are told of the routes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from typing import Any

from maildefer import events
from maildefer.errors import ConfigurationError
from maildefer.pool.context import PoolContext
from maildefer.pool.fork import read_only_memory
from maildefer.pool.frontend.config import INTAKE, FrontEndConfig, described
from maildefer.pool.frontend.process_group import ProcessGroup
from maildefer.pool.options import PoolOptions


class FrontEnds:
    """Those of `receiver_config` and of `web_config`, whose sockets are bound once. None without `--intake`."""

    def __init__(self, shared: PoolContext, plan: PoolOptions, probed: Mapping[str, Any]) -> None:
        """Raises ConfigurationError when there is no usable address or queue to front."""
        self._shared = shared
        self._plan = plan
        self._routes, self._readable = read_only_memory("routes") if plan.intake else (-1, -1)
        self._fronts = described(shared.settings, shared, plan)
        self._write_routes(probed)
        self._crews = {kind: self._crew(front) for kind, front in self._fronts.items()}

    def __len__(self) -> int:
        return sum(map(len, self._crews.values()))

    def refill(self) -> None:
        """Execute whatever is missing."""
        for crew in self._crews.values():
            crew.refill()

    def bury(self, pid: int, status: int) -> bool:
        """Note that a child has ended; False when it is none of ours."""
        return any(crew.bury(pid, status) for crew in self._crews.values())

    def reload(self, probed: Mapping[str, Any]) -> None:
        """The application has changed: children read its routes again, or make way for others with new options."""
        try:
            fronts = described(self._plan.settings(probed), self._shared, self._plan)
        except ConfigurationError as fault:  # the rest of the application is sound, and the old options are
            events.emit("intake.stale", reason=str(fault))
            fronts = self._fronts
        for kind, front in self._fronts.items():
            if kind not in fronts or fronts[kind].place != front.place:
                events.emit(
                    "intake.stale", reason=f"{kind} is to listen elsewhere: restart the pool for that"
                )
                fronts = {**fronts, kind: front}
        before, self._fronts = self._fronts, {kind: fronts[kind] for kind in self._fronts}
        self._write_routes(probed)
        for kind, front in self._fronts.items():
            if front.equals(before[kind]):
                self._crews[kind].signal(signal.SIGHUP)
            else:
                self._crews[kind].follow(self._options(front), front.wanted, front.environment)

    def reopen_log(self) -> None:
        """The log file was moved away."""
        if events.current_log_file() is not None:
            self._signal_all(signal.SIGUSR1)

    def retire_all(self) -> None:
        """Finish the transactions in hand, and end; new connections are refused from now on."""
        for crew in self._crews.values():
            crew.retire()

    def close_in_child(self) -> None:
        """In a worker, keeper or scout: what is between the front ends and us is none of its business."""
        for crew in self._crews.values():
            crew.close_in_child()
        for descriptor in (self._routes, self._readable):
            if descriptor >= 0:
                os.close(descriptor)

    def kill_all(self) -> None:
        self._signal_all(signal.SIGKILL)

    def facts(self) -> list[dict[str, Any]]:
        """For `maildefer status`."""
        return [one for crew in self._crews.values() for one in crew.facts()]

    def _signal_all(self, signum: signal.Signals) -> None:
        for crew in self._crews.values():
            crew.signal(signum)

    def _crew(self, front: FrontEndConfig) -> ProcessGroup:
        return ProcessGroup(
            front.kind,
            front.module,
            folder=self._shared.project,
            listeners=front.listen(),
            options=self._options(front),
            keep=[self._readable],
            wanted=front.wanted,
            environment=front.environment,
        )

    def _options(self, front: FrontEndConfig) -> list[str]:
        routes = ["--routes", f"/proc/self/fd/{self._readable}"] if front.kind == INTAKE else []
        return [*front.options, *routes]

    def _write_routes(self, probed: Mapping[str, Any]) -> None:
        """Only the routes of the queue behind us: what a later queue handles is not for the network."""
        if (front := self._fronts.get(INTAKE)) is None:
            return
        routes = [route for route in probed["routes"] if route["queue"] == front.queue.name]
        data = json.dumps({"routes": routes}).encode()
        before = os.fstat(self._routes).st_size
        os.pwrite(self._routes, data.ljust(before), 0)  # never shorter for a moment: a child may be reading
        os.ftruncate(self._routes, len(data))
