"""The schemas of what `--json` prints: found by command, printed, and kept to where others wrote what is shown.

Only these words of JSON Schema stand in them, which a test sees to: $ref, oneOf, type, enum, properties, required,
additionalProperties, items, minItems, maxItems, and those for people.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from types import NoneType
from typing import Any, Final

from maildefer.errors import MaildeferError

_FOLDER: Final = os.path.dirname(__file__)
_SHARED: Final = dict.fromkeys(("queue list", "queue show", "dead list", "dead show"), "entry")
_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": NoneType,
    "array": list,
    "object": dict,
}
_NOTHING: Final = object()


def schema_file(command: str) -> str:
    """The path of the schema of a command's lines; the command without the program's name."""
    return os.path.join(_FOLDER, f"{_SHARED.get(command, command.replace(' ', '-'))}.json")


def schema_text(command: str) -> str:
    """The schema of a command's lines. Raises MaildeferError where it is not installed."""
    try:
        with open(schema_file(command), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError as fault:
        raise MaildeferError(f"{fault.filename} is missing: install maildefer anew") from fault


class Schema:
    """A command's schema, to keep to."""

    def __init__(self, command: str) -> None:
        self._whole: dict[str, Any] = json.loads(schema_text(command))

    def fitted(self, value: Mapping[str, object] | None, definition: str | None = None) -> Any:
        """Of an object that another process wrote, what its definition describes; None stays None.

        The other process may be of another version, or broken. What is missing then is not known.
        """
        found = self._fit(value, self._whole["$defs"][definition] if definition else self._whole)
        return {} if found is _NOTHING else found

    def _fit(self, value: object, schema: Mapping[str, Any]) -> object:
        if "$ref" in schema:
            schema = self._whole["$defs"][schema["$ref"].rpartition("/")[2]]
        allowed = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(_is_of(value, one) for one in allowed) or value not in schema.get("enum", (value,)):
            return _NOTHING
        if isinstance(value, dict):
            described, others = schema.get("properties", {}), schema.get("additionalProperties")
            parts = {
                name: self._fit(part, rule)
                for name, part in value.items()
                if (rule := described.get(name, others))
            }
            return {name: part for name, part in parts.items() if part is not _NOTHING}
        if isinstance(value, list):
            return [part for one in value if (part := self._fit(one, schema["items"])) is not _NOTHING]
        return value


def _is_of(value: object, name: str) -> bool:
    return isinstance(value, _TYPES[name]) and (not isinstance(value, bool) or name == "boolean")
