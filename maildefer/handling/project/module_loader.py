"""Imports user modules; each error names the place of the mistake and its remedy."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType, TracebackType

from maildefer.errors import ConfigurationError, MaildeferError, ModuleUnusable
from maildefer.handling.project.finder import PROJECT, project

# Lines of maildefer are not user code.
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep


def import_user_module(name: str, *, listed_in: str) -> ModuleType:
    """Import `name` from the project; `listed_in` says in the error where the name came from.

    Raises `ConfigurationError` for any exception of the module, `sys.exit` included; for a missing module it is an
    `ImportError` too, as programs that were written for Salmon expect.
    """
    put_project_on_path()
    try:
        return importlib.import_module(name)
    except (ConfigurationError, KeyboardInterrupt):
        raise
    except SyntaxError as fault:
        raise ConfigurationError(
            f"{fault.filename}:{fault.lineno}: syntax error: {fault.msg}: correct that line ({listed_in})"
        ) from fault
    except ModuleNotFoundError as fault:
        if fault.name is not None and (name == fault.name or name.startswith(f"{fault.name}.")):
            raise ModuleUnusable(
                f"there is no module {name} in {project()} or on the import path: "
                f"change to the project's folder, name it in {PROJECT}, or correct the name ({listed_in})"
            ) from fault
        raise _failed(name, listed_in, fault) from fault
    except BaseException as fault:
        raise _failed(name, listed_in, fault) from fault


def put_project_on_path() -> None:
    """Put the project's folder on the import path, as `python -m` does there, and a console script does not."""
    folder = project()
    if folder not in sys.path:
        sys.path.insert(0, folder)


def module_files(modules: list[str] | tuple[str, ...]) -> list[str]:
    """The source files of the given modules, as far as they are imported."""
    files = (getattr(sys.modules.get(name), "__file__", None) for name in modules)
    return [file for file in files if file]


def project_files() -> list[str]:
    """The source files of all imported modules that lie in the project's folder, packages installed there aside."""
    root = os.path.join(project(), "")
    files = module_files(tuple(sys.modules))
    return sorted({file for file in files if file.startswith(root) and "site-packages" not in file})


def _failed(name: str, listed_in: str, fault: BaseException) -> ConfigurationError:
    if isinstance(fault, MaildeferError):  # its text says what to do
        return ConfigurationError(f"{_place(fault.__traceback__)}: {fault} ({listed_in})")
    kind = ModuleUnusable if isinstance(fault, ImportError) else ConfigurationError
    return kind(
        f"{_place(fault.__traceback__)}: {name} can't be imported: {type(fault).__name__}: {fault}: "
        f"correct that line, or install what it needs ({listed_in})"
    )


def _place(trace: TracebackType | None) -> str:
    """The last line of user code in the traceback, not of the import system or an installed package."""
    found = "?"
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if is_users(file):
            found = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def is_users(file: str) -> bool:
    """Whether the file is user code: not of Python, of an installed package, or of maildefer."""
    if file == importlib.__file__ or file.startswith(_PACKAGE) or "site-packages" in file:
        return False
    return not file.startswith(("<frozen", sys.base_prefix + os.sep + "lib"))
