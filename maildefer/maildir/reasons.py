"""Reasons of burials: one JSON file for each, named by the key and the generation of the dead letter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from maildefer.errors import MaildeferError
from maildefer.maildir import durable
from maildefer.maildir.layout import Layout, mend
from maildefer.maildir.names import EntryName
from maildefer.maildir.rights.folder import open_folder
from maildefer.maildir.rights.modes import rights_in
from maildefer.maildir.system import SYSTEM, System
from maildefer.untrusted import UntrustedRecord, read_plain, value_in

_LIMIT_BYTES = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """The death of a process that held an entry."""

    how: str  # "by SIGSEGV", "by its time limit of 5 s"
    handler: str | None = None  # its full name; None before any had begun
    seconds: float | None = None  # since the handlers began
    most_failures: int = 0  # that the handler's @retry allows, where it is sure to be the cause; 0: it is not
    stack: str | None = None  # of all its threads at that moment, if it could still write it

    def __str__(self) -> str:
        where = f" in {self.handler}" if self.handler else ""
        return self.how + where + (f" after {_duration(self.seconds)}" if self.seconds is not None else "")

    def facts(self) -> dict[str, object]:
        return {
            "death": self.how,
            "handler": self.handler,
            "seconds": self.seconds,
            "traceback": self.stack,
        }


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def dead_name(entry: EntryName) -> str:
    """Return the name of a dead letter. Its counters are in its reason, so that they start anew however it is moved."""
    return replace(entry, failures=0, attempts=0, crashes=0).waiting()


def reason_path(layout: Layout, dead: EntryName) -> str:
    return f"{layout.reasons}/{reason_name(dead)}"


def reason_name(dead: EntryName) -> str:
    """Return the name of a reason's file; it has the generation, since an entry may be buried more than once."""
    return f"{dead.unique_key},n={dead.returns}.json"


def names_of_reasons(layout: Layout, *, system: System = SYSTEM) -> set[str]:
    """Return the names of all reasons. Raises OSError."""
    try:
        return set(system.listdir(layout.reasons))
    except FileNotFoundError:  # the folder is made with the first reason
        return set()


def write_reason(
    layout: Layout,
    dead: EntryName,
    reason: str,
    facts: Mapping[str, object],
    *,
    host: str,
    system: System = SYSTEM,
) -> None:
    """Write a reason durably, before the entry is moved, so that no dead letter is without one. Raises OSError."""
    record = {
        "reason": reason,
        "key": dead.key,
        "attempts": dead.attempts,
        "failures": dead.failures,
        "crashes": dead.crashes,
        "host": host,
        "time": system.time(),
        **facts,
    }
    data = json.dumps(record, default=str).encode("utf-8", "backslashreplace")
    limit = 16_000
    while len(data) > _LIMIT_BYTES and limit:  # a very long traceback
        limit //= 2
        record = {key: value[-limit:] if isinstance(value, str) else value for key, value in record.items()}
        data = json.dumps(record, default=str).encode("utf-8", "backslashreplace")
    try:
        _write(layout, dead, data + b"\n", system)
    except FileNotFoundError as fault:  # a folder is missing: made again
        try:
            mend(layout, system=system)
        except MaildeferError:
            raise fault from None
        _write(layout, dead, data + b"\n", system)


def _write(layout: Layout, dead: EntryName, data: bytes, system: System) -> None:
    """Write the file durably, following no link that another user may have put in a folder's place."""
    draft = f".reason-{system.pid()}-{system.token(8)}"
    with (
        open_folder(layout.path, "tmp", system=system) as tmp,
        open_folder(layout.path, ".maildefer", "dead", system=system) as reasons,
    ):
        rights = rights_in(layout.path, system)
        descriptor = tmp.open(draft, durable.NEW, rights.file_mode)
        try:
            try:
                rights.give(descriptor)
                durable.write_all(descriptor, data, system)
                system.fsync(descriptor)
            finally:
                system.close(descriptor)
            tmp.rename(draft, reasons, reason_name(dead))
        except BaseException:
            tmp.remove([draft])
            raise
        reasons.sync()


def read_reason(layout: Layout, dead: EntryName, *, system: System = SYSTEM) -> dict[str, object]:
    """Read a reason's record; without a readable file, return a record that says so."""
    try:
        found = value_in(read_plain(reason_path(layout, dead), files=system)[0])
    except (OSError, UntrustedRecord):
        return {"reason": "unknown: its reason file is missing or damaged", "key": dead.key}
    return found if isinstance(found, dict) else {"reason": str(found), "key": dead.key}
