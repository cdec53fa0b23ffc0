"""`new`, and `gen`, which is Salmon's name for it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from maildefer.cli import output
from maildefer.cli.parameters import Commands
from maildefer.cli.project_skeleton import ProjectExists, set_aside, write_project

app = Commands()


@app.command()
def new(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="The project's directory; it is made.")],
    force: Annotated[
        bool,
        typer.Option(
            "--force", "-f", help="Write over the files that are there; `gen` moves them aside first."
        ),
    ] = False,
) -> None:
    """Write a new project."""
    if ctx.info_name == "gen" and os.path.exists(path):  # Salmon's takes no folder that is there
        if not force:
            raise ProjectExists(Path(path))
        if os.path.samefile(path, "."):
            raise typer.BadParameter("The working directory can't be written afresh: go to the one above it.")
        output.say(f"what was {path} is {set_aside(Path(path))} now")
    written = write_project(Path(path), force=force)
    for file in written:
        output.line(output.clean(file))
    output.say(
        f"wrote {output.count(len(written), 'file', 'files')} to {path}; next:\n"
        f"  cd {shlex.quote(path)}\n"
        "  maildefer log && maildefer start    # the sink for what it sends, and the front end\n"
        "  maildefer supervise --workers 2     # the pool; its handlers are in workers/"
    )
