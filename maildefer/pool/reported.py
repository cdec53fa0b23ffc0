"""What a front end says of itself, within limits: it talks to the network, and may be broken."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, fields
from typing import Final

_REPORT_BYTES: Final = 4096
_MOST: Final = 1 << 53  # what every reader of JSON can hold
_TEXT_CHARACTERS: Final = 1000
_SHORTAGES: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """Numbers that were not told, or can be none, are None."""

    connections: int | None = None
    connections_of_all: int | None = None
    max_connections: int | None = None
    clients: int | None = None
    accepted: int | None = None
    held_bytes: int | None = None
    max_backlog: int | None = None
    min_free_bytes: int | None = None
    queue: str | None = None
    shortages: dict[str, str] = field(default_factory=dict)  # queue: why it takes no more for it

    def facts(self) -> dict[str, object]:
        """For `maildefer status`; empty where nothing was told."""
        told = {each.name: getattr(self, each.name) for each in fields(self)}
        found = {name: value for name, value in told.items() if value is not None}
        return found if found != {"shortages": {}} else {}


def read_report(descriptor: int) -> Reported:
    """What it last wrote there; nothing before it has, while it does, and where it is nonsense."""
    try:
        found = json.loads(os.pread(descriptor, _REPORT_BYTES, 0))
    except (OSError, ValueError, RecursionError):
        return Reported()
    if not isinstance(found, dict):
        return Reported()
    numbers = {
        each.name: _number(found.get(each.name)) for each in fields(Reported) if "int" in str(each.type)
    }
    return Reported(
        **numbers,
        queue=_text(found.get("queue")),
        shortages=_shortages(found.get("shortages")),
    )


def _number(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST else None


def _text(value: object) -> str | None:
    return value[:_TEXT_CHARACTERS] if isinstance(value, str) else None


def _shortages(value: object) -> dict[str, str]:
    told = value.items() if isinstance(value, dict) else ()
    texts = {name[:_TEXT_CHARACTERS]: text for name, why in told if (text := _text(why))}
    return dict(list(texts.items())[:_SHORTAGES])
