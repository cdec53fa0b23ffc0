"""What `--json` prints, held to the schemas that `--json-schema` prints."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any, NoReturn

from jsonschema import Draft202012Validator

from maildefer.cli.schemas.schema import schema_text

_WITH_SUBCOMMANDS = ("queue", "dead", "periodic")


@functools.cache
def validator(command: str) -> Any:
    return Draft202012Validator(json.loads(schema_text(command)))


def lines_of(command: str, text: str) -> list[dict[str, Any]]:
    """The objects of the lines; AssertionError for one that the command's schema does not allow."""
    found = [json.loads(line, parse_constant=_refuse) for line in text.splitlines()]
    for one in found:
        faults = [f"{'.'.join(map(str, fault.path))}: {fault.message}" for fault in _faults(command, one)]
        assert faults == [], (command, one)
    return found


def hold(arguments: Sequence[str], text: str) -> None:
    """Hold what a command line has printed to its schema, if it is to be JSON."""
    if "--json" in arguments:
        lines_of(" ".join(arguments[: 2 if arguments[0] in _WITH_SUBCOMMANDS else 1]), text)


def _faults(command: str, one: dict[str, Any]) -> list[Any]:
    """The faults; of several shapes that a line may have, those of the one with its `kind`."""
    whole = validator(command)
    for shape in whole.schema.get("oneOf", ()):
        rule = whole.schema["$defs"][shape["$ref"].rpartition("/")[2]]
        if one.get("kind") in rule["properties"]["kind"]["enum"]:
            return list(whole.evolve(schema={**rule, "$defs": whole.schema["$defs"]}).iter_errors(one))
    return list(whole.iter_errors(one))


def _refuse(word: str) -> NoReturn:
    raise AssertionError(f"{word} is no JSON")
