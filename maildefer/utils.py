"""Settings: `from maildefer.utils import settings` in a handler module, `import_settings` in a program.

Both live in `maildefer.handling.settings`.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from maildefer.handling.loading import import_user_module
from maildefer.handling.settings import load_settings, loaded_settings

# The settings module, None until it is loaded. Not assigned here: `__getattr__` gives what a worker has loaded.
# `Any`, since it is the user's own module, and a handler that imports this name is loaded after it.
settings: Any


def import_settings(boot_also: bool, boot_module: str = "conf.boot") -> ModuleType:
    """Import the module that `MAILDEFER_SETTINGS_MODULE` names (`conf.settings`) once, then the boot module if asked.

    The settings are set before the boot module runs, whose handlers import them. Raises `ConfigurationError`.
    """
    global settings
    if globals().get("settings") is None:
        settings = load_settings()
    if boot_also:
        import_user_module(boot_module, listed_in="the boot module")
    loaded: ModuleType = settings
    return loaded


def __getattr__(name: str) -> ModuleType | None:
    if name == "settings":
        return loaded_settings()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
