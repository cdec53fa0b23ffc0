"""`routes`: the table of routes, loaded in a process of its own; the command itself imports no handler."""

from __future__ import annotations

import json as codec
import os
import re
import subprocess
import sys
from typing import Annotated, Any

import typer

from maildefer.cli import output
from maildefer.cli.parameters import Commands
from maildefer.errors import ConfigurationError, MaildeferError, RouteNotFound
from maildefer.handling.project.finder import is_project
from maildefer.matching.index import limited_matches
from maildefer.units import span

app = Commands()
_SECONDS = 60.0


@app.command()
def routes(
    modules: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODULE]...", help="Only these; else all that the settings name."),
    ] = None,
    test: Annotated[
        str | None, typer.Option("--test", metavar="ADDRESS", help="Show which match, and their captures.")
    ] = None,
    path: Annotated[
        str | None,
        typer.Option("--path", metavar="PATH", help="Import from these folders too, `:` between them."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON Lines.")] = False,
) -> None:
    """Show the routes, and which of them match an address."""
    if not modules and not is_project():
        raise typer.BadParameter("Name the modules: there are no settings here that do.")
    try:
        table = _table(modules or [], path)
    except ConfigurationError as fault:
        if not modules:
            raise
        raise MaildeferError(str(fault)) from fault  # of an argument, not of the project's configuration
    if test is not None:
        table = [row for row in (_matched(row, test) for row in table) if row is not None]
        if not table:
            raise RouteNotFound(test)
    if json:
        for row in table:
            output.record(row)
        return
    output.table(map(_cells, table), ("queue", "handler", "kind", "policy", "pattern"))
    for row in table if test is not None else []:
        captures = " ".join(f"{name}={value!r}" for name, value in row["captures"].items())
        output.line(output.clean(f"{row['module']}.{row['function']}: {captures or 'no captures'}"))


def _cells(row: dict[str, Any]) -> list[str]:
    kind = ("stateless" if row["stateless"] else "stateful") + (", async" if row["async"] else "")
    return [row["queue"] or "", f"{row['module']}.{row['function']}", kind, _policy(row), row["pattern"]]


def _policy(row: dict[str, Any]) -> str:
    """What its `@retry`, `@timeout`, `@keep`, `@concurrency` and `@rate` say; `-` where all is as in the settings."""
    terms = row["retry"] or {}
    first, longest = terms.get("first_seconds"), terms.get("cap_seconds")
    pauses = None
    if first is not None and longest is not None:
        pauses = span(first) if first == longest else f"{span(first)}-{span(longest)}"
    lifetime, limit, keep = terms.get("lifetime_seconds"), row["timeout_seconds"], row["keep_seconds"]
    said = {
        "attempts": terms.get("max_attempts"),
        "backoff": pauses,
        "lifetime": lifetime and span(lifetime),
        "timeout": limit and span(limit),
        "keep": None if keep is None else span(keep),
    }
    terms_text = ",".join(f"{name}={value}" for name, value in said.items() if value is not None)
    return "; ".join(filter(None, (terms_text, *row["limits"]))) or "-"


def _matched(row: dict[str, Any], address: str) -> dict[str, Any] | None:
    pattern = re.compile(row["pattern"], re.IGNORECASE)
    found = limited_matches((pattern,), pattern.pattern, address)[0]
    return None if found is None else {**row, "captures": found.groupdict()}


def _table(modules: list[str], path: str | None) -> list[dict[str, Any]]:
    """The table of routes. Raises ConfigurationError with what the project's own code said."""
    here = [os.getcwd(), *(path.split(":") if path else []), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": ":".join(filter(None, here))}
    what = ["maildefer.cli.routes_process", *modules] if modules else ["maildefer.pool.probe_process"]
    command = [sys.executable, "-m", *what]
    try:
        ended = subprocess.run(
            command, stdout=subprocess.PIPE, env=environment, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise ConfigurationError(
            f"the handlers were not imported within {_SECONDS:g} s: see what they wait for"
        ) from late
    try:
        report = codec.loads(ended.stdout)
    except ValueError as fault:
        raise ConfigurationError(
            "the process that imports the handlers died: see its output above"
        ) from fault
    if "error" in report:
        raise ConfigurationError(str(report["error"]))
    table: list[dict[str, Any]] = report["routes"]
    if not table:
        raise ConfigurationError("no route is registered: put @route above the handlers of those modules")
    return table
