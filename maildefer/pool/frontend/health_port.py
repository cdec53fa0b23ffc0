"""The address of `health_config`, and the process that answers there. A pool goes on without it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any, Final

from maildefer import events
from maildefer.backoff import Backoff
from maildefer.errors import ConfigurationError
from maildefer.handling.project.settings import PoolSettings
from maildefer.maildir.system import boottime
from maildefer.pool.frontend.intake_command import IntakeCommand
from maildefer.pool.frontend.listeners import WebListener, bound, bound_file
from maildefer.pool.frontend.process_group import ProcessGroup

MONITOR: Final = "monitor"
MONITOR_MODULE: Final = "maildefer.monitoring"


class HealthPort:
    """Keeps the process; does nothing where the settings name no address and no command."""

    def __init__(self, settings: PoolSettings, options: Sequence[str], *, pidfile: str) -> None:
        self._config = settings.health_config
        self._folder = settings.project
        self._alerts = settings.alerts
        self._given = [f"--pidfile={pidfile}", *options]
        self._is_counted = bool(settings.health_config or settings.alerts)  # in memory made before the fork
        self._group: ProcessGroup | None = None
        self._begin()

    def _begin(self) -> None:
        self._backoff = Backoff(first_seconds=1.0)
        self._error = ""
        if self._config is not None:
            self._listen(self._config)
        if self._group is None and self._alerts is not None:
            self._make_group([])

    def refill(self) -> None:
        """Execute the process if it is missing; try again to listen, but not on a file, which may be on a mount."""
        if self._group is not None:
            self._group.refill()
        if self._error and self._config and "port" in self._config and boottime() >= self._backoff.not_before:
            self._listen(self._config)

    def reload(self, settings: PoolSettings) -> None:
        """Answer at another address, and have another command told, from now on.

        Not in a pool that counts nothing, as that begins with the pool, nor on another file, which may be on a mount.
        """
        config, alerts = settings.health_config, settings.alerts
        is_elsewhere = config != self._config
        if not is_elsewhere and alerts == self._alerts:
            return
        if not self._is_counted or (is_elsewhere and config and "socket" in config):
            events.emit(
                "intake.stale", reason="health_config or alerts has changed: restart the pool for that"
            )
            return
        self._config, self._alerts = config, alerts
        if config and not is_elsewhere and self._group is not None:
            self._group.replace_all(self._options, 1, ())
        else:
            self.close()
            self._begin()

    def note_death(self, pid: int, status: int) -> bool:
        """Note that a child has ended and was reaped; False when it is not this one."""
        return self._group is not None and self._group.note_death(pid, status)

    def signal(self, signum: signal.Signals) -> None:
        if self._group is not None:
            self._group.signal(signum)

    def close_in_child(self) -> None:
        if self._group is not None:
            self._group.close_in_child()

    def close(self) -> None:
        """End the process, which has nothing to finish, and listen no more: another pool may, or this one restarted."""
        if self._group is None:
            return
        self._group.retire()
        for pid in self._group.pids:
            os.kill(pid, signal.SIGKILL)
            self._group.note_death(pid, os.waitpid(pid, 0)[1])
        self._group = None

    def facts(self) -> list[dict[str, Any]]:
        return [] if self._group is None else self._group.facts()

    def health(self) -> list[dict[str, Any]]:
        """How it is with the process; where there is no address to listen on, the reason."""
        if self._error:
            return [{"kind": MONITOR, "error": self._error}]
        return [] if self._group is None else [self._group.health()]

    @property
    def _options(self) -> list[str]:
        told = [] if self._alerts is None else [f"--alerts={json.dumps(self._alerts)}"]
        return [*self._given, *told]

    def _listen(self, config: Mapping[str, Any]) -> None:
        try:
            listener = bind_health(config, self._folder)
        except ConfigurationError as fault:
            if not self._error.startswith(str(fault)):
                self._error = f"{fault}; MAILDEFER_HEALTH gives one pool an address of its own"
                events.emit("monitor.failed", error=self._error)
            self._backoff.note_failure(boottime())
            return
        self._error = ""
        self.close()
        self._make_group([listener])

    def _make_group(self, listeners: list[WebListener]) -> None:
        command = IntakeCommand(module=MONITOR_MODULE, options=self._options, listeners=listeners)
        self._group = ProcessGroup(MONITOR, command, folder="/")


def bind_health(config: Mapping[str, Any], folder: str) -> WebListener:
    """Bind the address of `health_config`. Raises ConfigurationError."""
    if path := config.get("socket"):
        mode = config.get("socket_mode")
        return WebListener(bound_file(os.path.join(folder, path), int(mode, 8) if mode else None))
    return WebListener(bound(config.get("host", "127.0.0.1"), config["port"]))
