"""Replacing an emptied folder that has grown: a folder of ext4 never shrinks, and each listing reads all of it.

The folder stays where it is until one rename puts a fresh one in its place, which the filesystem refuses unless it is
empty. It is never moved away, since a process that knows it by a handle would go on delivering there.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from maildefer.maildir import durable
from maildefer.maildir.drafts.folder import FolderDraft
from maildefer.maildir.layout import Layout
from maildefer.maildir.rights.confined import confined_to, unconfined
from maildefer.maildir.rights.folder import FRESH, open_folder
from maildefer.maildir.system import SYSTEM, System

GROWN_BYTES: Final = 1 << 18  # some thousands of names
_FRESH_BYTES: Final = 1 << 16  # a filesystem that calls an empty folder larger tells no true sizes


def replace_grown(layout: Layout, *, system: System = SYSTEM) -> dict[str, int]:
    """Replace `new/` and `.later/new/`, where they are empty and have grown; returns which, and their sizes in bytes.

    Any process that may write to the queue may call it, at any time. Raises OSError.
    """
    system, replaced = confined_to(layout.path, system), {}
    for path in (layout.new, layout.later_new):
        facts = system.lstat(path)
        if facts.st_size >= GROWN_BYTES and replace_folder(layout, path, facts, system=system):
            replaced[path] = facts.st_size
    return replaced


def replace_folder(layout: Layout, path: str, facts: os.stat_result, *, system: System) -> bool:
    """Put a fresh folder of the same rights in the place of one that is empty; False if it is not, or can't be."""
    with system.scandir(path) as listing:  # a name that is no entry counts as well
        if next(iter(listing), None) is not None:
            return False
    draft = FolderDraft(layout, FRESH, mode=stat.S_IMODE(facts.st_mode), system=system)
    try:
        draft.sync()
        if unconfined(system) is SYSTEM and not _can_stand_for(layout, path, draft.name):
            draft.discard()
            return False
        is_placed = draft.place(path)
    except OSError:
        draft.discard()
        raise
    if is_placed:
        durable.sync_directory(path.rpartition("/")[0], system=system)
    else:
        draft.discard()
    return is_placed


def _can_stand_for(layout: Layout, path: str, name: str) -> bool:
    """Give the draft the group and mode of the folder; whether it is the same then in all but its size."""
    below = path.removeprefix(f"{layout.path}/").split("/")
    with open_folder(layout.path, *below) as old, open_folder(layout.path, "tmp", name) as fresh:
        model, made = os.fstat(old.descriptor), os.fstat(fresh.descriptor)
        if made.st_dev != model.st_dev or made.st_size > _FRESH_BYTES:
            return False
        if _attributes(old.descriptor) != _attributes(fresh.descriptor):
            return False
        try:
            if made.st_gid != model.st_gid:
                os.fchown(fresh.descriptor, -1, model.st_gid)
            if stat.S_IMODE(made.st_mode) != stat.S_IMODE(model.st_mode):
                os.fchmod(fresh.descriptor, stat.S_IMODE(model.st_mode))
        except PermissionError:
            return False
        made = os.fstat(fresh.descriptor)
    return (made.st_uid, made.st_gid, made.st_mode) == (model.st_uid, model.st_gid, model.st_mode)


def _attributes(descriptor: int) -> dict[str, bytes]:
    """Return the extended attributes, access lists among them; none where the filesystem has no such thing."""
    try:
        return {name: os.getxattr(descriptor, name) for name in os.listxattr(descriptor)}
    except OSError:
        return {}
