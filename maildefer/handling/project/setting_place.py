"""Where a setting stands in its module, for errors."""

from __future__ import annotations

from types import ModuleType

from maildefer.errors import ConfigurationError


def wrong(module: ModuleType, setting: str, wanted: str, value: object) -> ConfigurationError:
    """The error for a setting of the wrong kind, naming its line."""
    return ConfigurationError(f"{place(module, setting)}: {setting} is {value!r}: give {wanted}")


def is_decorator(value: object) -> bool:
    """Whether it is `@concurrency` or `@keep`, which settings with handlers of their own have imported."""
    return callable(value) and getattr(value, "__module__", "").startswith("maildefer.")


def place(module: ModuleType, setting: str = "") -> str:
    """`FILE:LINE` of the setting's last assignment; `FILE` where none is found."""
    file = getattr(module, "__file__", None) or module.__name__
    name = setting.partition("[")[0]
    try:
        with open(file, encoding="utf-8") as source:
            lines = source.read().splitlines()
    except (OSError, UnicodeDecodeError):
        return file
    found = [
        n
        for n, line in enumerate(lines, 1)
        if name and line.replace(":", " ").split("=")[0].split()[:1] == [name]
    ]
    return f"{file}:{found[-1]}" if found else file
