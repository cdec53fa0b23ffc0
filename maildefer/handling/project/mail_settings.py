"""What the settings say about mail: relay, templates, keys for signatures, reports, and servers that are believed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final

from maildefer.errors import ConfigurationError
from maildefer.handling import undeliverable
from maildefer.handling.project.queue_paths import listed_queues, located, queue_at
from maildefer.handling.project.setting_place import place, wrong
from maildefer.handling.project.settings import FRONT_QUEUE, SENDS, pool_settings, project
from maildefer.maildir.layout import Layout

_GUARDS: Final = ("auth_required", "policy", "domains")
_INNER: Final = re.compile(r"\w+://(?:127\.|localhost\b|\[?::1)|\w+:(?!//|systemd)").match


def provide(settings: ModuleType) -> None:
    """Give handlers what the settings describe; nothing replaces what the project has set itself.

    What is not described costs nothing. Raises `ConfigurationError`.
    """
    _must_not_relay(settings)
    config = getattr(settings, "relay_config", None)
    if config is not None and not hasattr(settings, "relay"):
        settings.relay = _relay(settings, config)  # type: ignore[attr-defined]  # as Salmon's boot modules do
    config = getattr(settings, "template_config", None)
    if config is not None:
        _use_templates(settings, config)
    config = getattr(settings, "authentication_config", None)
    if config is not None:
        _trust_servers(settings, config)
    config = getattr(settings, "notices", None)
    if config is not None:
        _send_notices(settings, config)
    config = getattr(settings, "dkim_config", None)
    if config is not None:
        _load_dkim_keys(settings, config)


def _must_not_relay(settings: ModuleType) -> None:
    """Raises ConfigurationError where anybody could send anywhere: the queue that delivers is the front end's."""
    front = _front_queue(settings)
    if front is None or not _delivers(settings, front):
        return
    config = settings.receiver_config
    listens = config.get("listen") or f"smtp://{config.get('host', '127.0.0.1')}"
    if config.get("socket") or all(map(_INNER, [listens] if isinstance(listens, str) else map(str, listens))):
        return
    if not any(config.get(name) for name in _GUARDS):
        raise ConfigurationError(
            f"{place(settings, 'queues')}: the front end's queue is {front}, which {SENDS} delivers: an open relay. "
            f"Name another queue first, or as receiver_config's queue; or one of {', '.join(_GUARDS)} there"
        )


def _front_queue(settings: ModuleType) -> str | None:
    """The queue of the front end; None where the settings describe none."""
    config, queues = getattr(settings, "receiver_config", None), getattr(settings, "queues", None)
    if not isinstance(config, Mapping) or not isinstance(queues, Mapping) or not queues:
        return None
    return str(config.get("queue") or next(iter(queues)))


def _delivers(settings: ModuleType, queue: str) -> bool:
    """Whether what is put there is sent on."""
    found = [modules for path, modules in settings.queues.items() if located(path) == located(queue)]
    return any(isinstance(modules, list | tuple) and SENDS in modules for modules in found)


def _relay(settings: ModuleType, config: object) -> object:
    from maildefer.message.outgoing.relay import Relay  # only for applications that send

    where = f"{place(settings, 'relay_config')}: relay_config"
    if isinstance(config, Mapping) and (queue := config.get("queue")) is not None:
        if not isinstance(queue, str) or located(queue) not in listed_queues(settings):
            raise ConfigurationError(
                f"{where}: queue={queue!r} is not in `queues`, so that nobody would send what is put there: "
                f'add "run/outgoing": ["{SENDS}"] there, and name that'
            )
        if others := [name for name in config if name != "queue"]:
            raise ConfigurationError(
                f"{where}: with queue, outgoing_config names the servers: take away {', '.join(map(str, others))}"
            )
        front = _front_queue(settings)
        if front is not None and located(queue) == located(front) and not _delivers(settings, queue):
            raise ConfigurationError(
                f"{where}: {queue} is the front end's, whose handlers would get what is sent: name another one"
            )
    try:
        return Relay(**config)  # type: ignore[arg-type]  # whatever it holds, the call checks it
    except TypeError as fault:
        said = str(fault).removeprefix("Relay.__init__() ")
        example = 'give the arguments of Relay, such as {"host": "127.0.0.1", "port": 8825}'
        raise ConfigurationError(f"{where}: {said}: {example}") from fault


def _trust_servers(settings: ModuleType, config: object) -> None:
    from maildefer.message import authentication  # only for applications that ask

    try:
        authentication.configured = authentication.trusted_servers(config)
    except ConfigurationError as fault:
        raise ConfigurationError(f"{place(settings, 'authentication_config')}: {fault}") from None


def _send_notices(settings: ModuleType, config: object) -> None:
    from maildefer.message.notices.config import notice_settings  # only for applications that report

    known = pool_settings(settings)
    relay, outgoing = (getattr(settings, name, None) for name in ("relay_config", "outgoing_config"))
    try:
        said = notice_settings(
            config,
            relay.get("queue") if isinstance(relay, Mapping) else None,
            outgoing.get("hostname") if isinstance(outgoing, Mapping) else None,
        )
        front = (known.receiver_config or {}).get("queue") or known.first_queue
        served = {located(path) for path in known.queues} - {located(str(front))}
        if located(said.queue) not in served:
            example = 'one of handlers that send, such as "run/outgoing", and not the front end\'s'
            raise ConfigurationError(f"notices: no reports can go to {said.queue}: give {example}")
    except ConfigurationError as fault:
        raise ConfigurationError(f"{place(settings, 'notices')}: {fault}") from None

    def report(*facts: Any) -> None:
        from maildefer.message.notices.notices import Notices  # with the first message that may be reported

        undeliverable.report = Notices(said, queue_at, known.first_queue).report
        undeliverable.report(*facts)

    undeliverable.report = report


def _load_dkim_keys(settings: ModuleType, config: object) -> None:
    from maildefer.message.outgoing import dkim_signature  # only for applications that sign

    if not isinstance(config, Mapping):
        example = 'a mapping such as {"osb.example": {"selector": "mail", "key": "conf/dkim.pem"}}'
        raise wrong(settings, "dkim_config", example, config)
    try:
        dkim_signature.configured = dkim_signature.load_keys(config, project(settings))
    except ConfigurationError as fault:
        if isinstance(fault.__cause__, PermissionError) and not _may_claim(settings):
            return  # a front end of another user, which needs the routes, and sends nothing
        raise ConfigurationError(f"{place(settings, 'dkim_config')}: {fault}") from fault.__cause__


def _may_claim(settings: ModuleType) -> bool:
    """Whether this process could be a worker of any of the queues."""
    claims = [Layout(located(path)).cur for path in getattr(settings, "queues", ()) or (FRONT_QUEUE,)]
    return any(os.access(path, os.W_OK) or not os.path.exists(path) for path in claims)


def _use_templates(settings: ModuleType, config: object) -> None:
    # Brings the e-mail package, which an application without them can spare.
    from maildefer.message import templates

    folder, below = (
        (config.get("dir"), config.get("module", "")) if isinstance(config, Mapping) else (None, "")
    )
    if not isinstance(folder, str) or not isinstance(below, str):
        raise wrong(settings, "template_config", 'a mapping such as {"dir": "workers/templates"}', config)
    templates.configured = templates.LazyJinjaLoader(located(os.path.join(folder, below)))
