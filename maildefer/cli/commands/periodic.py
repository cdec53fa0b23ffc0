"""`periodic`: the tasks that have a schedule, and when each was pushed last and is pushed next, on all hosts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Annotated

import typer

from maildefer.cli import output
from maildefer.cli.defaults import answered, must_be_project, open_or_make, probed
from maildefer.cli.parameters import Commands
from maildefer.errors import MaildeferError, QueueMissing, raise_named
from maildefer.handling.periodic.table import PeriodicTask
from maildefer.handling.project.finder import project
from maildefer.host.bounded_call import bounded
from maildefer.host.identity import this_host
from maildefer.maildir.layout import Layout, open_queue
from maildefer.maildir.upkeep.ticks import Tick, Ticks

app = Commands("Look at tasks with a schedule, run them now, pause and resume them.")

OneTask = Annotated[
    str, typer.Argument(metavar="TASK", help="As `list` shows it, or the last part of its name.")
]


@app.command("list")
def list_(json: Annotated[bool, typer.Option("--json", help="Print JSON Lines.")] = False) -> None:
    """List the tasks with a schedule: their last and next instants, and which are paused."""
    tasks, now, rows = _tasks(), int(time.time()), []
    lasts: dict[str, Tick | None] = {}
    paused: set[str] = set()
    for queue in dict.fromkeys(task.queue for task in tasks):
        there, labels = _looked_up([task for task in tasks if task.queue == queue])
        lasts |= there
        paused |= {task.name for task in tasks if task.queue == queue and task.label in labels}
    for task in tasks:
        last, is_paused = lasts.get(task.folder), task.name in paused
        following = None if is_paused else task.schedule.next_after(max(now, last.instant if last else 0))
        if json:
            output.record(_facts(task, last, following, is_paused))
        zone = task.schedule.zone if task.schedule.cron else ""
        then = _moment(last.instant) if last and last.key else "-"
        when = "paused" if is_paused else _moment(following) if following else "-"
        rows.append((task.name, task.queue, f"{task.schedule} {zone}".strip(), then, when))
    if rows and not json:
        output.table(rows, ("task", "queue", "schedule", "last", "next"))
    elif not rows:
        output.say(
            "no task of the queues' modules has a schedule: @task(every=…) or @task(cron=…) gives it one"
        )


@app.command()
def run(task: OneTask) -> None:
    """Push a call of a task now, besides those of its schedule."""
    found = _named(task)
    key = answered(bounded(lambda: _pushed(found)), found.queue)
    output.line(output.clean(key))
    output.say(f"{found.name} waits in {found.queue}; its schedule goes on as before")


@app.command()
def pause(task: OneTask) -> None:
    """Let no host push calls of a task, until it is resumed."""
    found = _named(task)
    made = _marked(found, lambda ticks: ticks.pause(found.label))
    output.line(output.clean(f"{found.name} {'is paused' if made else 'was paused already'}"))
    output.say("calls that wait in the queue are not held up; `maildefer periodic resume` lets it go on")


@app.command()
def resume(task: OneTask) -> None:
    """Let the hosts push calls of a paused task again; what it missed is made up for as its `catch_up` says."""
    found = _named(task)
    ended = _marked(found, lambda ticks: ticks.resume(found.label))
    output.line(output.clean(f"{found.name} {'goes on' if ended else 'was not paused'}"))


def _tasks() -> list[PeriodicTask]:
    """The periodic tasks of the project in the working directory. Raises ConfigurationError."""
    must_be_project()
    return list(probed().periodic)


def _named(name: str) -> PeriodicTask:
    tasks = _tasks()
    exact = [task for task in tasks if task.name == name]
    found = exact or [task for task in tasks if task.name.endswith(f".{name}")]
    if len(found) != 1:
        known = ", ".join(task.name for task in found or tasks) or "none"
        what = "several tasks with a schedule end so" if found else "no task with a schedule has that name"
        raise MaildeferError(f"{name}: {what}: name one of {known}")
    return found[0]


def _pushed(task: PeriodicTask) -> str:
    from maildefer.handling.tasks.call import Call, composed  # for this only
    from maildefer.maildir.push import Pusher

    layout, host = open_or_make(_path(task)), this_host().label
    call = Call(task=task.name, args=[], kwargs={})
    return Pusher(layout, host=host).push(composed(call, task.address, layout.path, host))


def _marked(task: PeriodicTask, act: Callable[[Ticks], bool]) -> bool:
    def mark() -> bool:
        layout = open_or_make(_path(task))
        try:
            return act(_ticks(layout))
        except OSError as fault:
            raise_named(layout.periodic, fault)

    return answered(bounded(mark), task.queue)


def _looked_up(tasks: list[PeriodicTask]) -> tuple[dict[str, Tick | None], set[str]]:
    """The last instants of tasks of one queue, by folder, and the labels of those that are paused there."""

    def look() -> tuple[dict[str, Tick | None], set[str]]:
        try:
            ticks = _ticks(open_queue(_path(tasks[0])))
            return {task.folder: ticks.last(task.folder) for task in tasks}, ticks.paused()
        except QueueMissing:
            return {}, set()
        except OSError as fault:
            raise_named(_path(tasks[0]), fault)

    return answered(bounded(look), tasks[0].queue)


def _path(task: PeriodicTask) -> str:
    return os.path.join(project(), task.queue)


def _ticks(layout: Layout) -> Ticks:
    return Ticks(layout, host=this_host().label)


def _facts(
    task: PeriodicTask, last: Tick | None, following: int | None, is_paused: bool
) -> dict[str, object]:
    return {
        "task": task.name,
        "queue": task.queue,
        "every_seconds": task.schedule.every_seconds or None,
        "cron": task.schedule.cron or None,
        "zone": task.schedule.zone,
        "catch_up": task.catch_up,
        "overlap": task.overlap,
        "last": last.instant if last and last.key else None,
        "last_key": last.key or None if last else None,
        "next": following,
        "paused": is_paused,
    }


def _moment(instant: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(instant))
