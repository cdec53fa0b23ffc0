"""`start`: a boot module's receiver, in the background or not."""

from __future__ import annotations

from typing import Annotated

import typer

from maildefer.cli.background_options import ServerOptions, serve
from maildefer.cli.defaults import SMTP_PID
from maildefer.cli.parameters import Commands, with_options
from maildefer.handling.project import finder

app = Commands()


@app.command()
@with_options(ServerOptions)
def start(
    options: ServerOptions,
    boot: Annotated[
        str, typer.Option("--boot", metavar="MODULE", help="The module that sets settings.receiver.")
    ] = finder.BOOT,
) -> None:
    """Run a front end or a single receiver in the background."""
    serve("start", SMTP_PID, options, {"boot": boot})
