"""`start`: a boot module's receiver, in the background or not."""

from __future__ import annotations

from typing import Annotated

import typer

from maildefer.cli.light import Commands
from maildefer.cli.places import SMTP_PID
from maildefer.cli.serving import Options, serve, with_options
from maildefer.handling import finding

app = Commands()


@app.command()
@with_options
def start(
    options: Options,
    boot: Annotated[
        str, typer.Option("--boot", metavar="MODULE", help="The module that sets settings.receiver.")
    ] = finding.BOOT,
) -> None:
    """Run a front end or a single receiver in the background."""
    serve("start", SMTP_PID, options, {"boot": boot})
