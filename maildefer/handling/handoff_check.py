"""Finds handoffs to handlers or queues that do not exist, in the source of handlers, before the first message.

Only literal handoffs are found: `return "module.FUNCTION"` in a handler's own body. A message with any other wrong
handoff is buried. Used by the probe and the command line.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from maildefer.errors import HandlerMissing
from maildefer.handling.application import Application
from maildefer.handling.project.module_loader import module_files
from maildefer.handling.results import Handoff, handoff_in


def check_handoffs(application: Application) -> None:
    """Raises `HandlerMissing` for the first handoff to a function, or a queue, that there is not."""
    handlers: dict[str, set[str]] = {}
    for row in application.routes_table():
        handlers.setdefault(row["module"], set()).add(row["function"])
    for module in application.queues_of:
        for file in module_files([module]):
            for line, handoff in _written_out(file, handlers.get(module, set())):
                try:
                    if handoff.function not in handlers.get(handoff.module, ()):
                        application.router.function_of(handoff)  # slow, but raises the error that says what
                    application.queue_for(handoff.module)
                except HandlerMissing as missing:
                    raise HandlerMissing(f"{file}:{line}: {missing}") from missing


def _written_out(file: str, handlers: set[str]) -> Iterator[tuple[int, Handoff]]:
    try:
        with open(file, "rb") as source:
            tree = ast.parse(source.read(), file)
    except (OSError, SyntaxError):  # no source, or not in Python: nothing is found
        return
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name in handlers:
            for returned in _returns(statement):
                match returned.value:
                    case ast.Constant(value=str() as text):
                        handoff = handoff_in(text)
                        if handoff is not None:
                            yield returned.lineno, handoff


def _returns(node: ast.AST) -> Iterator[ast.Return]:
    """The function's own returns, not those of functions inside it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Return):
            yield child
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _returns(child)
