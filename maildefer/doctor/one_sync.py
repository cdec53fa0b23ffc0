"""Whether a push into a queue may take one sync, and the folder by which it does (decision 90)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from shlex import quote

from maildefer.doctor.findings import Finding, ok, warn
from maildefer.errors import MaildeferError, raise_named
from maildefer.host.mounts import mount_of
from maildefer.maildir import durable
from maildefer.maildir.drafts.synced import FOLDER, is_on, recover
from maildefer.maildir.layout import Layout
from maildefer.maildir.rights.folder import open_folder
from maildefer.maildir.rights.modes import is_shared_at, make_in
from maildefer.maildir.system import SYSTEM

_UNPROVEN = frozenset(("nobarrier", "barrier=0", "journal_async_commit"))


def examine_syncs(layout: Layout) -> Iterator[Finding]:
    """Report how many syncs a push takes, where the queue asks for one."""
    try:
        SYSTEM.lstat(layout.synced)
    except OSError:
        return
    if why := why_two(layout):
        remedy = f"`maildefer doctor {quote(layout.path)} --two-syncs` ends that"
        yield warn("syncs", f"a push is to take one sync, which is not proven here: {why}", remedy)
    else:
        yield ok("syncs", "a push takes one")


def why_two(layout: Layout) -> str:
    """Return why each push must take two syncs; empty where the power cuts have shown that one will do."""
    mount = mount_of(layout.path)
    if mount is None or not durable.keeps_order(SYSTEM.lstat(layout.control).st_dev):
        kind = mount.kind if mount is not None else "the filesystem"
        return f"{kind} is not known to keep the order of changes, as ext4 with its journal and xfs do"
    if unproven := sorted(mount.options & _UNPROVEN):
        return f"{mount.point} is mounted with {', '.join(unproven)}"
    if _has_fast_commits(mount.source):
        return f"{mount.source} has ext4's fast commits"
    if is_shared_at(layout.path, SYSTEM):
        return "a front end of another user shares the queue, and may not write to .maildefer"
    return ""


def _has_fast_commits(device: str) -> bool:
    """Whether ext4 was made with `-O fast_commit`, as the kernel names it among its options in /proc."""
    with (
        suppress(OSError),
        open(f"/proc/fs/ext4/{os.path.basename(os.path.realpath(device))}/options") as file,
    ):
        return not {"fc_debug_force", "fast_commit"}.isdisjoint(file.read().split())
    return False


def take_one(layout: Layout) -> None:
    """Have all pushes take one sync whose processes start from now on. Raises MaildeferError where it is not proven."""
    if why := why_two(layout):
        raise MaildeferError(f"a push into {layout.path} has to take two syncs: {why}")
    try:
        make_in(layout.path, f".maildefer/{FOLDER}", SYSTEM)
        durable.sync_directory(layout.control)
    except OSError as fault:
        raise_named(layout.synced, fault)


def take_two(layout: Layout) -> None:
    """Have all pushes take two syncs from now on, also those of processes that run."""
    try:
        recover(layout, lambda key, is_whole: None, mount_time=SYSTEM.time())
        with open_folder(layout.path, ".maildefer") as control:
            control.rmdir(FOLDER)
    except FileNotFoundError:
        pass
    except OSError as fault:
        if fault.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise_named(layout.synced, fault)
        why = (
            "entries are being pushed, or were until a minute ago" if is_on(layout) else "something is in it"
        )
        raise MaildeferError(f"{layout.synced} can't be removed: {why}: try again") from fault
