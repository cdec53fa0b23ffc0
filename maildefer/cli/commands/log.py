"""`log`: a development sink."""

from __future__ import annotations

import os
from typing import Annotated, Final

import typer

from maildefer.cli.background_options import ServerOptions, serve
from maildefer.cli.defaults import LOG_PID
from maildefer.cli.parameters import Commands, with_options

app = Commands()
KEPT_IN: Final = "run/log"


@app.command()
@with_options(ServerOptions)
def log(
    options: ServerOptions,
    host: Annotated[
        str, typer.Option("--host", metavar="HOST", help="Listen on this address.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", min=0, help="Listen on this port; 0: any.")
    ] = 8825,
    queue: Annotated[str, typer.Option("--queue", metavar="QUEUE", help="Keep the mail there.")] = KEPT_IN,
) -> None:
    """Run a development sink that keeps all mail it is sent."""
    if queue != KEPT_IN:  # the default one is the project's
        queue = os.path.abspath(os.path.join(options.chdir, queue))
    serve("log", LOG_PID, options, {"host": host, "port": port, "queue": queue})
