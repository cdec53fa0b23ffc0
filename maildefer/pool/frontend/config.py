"""`receiver_config` and `web_config`, checked, and as options of intake processes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from maildefer import events
from maildefer.errors import ConfigurationError
from maildefer.handling.project.settings import PoolSettings
from maildefer.host.privileges import drop_privileges, resolve_user
from maildefer.intake import settings as front_end_settings
from maildefer.pool.context import PoolContext, QueueOfPool
from maildefer.pool.frontend import listeners
from maildefer.pool.frontend.intake_command import HTTP_MODULE, INTAKE_MODULE, BoundSocket
from maildefer.pool.options import PoolOptions

INTAKE: Final = "intake"
WEB: Final = "web"


class FrontEndConfig(NamedTuple):
    """The settings of a front end. Its sockets stay as long as the pool lives; all else may change at a reload."""

    kind: str
    module: str
    address: object
    """Where the front end listens; two configurations of equal addresses need the same sockets."""
    listen: Callable[[], Sequence[BoundSocket]]
    """Binds the sockets of that address. Raises ConfigurationError."""
    options: list[str]
    wanted: int
    queue: QueueOfPool
    """The queue for whose routes its processes accept mail."""
    environment: tuple[str, ...] = ()
    """Variables that its processes get besides those of the list."""
    identity: Mapping[str, str] = MappingProxyType({})
    """The user and the group that its processes become; empty where they stay what they are."""
    paths: tuple[str, ...] = ()
    """The queues to which its processes push."""

    def equals(self, other: FrontEndConfig) -> bool:
        """Whether the other's processes may stay as they are."""
        return (self.options, self.wanted, self.environment) == (
            other.options,
            other.wanted,
            other.environment,
        )


def front_ends_of(
    settings: PoolSettings, context: PoolContext, plan: PoolOptions
) -> dict[str, FrontEndConfig]:
    """The front ends that settings want, by kind; none without `--intake`. Raises ConfigurationError."""
    if not plan.intake:
        return {}
    found: dict[str, FrontEndConfig] = {}
    if settings.web_config is not None:
        found[WEB] = _web(settings.web_config, context, plan)
    if settings.receiver_config is not None or not found:
        found[INTAKE] = _intake(settings.receiver_config or {}, context, plan)
    return found


def try_identity(front: FrontEndConfig) -> None:
    """Try in a child whether the front end's processes may become their user, and may push as that user.

    A queue that is not there yet is passed over, and so is one on a mount that hangs. Raises ConfigurationError.
    """
    if front.identity:
        from maildefer.host.bounded_call import bounded  # pickle, which no other pool needs

        bounded(partial(_become_and_look, front.identity["user"], front.identity["group"], front.paths))


def _become_and_look(user: str, group: str, paths: Sequence[str]) -> None:
    drop_privileges(user, group)
    given = {"--user": user, "--group": group}
    options = " ".join(f"{option} {shlex.quote(name)}" for option, name in given.items() if name)
    for path in paths:
        for folder in (f"{path}/tmp", f"{path}/new"):
            try:
                os.lstat(folder)
                may = os.access(folder, os.W_OK | os.X_OK)
            except PermissionError:  # on the way to it
                may = False
            except OSError:
                continue
            if not may:
                raise ConfigurationError(
                    f"the front end may not write to {folder} as {options}: as root, `maildefer permissions "
                    f"{shlex.quote(path)} {options} --apply` gives it what it needs, where that user can search the "
                    "folders above"
                )


def _intake(config: Mapping[str, Any], context: PoolContext, plan: PoolOptions) -> FrontEndConfig:
    front_end_settings.check_receiver_config(config)
    name = config.get("queue")
    queue = context.queues[0] if name is None else _queue_named("receiver_config", str(name), context)
    addresses, mode = front_end_settings.addresses(config), front_end_settings.socket_mode(config)
    identity = _identity(config, plan)
    said = front_end_settings.arguments({**config, **identity})
    return FrontEndConfig(
        kind=INTAKE,
        module=INTAKE_MODULE,
        address=(addresses, mode),
        listen=lambda: listeners.listen(addresses, folder=context.project, mode=mode),
        options=["--queue", queue.layout.path, *log_options(), *said],
        wanted=_processes(config),
        queue=queue,
        environment=front_end_settings.environment(config),
        identity=identity,
        paths=(queue.layout.path,),
    )


def _web(config: Mapping[str, Any], context: PoolContext, plan: PoolOptions) -> FrontEndConfig:
    front_end_settings.check_web_config(config)
    address = config.get("host", "127.0.0.1"), config.get("port", front_end_settings.DEFAULT_HTTP_PORT)
    options = ["--token-file", os.path.join(context.project, str(config["token_file"]))]
    queues = _web_queues(config, context)
    for name, queue in queues.items():
        options += ["--queue", f"{name}={queue.layout.path}"]
    identity = _identity(config, plan)
    said = front_end_settings.arguments({**config, **identity}, http=True)
    return FrontEndConfig(
        kind=WEB,
        module=HTTP_MODULE,
        address=address,
        listen=lambda: [listeners.listen_web(*address)],
        options=[*options, *log_options(), *said],
        wanted=_processes(config),
        queue=next(iter(queues.values())),
        identity=identity,
        paths=tuple(queue.layout.path for queue in queues.values()),
    )


def _web_queues(config: Mapping[str, Any], context: PoolContext) -> dict[str, QueueOfPool]:
    """The queues that may be pushed to, each by the last part of its path, which stands in the URL."""
    named = config.get("queues") or [context.queues[0].name]
    queues = [
        _queue_named("web_config", name, context) for name in ([named] if isinstance(named, str) else named)
    ]
    found = {os.path.basename(queue.layout.path): queue for queue in queues}
    if len(found) < len(queues):
        raise ConfigurationError("web_config: two of its queues have paths that end alike: rename one")
    return found


def _processes(config: Mapping[str, Any]) -> int:
    wanted = config.get("processes", 1)
    if not isinstance(wanted, int) or wanted < 1:
        raise ConfigurationError(f"processes is {wanted!r}: give how many a front end is to have, 1 or more")
    return wanted


def log_options() -> list[str]:
    """The options by which a front end logs as this process does."""
    options = ["--log-format", events.current_format(), "--log-level", events.current_level()]
    file = events.current_log_file()
    return options if file is None else [*options, "--log-file", file]


def _queue_named(setting: str, name: str, context: PoolContext) -> QueueOfPool:
    path = os.path.normpath(os.path.join(context.project, name))
    for queue in context.queues:
        if queue.layout.path == path:
            return queue
    raise ConfigurationError(f"{setting}: this pool does not serve the queue {name}: name one that it does")


def _identity(config: Mapping[str, Any], plan: PoolOptions) -> dict[str, str]:
    """User and group that the processes become; checked already here, by the process that a person starts.

    Raises ConfigurationError.
    """
    user = plan.user or str(config.get("user", ""))
    group = plan.group or str(config.get("group", ""))
    if not user and not group:
        return {}
    resolve_user(user, group)
    return {"user": user, "group": group}
