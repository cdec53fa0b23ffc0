"""Options of `maildefer supervise`, as the command line passes them to the process that becomes the supervisor."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from maildefer import events
from maildefer.errors import ConfigurationError
from maildefer.handling.project.settings import PoolSettings
from maildefer.maildir.layout import Layout
from maildefer.pool.context import QueueOfPool
from maildefer.pool.probe import ProbedRoute, ProbeReport

MOST_WORKERS: Final = 4096
MOST_IN_FLIGHT: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """Options of a pool: one JSON argument, which a restart under the same pid passes on."""

    project: str
    pidfile: str
    queues: tuple[str, ...] | None = None  # None: all of the settings
    workers: int | None = None
    concurrency: int | None = None
    lock_fd: int = -1
    force: bool = False
    intake: bool = False
    drain: bool = False  # SIGUSR2 says that nothing is left to do
    user: str = ""  # of the front ends; before what receiver_config says
    group: str = ""
    log_level: str | None = None
    log_format: str | None = None
    log_file: str | None = None

    @classmethod
    def parse(cls, text: str) -> PoolOptions:
        """Parse the argument. Raises ConfigurationError: it is not meant to be typed by hand."""
        try:
            found: dict[str, Any] = json.loads(text)
            known = {field.name for field in fields(cls)}
            given = {name: value for name, value in found.items() if name in known and value is not None}
            if given.get("queues") is not None:
                given["queues"] = tuple(given["queues"]) or None
            return cls(**given)
        except (ValueError, TypeError, KeyError) as fault:
            raise ConfigurationError(
                f"not a plan: {fault}; start the pool by `maildefer supervise`"
            ) from fault

    def text(self) -> str:
        return json.dumps({field.name: getattr(self, field.name) for field in fields(self)})

    def settings(self, report: ProbeReport) -> PoolSettings:
        """Combine the application's settings with the command line, which comes first.

        Raises ConfigurationError for more workers than any host has use for, since a slip would take all memory, for
        more messages in flight than a worker has room for, and for a log file that can't be opened.
        """
        given = report.settings
        settings = replace(
            given,
            workers=given.workers if self.workers is None else self.workers,
            concurrency=given.concurrency if self.concurrency is None else self.concurrency,
        )
        if settings.workers > MOST_WORKERS:
            raise ConfigurationError(f"workers={settings.workers}: at most {MOST_WORKERS} on one host")
        if settings.concurrency > MOST_IN_FLIGHT:
            raise ConfigurationError(
                f"concurrency={settings.concurrency}: at most {MOST_IN_FLIGHT} in one worker"
            )
        if (file := self._log_file_of(settings)) is not None and file != events.current_log_file():
            events.must_open(file)
        return settings

    def configure_log(self, settings: PoolSettings) -> None:
        """Configure the log by the settings, where the command line or a variable says nothing; also after a reload."""
        file = self._log_file_of(settings)
        events.configure(
            self.log_format or settings.log_format or None,
            log_file=None if file == events.current_log_file() else file,
            level=self.log_level or settings.log_level or None,
        )

    def _log_file_of(self, settings: PoolSettings) -> str | None:
        if self.log_file or not settings.log_file:
            return self.log_file
        return os.path.join(settings.project, settings.log_file)

    def served(self, settings: PoolSettings, routes: Sequence[ProbedRoute] = ()) -> tuple[QueueOfPool, ...]:
        """List the queues to serve, in the settings' order of priority. Raises ConfigurationError for an unknown one.

        If `routes` shows that they need tokens, the queue in which tokens lie is among them, for its tokens only.
        """
        absolute = {os.path.join(self.project, name): name for name in settings.queues}
        absolute = {os.path.normpath(path): name for path, name in absolute.items()}
        wanted = {os.path.normpath(os.path.join(self.project, path)) for path in self.queues or absolute}
        if unknown := sorted(wanted - absolute.keys()):
            known = ", ".join(settings.queues)
            raise ConfigurationError(
                f"no handlers for {', '.join(unknown)}: `queues` in the settings has {known}"
            )
        served = [
            QueueOfPool(name=name, layout=Layout(path)) for path, name in absolute.items() if path in wanted
        ]
        names = {queue.name for queue in served}
        needing = [route for route in routes if not route.stateless or route.exclusive or route.limits]
        if any(route.queue in names for route in needing):
            home, first = next(iter(absolute.items()))
            if first not in names:
                served.append(QueueOfPool(name=first, layout=Layout(home), tokens_only=True))
        return tuple(served)
