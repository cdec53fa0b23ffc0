"""The supervisor's front ends: their processes, and the routes for which these accept mail."""

from __future__ import annotations

import signal
from typing import Any

from maildefer import events
from maildefer.errors import ConfigurationError
from maildefer.pool.context import PoolContext
from maildefer.pool.frontend.config import (
    INTAKE,
    FrontEndConfig,
    front_ends_of,
    log_options,
    try_identity,
)
from maildefer.pool.frontend.health_port import HealthPort
from maildefer.pool.frontend.intake_command import IntakeCommand, RoutesMemory
from maildefer.pool.frontend.process_group import ProcessGroup
from maildefer.pool.options import PoolOptions
from maildefer.pool.probe import ProbeReport


class FrontEnds:
    """The front ends of `receiver_config` and `web_config`, none without `--intake`; and the port of `health_config`.

    Sockets are bound once.
    """

    def __init__(self, context: PoolContext, plan: PoolOptions, report: ProbeReport) -> None:
        """Raises ConfigurationError when there is no usable address, queue, user or group, or another setting."""
        if plan.intake and report.front_end_fault:
            raise ConfigurationError(report.front_end_fault)
        self._context = context
        self._plan = plan
        self._configs = front_ends_of(context.settings, context, plan)
        for config in self._configs.values():
            try_identity(config)
        self._routes = RoutesMemory() if INTAKE in self._configs else None
        self._write_routes(report)
        self._groups = {kind: self._group(config) for kind, config in self._configs.items()}
        self._health_port = HealthPort(context.settings, log_options(), pidfile=context.pidfile)

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def refill(self) -> None:
        """Execute whatever is missing."""
        for group in self._groups.values():
            group.refill()
        self._health_port.refill()

    def note_death(self, pid: int, status: int) -> bool:
        """Note that a child has ended and was reaped; False when it is none of these."""
        found = any(group.note_death(pid, status) for group in self._groups.values())
        return found or self._health_port.note_death(pid, status)

    def why_none_comes_up(self) -> str:
        """Say why to end the pool, where the settings of a front end have never worked; else empty."""
        return next((why for group in self._groups.values() if (why := group.why_none_comes_up())), "")

    def reload(self, report: ProbeReport) -> None:
        """Let processes read the application's routes again, or replace them by others with its new options."""
        try:
            self._health_port.reload(settings := self._plan.settings(report))
            configs = front_ends_of(settings, self._context, self._plan)
        except ConfigurationError as fault:  # the rest of the application is sound, and the old options are
            events.emit("intake.stale", reason=str(fault))
            configs = self._configs
        for kind, config in self._configs.items():
            if kind not in configs or configs[kind].address != config.address:
                events.emit(
                    "intake.stale", reason=f"{kind} is to listen elsewhere: restart the pool for that"
                )
                configs = {**configs, kind: config}
        before, self._configs = self._configs, {kind: configs[kind] for kind in self._configs}
        self._write_routes(report)
        for kind, config in self._configs.items():
            if config.equals(before[kind]):
                self._groups[kind].signal(signal.SIGHUP)
            else:
                self._groups[kind].replace_all(config.options, config.wanted, config.environment)

    def reopen_log(self) -> None:
        """Let processes open the log file anew, which was moved away."""
        if events.current_log_file() is not None:
            self._signal_all(signal.SIGUSR1)
            self._health_port.signal(signal.SIGUSR1)

    def retire_all(self) -> None:
        """Finish the transactions in hand, and end; new connections are refused from now on."""
        for group in self._groups.values():
            group.retire()

    def close_in_child(self) -> None:
        """Close what a worker, keeper or scout has inherited of what is between the supervisor and front ends."""
        for group in self._groups.values():
            group.close_in_child()
        self._health_port.close_in_child()
        if self._routes is not None:
            self._routes.close()

    def kill_all(self) -> None:
        self._signal_all(signal.SIGKILL)

    def facts(self) -> list[dict[str, Any]]:
        """Facts of each process, for `maildefer status`."""
        found = [one for group in self._groups.values() for one in group.facts()]
        return found + self._health_port.facts()

    def health(self) -> list[dict[str, Any]]:
        """Facts of each kind: whether its processes are up, or die again and again."""
        return [group.health() for group in self._groups.values()] + self._health_port.health()

    def close(self) -> None:
        """End what is there to the very end: who asks for health is answered during a drain, too."""
        self._health_port.close()

    def _signal_all(self, signum: signal.Signals) -> None:
        for group in self._groups.values():
            group.signal(signum)

    def _group(self, config: FrontEndConfig) -> ProcessGroup:
        command = IntakeCommand(
            module=config.module,
            options=config.options,
            listeners=config.listen(),
            routes=self._routes if config.kind == INTAKE else None,
            environment=config.environment,
        )
        return ProcessGroup(config.kind, command, folder=self._context.project, wanted=config.wanted)

    def _write_routes(self, report: ProbeReport) -> None:
        """Tell only the routes of the queue behind the front end: what a later queue handles is not for the network."""
        if self._routes is not None:
            queue = self._configs[INTAKE].queue.name
            self._routes.write(
                [
                    {"queue": route.queue, "pattern": route.pattern}
                    for route in report.routes
                    if route.queue == queue
                ]
            )
