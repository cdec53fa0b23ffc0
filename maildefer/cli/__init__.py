"""The command line: one small file for each group of commands, with no logic of its own.

Importing this costs nothing; `main` loads typer, and then the one command's module.
"""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """The console script `maildefer`; ends the process with the exit codes of `cli.program`."""
    from maildefer.cli.program import (
        run,  # typer: a console script's import of this package should not pay twice
    )

    run()
