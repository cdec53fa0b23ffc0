"""Where mail goes, by the setting `outgoing_config`: the servers of each destination, and its limits.

A destination is what is limited, and what waits as a whole while it is down: the server that the settings name for all
mail, or by MX the recipient's domain, as is a domain for which they name something else than limits.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Final

from maildefer.errors import ConfigurationError
from maildefer.handling.limits.limit import Limit, LimitUse, at_a_time, in_a_period
from maildefer.handling.project.queue_paths import located
from maildefer.handling.project.setting_place import place
from maildefer.message.outgoing.kept_relay import KeptRelay
from maildefer.message.outgoing.relay import TLS_MODES

MODULE: Final = "maildefer.handlers.outgoing"
HANDLER: Final = f"{MODULE}.START"
MX_CONNECTIONS: Final = 20
"""To a domain at a time, where the servers are not our own and the settings say nothing."""

_IDLE_SECONDS: Final = 2.0
_MOST_KNOWN: Final = 10_000
_LONGEST_TEXT: Final = 255
_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "host": (str, type(None)),
    "port": (int,),
    "tls": (str,),
    "ssl": (bool,),
    "lmtp": (bool,),
    "username": (str, type(None)),
    "password": (str, type(None)),
    "connections": (int, type(None)),
    "rate": (str, type(None)),
}
_DOMAIN: Final = re.compile(r"[^\s@*/\[\]]+|\[[^\[\]@\s]+\]").fullmatch
_HOST_AND_MORE: Final = re.compile(r"[^:/]*:[0-9]+|.*//.*").fullmatch
_LIMITS: Final = {"connections", "rate"}
_OF_A_SERVER: Final = ("host", "port", "ssl", "lmtp", "username", "password")


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A server, or the servers of a domain, with the limits of what is sent there."""

    name: str
    relay: KeptRelay
    uses: tuple[LimitUse, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    """What the settings say of one domain, or of all others."""

    relay: KeptRelay
    connections: int | None
    rate: str | None
    is_own: bool = False  # they say where the mail of one domain goes, or how

    @property
    def server(self) -> str | None:
        """The server's name as a destination; None where it is the domain's."""
        if self.relay.hostname is None or self.is_own:
            return None
        if self.relay.hostname.startswith("/"):
            return self.relay.hostname
        return f"{self.relay.hostname}:{self.relay.port}"


class Destinations:
    """All destinations of a project. Any thread may ask. Raises ConfigurationError for settings that mean nothing."""

    def __init__(self, config: object = None) -> None:
        config = _mapping("outgoing_config", {} if config is None else config)
        given = {key: value for key, value in config.items() if key not in ("destinations", "hostname")}
        self.hostname = _hostname(config.get("hostname", ""))
        """The name of this host for other servers; empty: its own."""
        self._others = _terms("outgoing_config", {"host": "127.0.0.1", **given})
        self._terms: dict[str, _Terms] = {}
        for domain, own in _mapping("destinations", config.get("destinations") or {}).items():
            where = f"outgoing_config['destinations'][{domain!r}]"
            if not _DOMAIN(domain):
                raise ConfigurationError(f"{where}: give a recipient's domain, such as osb.example")
            own = _mapping(where, own)
            kept = {key: value for key, value in given.items() if key not in _OF_A_SERVER}
            base = {"host": "127.0.0.1", **given} if own.keys().isdisjoint(_OF_A_SERVER) else kept
            is_own = not own.keys() <= _LIMITS
            self._terms[domain.lower().rstrip(".")] = _terms(where, {"host": None, **base, **own}, is_own)
        if (
            any(one.relay.hostname is None for one in (self._others, *self._terms.values()))
            and not _has_dns()
        ):
            raise ConfigurationError(
                "outgoing_config: host=None takes dnspython: pip install 'maildefer[mx]', or name a host"
            )
        self._known: dict[str, Destination] = {}

    @property
    def only(self) -> Destination | None:
        """The destination of all mail, where there is only one."""
        server = self._others.server
        return None if self._terms or server is None else self._destination("", self._others)

    def of(self, recipient: str) -> Destination:
        """The destination of a recipient's mail."""
        domain = recipient.rpartition("@")[2].lower().rstrip(".")
        known = self._known.get(domain)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            terms = self._terms.get(domain)
            known = self._known[domain] = self._destination(domain, terms or self._others)
        return known

    def limits(self) -> tuple[Limit, ...]:
        """The limits of the handler."""
        if (only := self.only) is not None:
            return tuple(use.limit for use in only.uses)
        return (Limit(0, key=self.destination, choose=lambda message: self.of(recipient_of(message)).uses),)

    def destination(self, message: Any, **captures: object) -> str:
        """The key of limits, in whose texts its name stands."""
        return self.of(recipient_of(message)).name

    def _destination(self, domain: str, terms: _Terms) -> Destination:
        server = terms.server
        name = server or domain or "(no domain)"
        by_domain = domain if terms is not self._others else name  # limits that were given for it alone
        key: Any = None if not domain else self.destination
        limits: list[Limit] = []
        connections = terms.connections or (MX_CONNECTIONS if terms.relay.hostname is None else None)
        if connections:
            limits.append(replace(at_a_time(connections, key), label="connections"))
        if terms.rate:
            limits.append(replace(in_a_period(terms.rate, key), label="rate"))
        closes = LimitUse(Limit(0, key=key, label=name, closes=True), HANDLER, name if key else "")
        own = [LimitUse(limit, HANDLER, by_domain if key else "") for limit in limits]
        return Destination(name=name, relay=terms.relay, uses=(closes, *own))


def destinations_of(settings: ModuleType | None) -> Destinations:
    """Those that a project's settings name. Raises ConfigurationError with file and line."""
    try:
        return Destinations(getattr(settings, "outgoing_config", None))
    except ConfigurationError as fault:
        where = "" if settings is None else f"{place(settings, 'outgoing_config')}: "
        raise ConfigurationError(f"{where}{fault}") from None


def recipient_of(message: Any) -> str:
    """The recipient of an entry, in the case in which it was given."""
    envelope = getattr(message, "came_with", None)
    recipient: str = envelope.recipient if envelope is not None else message.To
    return recipient


def _hostname(given: object) -> str:
    if not isinstance(given, str) or (given and not (_DOMAIN(given) and given.isascii())):
        raise ConfigurationError(
            f"outgoing_config: hostname is {given!r}: give the name by which others know this host"
        )
    return given


def _has_dns() -> bool:
    return importlib.util.find_spec("dns") is not None


def _mapping(where: str, given: object) -> Mapping[str, Any]:
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise ConfigurationError(
            f'{where} is {given!r}: give a mapping such as {{"host": "mail.example", "tls": "required"}}'
        )
    return given


def _terms(where: str, given: Mapping[str, Any], is_own: bool = False) -> _Terms:
    """What one mapping of the settings says. Raises ConfigurationError that names it."""
    for key, value in given.items():
        if key not in _KINDS:
            names = (*_KINDS, *(("destinations", "hostname") if where == "outgoing_config" else ()))
            raise ConfigurationError(f"{where} has {key!r}: give some of {', '.join(names)}")
        kinds = _KINDS[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
            raise ConfigurationError(f"{where}: {key} is {value!r}: give {wanted}")
    host, port, lmtp = (
        given.get("host"),
        given.get("port", 24 if given.get("lmtp") else 25),
        given.get("lmtp"),
    )
    if host is not None and not (0 < len(host) <= _LONGEST_TEXT and host.isprintable() and " " not in host):
        raise ConfigurationError(
            f"{where}: host is {host!r}: give a host's name, its address, or None for MX"
        )
    if host is not None and _HOST_AND_MORE(host):
        raise ConfigurationError(f"{where}: host is {host!r}: give its name alone, and the port beside it")
    if host is not None and "/" in host and lmtp:
        host = located(host)
    elif host is not None and "/" in host:
        raise ConfigurationError(f"{where}: {host} is a socket file, which takes LMTP: add lmtp=True")
    if lmtp and host is None:
        raise ConfigurationError(f"{where}: LMTP goes to one server: name it by host")
    if not 0 < port < 65536:
        raise ConfigurationError(f"{where}: port is {port}: give a number from 1 to 65535")
    tls = given.get("tls", "" if lmtp or given.get("ssl") else "opportunistic")
    if tls not in (*TLS_MODES, "off"):
        raise ConfigurationError(f"{where}: tls is {tls!r}: give one of off, {', '.join(TLS_MODES[1:])}")
    if given.get("ssl") and tls == "off":
        raise ConfigurationError(f"{where}: ssl is TLS from the first byte on: leave out tls='off', or ssl")
    if bool(given.get("username")) != bool(given.get("password")):
        raise ConfigurationError(f"{where}: give username and password, or neither")
    if given.get("password") and (tls == "off" or lmtp):
        raise ConfigurationError(
            f"{where}: a password is sent within TLS only: give tls='verified', and no lmtp"
        )
    if given.get("password") and host is None:
        raise ConfigurationError(f"{where}: a password is for one server: name it by host")
    try:
        if (connections := given.get("connections")) is not None:
            at_a_time(connections, None)
        if (rate := given.get("rate")) is not None:
            in_a_period(rate, None)
        relay = KeptRelay(
            host,
            port,
            username=given.get("username"),
            password=given.get("password"),
            ssl=given.get("ssl", False),
            lmtp=given.get("lmtp", False),
            tls="" if tls == "off" else tls,
            idle_seconds=_IDLE_SECONDS if connections is None else 0.0,  # an idle one would be one too many
        )
    except (TypeError, ValueError) as fault:
        raise ConfigurationError(f"{where}: {fault}") from fault
    return _Terms(relay=relay, connections=connections, rate=rate, is_own=is_own)
