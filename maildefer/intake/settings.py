"""What settings and boot modules may say of a front end, and its command line for that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from maildefer.errors import ConfigurationError
from maildefer.host.environment import is_variable
from maildefer.intake import limits
from maildefer.intake.access import options
from maildefer.intake.listening_sockets import SocketProtocol

OPTIONS: Final = frozenset({"hostname", "user", "group", *limits.NAMES, *options.NAMES})
PLACES: Final = frozenset({"host", "port", "socket", "listen", "lmtp", "socket_mode"})
ENVIRONMENT: Final = "environment"


def arguments(said: Mapping[str, Any]) -> list[str]:
    """The options for what is said; several words may come as a list."""
    argv = []
    for name in sorted(OPTIONS & said.keys()):
        option, value = f"--{name.replace('_', '-')}", said[name]
        if value is True:
            argv.append(option)
        elif value not in (None, False):
            words = value if isinstance(value, list | tuple | set) else [value]
            argv.append(f"{option}={' '.join(map(str, words))}")
    return argv


def addresses(said: Mapping[str, Any]) -> list[str]:
    """Where to listen, as `pool.sockets` reads it: `listen`, else `socket`, else `host` and `port`."""
    if listen := said.get("listen"):
        return [listen] if isinstance(listen, str) else list(map(str, listen))
    kind = SocketProtocol.LMTP if said.get("lmtp") else SocketProtocol.SMTP
    if path := said.get("socket"):
        return [f"{kind}:{path}"]
    host = str(said.get("host", "127.0.0.1"))
    return [f"{kind}://{f'[{host}]' if ':' in host else host}:{said.get('port', 8825)}"]


def socket_mode(said: Mapping[str, Any]) -> int | None:
    """Of socket files: an octal text such as "0660", or a number. Raises ConfigurationError."""
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


def refuse_unknown(names: Iterable[str]) -> None:
    """Raises ConfigurationError for a name that means nothing here, lest a misspelt limit is none."""
    known = OPTIONS | PLACES | {"queue", "processes", ENVIRONMENT}
    if unknown := sorted(set(names) - known):
        raise ConfigurationError(
            f"receiver_config: {', '.join(unknown)} means nothing: there are {', '.join(sorted(known))}"
        )
