"""The rights of a front end of another user in a queue; a process with that user's rights tries each of them.

A process with the rights of the workers' user makes an entry for these trials, and takes out what the front end has
stored, so that nothing is tried with root's rights. All files made for this have names that are no entries' names, and
are removed again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from shlex import quote
from typing import Final, TypeVar

from maildefer.doctor.findings import Finding, ok, refuse, warn
from maildefer.errors import ConfigurationError
from maildefer.events import plain
from maildefer.host.bounded_call import TimedOut, bounded
from maildefer.host.privileges import drop_privileges, resolve_user
from maildefer.maildir.layout import Layout
from maildefer.maildir.rights.folder import TRIALS
from maildefer.maildir.rights.modes import FOLDER_MODES, OWNERS_FILE_MODE
from maildefer.maildir.system import token

T = TypeVar("T")
_MOST_LOOKED_AT: Final = 200  # files of each folder
_MOST_NAMED: Final = 8
_DAY_SECONDS: Final = 86400.0  # no limit: like all checks, these hang with the mount
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """The files and folders of the queue, as its owner sees them; by their paths below it."""

    is_recorded: bool
    folders: list[str] = field(default_factory=list)  # that the front end must not use
    files: list[str] = field(default_factory=list)  # that it must neither read nor write to
    # That it must not write to; members of its group may read each other's files.
    of_others: list[str] = field(default_factory=list)
    # The folders that the owner may not list, so that nothing is known of their files.
    unlisted: list[str] = field(default_factory=list)


def examine_front_end(layout: Layout, user: str, group: str) -> Iterator[Finding]:
    """Check whether a front end of that user and group could serve, and could do no more. Raises ConfigurationError."""
    wanted, owner = resolve_user(user, group), os.stat(layout.path)
    who = f"a front end of {user or 'this user'}{f', group {group}' if group else ''}"
    if os.geteuid() != 0:
        yield warn("front end", f"what {who} may do can't be tried", "run the doctor as root")
        return
    if owner.st_uid == wanted.uid:
        fact = f"{who} owns the queue, and may do all that its workers may"
        remedy = f"run it as another user; see `maildefer permissions {quote(layout.path)}`"
        yield refuse("front end", fact, remedy)
        return
    command = f"maildefer permissions {quote(layout.path)} --user {quote(user or str(wanted.uid))}"
    command += f" --group {quote(group)}" * bool(group) + " --apply"
    if blocked := _blocked_above(layout, user, group):
        yield refuse("front end", f"{who} may not go through {blocked}", f"chmod o+x {quote(blocked)}")
        return
    name = f"{TRIALS}{os.getpid()}-{token(8)}"
    owners = _owner_account(owner)
    try:
        found = _run_as(*owners, lambda: _prepare_trial(layout, wanted.uid, name))
        lacking, more = _run_as(user, group, lambda: _try_as_front_end(layout, name, found))
        unread = _run_as(*owners, lambda: _try_as_owner(layout, name)) if not lacking else []
    finally:
        _run_as(*owners, lambda: _remove_trial(layout, name))
    if lacking:
        yield refuse("front end", f"{who} may not {_joined(lacking)}", command)
    elif unread:
        fact = f"the queue's owner may not {_joined(unread)} what {who} stores"
        remedy = f"see that user {owner.st_uid} is a member of the group; then {command}"
        yield refuse("front end", fact, remedy)
    if more:
        yield refuse("front end", f"{who} has rights that it does not need: it may {_joined(more)}", command)
    if found.unlisted:
        fact = f"the queue's owner may not list {_joined(found.unlisted)}: what {who} may do with its files is unknown"
        yield warn("front end", fact, command)
    if not lacking and not unread and not more:
        records = ", leave records" if found.is_recorded else ""
        fact = f"{who} may put entries in{records} and read the format, and nothing else of the queue"
        yield ok("front end", fact)


def _owner_account(owner: os.stat_result) -> tuple[str, str]:
    """Return the user and group of the queue's owner, for `drop_privileges`; without an account, the queue's group."""
    try:
        resolve_user(str(owner.st_uid), "")
    except ConfigurationError:
        return str(owner.st_uid), str(owner.st_gid)
    return str(owner.st_uid), ""


def _blocked_above(layout: Layout, user: str, group: str) -> str | None:
    """Return the first directory above the queue that this user and group can't enter."""
    above: list[str] = []
    path = layout.path
    while (path := os.path.dirname(path)) != "/":
        above.insert(0, path)
    return _run_as(user, group, lambda: next((one for one in above if not os.access(one, os.X_OK)), None))


def _prepare_trial(layout: Layout, front_end_user: int, name: str) -> _Found:
    """List, as the owner, what the front end must not touch, and make an entry that it must not touch."""
    found, owner = _Found(is_recorded=os.path.isdir(layout.journal)), os.geteuid()
    for above in ("", ".maildefer/"):
        for each in sorted(os.listdir(f"{layout.path}/{above}")):
            below, facts = above + each, os.lstat(f"{layout.path}/{above}{each}")
            if stat.S_ISDIR(facts.st_mode):
                if below not in FOLDER_MODES:
                    found.folders.append(below)
            elif stat.S_ISREG(facts.st_mode) and below != ".maildefer/format":
                found.files.append(below)
    for below in ("tmp", "new", ".maildefer/journal"):
        try:
            owners = _owners_of_files(f"{layout.path}/{below}")
        except PermissionError:
            found.unlisted.append(f"{below}/")
            continue
        for each, user in owners.items():
            if user != front_end_user:
                (found.files if user == owner else found.of_others).append(f"{below}/{each}")
    for place in (layout.tmp, layout.new):
        os.close(os.open(f"{place}/{name}", _MAKE, OWNERS_FILE_MODE))
    return found


def _owners_of_files(folder: str) -> dict[str, int]:
    """Return the owners of a folder's files, of no more than `_MOST_LOOKED_AT`. Raises PermissionError."""
    owners: dict[str, int] = {}
    with suppress(FileNotFoundError), os.scandir(folder) as listing:
        for entry in islice(listing, _MOST_LOOKED_AT):
            with suppress(FileNotFoundError):  # claimed meanwhile
                if entry.is_file(follow_symlinks=False):
                    owners[entry.name] = entry.stat().st_uid
    return owners


def _try_as_front_end(layout: Layout, name: str, found: _Found) -> tuple[list[str], list[str]]:
    """Return, as the front end, what it needs to do and can't, and what it can do and must not."""
    path, own = layout.path, f"{name}-own"
    needed: list[tuple[str, Callable[[], object]]] = [
        ("go through the queue's folder", partial(_access, path, os.X_OK)),
        ("go through .maildefer/", partial(_access, layout.control, os.X_OK)),
        ("read .maildefer/format", lambda: _open(layout.format, _READ)),
        ("list tmp/", lambda: os.listdir(layout.tmp)),
        ("list new/", lambda: os.listdir(layout.new)),
        ("make a file in tmp/", lambda: _open(f"{layout.tmp}/{own}", _MAKE)),
        ("move it to new/", lambda: os.rename(f"{layout.tmp}/{own}", f"{layout.new}/{own}")),
    ]
    if found.is_recorded:
        needed += [
            ("leave records in .maildefer/journal/", lambda: _open(f"{layout.journal}/{own}", _MAKE)),
            ("remove its own there", lambda: os.unlink(f"{layout.journal}/{own}")),
        ]
    if os.path.isdir(answers := f"{layout.control}/idempotency"):
        needed += [
            ("leave answers in .maildefer/idempotency/", lambda: os.mkdir(f"{answers}/{own}", 0o770)),
            ("list .maildefer/idempotency/", lambda: os.listdir(answers)),
            ("remove its own there", lambda: os.rmdir(f"{answers}/{own}")),
        ]
    lacking = [what for what, act in needed if not _is_possible(act)]
    refused: list[tuple[str, Callable[[], object]]] = []
    for below in ("", ".maildefer", *found.folders):
        place, called = f"{path}/{below}", f"{below}/" if below else "the queue's folder"
        refused += [
            (f"list {called}", partial(os.listdir, place)),
            (f"put things into {called}", partial(_access, place, os.W_OK)),
        ]
        if below in found.folders:
            refused.append((f"go into {called}", partial(_access, place, os.X_OK)))
    if found.is_recorded:
        refused.append(("list .maildefer/journal/", lambda: os.listdir(layout.journal)))
    for below in (*found.files, f"new/{name}", f"tmp/{name}"):
        place, called = f"{path}/{below}", "another's entry" if name in below else below
        refused += [
            (f"read {called}", partial(_open, place, _READ)),
            (f"write to {called}", partial(_open, place, _WRITE)),
        ]
    refused += [(f"write to {below}", partial(_open, f"{path}/{below}", _WRITE)) for below in found.of_others]
    refused.append(("write to .maildefer/format", lambda: _open(layout.format, _WRITE)))
    for place in (layout.new, layout.tmp):
        entry, called = f"{place}/{name}", f"another's entry in {os.path.basename(place)}/"
        refused += [
            (f"link {called}", partial(_link_and_unlink, entry, f"{layout.tmp}/{own}-link")),
            (f"rename {called}", partial(_rename_and_return, entry, f"{entry}-moved")),
            (f"replace {called}", partial(_replace, f"{layout.tmp}/{own}-2", entry)),
            (f"delete {called}", partial(os.unlink, entry)),
        ]
    return lacking, list(dict.fromkeys(what for what, act in refused if _is_possible(act)))


def _try_as_owner(layout: Layout, name: str) -> list[str]:
    """Return, as the owner, what it can't do with an entry that the front end has stored."""
    own = f"{layout.new}/{name}-own"
    acts: list[tuple[str, Callable[[], object]]] = [
        ("read", lambda: _open(own, _READ)),
        ("claim", lambda: os.rename(own, f"{layout.cur}/{name}-own")),
        ("remove", lambda: os.unlink(f"{layout.cur}/{name}-own")),
    ]
    return [what for what, act in acts if not _is_possible(act)]


def _remove_trial(layout: Layout, name: str) -> None:
    for place in (layout.tmp, layout.new, layout.cur, layout.journal):
        for tail in ("", "-own", "-own-2", "-own-link", "-moved"):
            with suppress(OSError):
                os.unlink(f"{place}/{name}{tail}")
    with suppress(OSError):
        os.rmdir(f"{layout.control}/idempotency/{name}-own")


def _is_possible(act: Callable[[], object]) -> bool:
    try:
        act()
    except OSError:
        return False
    return True


def _access(path: str, mode: int) -> None:
    if not os.access(path, mode):
        raise PermissionError


def _open(path: str, flags: int) -> None:
    os.close(os.open(path, flags, 0o660))


def _link_and_unlink(entry: str, name: str) -> None:
    os.link(entry, name)
    os.unlink(name)


def _rename_and_return(entry: str, name: str) -> None:
    os.rename(entry, name)
    os.rename(name, entry)


def _replace(draft: str, entry: str) -> None:
    _open(draft, _MAKE)
    try:
        os.rename(draft, entry)
    except OSError:
        os.unlink(draft)
        raise


def _joined(what: list[str]) -> str:
    more = f" and {len(what) - _MOST_NAMED} more" if len(what) > _MOST_NAMED else ""
    return plain(", ".join(what[:_MOST_NAMED])) + more


def _run_as(user: str, group: str, act: Callable[[], T]) -> T:
    """Call `act` in a process of that user and group; returns its result. Raises ConfigurationError if that fails."""

    def act_as_user() -> T:
        drop_privileges(user, group)
        return act()

    try:
        result = bounded(act_as_user, _DAY_SECONDS)
    except Exception as fault:
        raise ConfigurationError(
            f"nothing can be tried as user {user or 'of now'}, group {group or 'of that user'}: "
            f"{type(fault).__name__}: {fault}"
        ) from fault
    assert not isinstance(result, TimedOut)
    return result
