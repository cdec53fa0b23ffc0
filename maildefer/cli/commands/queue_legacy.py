"""`queue [PATH] --pop`, `--get KEY` and so on: Salmon's spelling of a queue's operations."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from maildefer.cli import output
from maildefer.cli.defaults import open_or_make
from maildefer.cli.parameters import Group

RUN_QUEUE: Final = "run/queue"
OPTIONS: Final = ("--pop", "--get", "--remove", "--count", "--clear", "--keys")


class QueueGroup(Group):
    """A group that carries out Salmon's options where no subcommand is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Take options before a subcommand's name as Salmon's, and options behind it as the subcommand's."""
        for arg in args:
            if arg in self.commands:
                break
            if arg.partition("=")[0] in OPTIONS:
                args = ["salmon", *args]
                break
        return super().parse_args(ctx, args)


def salmon(
    path: Annotated[str, typer.Argument(metavar="[PATH]", help="The queue's directory.")] = RUN_QUEUE,
    pop: Annotated[bool, typer.Option("--pop", help="Take a message out, at most once.")] = False,
    get: Annotated[str | None, typer.Option("--get", metavar="KEY", help="Show a message.")] = None,
    remove: Annotated[str | None, typer.Option("--remove", metavar="KEY", help="Delete a message.")] = None,
    count: Annotated[bool, typer.Option("--count", help="Count the messages that wait.")] = False,
    clear: Annotated[bool, typer.Option("--clear", help="Delete all that wait, unasked.")] = False,
    keys: Annotated[bool, typer.Option("--keys", help="List the keys of those that wait.")] = False,
) -> None:
    """Carry out one operation of a queue, in Salmon's spelling."""
    if sum((pop, get is not None, remove is not None, count, clear, keys)) != 1:
        raise typer.BadParameter(f"Give one of {', '.join(OPTIONS)}.")
    from maildefer.queue import Queue  # for this spelling only

    queue = Queue(open_or_make(path).path)
    if pop:
        key, message = queue.pop()
        if message is None:
            output.say(f"{path} is empty")
        else:
            output.say(f"{key} was taken out of {path}")
            output.raw(message.to_bytes())
    elif get is not None:
        output.raw(queue.get(get).to_bytes())
    elif remove is not None:
        queue.remove(remove)
    elif count:
        output.line(str(queue.count()))
    elif clear:
        queue.clear()
    else:
        for key in queue.keys():  # noqa: SIM118  # no mapping
            output.line(output.clean(key))
