"""Who may do what in a queue: modes and groups of its folders and entries, the umask, a front end's rights."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import islice
from typing import Final

from maildefer.doctor.findings import Finding, ok, refuse, warn
from maildefer.errors import ConfigurationError
from maildefer.host.privileges import drop, resolve
from maildefer.maildir import scan
from maildefer.maildir.layout import Layout

_LOOKED_AT: Final = 200  # entries of new/
_ALL: Final = os.R_OK | os.W_OK | os.X_OK


def permissions(layout: Layout) -> Iterator[Finding]:
    """Whether this user can serve the queue, and whether all members of a group that shares it could."""
    folders = _folders(layout)
    if shut := [folder for folder in folders if not os.access(folder, _ALL)]:
        fact = f"this user may not write to {_names(layout, shut)}"
        yield refuse("permissions", fact, "give them to this user, or its group, or run this as their owner")
        return
    facts = {folder: os.stat(folder) for folder in folders}
    found = [
        *_open_to_all(layout, {folder: fact.st_mode for folder, fact in facts.items()}),
        *(_shared(layout, facts) if facts[layout.new].st_mode & stat.S_IWGRP else ()),
    ]
    yield from found
    if not found:
        mode = stat.S_IMODE(facts[layout.new].st_mode)
        yield ok("permissions", f"new/ has mode {mode:04o}, the umask is {_umask():04o}")


def records(layout: Layout) -> Iterator[Finding]:
    """Whether this user's pushes and settles leave their records, where a journal is kept."""
    if not os.path.isdir(layout.journal):
        return
    if os.access(layout.journal, os.W_OK | os.X_OK):
        yield ok("journal", "what this user pushes and settles is recorded")
    else:
        fact = f"this user may not write to {_names(layout, [layout.journal])}: the audit knows nothing of its pushes"
        yield warn("journal", fact, f"chgrp a group of this user's to {layout.journal}, and chmod g+wx it")


def front_end(layout: Layout, user: str, group: str) -> Iterator[Finding]:
    """Whether a front end that becomes them could serve: tried by a child that does. Raises ConfigurationError."""
    who = f"a front end of {user or 'this user'}{f', group {group}' if group else ''}"
    wanted = resolve(user, group)
    if os.geteuid() not in (0, wanted.uid):
        yield warn("front end", f"what {who} may do can't be tried", "run the doctor as root")
        return
    lacking, more = _tried_as(layout, user, group)
    if lacking:
        path, right = lacking[0]
        remedy = f"chgrp {group or wanted.gid} {path} && chmod g+{right} {path}"
        if right == "x":  # a directory above the queue, which is not for us to give to a group
            remedy = f"chmod o+x {path}"
        yield refuse("front end", f"{who} may not {_RIGHTS[right]} {path}", remedy)
    elif more:
        fact = f"{who} may write to more than tmp/ and new/: {_names(layout, more)}"
        yield ok("front end", f"{fact} (chmod g-w takes that from it)")
    else:
        yield ok("front end", f"{who} may write to tmp/ and new/, and nothing else of the queue")


_RIGHTS: Final = {
    "x": "go through",
    "rx": "list",
    "r": "read",
    "rwxs": "write to",
    "wx": "put the records of its pushes into",
}


def _tried_as(layout: Layout, user: str, group: str) -> tuple[list[tuple[str, str]], list[str]]:
    """What they lack, path and right, and to which other folders they may write."""
    needed = _needed(layout)
    more = [folder for folder in _folders(layout) if folder not in (layout.tmp, layout.new)]
    answers, answering = os.pipe2(os.O_CLOEXEC)
    if not (child := os.fork()):
        try:
            drop(user, group)
            told = [os.access(path, _bits(right)) for path, right in needed]
            told += [os.access(folder, os.W_OK) for folder in more]
            os.write(answering, bytes(told))
        finally:
            os._exit(0)
    os.close(answering)
    said = os.read(answers, 4096)
    os.close(answers)
    os.waitpid(child, 0)
    if len(said) != len(needed) + len(more):
        raise ConfigurationError(
            f"nobody can become user {user or 'of now'}, group {group or 'of that user'}"
        )
    lacking = [each for each, may in zip(needed, said, strict=False) if not may]
    return lacking, [folder for folder, may in zip(more, said[len(needed) :], strict=True) if may]


def _needed(layout: Layout) -> list[tuple[str, str]]:
    above = []
    path = layout.path
    while (path := os.path.dirname(path)) != "/":
        above.append((path, "x"))
    return [
        *reversed(above),
        (layout.path, "rx"),
        (layout.control, "rx"),
        (layout.format, "r"),
        (layout.tmp, "rwxs"),
        (layout.new, "rwxs"),
        *([(layout.journal, "wx")] if os.path.isdir(layout.journal) else ()),
    ]


def _bits(right: str) -> int:
    return (os.R_OK * ("r" in right)) | (os.W_OK * ("w" in right)) | (os.X_OK * ("x" in right))


def _open_to_all(layout: Layout, modes: dict[str, int]) -> Iterator[Finding]:
    loose = [folder for folder, mode in modes.items() if mode & stat.S_IWOTH and not mode & stat.S_ISVTX]
    if loose:
        fact = f"anybody can put in and take out: {_names(layout, loose)} may be written to by all"
        yield warn("permissions", fact, f"chmod o-w {' '.join(loose)}")


def _shared(layout: Layout, facts: dict[str, os.stat_result]) -> Iterator[Finding]:
    """A queue that its group may write to: what one member makes, the others must be able to use."""
    group = facts[layout.new].st_gid
    if others := [folder for folder, fact in facts.items() if fact.st_gid != group]:
        fact = f"new/ belongs to group {group}, but not {_names(layout, others)}"
        yield warn("permissions", fact, f"chgrp -R {group} {layout.path}")
    unmarked = [f for f in (layout.tmp, layout.new) if not facts[f].st_mode & stat.S_ISGID]
    if unmarked and group != os.getegid():
        fact = f"what is made in {_names(layout, unmarked)} gets its maker's group, not that of the folder"
        yield warn("permissions", fact, f"find {layout.path} -type d -exec chmod 2770 {{}} +")
    elif len(unmarked) < 2 and (mask := _umask()) & 0o060:
        fact = f"new/ is shared by its group, but the umask {mask:04o} hides new files from the group"
        yield warn("permissions", fact, "start with umask 0007, or UMask=0007 in the systemd unit")
    looked_at, hidden = _hidden(layout, group)
    if hidden and len(unmarked) < 2:
        fact = f"{hidden} of {looked_at} entries looked at are not for the group {group} to read and write"
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
        hidden += fact.st_gid != group or fact.st_mode & 0o060 != 0o060
    return looked_at, hidden


def _folders(layout: Layout) -> list[str]:
    """Those that are there: a Maildir that nobody has served yet has few."""
    folders = [layout.tmp, layout.new, layout.cur, layout.later_new, layout.dead_new]
    folders += [layout.leases, layout.fenced, layout.reasons, layout.requests, layout.status]
    return [folder for folder in folders if os.path.lexists(folder)]


def _names(layout: Layout, folders: list[str]) -> str:
    return ", ".join(f"{os.path.relpath(folder, layout.path)}/" for folder in folders)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
