"""The mark that pauses a queue: while it is in `.maildefer/`, no host claims entries of the queue.

It belongs to the queue, not to a pool: every host sees it within two beats, and it stays when all pools have ended.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from maildefer.errors import raise_named
from maildefer.maildir import durable
from maildefer.maildir.layout import Layout
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.rights.modes import rights_in
from maildefer.maildir.system import SYSTEM, System
from maildefer.untrusted import UntrustedRecord, number, read_record

MARK = "paused"


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseMark:
    """The user who paused a queue, and when, as far as the mark says; it may also have been made by `touch`."""

    since: float | None = None  # unix seconds, by that host's clock
    user: str = ""
    host: str = ""


def pause_queue(layout: Layout, *, user: str, host: str, system: System = SYSTEM) -> bool:
    """Make the mark durably; False if it exists already. Raises StorageFault's kinds."""
    system = confined_to(layout.path, system)
    if is_paused(layout, system=system):
        return False
    facts = {"since": round(system.time(), 3), "user": user, "host": host}
    draft = f"{layout.tmp}/.paused-{system.pid()}-{system.token(6)}"
    try:
        data, rights = json.dumps(facts).encode() + b"\n", rights_in(layout.path, system)
        durable.replace_file(layout.paused, data, draft, rights=rights, system=system)
    except OSError as fault:
        raise_named(layout.paused, fault)
    return True


def resume_queue(layout: Layout, *, system: System = SYSTEM) -> bool:
    """Remove the mark durably; False if there is none. Raises StorageFault's kinds."""
    system = confined_to(layout.path, system)
    if not is_paused(layout, system=system):
        return False
    try:
        system.unlink(layout.paused)
        durable.sync_directory(layout.control, system=system)
    except FileNotFoundError:  # another process was first, or the reply was lost
        pass
    except OSError as fault:
        raise_named(layout.paused, fault)
    return True


def is_paused(layout: Layout, *, system: System = SYSTEM) -> bool:
    """Whether the mark exists. Raises StorageFault's kinds."""
    return MARK in marks(layout, system=system)


def marks(layout: Layout, *, system: System = SYSTEM) -> list[str]:
    """List the control folder, in which queues have their marks, afresh (I10). Raises StorageFault's kinds."""
    system = confined_to(layout.path, system)
    try:
        try:
            system.utime(layout.control)  # what surely drops an NFSv3 client's stale listing
        except OSError:  # this user may not change the folder: the listing may be stale
            pass
        return system.listdir(layout.control)
    except FileNotFoundError:  # a Maildir that no process has used yet
        return []
    except OSError as fault:
        raise_named(layout.control, fault)


def read_pause_mark(layout: Layout, *, system: System = SYSTEM) -> PauseMark | None:
    """Read the mark, for people; None if there is none. Raises StorageFault's kinds."""
    if not is_paused(layout, system=system):
        return None
    try:
        facts = read_record(layout.paused, files=system)
    except (OSError, UntrustedRecord):  # made by hand
        return PauseMark()
    return PauseMark(
        since=number(facts.get("since")) or None,
        user=str(facts.get("user", "")),
        host=str(facts.get("host", "")),
    )
