"""What the settings say about how a pool is watched: health and metrics, alerts, and what is kept."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

from maildefer.errors import ConfigurationError
from maildefer.handling.project.setting_place import is_decorator, place, wrong
from maildefer.units import seconds_of

HEALTH_VARIABLE: Final = "MAILDEFER_HEALTH"
_ALERT_LIMITS: Final = {
    "oldest_seconds": 900.0,
    "free_bytes": 1e9,
    "down_seconds": 900.0,
    "timeout_seconds": 30.0,
}
_NAMES: Final[dict[str, type]] = {"host": str, "port": int, "socket": str, "socket_mode": str}
_EXAMPLE: Final = 'a mapping such as {"port": 8827}, with a host, or {"socket": "run/health.sock"}'


def health_address(module: ModuleType, environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Where to answer for health and metrics: `host` and `port`, or `socket`; None: nowhere. Raises ConfigurationError.

    The variable holds HOST:PORT or the path of a socket file, or `off`, for the second pool of a project on one host.
    """
    config: Any
    if said := environ.get(HEALTH_VARIABLE, ""):
        config, where = _parsed(said), HEALTH_VARIABLE
    else:
        config, where = (
            getattr(module, "health_config", None),
            f"{place(module, 'health_config')}: health_config",
        )
        if config is None:
            return None
        if not isinstance(config, Mapping) or not config or config.keys() - _NAMES.keys():
            raise wrong(module, "health_config", _EXAMPLE, config)
    if not config:
        return None
    for name, value in config.items():
        if not isinstance(value, _NAMES[name]) or isinstance(value, bool) or value == "":
            kind = "a number" if _NAMES[name] is int else "a text"
            raise ConfigurationError(f"{where}: {name} is {value!r}: give {kind}")
    if ("port" in config) is ("socket" in config):
        raise ConfigurationError(f"{where}: give a port or a socket, not both: {_EXAMPLE}")
    if not 0 < config.get("port", 1) < 65536:
        raise ConfigurationError(f"{where}: port is {config['port']}: give one from 1 to 65535")
    if not set(config.get("socket_mode", "0")) <= set("01234567"):
        raise ConfigurationError(
            f'{where}: socket_mode is {config["socket_mode"]!r}: give digits such as "0660"'
        )
    if missing := [name for name in ("aiohttp", "prometheus_client") if find_spec(name) is None]:
        raise ConfigurationError(f"{where}: this needs {' and '.join(missing)}: install maildefer[web]")
    return dict(config)


def alert_command(module: ModuleType, project: str) -> dict[str, Any] | None:
    """The command of `alerts`, with `alert_limits`; None where there is none. Raises ConfigurationError."""
    argv, limits = getattr(module, "alerts", None) or None, getattr(module, "alert_limits", {})
    if argv is not None and (
        not isinstance(argv, list | tuple)
        or not all(isinstance(word, str) and word and "\0" not in word for word in argv)
    ):
        raise wrong(module, "alerts", 'a command as a list, such as ["conf/page.sh", "--quiet"]', argv)
    if not isinstance(limits, Mapping) or limits.keys() - _ALERT_LIMITS.keys():
        raise wrong(module, "alert_limits", f"a mapping with any of {', '.join(_ALERT_LIMITS)}", limits)
    for name, value in limits.items():
        if type(value) not in (int, float) or not 0 < value < float("inf"):
            raise ConfigurationError(
                f"{place(module, 'alert_limits')}: alert_limits: {name} is {value!r}: give a number above 0"
            )
    if argv is None:
        return None
    program = os.path.join(project, argv[0]) if "/" in argv[0] else argv[0]
    return {"command": [program, *argv[1:]], "project": project, **_ALERT_LIMITS, **limits}


def dead_retention(module: ModuleType, queues: Collection[str]) -> dict[str, float]:
    """After how many seconds a dead letter is deleted, by queue. Raises ConfigurationError."""
    return _times(module, "dead_retention", queues, least=3600)


def kept_messages(module: ModuleType, queues: Collection[str]) -> dict[str, float]:
    """For how many seconds a message is kept that was handled, by queue. Raises ConfigurationError."""
    return _times(module, "keep", queues, least=0)


def _times(module: ModuleType, setting: str, queues: Collection[str], *, least: float) -> dict[str, float]:
    said = getattr(module, setting, None)
    if said is None or is_decorator(said):
        return {}
    each = said if isinstance(said, Mapping) else dict.fromkeys(queues, said)
    found: dict[str, float] = {}
    for queue, given in each.items():
        path = os.path.normpath(str(queue))
        if path not in queues:
            raise ConfigurationError(
                f"{place(module, setting)}: {setting}: no handlers for {queue}: name a queue of `queues`"
            )
        try:
            found[path] = seconds_of(setting, given, least=least)
        except ValueError as fault:
            raise ConfigurationError(f"{place(module, setting)}: {fault}") from None
    return found


def _parsed(said: str) -> dict[str, Any]:
    host, colon, port = said.rpartition(":")
    if said == "off":
        return {}
    if colon and port.isascii() and port.isdigit() and "/" not in host:
        return {"host": host.strip("[]") or "127.0.0.1", "port": int(port)}
    if "/" in said:
        return {"socket": said}
    raise ConfigurationError(f"{HEALTH_VARIABLE}={said!r}: give HOST:PORT, the path of a socket file, or off")
