"""The status that a front end reports, parsed within limits: it talks to the network, and may be broken."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import Final

from maildefer.untrusted import UntrustedRecord, record_in

_REPORT_BYTES: Final = 4096
_MOST: Final = 1 << 53  # what every reader of JSON can hold
_TEXT_CHARACTERS: Final = 1000
_KIND_CHARACTERS: Final = 20
_SHORTAGES: Final = 100
_READS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEndStatus:
    """A front end's status. Numbers that it did not report are None."""

    connections: int | None = None
    connections_of_all: int | None = None
    max_connections: int | None = None
    clients: int | None = None
    accepted: int | None = None
    held_bytes: int | None = None
    max_backlog: int | None = None
    min_free_bytes: int | None = None
    queue: str | None = None
    refused: dict[str, int] = field(default_factory=dict)  # by kind
    shortages: dict[str, str] = field(default_factory=dict)  # queue: why it takes no more for it

    def facts(self) -> dict[str, object]:
        """Facts for `maildefer status`; empty where nothing was reported."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        found = {name: value for name, value in values.items() if value not in (None, {})}
        return {**found, "shortages": self.shortages} if found else {}


def read_report(descriptor: int) -> FrontEndStatus:
    """Parse what a front end last wrote there, if anything. Raises UntrustedRecord where that is no report.

    It is read again where it is none, since its process may be writing.
    """
    data = os.pread(descriptor, _REPORT_BYTES, 0)
    for _ in range(_READS):
        try:
            return _parsed(data)
        except UntrustedRecord:
            before, data = data, os.pread(descriptor, _REPORT_BYTES, 0)
            if data == before:
                raise
    return FrontEndStatus()


def _parsed(data: bytes) -> FrontEndStatus:
    if not data.strip(b" \0"):
        return FrontEndStatus()
    found = record_in(data.rstrip(b" \0"))
    numbers = {
        each.name: _number(found.get(each.name))
        for each in fields(FrontEndStatus)
        if str(each.type) == "int | None"
    }
    return FrontEndStatus(
        **numbers,
        queue=_text(found.get("queue")),
        refused=_counts(found.get("refused", {})),
        shortages=_shortages(found.get("shortages", {})),
    )


def _number(value: object) -> int | None:
    if value is None or (type(value) is int and value >= 0):
        return value if value is None or value <= _MOST else None
    raise UntrustedRecord(f"says {value!r:.40} for a number")


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value[:_TEXT_CHARACTERS] if value else value
    raise UntrustedRecord(f"says {value!r:.40} for a text")


def _counts(value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        raise UntrustedRecord(f"says {value!r:.40} for its counts")
    counts = {name[:_KIND_CHARACTERS]: _number(count) or 0 for name, count in value.items()}
    return dict(list(counts.items())[:_SHORTAGES])


def _shortages(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise UntrustedRecord(f"says {value!r:.40} for its shortages")
    texts = {name[:_TEXT_CHARACTERS]: text for name, why in value.items() if (text := _text(why))}
    return dict(list(texts.items())[:_SHORTAGES])
