"""What the settings say about how a pool is watched: the address of its health and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

from maildefer.errors import ConfigurationError
from maildefer.handling.project.setting_place import place, wrong

HEALTH_VARIABLE: Final = "MAILDEFER_HEALTH"
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
        config, where = getattr(module, "health_config", None), place(module, "health_config")
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


def _parsed(said: str) -> dict[str, Any]:
    host, colon, port = said.rpartition(":")
    if said == "off":
        return {}
    if colon and port.isascii() and port.isdigit() and "/" not in host:
        return {"host": host.strip("[]") or "127.0.0.1", "port": int(port)}
    if "/" in said:
        return {"socket": said}
    raise ConfigurationError(f"{HEALTH_VARIABLE}={said!r}: give HOST:PORT, the path of a socket file, or off")
