"""`man`: the manual pages of all commands."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from maildefer.cli import output
from maildefer.cli.manual.pages import manual_pages
from maildefer.cli.parameters import Commands

app = Commands()


@app.command()
def man(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where man(1) finds pages of section 1.")],
) -> None:
    """Write the manual pages of all commands."""
    os.makedirs(folder, exist_ok=True)
    number = 0
    for name, text in manual_pages(context.find_root().command):
        with open(os.path.join(folder, name), "w", encoding="ascii") as file:
            file.write(text)
        number += 1
    output.say(f"{output.count(number, 'page', 'pages')} in {folder}")
