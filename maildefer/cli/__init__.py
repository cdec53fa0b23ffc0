"""The command line. Importing this costs nothing; `main` loads typer, and then the one command's module.

    program              the table of commands, and exit codes
    commands/            one module for each command
    group, parameters    typer's groups, loaded when a command is called
    output               printing: data to standard output, all else to standard error
    progress             how far a long command is, on a terminal
    defaults             default paths and pid files
    entries/             entries as `queue` and `dead` name, choose and print them
    live/                what `top` and `web` show, looked at again and again; web/: the page; top/: the screen
    manual/              examples, and the manual pages
    schemas/             what `--json` prints, as JSON Schema
    status_survey        what `status` shows, gathered in bounded time; process_usage: memory and time of processes
    background_options   options of `start` and `log`; receiver_process: the process behind them
    routes_process       the process behind `routes`
    stdin_message        a message on standard input
    due_time             the options `--after` and `--at`
    project_skeleton     the files of a new project

Imports point down: program, commands > group and the other modules > output, defaults, parameters, process_usage.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """The console script `maildefer`; ends the process with the exit codes of `cli.program`."""
    _fill_gaps()
    try:
        from maildefer.cli.program import run  # typer: a console script's import should not pay twice
    except KeyboardInterrupt:  # while modules are loaded; after that it is typer's
        sys.exit(130)
    run()


def _fill_gaps() -> None:
    """Open /dev/null for standard descriptors that are closed: else the next opened file would be one of them.

    Nothing can be read there; a message that is not given must not pass for an empty one.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            try:
                os.fstat(descriptor)
            except OSError:
                os.open(os.devnull, os.O_WRONLY)  # it takes the lowest that is free: this one
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115  # for good
