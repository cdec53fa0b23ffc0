"""`sendmail`: a drop-in for sendmail(8), for cron and web applications; it only enqueues.

Exit codes of sysexits.h: 64 usage, 65 a message that is none, 67 an address that can't be, 75 try again, 78 settings.
With `--host` or `--port` it sends the message there instead, as Salmon's does.

    [-i] [-t] [-f SENDER] [-F NAME] [-bs | -bp] [--queue QUEUE | --host HOST --port PORT --lmtp] RECIPIENT...
    [-N never | success,failure,delay] [-R full | hdrs] [-V ENVID], for reports (RFC 3461), with a queue
"""

from __future__ import annotations

import os
import pwd
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import typer

import maildefer.message.origin  # noqa: F401  # notes where what is pushed is from
from maildefer.cli import output
from maildefer.cli.parameters import Command, Commands
from maildefer.errors import AddressRefused, ConfigurationError
from maildefer.message.dsn.parameters import ParameterRefused, checked

app = Commands()

EX_USAGE: Final = 64
EX_DATAERR: Final = 65
EX_NOUSER: Final = 67
EX_TEMPFAIL: Final = 75
EX_CONFIG: Final = 78

# Options of sendmail(8) with an argument, which may stand right behind them; those not looked at are passed over.
_WITH_ARGUMENT: Final = "BCFLNORVXbefhopr"
_DSN: Final = {"N": "NOTIFY", "R": "RET", "V": "ENVID"}
_LONG: Final = ("--host", "--port", "--queue")


class UsageError(Exception):
    """The command line makes no sense."""


class RawCommand(Command):
    """A command that leaves its arguments unparsed, since no option parser reads sendmail's."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        if args != ["--help"]:
            ctx.meta["arguments"], args = list(args), []
        return super().parse_args(ctx, args)


@dataclass(slots=True, kw_only=True)
class SendmailCommand:
    """A parsed command line."""

    recipients: list[str] = field(default_factory=list)
    sender: str | None = None
    name: str | None = None
    from_headers: bool = False
    ignore_dots: bool = False
    mode: str = "m"
    host: str | None = None
    port: int | None = None
    queue: str | None = None
    lmtp: bool = False
    debug: bool = False
    dsn: str = ""
    """By `-N`, `-R` and `-V`: see `message/dsn/parameters`."""


@app.command(
    cls=RawCommand,
    context_settings={"help_option_names": ["--help"]},
    options_metavar="[-i] [-t] [-f SENDER] [-F NAME] [-bs | -bp] [--queue QUEUE] RECIPIENT...",
    epilog="With --host HOST, --port PORT or --lmtp the message is sent there instead.",
)
def sendmail(ctx: typer.Context) -> None:
    """Put the message on standard input into the queue, as sendmail(8) would take it."""
    try:
        _carry_out(parsed(ctx.meta["arguments"]))
    except (UsageError, ParameterRefused) as fault:
        _end(EX_USAGE, str(fault))
    except AddressRefused as fault:
        _end(EX_NOUSER, str(fault))
    except ConfigurationError as fault:
        _end(EX_CONFIG, str(fault))
    except typer.Exit:
        raise
    except Exception as fault:  # noqa: BLE001  # whatever it is, the caller is to try again, not to bounce
        _end(EX_TEMPFAIL, f"{type(fault).__name__}: {fault}")


def parsed(arguments: list[str]) -> SendmailCommand:
    """Parse a command line. Raises UsageError."""
    asked, rest = SendmailCommand(), list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            asked.recipients += rest
            break
        if argument.startswith("--"):
            _long(asked, argument, rest)
        elif argument.startswith("-") and len(argument) > 1:
            _short(asked, argument[1:], rest)
        else:
            asked.recipients.append(argument)
    return asked


def _long(asked: SendmailCommand, argument: str, rest: list[str]) -> None:
    name, equals, value = argument.partition("=")
    if name == "--lmtp":
        asked.lmtp = True
    elif name == "--debug":
        asked.debug = True
    elif name in _LONG:
        if not equals:
            if not rest:
                raise UsageError(f"{name} needs a value")
            value = rest.pop(0)
        if name == "--port" and not value.isdecimal():
            raise UsageError(f"--port: {value!r} is no number")
        setattr(asked, name[2:], int(value) if name == "--port" else value)
    else:
        raise UsageError(f"there is no option {name}")


def _short(asked: SendmailCommand, letters: str, rest: list[str]) -> None:
    """Parse a cluster of letters, or one letter whose argument follows in the same word or the next."""
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter not in _WITH_ARGUMENT:
            if letter == "t":
                asked.from_headers = True
            elif letter == "i":
                asked.ignore_dots = True
            elif letter == "q":  # a queue run: the pool's business
                asked.mode, letters = "q", ""
            elif letter not in "GUmnv":
                raise UsageError(f"there is no option -{letter}")
            continue
        if not letters and not rest:
            raise UsageError(f"-{letter} needs a value")
        value, letters = letters or rest.pop(0), ""
        if letter in "fr":
            asked.sender = value.strip("<>")
        elif letter == "F":
            asked.name = value
        elif letter in _DSN:
            asked.dsn = f"{asked.dsn} {_DSN[letter]}={value}".lstrip()
        elif letter == "b":
            asked.mode = value
        elif letter == "o" and value.startswith("i"):
            asked.ignore_dots = True


def _carry_out(asked: SendmailCommand) -> None:
    match asked.mode:
        case "m":
            _take(asked)
        case "s":
            # A process of its own, for who speaks SMTP.
            from maildefer.pool.frontend.smtp_on_stdio import serve_stdio

            raise typer.Exit(serve_stdio(_queue(asked)))
        case "p":
            from maildefer.cli.commands.queue import list_

            list_(queue=_queue(asked))
        case "i" | "q":  # aliases, and a queue run: there is nothing to do
            pass
        case mode:
            raise UsageError(f"-b{mode} is not supported: -bm, -bs and -bp are")


def _take(asked: SendmailCommand) -> None:
    from maildefer.cli.stdin_message import completed, read, recipients_of  # parses headers

    data = read(sys.stdin.buffer, ignore_dots=asked.ignore_dots)
    recipients = [_qualified(one) for one in asked.recipients]
    if asked.from_headers:
        found, data = recipients_of(data)
        recipients += [_qualified(one) for one in found]
    recipients = list(dict.fromkeys(recipients))
    if not recipients:
        raise UsageError("no recipients: name them, or give -t to take them from the headers")
    sender = _qualified(pwd.getpwuid(os.getuid()).pw_name) if asked.sender is None else asked.sender
    data = completed(data, sender=sender, name=asked.name, host=os.uname().nodename)
    if asked.host is not None or asked.port is not None or asked.lmtp:
        from maildefer.message.outgoing.relay import Relay

        relay = Relay(asked.host or "127.0.0.1", asked.port or 8825, debug=int(asked.debug), lmtp=asked.lmtp)
        relay.deliver(data, To=recipients, From=sender)
        return
    _enqueue(_queue(asked), data, sender, recipients, checked(asked.dsn))


def _enqueue(path: str, data: bytes, sender: str, recipients: list[str], dsn: str) -> None:
    from maildefer.cli.defaults import open_or_make
    from maildefer.host.identity import this_host
    from maildefer.maildir.push import Pusher
    from maildefer.message.envelope import block

    host = this_host().label
    pusher = Pusher(open_or_make(path), host=host)

    def composed(to: str) -> Callable[[str], tuple[bytes, bytes]]:
        return lambda stem: (block(stem, sender, to, host=host, when=time.time(), via="push", dsn=dsn), data)

    for to in recipients:  # all of them first: an address that can't be must not leave half of the entries
        block("-", sender, to, host=host, when=0, via="push")
    pusher.push_together([composed(to) for to in recipients])  # else who called tries again for all of them


def _queue(asked: SendmailCommand) -> str:
    """The queue named by option or `MAILDEFER_QUEUE`, else the first of the settings."""
    if named := asked.queue or os.environ.get("MAILDEFER_QUEUE"):
        return named
    from maildefer.handling.project.finder import PROJECT, is_project
    from maildefer.handling.project.queue_paths import located
    from maildefer.handling.project.settings import load_settings, pool_settings

    if not is_project():
        raise ConfigurationError(
            f"no settings in {os.getcwd()} name a queue: give --queue, set MAILDEFER_QUEUE or {PROJECT}, or change "
            "to the project's folder"
        )
    return located(pool_settings(load_settings()).first_queue)


def _qualified(address: str) -> str:
    bare = address.strip().strip("<>")
    return bare if "@" in bare or not bare else f"{bare}@{os.uname().nodename}"


def _end(code: int, text: str) -> None:
    output.complain(f"sendmail: {text}")
    raise typer.Exit(code)
