"""Each command's help ends with command lines that are right."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import typer.main

from maildefer.cli.manual.examples import EXAMPLES
from maildefer.cli.program import app

PROGRAM: Any = typer.main.get_command(app)
_WITH_SUBCOMMANDS = {"queue", "dead", "periodic"}


def leaves(group: Any = PROGRAM, path: str = "") -> Iterator[str]:
    """The paths of all commands that can be called, without hidden ones."""
    for name in [one for one in group.commands if not group.commands[one].hidden]:
        below = f"{path} {name}".strip()
        if below in _WITH_SUBCOMMANDS:
            yield from leaves(group.get_command(None, name), below)
        else:
            yield below


def test_each_command_has_examples_and_each_example_a_command() -> None:
    assert set(EXAMPLES) == set(leaves())


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (path, line)
        for path, examples in EXAMPLES.items()
        for _, whole in examples
        for line in whole.split(" && ")
    ],
)
def test_an_example_is_a_command_line_that_its_command_takes(path: str, line: str) -> None:
    words = shlex.split(line.partition(" < ")[0])
    assert words[0] == "maildefer"
    given = words[1:]
    command: Any = PROGRAM
    context = command.context_class(command, info_name="maildefer")
    for name in path.split():
        assert given.pop(0) == name
        command = command.get_command(context, name)
        context = command.context_class(command, info_name=name, parent=context)
    with suppress(
        typer.Exit
    ):  # of an option that prints and ends; a usage error for what it does not take is none
        command.make_context(path.split()[-1], given, parent=context.parent)


@pytest.mark.parametrize("path", ["queue hold", "stop", "dead requeue"])
def test_the_help_of_a_command_ends_with_its_examples(maildefer: Any, path: str) -> None:
    told = maildefer(*path.split(), "--help").out
    _, _, shown = told.partition("\nExamples:\n")
    assert [line.strip() for line in shown.splitlines()] == [
        text for what, line in EXAMPLES[path] for text in (f"{what}:", line)
    ]
