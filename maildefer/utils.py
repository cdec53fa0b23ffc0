"""Settings, and the steps of starting a server.

`settings` is the settings module, for handler modules; `import_settings` loads it in a program. The code is in
`maildefer.handling.project.settings`. The other functions are the steps of Salmon's `start`, for programs that call
them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from maildefer.handling.project.finder import boot_module as beside_settings
from maildefer.handling.project.module_loader import import_user_module
from maildefer.handling.project.settings import load_settings, loaded_settings
from maildefer.maildir import durable
from maildefer.maildir.rights.modes import Rights
from maildefer.maildir.system import token

__all__ = [
    "check_for_pid",
    "daemonize",
    "drop_priv",
    "import_settings",
    "make_fake_settings",
    "settings",
    "start_server",
]

# The settings module, None until it is loaded. Not assigned here: `__getattr__` gives what a worker has loaded.
# `Any`, since it is the user's own module, and a handler that imports this name is loaded after it.
settings: Any


def import_settings(boot_also: bool, boot_module: str = "config.boot") -> ModuleType:
    """Import the settings module once, then the boot module if asked.

    `MAILDEFER_SETTINGS_MODULE` or `SALMON_SETTINGS_MODULE` names it, else it is `conf.settings`, or `config.settings`
    where that is absent; the default boot module stands beside it. The settings are set before the boot module runs,
    whose handlers import them. Raises `ConfigurationError`, an `ImportError` too where a module is not there.
    """
    global settings
    if globals().get("settings") is None:
        settings = load_settings()
    loaded: ModuleType = settings
    if boot_also:
        name = beside_settings(boot_module, getattr(loaded, "__name__", ""))
        import_user_module(name, listed_in="the boot module")
    return loaded


def make_fake_settings(host: str, port: int) -> ModuleType:
    """Settings without a project: a receiver that listens there, no relay, the log in `logs/logger.log`. Once only."""
    global settings
    if globals().get("settings") is not None:
        loaded: ModuleType = settings
        return loaded
    import logging  # with the next, for a process that listens

    from maildefer.server import SMTPReceiver

    os.makedirs("logs", exist_ok=True)
    logging.basicConfig(filename="logs/logger.log", level=logging.DEBUG)
    made = ModuleType("settings", "Made by make_fake_settings.")
    vars(made).update(receiver=SMTPReceiver(host, port), relay=None)
    settings = made
    return made


def check_for_pid(pid: str, force: bool) -> None:
    """End the program with 1 if the pid file is there; with `force`, delete it."""
    if not os.path.exists(pid):
        return
    if force:
        os.unlink(pid)
        return
    print(f"maildefer: the pid file {pid} is there: stop what runs, or use force", file=sys.stderr)
    sys.exit(1)


def drop_priv(uid: int, gid: int) -> None:
    """Change to that user and group permanently. Raises PermissionError."""
    try:
        os.setgroups([])
    except PermissionError:
        pass  # then setgid is not permitted either, and raises the error
    os.setgid(gid)
    os.setuid(uid)


def daemonize(
    pid: str, chdir: str | None, chroot: str | None, umask: int | None, *, log_dir: str = "logs"
) -> None:
    """Continue in the background: a new session, output to two files in `log_dir`, the pid in the file `pid`."""
    os.makedirs(log_dir, exist_ok=True)
    os.makedirs(os.path.dirname(pid) or ".", exist_ok=True)
    logs, pid = os.path.abspath(log_dir), os.path.abspath(pid)
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():  # a process that leads no session can never get a terminal
        os._exit(0)
    for descriptor, name in ((1, "maildefer.out"), (2, "maildefer.err")):
        file = os.open(os.path.join(logs, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        os.dup2(file, descriptor)
        os.close(file)
    text, rights = f"{os.getpid()}\n".encode(), Rights(file_mode=0o644)
    durable.replace_file(pid, text, f"{pid}.{token(8)}", durably=False, rights=rights)
    if chroot:
        os.chroot(chroot)
    os.chdir(chdir or "/")
    if umask is not None:
        os.umask(umask)


def start_server(
    pid: str,
    force: bool,
    chroot: str | None,
    chdir: str | None,
    uid: int | None,
    gid: int | None,
    umask: int | None,
    settings_loader: Callable[[], Any],
    debug: bool = False,
    daemon_proc: bool = True,
) -> None:
    """Check the pid file, go into the background, load the settings, become the user, start the receiver.

    `maildefer start` does the same with a lock, and reports every failure; use that where you can.
    """
    check_for_pid(pid, force)
    if daemon_proc:
        daemonize(pid, chdir, chroot, umask)
    sys.path.append(os.getcwd())
    loaded = settings_loader()
    if uid is not None and gid is not None:
        drop_priv(uid, gid)
    if debug:
        import logging  # for debugging only

        logging.getLogger().setLevel(logging.DEBUG)
    loaded.receiver.start()


def __getattr__(name: str) -> ModuleType | None:
    if name == "settings":
        return loaded_settings()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
