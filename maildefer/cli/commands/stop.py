"""`stop`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from maildefer.cli import output
from maildefer.cli.defaults import SMTP_PID, pid_path
from maildefer.cli.parameters import Commands
from maildefer.control import local_processes as control
from maildefer.control import stop as stopping
from maildefer.control.local_processes import PidFileStatus

app = Commands()


@app.command()
def stop(
    pid: Annotated[
        str | None, typer.Option("--pid", metavar="PATH", help=f"The pid file of what to stop ({SMTP_PID}).")
    ] = None,
    all_in: Annotated[
        str | None, typer.Option("--all", metavar="DIR", help="Stop everything whose pid file is in there.")
    ] = None,
    this_host_only: Annotated[
        bool, typer.Option("--this-host", help="Leave alone what runs on other hosts.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Kill what has not stopped after the timeout.")
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long to wait for all together.")
    ] = 40.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON Lines.")] = False,
) -> None:
    """Stop what was started."""
    if pid and all_in:
        raise typer.BadParameter("--pid and --all exclude each other.")
    found = _found(pid, all_in, output.say if json else output.line)
    failed = False
    for step in stopping.stop(found, timeout_seconds=timeout, kill=force, this_host_only=this_host_only):
        failed = failed or step.failed
        if json:
            facts = {"path": step.path, "what": step.what, "text": step.text, "pid": step.pid}
            output.record({**facts, "host": step.host, "failed": step.failed})
        else:
            output.line(output.clean(f"{step.path}: {step.text}"))
    if failed:
        output.complain("not everything was stopped: `maildefer status` shows what runs")
        raise typer.Exit(1)


def _found(pid: str | None, all_in: str | None, report: Callable[[str], None]) -> list[PidFileStatus]:
    if all_in is not None:
        found = control.find_processes(all_in)
        for item in found:
            report(output.clean(item.path))
        if not found:
            output.say(f"no pid files in {all_in}: nothing to stop")
        return found
    return [control.find_or_suggest(pid_path(pid, SMTP_PID))]
