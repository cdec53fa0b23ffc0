"""The command line: one small file for each group of commands, with no logic of its own.

Importing this costs nothing; `main` loads typer, and then the one command's module.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """The console script `maildefer`; ends the process with the exit codes of `cli.program`."""
    _fill_gaps()
    from maildefer.cli.program import (
        run,  # typer: a console script's import of this package should not pay twice
    )

    run()


def _fill_gaps() -> None:
    """Whoever started us may have closed standard descriptors: the next file opened would be one, and be printed into.

    Nothing can be read there; a message that is not given must not pass for an empty one.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            try:
                os.fstat(descriptor)
            except OSError:
                os.open(os.devnull, os.O_WRONLY)  # it takes the lowest that is free: this one
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115  # for good
