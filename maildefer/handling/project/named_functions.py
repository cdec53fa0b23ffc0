"""Functions that a setting names, such as `conf.hooks.timing`: imported and looked up, with errors that tell the place.

Also `after_fork`, the functions that each worker calls before its first message.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import cast

from maildefer.errors import ConfigurationError
from maildefer.handling.project.module_loader import import_user_module
from maildefer.handling.project.setting_place import place, wrong

Hook = Callable[[], object]


def named_objects(settings: ModuleType, setting: str) -> list[tuple[str, object]]:
    """Import what the setting names, if it is there. Raises ConfigurationError."""
    names = getattr(settings, setting, ())
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise wrong(settings, setting, 'a list of names such as ["conf.hooks.timing"]', names)
    if len(set(names)) < len(names):
        raise wrong(settings, setting, "each name once", names)
    return [(name, _named(settings, setting, name)) for name in names]


def after_fork_hooks(settings: ModuleType) -> tuple[Hook, ...]:
    """Import and check the functions of `after_fork`. Raises ConfigurationError."""
    hooks = []
    for name, function in named_objects(settings, "after_fork"):
        try:
            inspect.signature(cast(Hook, function)).bind()
        except (TypeError, ValueError) as fault:
            where = place(settings, "after_fork")
            raise ConfigurationError(f"{where}: {name} can't be called without arguments: {fault}") from None
        if inspect.iscoroutinefunction(function):
            raise ConfigurationError(
                f"{place(settings, 'after_fork')}: {name} is async: a worker calls plain functions before its loop"
            )
        hooks.append(cast(Hook, function))
    return tuple(hooks)


def _named(settings: ModuleType, setting: str, name: str) -> object:
    module_name, _, attribute = name.rpartition(".")
    if not module_name:
        raise wrong(settings, setting, "names of functions with their modules", name)
    module = import_user_module(module_name, listed_in=f"{setting} of {settings.__name__}")
    function, where = getattr(module, attribute, None), place(settings, setting)
    if isinstance(function, ModuleType) or (function is None and _is_module(name)):
        raise ConfigurationError(f"{where}: {name} is a module: name a function in it, as {name}.FUNCTION")
    if function is None:
        raise ConfigurationError(f"{where}: {module.__file__} has no {attribute}: correct the name {name}")
    return function


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:  # what is before its last dot is no package
        return False
