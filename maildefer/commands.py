"""The command line as one object, for the `CliRunner` of Click or Typer and for programs that embed it.

`main` is the group of all commands, made from `maildefer.cli.program`.
"""

from __future__ import annotations

from typing import Any

import typer.main

from maildefer.cli.program import app

__all__ = ["main"]


def _group() -> Any:
    """A group as Click knows them, which also has what Typer's own runner asks of an application."""
    group: Any = typer.main.get_command(app)
    group.name = "maildefer"  # what a runner says in usage errors
    for name, value in vars(app).items():
        if not hasattr(group, name):
            setattr(group, name, value)
    return group


main: Any = _group()
