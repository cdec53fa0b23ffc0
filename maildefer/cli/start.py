"""`start`: a boot module's receiver, in the background or not."""

from __future__ import annotations

from typing import Annotated

import typer

from maildefer.cli.light import Commands
from maildefer.cli.places import SMTP_PID
from maildefer.cli.serving import Chdir, Chroot, Daemon, Debug, Force, Gid, Options, Pid, Uid, Umask, serve

app = Commands()


@app.command()
def start(
    boot: Annotated[
        str, typer.Option("--boot", metavar="MODULE", help="The module that sets settings.receiver.")
    ] = "config.boot",
    pid: Pid = None,
    force: Force = False,
    chdir: Chdir = ".",
    chroot: Chroot = None,
    umask: Umask = None,
    uid: Uid = None,
    gid: Gid = None,
    debug: Debug = False,
    daemon: Daemon = True,
) -> None:
    """Run a front end or a single receiver in the background."""
    options = Options(
        pid=pid,
        force=force,
        chdir=chdir,
        chroot=chroot,
        umask=umask,
        uid=uid,
        gid=gid,
        debug=debug,
        daemon=daemon,
    )
    serve("start", SMTP_PID, options, {"boot": boot})
