"""`python -m maildefer.cli.routes_process MODULE…`: the routes of handler modules, listed by a queue or not, as JSON.

What `maildefer routes MODULE…` runs, as `pool.probe` does for the whole project.
"""

from __future__ import annotations

import json
import os
import sys

from maildefer.errors import ConfigurationError
from maildefer.handling import handler_marks
from maildefer.handling.handler_check import check
from maildefer.handling.project.finder import is_project
from maildefer.handling.project.module_loader import import_user_module
from maildefer.handling.project.settings import load_settings, router_defaults
from maildefer.handling.routes import Router


def main(modules: list[str]) -> int:
    answer = os.dup(1)
    os.dup2(2, 1)  # what the modules print is not the answer
    try:
        report: dict[str, object] = {"routes": table(modules)}
    except ConfigurationError as fault:
        report = {"error": str(fault)}
    with os.fdopen(answer, "w", encoding="utf-8") as file:
        json.dump(report, file)
    return 78 if "error" in report else 0


def table(modules: list[str]) -> list[dict[str, object]]:
    """The routes in the order in which they are tried. Raises ConfigurationError."""
    if is_project():
        Router.defaults(**router_defaults(load_settings()))
    for module in modules:
        import_user_module(module, listed_in="the command line")
    check(Router.table())
    return [
        {"queue": None, "pattern": regex, **handler_marks.described(function)}
        for regex in Router.ORDER
        for function in Router.REGISTERED[regex][1]
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
