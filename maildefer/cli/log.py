"""`log`: a development sink."""

from __future__ import annotations

from typing import Annotated

import typer

from maildefer.cli.light import Commands
from maildefer.cli.places import LOG_PID
from maildefer.cli.serving import Chdir, Chroot, Daemon, Debug, Force, Gid, Options, Pid, Uid, Umask, serve

app = Commands()


@app.command()
def log(
    host: Annotated[str, typer.Option("--host", help="Listen on this address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, help="Listen on this port; 0: any.")] = 8825,
    queue: Annotated[str, typer.Option("--queue", metavar="QUEUE", help="Keep the mail there.")] = "run/log",
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
    """Run a development sink that keeps all mail it is sent."""
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
    serve("log", LOG_PID, options, {"host": host, "port": port, "queue": queue})
