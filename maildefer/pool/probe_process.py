"""Describe a project for the supervisor, which must not import its code: `python -m maildefer.pool.probe_process`.

Run in the project's folder, it prints one line of JSON: `{"settings", "queues", "routes", "periodic", "files",
"reload", "front_end_fault"}`, or `{"error", "detail"}` with the traceback in the project's code, if any. It ends with
0, or 78 for a configuration that can't be used. What user code prints goes to standard error. The parent limits its
time.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping
from itertools import dropwhile
from typing import Any

from maildefer.errors import ConfigurationError

EX_CONFIG = 78


def main() -> None:
    answer = _set_standard_output_apart()
    try:
        from maildefer.handling.project import queue_paths  # in the try, as all of it may fail

        queue_paths.in_service = True
        report = probed()
        status = 0
    except BaseException as fault:  # noqa: BLE001  # user code runs here
        expected = isinstance(fault, ConfigurationError)
        text = str(fault) if expected else f"{type(fault).__name__}: {fault}"
        report = {"error": text, "detail": _trace(fault.__cause__ if expected else fault)}
        status = EX_CONFIG
    _tell_misspelled()
    _write(answer, json.dumps(report).encode() + b"\n")
    sys.stderr.flush()
    os._exit(status)  # no thread or exit handler of the project's can hold the answer up


def _trace(fault: BaseException | None) -> str:
    """Format its traceback from the first line that is the project's; the lines of this package help nobody."""
    from maildefer.handling.project.module_loader import is_users  # in the try of `main`, all may fail

    if fault is None:
        return ""
    formatted = traceback.TracebackException.from_exception(fault)
    lines = list(dropwhile(lambda line: not is_users(line.filename), formatted.stack))
    formatted.stack = traceback.StackSummary.from_list(lines)
    return "".join(formatted.format())


def _tell_misspelled() -> None:
    """Tell of names in the settings that are nearly settings, above all where the application is broken by one."""
    from maildefer import events
    from maildefer.handling.project.misspelled import misspelled
    from maildefer.handling.project.setting_place import place
    from maildefer.handling.project.settings import loaded_settings

    if (module := loaded_settings()) is not None:
        events.configure(os.environ.get("MAILDEFER_LOG_FORMAT") or str(getattr(module, "log_format", "")))
        for name, near in misspelled(module):
            events.emit("setting.misspelled", name=name, meant=near, at=place(module, name))


def probed() -> dict[str, Any]:
    """Load the project in the working directory and describe it as plain data. Raises `ConfigurationError`."""
    from maildefer.handling.application import Application
    from maildefer.handling.handoff_check import check_handoffs
    from maildefer.handling.periodic.table import record_of

    application = Application.load()
    check_handoffs(application)
    settings = application.settings
    return {
        "settings": settings.to_json(),
        "queues": {queue: list(modules) for queue, modules in settings.queues.items()},
        "routes": application.routes_table(),
        "periodic": [record_of(task) for task in application.periodic_tasks()],
        "files": application.files(),
        "reload": settings.reload or application.router.RELOAD,
        "front_end_fault": _front_end_fault(settings.project, settings.web_config or {}),
    }


def _front_end_fault(project: str, web_config: Mapping[str, Any]) -> str:
    """Say why the HTTP front end can't use its token file; empty where it can, or has none."""
    from maildefer.intake.http.api_tokens import ApiTokens

    try:
        if path := web_config.get("token_file"):
            ApiTokens(os.path.join(project, str(path)))
    except ConfigurationError as fault:
        return str(fault)
    return ""


def _set_standard_output_apart() -> int:
    """Make a descriptor for the answer; 1 becomes standard error, for user code and its children alike."""
    answer = os.dup(1)
    os.dup2(2, 1)
    return answer


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    main()
