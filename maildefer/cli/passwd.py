"""`passwd`: the password is asked for, or read from standard input as one line."""

from __future__ import annotations

import getpass
import os
import sys
from typing import Annotated

import typer

from maildefer.cli import output
from maildefer.cli.light import Commands
from maildefer.errors import ConfigurationError
from maildefer.intake import passwords

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
    if delete:
        if known.pop(name, None) is None:
            raise ConfigurationError(f"{path} knows no {name}")
    else:
        known[name] = passwords.hashed(_asked(name))
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
