"""The command `maildefer`: the table of its commands, and the exit codes that errors become.

0 done, 1 failure, 2 usage, 3 not running and 4 degraded (`status`), 75 temporary failure (`push`), 77 not
for this user (`push`), 78 bad configuration.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, NoReturn

import typer
import typer.main

from maildefer.cli.group import LazyGroup, fail
from maildefer.cli.parameters import Commands
from maildefer.version import VERSION

# The sentence that the help of each begins with. A command with subcommands names its module's `app`, any other the
# function of its own name in the module.
COMMANDS: Final[dict[str, str]] = {
    "new": "Write a new project.",
    "supervise": "Run a pool of workers on the queues.",
    "start": "Run a front end or a single receiver in the background.",
    "log": "Run a development sink that keeps all mail it is sent.",
    "stop": "Stop what was started.",
    "status": "Show what runs, on this host and on all that share the queues, and what is not as it should be.",
    "top": "Show pools, queues and workers on the terminal, live.",
    "web": "Show pools, queues and dead letters on a page, live; it changes nothing.",
    "probe": "Tell by the exit code whether this host's processes of the project live, or are ready.",
    "pause": "Let no host claim messages from queues, until they are resumed.",
    "resume": "Let hosts claim messages from paused queues again.",
    "reload": "Let pools load settings and handlers anew, one worker at a time.",
    "periodic": "Look at tasks with a schedule, run them now, pause and resume them.",
    "push": "Put messages into a queue, to be handled at once, or later.",
    "queue": "Look at queued messages and change what becomes of them.",
    "outgoing": "Show the destinations of mail: how much waits, which are down, when they are tried next.",
    "dead": "Look at dead letters, requeue, edit or delete them.",
    "replay": "Handle kept messages again, under fresh keys; what is kept stays.",
    "explain": "Tell what has happened to a message, when, where and why.",
    "audit": "Prove from a queue's journal that nothing was lost.",
    "routes": "Show the routes, and which of them match an address.",
    "send": "Send one message over SMTP or LMTP.",
    "sendmail": "Put the message on standard input into the queue, as sendmail(8) would take it.",
    "passwd": "Set a password for a front end's AUTH.",
    "cleanse": "Write all messages of a mailbox anew, in canonical form, into a Maildir.",
    "blast": "Send every message of a mailbox to a server.",
    "doctor": "Check whether a mount is safe for a queue.",
    "permissions": "Print, or give, the rights with which a front end of another user serves queues, and no others.",
    "man": "Write the manual pages of all commands.",
    "gen": "Write a new project (Salmon's name of `new`).",
}
# Those in another's module below maildefer.cli.commands.
_MODULES: Final = {"resume": "pause", "cleanse": "mailboxes", "blast": "mailboxes", "gen": "new"}

_OLD_SPELLINGS: Final = {"-boot": "--boot", "-pid": "--pid", "-ALL": "--all"}
_SPELT_ANEW: Final = ("start", "stop", "status", "log")


class Program(LazyGroup):
    table = COMMANDS
    modules = _MODULES
    package = "maildefer.cli.commands"
    unlisted = ("gen",)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().parse_args(ctx, _modern(args))
        except OSError as fault:  # of --install-completion, in the user's home
            fail(fault)


app = Commands(
    cls=Program,
    completes=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _modern(arguments: list[str]) -> list[str]:
    """A command line in which Salmon's old spellings of options are replaced."""
    if not arguments or arguments[0] not in _SPELT_ANEW:
        return arguments
    return [_OLD_SPELLINGS.get(argument, argument) for argument in arguments]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"maildefer {VERSION}")
        raise typer.Exit()


@app.callback(help="Run a pool of workers over a shared Maildir.")
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Nothing but the options of `maildefer` itself."""


def run(arguments: list[str] | None = None) -> NoReturn:
    """Carry out one command line and exit."""
    typer.main.get_command(app)(arguments, prog_name="maildefer")
    raise AssertionError("a command that is done exits")
