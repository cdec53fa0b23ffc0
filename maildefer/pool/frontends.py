"""The supervisor's front ends: who listens where, with which options, for which queue."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from typing import Any

from maildefer import events
from maildefer.errors import ConfigurationError
from maildefer.host.privileges import resolve
from maildefer.intake import configured
from maildefer.pool import sockets
from maildefer.pool.crew import Crew
from maildefer.pool.plan import Plan
from maildefer.pool.shared import Shared
from maildefer.web import options as web


class FrontEnds:
    """Those of `receiver_config` and of `web_config`, whose addresses are bound once. None without `--intake`."""

    def __init__(self, shared: Shared, plan: Plan, probed: Mapping[str, Any]) -> None:
        """Raises ConfigurationError when there is no usable address or queue to front."""
        self._shared = shared
        self._plan = plan
        self._crews: list[Crew] = []
        self._routes = -1
        if not plan.intake:
            return
        if shared.settings.web_config is not None:
            self._crews.append(self._web(dict(shared.settings.web_config)))
        if shared.settings.receiver_config is not None or not self._crews:
            self._crews.append(self._intake(dict(shared.settings.receiver_config or {}), probed))

    def __len__(self) -> int:
        return sum(map(len, self._crews))

    def refill(self) -> None:
        """Execute whatever is missing."""
        for crew in self._crews:
            crew.refill()

    def bury(self, pid: int, status: int) -> bool:
        """Note that a child has ended; False when it is none of ours."""
        return any(crew.bury(pid, status) for crew in self._crews)

    def reload(self, probed: Mapping[str, Any]) -> None:
        """The routes have changed: the children read them again."""
        if self._routes >= 0:
            self._write_routes(probed)
        self._signal_all(signal.SIGHUP)

    def reopen_log(self) -> None:
        """The log file was moved away."""
        if self._plan.log_file is not None:
            self._signal_all(signal.SIGUSR1)

    def retire_all(self) -> None:
        """Finish the transactions in hand, and end; new connections are refused from now on."""
        for crew in self._crews:
            crew.retire()

    def kill_all(self) -> None:
        self._signal_all(signal.SIGKILL)

    def facts(self) -> list[dict[str, Any]]:
        """For `maildefer status`."""
        return [one for crew in self._crews for one in crew.facts()]

    def _signal_all(self, signum: signal.Signals) -> None:
        for crew in self._crews:
            crew.signal(signum)

    def _intake(self, config: dict[str, Any], probed: Mapping[str, Any]) -> Crew:
        configured.refuse_unknown(config)
        name = config.get("queue")
        self._queue = self._shared.queues[0] if name is None else self._named("receiver_config", str(name))
        identity = self._checked(config)
        listeners = sockets.listen(
            configured.addresses(config), folder=self._shared.project, mode=configured.socket_mode(config)
        )
        self._routes = os.memfd_create("routes")  # readable for whoever the children become
        self._write_routes(probed)
        options = ["--queue", self._queue.layout.path, "--routes", f"/proc/self/fd/{self._routes}"]
        return Crew(
            "intake",
            "maildefer.intake",
            folder=self._shared.project,
            listeners=listeners,
            options=[*options, *self._log_options(), *configured.arguments(config | identity)],
            keep=[self._routes],
            wanted=int(config.get("processes", 1)),
        )

    def _web(self, config: dict[str, Any]) -> Crew:
        web.refuse_unknown(config)
        project = self._shared.project
        options = ["--token-file", os.path.join(project, str(config["token_file"]))]
        for name, path in self._web_queues(config).items():
            options += ["--queue", f"{name}={path}"]
        return Crew(
            "web",
            "maildefer.web",
            folder=project,
            listeners=[sockets.web(config.get("host", "127.0.0.1"), config.get("port", web.DEFAULT_PORT))],
            options=[*options, *self._log_options(), *web.arguments(config | self._checked(config))],
            wanted=int(config.get("processes", 1)),
        )

    def _web_queues(self, config: Mapping[str, Any]) -> dict[str, str]:
        """The directory of each by the last part of its path, which stands in the URL."""
        named = config.get("queues") or [self._shared.queues[0].name]
        queues = [self._named("web_config", name) for name in ([named] if isinstance(named, str) else named)]
        found = {os.path.basename(queue.layout.path): queue.layout.path for queue in queues}
        if len(found) < len(queues):
            raise ConfigurationError("web_config: two of its queues have paths that end alike: rename one")
        return found

    def _log_options(self) -> list[str]:
        options = ["--log-format", events.current_format()]
        return options if self._plan.log_file is None else [*options, "--log-file", self._plan.log_file]

    def _named(self, setting: str, name: str) -> Any:
        path = os.path.normpath(os.path.join(self._shared.project, name))
        for queue in self._shared.queues:
            if queue.layout.path == path:
                return queue
        raise ConfigurationError(
            f"{setting}: this pool does not serve the queue {name}: name one that it does"
        )

    def _checked(self, config: Mapping[str, Any]) -> dict[str, str]:
        """Whom the children become, who find out too late for the one who starts us. Raises ConfigurationError."""
        user = self._plan.user or str(config.get("user", ""))
        group = self._plan.group or str(config.get("group", ""))
        if not user and not group:
            return {}
        resolve(user, group)
        return {"user": user, "group": group}

    def _write_routes(self, probed: Mapping[str, Any]) -> None:
        """Only the routes of the queue behind us: what a later queue handles is not for the network."""
        routes = [route for route in probed["routes"] if route["queue"] == self._queue.name]
        data = json.dumps({"routes": routes}).encode()
        before = os.fstat(self._routes).st_size
        os.pwrite(self._routes, data.ljust(before), 0)  # never shorter for a moment: a child may be reading
        os.ftruncate(self._routes, len(data))
