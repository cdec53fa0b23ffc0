"""Checks of the rights in a queue: modes and groups of its folders and entries, and the umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import islice
from typing import Final

from maildefer.doctor.findings import Finding, ok, refuse, warn
from maildefer.maildir import scan
from maildefer.maildir.layout import Layout
from maildefer.maildir.rights.modes import umask
from maildefer.maildir.rights.recording import barred_writers

_LOOKED_AT: Final = 200  # entries of new/
_ALL: Final = os.R_OK | os.W_OK | os.X_OK


def examine_permissions(layout: Layout) -> Iterator[Finding]:
    """Check whether this user can serve the queue, and whether all members of a group that shares it could."""
    folders = _folders(layout)
    if others := list(examine_sticky_folders(layout)):
        yield from others
        return
    if shut := [folder for folder in folders if not os.access(folder, _ALL)]:
        fact = f"this user may not write to {_names(layout, shut)}"
        yield refuse("permissions", fact, "give them to this user, or its group, or run this as their owner")
        return
    facts = {folder: os.stat(folder) for folder in folders}
    new = facts[layout.new]
    found = [*_open_to_all(layout, {folder: fact.st_mode for folder, fact in facts.items()})]
    if new.st_mode & stat.S_IWGRP and not new.st_mode & stat.S_ISVTX:
        found += _shared(layout, facts)
    yield from found
    if not found:
        mode = stat.S_IMODE(facts[layout.new].st_mode)
        yield ok("permissions", f"new/ has mode {mode:04o}, the umask is {umask():04o}")


def examine_sticky_folders(layout: Layout) -> Iterator[Finding]:
    """Check whether this user owns sticky folders: only their owner, and root, can remove the files of others there."""
    user = os.geteuid()
    for folder in (layout.new, layout.tmp):
        try:
            facts = os.stat(folder)
        except OSError:  # the call that needs the folder reports this
            continue
        if facts.st_mode & stat.S_ISVTX and user not in (0, facts.st_uid):
            owner, place = facts.st_uid, _names(layout, [folder])
            fact = f"{place} is sticky and user {owner}'s, who alone may remove others' files; this is user {user}"
            remedy = f"run workers as user {owner}, and programs of other users on a queue of their own"
            yield refuse("permissions", fact, remedy)
            return


def examine_replaceable_folders(layout: Layout) -> Iterator[Finding]:
    """Check, for a pool of root, whether others could put a link in a folder's place, and so lead root to other files.

    Missing folders are ignored.
    """
    if os.geteuid() != 0:
        return
    within = (layout.control, *map(os.path.dirname, (layout.later_new, layout.dead_new)))
    for folder in (os.path.dirname(layout.path), layout.path, *within):
        try:
            facts = os.stat(folder)
        except OSError:
            continue
        if who := _who_replaces(facts):
            fact = f"{who} may put links in {folder}, and so have root's pool move files of other folders"
            remedy = "run the pool as the queue's owner, or let nobody but root write to that folder"
            yield warn("permissions", fact, remedy)
            return


def _who_replaces(facts: os.stat_result) -> str:
    """Return the users, besides root, that can replace what is in the folder, in words; empty if there are none."""
    if facts.st_uid != 0:
        return f"user {facts.st_uid}"
    if facts.st_mode & stat.S_ISVTX:
        return ""
    if facts.st_mode & stat.S_IWOTH:
        return "anybody"
    return f"group {facts.st_gid}" if facts.st_mode & stat.S_IWGRP and facts.st_gid != 0 else ""


def examine_journal(layout: Layout) -> Iterator[Finding]:
    """Check, if a journal is kept, whether this user, and the users that serve the queue, may write records to it."""
    if not os.path.isdir(layout.journal):
        return
    found = [*barred_writers(layout.path)]
    if not found and not os.access(layout.journal, os.W_OK | os.X_OK):
        found = [f"this user may not write to {_names(layout, [layout.journal])}"]
    for text in found:
        remedy = f"as root, maildefer audit --on {layout.path}, which gives it to who may write to new/"
        yield warn("journal", f"{text}: the audit knows nothing of its pushes", remedy)
    if not found:
        yield ok(
            "journal", "what this user, the queue's owner and whoever serves it push and settle is recorded"
        )


def _open_to_all(layout: Layout, modes: dict[str, int]) -> Iterator[Finding]:
    loose = [folder for folder, mode in modes.items() if mode & stat.S_IWOTH and not mode & stat.S_ISVTX]
    if loose:
        fact = f"anybody can add and remove files: {_names(layout, loose)} may be written to by all"
        yield warn("permissions", fact, f"chmod o-w {' '.join(loose)}")


def _shared(layout: Layout, facts: dict[str, os.stat_result]) -> Iterator[Finding]:
    """Check a queue that its group may write to: all members must be able to use the files that one member makes."""
    group = facts[layout.new].st_gid
    if others := [folder for folder, fact in facts.items() if fact.st_gid != group]:
        fact = f"new/ belongs to group {group}, but not {_names(layout, others)}"
        yield warn("permissions", fact, f"chgrp -R {group} {layout.path}")
    unmarked = [f for f in (layout.tmp, layout.new) if not facts[f].st_mode & stat.S_ISGID]
    if unmarked and group != os.getegid():
        fact = f"what is made in {_names(layout, unmarked)} gets its maker's group, not that of the folder"
        yield warn("permissions", fact, f"find {layout.path} -type d -exec chmod 2770 {{}} +")
    elif len(unmarked) < 2 and (mask := umask()) & 0o060:
        fact = f"new/ is shared by its group, but the umask {mask:04o} hides new files from the group"
        yield warn("permissions", fact, "start with umask 0007, or UMask=0007 in the systemd unit")
    looked_at, hidden = _hidden(layout, group)
    if hidden and len(unmarked) < 2:
        fact = f"{hidden} of {looked_at} entries looked at are not for the group {group} to read"
        remedy = f"chgrp -R {group} {layout.path} && find {layout.path} -type f -exec chmod 0660 {{}} +"
        yield warn("permissions", fact, remedy)


def _hidden(layout: Layout, group: int) -> tuple[int, int]:
    looked_at = hidden = 0
    for name in islice(scan.entries(layout.new), _LOOKED_AT):
        try:
            fact = os.lstat(f"{layout.new}/{name}")
        except OSError:  # claimed meanwhile
            continue
        looked_at += 1
        hidden += fact.st_gid != group or not fact.st_mode & stat.S_IRGRP
    return looked_at, hidden


def _folders(layout: Layout) -> list[str]:
    """Return the folders that exist: a Maildir that no pool has served yet has few."""
    folders = [layout.tmp, layout.new, layout.cur, layout.later_new, layout.dead_new]
    folders += [layout.leases, layout.fenced, layout.reasons, layout.requests, layout.status]
    return [folder for folder in folders if os.path.lexists(folder)]


def _names(layout: Layout, folders: list[str]) -> str:
    return ", ".join(f"{os.path.relpath(folder, layout.path)}/" for folder in folders)
