"""`passwd`: ask for a password, or read it from standard input as one line, and change the file under a lock."""

from __future__ import annotations

import errno
import fcntl
import getpass
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

import typer

from maildefer.cli import output
from maildefer.cli.parameters import Commands
from maildefer.errors import ConfigurationError
from maildefer.intake.access import passwords

_PATIENCE_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.02
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

app = Commands()


@app.command()
def passwd(
    path: Annotated[str, typer.Argument(metavar="FILE", help="What `auth_file` of the front end names.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who logs in.")],
    delete: Annotated[bool, typer.Option("--delete", help="Take the name out of the file.")] = False,
) -> None:
    """Set a password for a front end's AUTH."""
    known = passwords.read(path) if os.path.exists(path) else {}
    if not passwords.is_name(name):
        raise ConfigurationError(f"{name!r} can't be a name: it is one line without a colon")
    if delete and name not in known:
        raise ConfigurationError(f"{path} knows no {name}")
    chosen = None if delete else passwords.hashed(_asked(name))
    with _locked(path):
        known = passwords.read(path)  # as others have left it since
        if chosen is None:
            known.pop(name, None)
        else:
            known[name] = chosen
        passwords.write(path, known)
    done = "is no longer known" if delete else "has a password"
    output.say(f"{name} {done}; front ends that run know it once they are sent HUP, or by `maildefer reload`")


def _asked(name: str) -> str:
    if not sys.stdin.isatty():
        password = sys.stdin.readline().rstrip("\n")
    elif (password := getpass.getpass(f"Password for {name}: ")) != getpass.getpass("Again: "):
        raise ConfigurationError("the two are not the same: nothing was changed")
    if not password:
        raise ConfigurationError("an empty password is none: nothing was changed")
    return password


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold the password file's lock; the file is made if it is missing. A lock file of its own would be left behind.

    A change replaces the file, so a lock counts only while the locked file is still the one at the path.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (descriptor := _lock_of(path)) is None:
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"somebody else has had {path} locked for {_PATIENCE_SECONDS:g} s: nothing was changed; try again"
            )
        time.sleep(_LOOK_SECONDS)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock_of(path: str) -> int | None:
    """The descriptor that holds the lock; None while another process holds it."""
    try:
        descriptor = os.open(path, _FLAGS, 0o600)
    except OSError as fault:
        if fault.errno != errno.ELOOP:
            raise
        raise ConfigurationError(f"{path} is a link, which is not followed: name the file itself") from fault
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.stat(path), os.fstat(descriptor)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):  # in other hands, or taken away since
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
