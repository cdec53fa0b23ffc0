"""`permissions`: what a front end of another user may do in queues."""

from __future__ import annotations

import os
import pwd
import shlex
from typing import Annotated

import typer

from maildefer.cli import output
from maildefer.cli.parameters import Commands
from maildefer.errors import ConfigurationError, MaildeferError
from maildefer.host.privileges import resolve_user
from maildefer.maildir.rights import sharing

app = Commands()


@app.command()
def permissions(
    queues: Annotated[
        list[str], typer.Argument(metavar="QUEUE...", help="Which belong to the workers' user.")
    ],
    user: Annotated[str, typer.Option("--user", metavar="NAME", help="The front end's user.")],
    group: Annotated[
        str,
        typer.Option(
            "--group", metavar="NAME", help="The group that it shares with the workers' user; else its own."
        ),
    ] = "",
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it, rather than print the commands; follows no link.")
    ] = False,
) -> None:
    """Print, or give, the rights with which a front end of another user serves queues, and no others."""
    wanted = resolve_user(user, group)
    if 0 in (wanted.uid, wanted.gid):
        raise ConfigurationError(
            "root, and members of root's group, may do more than a front end should: name a user and a group of its own"
        )
    front_end = sharing.FrontEndAccount(user=wanted.uid, group=wanted.gid)
    failed = False
    for queue in map(os.path.abspath, queues):
        try:
            failed |= _lacks_owner(queue, front_end)
            failed |= _applied(queue, front_end) if apply else _printed(queue, front_end)
        except PermissionError as fault:
            as_whom = "run this as root, or as the queue's owner in that group"
            output.complain(f"{queue}: {fault.strerror}: {as_whom}")
            failed = True
        except OSError as fault:
            output.complain(f"{queue}: {fault.strerror}: name a queue's own folder, which is no link")
            failed = True
        except MaildeferError as error:
            output.complain(str(error))
            failed = True
    if failed:
        raise typer.Exit(1)
    if apply:
        who = f"--user {shlex.quote(user)}" + f" --group {shlex.quote(group)}" * bool(group)
        output.say(f"start what serves them anew; `maildefer doctor QUEUE {who}`, as root, tries each right")


def _printed(queue: str, front_end: sharing.FrontEndAccount) -> bool:
    for command in sharing.sharing_commands(queue, front_end):
        output.raw(os.fsencode(shlex.join(command)) + b"\n")
    return False


def _applied(queue: str, front_end: sharing.FrontEndAccount) -> bool:
    """Apply the rights to a queue; returns whether something had to be left alone."""
    done = sharing.share_queue(queue, front_end)
    for left in done.left:
        output.complain(f"{queue}: {left}")
    changed = f"{output.count(done.changed, 'right', 'rights')} changed"
    told = changed if done.changed else "all was as it should be"
    output.line(f"{output.clean(os.path.relpath(queue))}: {told}")
    return bool(done.left)


def _lacks_owner(queue: str, front_end: sharing.FrontEndAccount) -> bool:
    """Whether the queue's owner is no member of the group, by which it reads what the front end stores; complains."""
    try:
        account = pwd.getpwuid(os.lstat(queue).st_uid)
    except (OSError, KeyError):  # told by what follows; or without an account, and so of unknown groups
        return False
    if account.pw_uid and front_end.group not in os.getgrouplist(account.pw_name, account.pw_gid):
        output.complain(
            f"{account.pw_name}, who owns {queue}, is no member of the group {front_end.group}, and so could "
            f"not read what it stores: usermod -aG {front_end.group} {account.pw_name}, and start the workers anew"
        )
        return True
    return False
