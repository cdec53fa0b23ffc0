"""Names in the settings module that are nearly those of settings: they count for nothing, and nothing else says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from difflib import get_close_matches
from types import ModuleType
from typing import Final

from maildefer.handling.project.settings import PoolSettings

_READ_ELSEWHERE: Final = (
    "queues handlers queue_config queue_handlers relay relay_config receiver outgoing_config authentication_config"
    " notices dkim_config template_config logging_config log_processors middleware alert_limits"
    " after_fork"
)
KNOWN: Final = frozenset(
    {field.name for field in fields(PoolSettings)} - {"project", "module", "kept"}
    | set(_READ_ELSEWHERE.split())
)
_NEAR: Final = 0.85  # so that `handler` is told, and an application's own `relay_host` is not


def misspelled(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Return each name that is no setting, and the setting that it is near to.

    What is imported, or can be called, is an application's own, and so is `queue` beside `queues`. Runs no code of the
    values.
    """
    names = vars(module)
    for name, value in names.items():
        is_code = callable(value) or issubclass(type(value), ModuleType)
        if name in KNOWN or name.startswith("_") or is_code or f"{name}s" in names:
            continue
        if isinstance(value, dict) and f"{name.lower()}_config" in KNOWN:
            yield name, f"{name.lower()}_config"
        elif near := get_close_matches(name.lower(), KNOWN, n=1, cutoff=_NEAR):
            yield name, near[0]
