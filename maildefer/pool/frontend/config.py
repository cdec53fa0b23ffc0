"""What the settings say of the pool's front ends, checked, and as their processes are told it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from maildefer import events
from maildefer.errors import ConfigurationError
from maildefer.handling.project.settings import PoolSettings
from maildefer.host.privileges import resolve
from maildefer.intake import settings as front_end_settings
from maildefer.pool.context import PoolContext, QueueOfPool
from maildefer.pool.frontend import listeners
from maildefer.pool.frontend.process_group import BoundSocket
from maildefer.pool.options import PoolOptions

INTAKE: Final = "intake"
WEB: Final = "web"


class FrontEndConfig(NamedTuple):
    """One front end. Its sockets stay as they are for as long as the pool lives; all else may change at a reload."""

    kind: str
    module: str
    place: object
    """Where it listens; equal for what needs no other sockets."""
    listen: Callable[[], Sequence[BoundSocket]]
    """Binds them. Raises ConfigurationError."""
    options: list[str]
    wanted: int
    queue: QueueOfPool
    """Whose routes it is told."""
    environment: tuple[str, ...] = ()
    """Variables that it gets besides those of the list."""

    def equals(self, other: FrontEndConfig) -> bool:
        """Whether the other's processes may stay as they are."""
        return (self.options, self.wanted, self.environment) == (
            other.options,
            other.wanted,
            other.environment,
        )


def described(settings: PoolSettings, shared: PoolContext, plan: PoolOptions) -> dict[str, FrontEndConfig]:
    """By kind; none without `--intake`. Raises ConfigurationError."""
    if not plan.intake:
        return {}
    found: dict[str, FrontEndConfig] = {}
    if settings.web_config is not None:
        found[WEB] = _web(settings.web_config, shared, plan)
    if settings.receiver_config is not None or not found:
        found[INTAKE] = _intake(settings.receiver_config or {}, shared, plan)
    return found


def _intake(config: Mapping[str, Any], shared: PoolContext, plan: PoolOptions) -> FrontEndConfig:
    front_end_settings.check_receiver_config(config)
    name = config.get("queue")
    queue = shared.queues[0] if name is None else _named("receiver_config", str(name), shared)
    addresses, mode = front_end_settings.addresses(config), front_end_settings.socket_mode(config)
    said = front_end_settings.arguments({**config, **_identity(config, plan)})
    return FrontEndConfig(
        kind=INTAKE,
        module="maildefer.intake",
        place=(addresses, mode),
        listen=lambda: listeners.listen(addresses, folder=shared.project, mode=mode),
        options=["--queue", queue.layout.path, *_log_options(plan), *said],
        wanted=_processes(config),
        queue=queue,
        environment=front_end_settings.environment(config),
    )


def _web(config: Mapping[str, Any], shared: PoolContext, plan: PoolOptions) -> FrontEndConfig:
    front_end_settings.check_web_config(config)
    place = config.get("host", "127.0.0.1"), config.get("port", front_end_settings.DEFAULT_HTTP_PORT)
    options = ["--token-file", os.path.join(shared.project, str(config["token_file"]))]
    queues = _web_queues(config, shared)
    for name, queue in queues.items():
        options += ["--queue", f"{name}={queue.layout.path}"]
    said = front_end_settings.arguments({**config, **_identity(config, plan)}, http=True)
    return FrontEndConfig(
        kind=WEB,
        module="maildefer.intake.http",
        place=place,
        listen=lambda: [listeners.web(*place)],
        options=[*options, *_log_options(plan), *said],
        wanted=_processes(config),
        queue=next(iter(queues.values())),
    )


def _web_queues(config: Mapping[str, Any], shared: PoolContext) -> dict[str, QueueOfPool]:
    """Each by the last part of its path, which stands in the URL."""
    named = config.get("queues") or [shared.queues[0].name]
    queues = [_named("web_config", name, shared) for name in ([named] if isinstance(named, str) else named)]
    found = {os.path.basename(queue.layout.path): queue for queue in queues}
    if len(found) < len(queues):
        raise ConfigurationError("web_config: two of its queues have paths that end alike: rename one")
    return found


def _processes(config: Mapping[str, Any]) -> int:
    wanted = config.get("processes", 1)
    if not isinstance(wanted, int) or wanted < 1:
        raise ConfigurationError(f"processes is {wanted!r}: give how many a front end is to have, 1 or more")
    return wanted


def _log_options(plan: PoolOptions) -> list[str]:
    options = ["--log-format", events.current_format(), "--log-level", events.current_level()]
    file = events.current_log_file()
    return options if file is None else [*options, "--log-file", file]


def _named(setting: str, name: str, shared: PoolContext) -> QueueOfPool:
    path = os.path.normpath(os.path.join(shared.project, name))
    for queue in shared.queues:
        if queue.layout.path == path:
            return queue
    raise ConfigurationError(f"{setting}: this pool does not serve the queue {name}: name one that it does")


def _identity(config: Mapping[str, Any], plan: PoolOptions) -> dict[str, str]:
    """Whom the processes become, who find out too late for the one who starts us. Raises ConfigurationError."""
    user = plan.user or str(config.get("user", ""))
    group = plan.group or str(config.get("group", ""))
    if not user and not group:
        return {}
    resolve(user, group)
    return {"user": user, "group": group}
