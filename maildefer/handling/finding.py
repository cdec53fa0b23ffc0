"""Where a project's settings and boot modules are: `conf/`, or `config/`, where Salmon's projects have them."""

from __future__ import annotations

import os
import sys
from typing import Final

PACKAGES: Final = ("conf", "config")
DEFAULT_MODULE: Final = "conf.settings"
VARIABLES: Final = ("MAILDEFER_SETTINGS_MODULE", "SALMON_SETTINGS_MODULE")

_BOOT: Final = "config.boot"


def settings_module() -> tuple[str, str]:
    """The module's name, and what says so: a variable, else what lies in the working directory."""
    for variable in VARIABLES:
        if name := os.environ.get(variable):
            return name, variable
    for package in PACKAGES:
        if _is_here(f"{package}.settings"):
            return f"{package}.settings", "the settings module"
    return DEFAULT_MODULE, "the settings module"


def is_project() -> bool:
    """Whether there are settings to be loaded. Those that an installed package happens to have are not meant."""
    name, source = settings_module()
    return source in VARIABLES or _is_here(name)


def boot_module(name: str, settings: str) -> str:
    """The default boot module stands beside the settings: `conf.boot` beside `conf.settings`. Others are as named."""
    if name != _BOOT:
        return name
    beside = f"{settings.rpartition('.')[0] or 'conf'}.boot"
    return beside if _is_here(beside) or not _is_here(name) else name


def _is_here(module: str) -> bool:
    if module in sys.modules:
        return True
    path = module.replace(".", "/")
    return os.path.exists(f"{path}.py") or os.path.exists(f"{path}/__init__.py")
