"""Describe a project for the supervisor, which must not import its code: `python -m maildefer.pool.probe_process`.

Run in the project's folder, it prints one line of JSON: `{"settings", "queues", "routes", "periodic", "files",
"reload", "front_end_fault"}`, or `{"error", "detail"}` with the traceback in the project's code, if any. It ends with
0, or 78 for a configuration that can't be used. What user code prints goes to standard error. The parent limits its
time.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from itertools import dropwhile
from typing import TYPE_CHECKING, Any, TypeVar

from maildefer.errors import ConfigurationError

if TYPE_CHECKING:
    from maildefer.handling.project.settings import PoolSettings

T = TypeVar("T")

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
        "front_end_fault": _front_end_fault(settings),
    }


def _front_end_fault(settings: PoolSettings) -> str:
    """Say why a front end can't use its settings, or the files that they name; empty where they can.

    As its processes would, each of which ended, one after the other.
    """
    os.chdir(settings.project)  # where these begin; a module may have moved
    try:
        if settings.receiver_config is not None:
            _try_receiver(settings.receiver_config)
        if settings.web_config is not None:
            _try_web(settings.web_config)
    except ConfigurationError as fault:
        return str(fault)
    return ""


def _try_receiver(config: Mapping[str, Any]) -> None:
    from maildefer.handling.policy import process
    from maildefer.intake import options, settings
    from maildefer.intake.access.security import AccessSecurity

    settings.check_receiver_config(config)
    settings.socket_mode(config)
    settings.environment(config)
    kinds = [address.partition(":")[0] for address in settings.addresses(config)]
    sockets = [f"--socket-fd=0:{kind}" for kind in kinds if kind in list(options.SocketProtocol)]
    command = ["--socket-fd=0", *sockets, "--queue=.", *settings.arguments(config)]
    parsed = _parsed("receiver_config", options.parse, command)
    AccessSecurity(parsed)
    if parsed.policy:
        process.load(parsed.policy)


def _try_web(config: Mapping[str, Any]) -> None:
    from maildefer.intake import settings
    from maildefer.intake.http import options
    from maildefer.intake.http.api_tokens import ApiTokens

    settings.check_web_config(config)
    tokens = str(config["token_file"])
    command = ["--socket-fd=0", "--queue=queue=.", f"--token-file={tokens}"]
    _parsed("web_config", options.parse, [*command, *settings.arguments(config, http=True)])
    ApiTokens(os.path.abspath(tokens))


def _parsed(setting: str, parse: Callable[[Sequence[str]], T], arguments: Sequence[str]) -> T:
    """Parse a front end's command line. Raises ConfigurationError for what would end its process."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return parse(arguments)
    except SystemExit:
        error = said.getvalue().strip().rpartition("error: ")[2]
        option, _, why = error.removeprefix("argument --").partition(": ")
        raise ConfigurationError(f"{setting}: {option.replace('-', '_')}: {why}") from None


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
