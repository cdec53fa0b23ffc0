"""What settings and boot modules may say of a front end (`receiver_config`, `web_config`), and its command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from maildefer.errors import ConfigurationError
from maildefer.host.environment import is_variable
from maildefer.intake.options import SocketProtocol, address_text, setting_names

OPTIONS: Final = setting_names()
HTTP_OPTIONS: Final = setting_names(http=True)
ENVIRONMENT: Final = "environment"
DEFAULT_HTTP_PORT: Final = 8826
_ADDRESSES: Final = frozenset({"host", "port", "socket", "listen", "lmtp", "socket_mode"})
_HTTP_ADDRESSES: Final = frozenset({"host", "port", "token_file", "queues", "processes"})


def arguments(said: Mapping[str, Any], *, http: bool = False) -> list[str]:
    """The command line for what settings say; several words may come as a list."""
    argv = []
    for name in sorted((HTTP_OPTIONS if http else OPTIONS) & said.keys()):
        option, value = f"--{name.replace('_', '-')}", said[name]
        if value is True:
            argv.append(option)
        elif value is not None and value is not False:  # 0 is a limit's value
            words = value if isinstance(value, list | tuple | set) else [value]
            argv.append(f"{option}={' '.join(map(str, words))}")
    return argv


def addresses(said: Mapping[str, Any]) -> list[str]:
    """Where to listen, as `pool.frontend.listeners` reads it: `listen`, else `socket`, else `host` and `port`."""
    if listen := said.get("listen"):
        return [listen] if isinstance(listen, str) else list(map(str, listen))
    protocol = SocketProtocol.LMTP if said.get("lmtp") else SocketProtocol.SMTP
    if path := said.get("socket"):
        return [f"{protocol}:{path}"]
    host = str(said.get("host", "127.0.0.1"))
    return [address_text(protocol, (host, said.get("port", 8825)))]


def socket_mode(said: Mapping[str, Any]) -> int | None:
    """The mode of socket files: an octal text such as "0660", or a number. Raises ConfigurationError."""
    mode = said.get("socket_mode")
    try:
        return int(mode, 8) if isinstance(mode, str) else mode
    except ValueError:
        raise ConfigurationError(f'socket_mode is {mode!r}: give octal digits, such as "0660"') from None


def environment(said: Mapping[str, Any]) -> tuple[str, ...]:
    """The variables that policies and checks of passwords need besides those of the list. Raises ConfigurationError."""
    names = said.get(ENVIRONMENT) or ()
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list | tuple | set) or not all(map(is_variable, names)):
        raise ConfigurationError(
            f'{ENVIRONMENT} is {said[ENVIRONMENT]!r}: give names of variables, such as ["BLOG_DB_URL"], and no values'
        )
    return tuple(sorted(names))


def check_receiver_config(names: Iterable[str]) -> None:
    """Raises ConfigurationError for a name that means nothing there, lest a misspelt limit is none."""
    _refuse_unknown("receiver_config", names, OPTIONS | _ADDRESSES | {"queue", "processes", ENVIRONMENT})


def check_web_config(said: Mapping[str, Any]) -> None:
    """Raises ConfigurationError for a name that means nothing there, and where nobody could push."""
    _refuse_unknown("web_config", said, HTTP_OPTIONS | _HTTP_ADDRESSES)
    if not said.get("token_file"):
        raise ConfigurationError(
            "web_config: name a token_file, which says who may push: see docs/delivery.md"
        )


def _refuse_unknown(setting: str, names: Iterable[str], known: frozenset[str]) -> None:
    if unknown := sorted(set(names) - known):
        raise ConfigurationError(
            f"{setting}: {', '.join(unknown)} means nothing: there are {', '.join(sorted(known))}"
        )
