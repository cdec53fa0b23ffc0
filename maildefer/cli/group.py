"""A group of commands that imports a command's module only when it is called, so that light commands start quickly."""

from __future__ import annotations

import errno
import importlib
import os
import signal
from typing import Any, ClassVar, Final, NoReturn

import typer
import typer.core
import typer.main

from maildefer.cli import output
from maildefer.cli.parameters import Group
from maildefer.errors import ConfigurationError, MaildeferError, UnsafeMount

EX_TEMPFAIL: Final = 75  # sysexits.h
EX_NOPERM: Final = 77
EX_CONFIG: Final = 78


class LazyGroup(Group):
    """A group of the commands in its `table`; maildefer's errors become one line and an exit code."""

    table: ClassVar[dict[str, str]] = {}
    modules: ClassVar[dict[str, str]] = {}
    package: ClassVar[str] = ""
    unlisted: ClassVar[tuple[str, ...]] = ()

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, sentence in self.table.items():  # until they are asked for
            self.commands[name] = typer.core.TyperCommand(name, help=sentence, hidden=name in self.unlisted)
        self._loaded: set[str] = set()

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.table and cmd_name not in self._loaded:
            module = self.modules.get(cmd_name, cmd_name)
            self.commands[cmd_name] = load(f"{self.package}.{module}", cmd_name)
            self._loaded.add(cmd_name)
        return self.commands.get(cmd_name)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MaildeferError as error:
            output.complain(str(error))
            code = EX_CONFIG if isinstance(error, ConfigurationError | UnsafeMount) else 1
            raise typer.Exit(code) from error
        except OSError as fault:
            if fault.errno == errno.EPIPE:  # `… | head`: it has read what it wanted
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing more is to be written at the end
                raise typer.Exit(128 + signal.SIGPIPE) from None
            fail(fault)


def fail(fault: OSError) -> NoReturn:
    """End with one line."""
    output.complain(f"{fault.filename}: {fault.strerror}" if fault.filename else str(fault))
    raise typer.Exit(1) from fault


def load(module: str, name: str) -> Any:
    """The command of a name in a module: its whole `app`, or one command of several in it."""
    command: Any = typer.main.get_command(importlib.import_module(module).app)
    return getattr(command, "commands", {}).get(name, command)
