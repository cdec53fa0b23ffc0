"""`python -m maildefer.cli.modules MODULE…`: the routes of handler modules that need not be in any queue, as JSON.

What `maildefer routes MODULE…` runs, as `pool.probe` does for the whole project.
"""

from __future__ import annotations

import json
import os
import sys

from maildefer.errors import ConfigurationError
from maildefer.handling import marks
from maildefer.handling.finding import is_project
from maildefer.handling.loading import import_user_module
from maildefer.handling.routes import Router
from maildefer.handling.settings import load_settings, router_defaults
from maildefer.handling.signatures import check


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
    """In the order in which routes are tried. Raises ConfigurationError."""
    if is_project():
        Router.defaults(**router_defaults(load_settings()))
    for module in modules:
        import_user_module(module, listed_in="the command line")
    check(Router.table())
    return [
        {
            "queue": None,
            "pattern": regex,
            "module": marks.module_of(function),
            "function": marks.name_of(function),
            "stateless": marks.is_stateless(function),
        }
        for regex in Router.ORDER
        for function in Router.REGISTERED[regex][1]
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
