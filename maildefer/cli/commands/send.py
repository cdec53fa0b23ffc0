"""`send`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from maildefer.cli import output
from maildefer.cli.group import EX_TEMPFAIL
from maildefer.cli.parameters import Commands
from maildefer.errors import MaildeferError

app = Commands()


@app.command()
def send(
    host: Annotated[str, typer.Option("--host", metavar="HOST", help="The server.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="PORT", min=1, help="Its port.")] = 8825,
    username: Annotated[str | None, typer.Option("--username", metavar="NAME", help="Log in as.")] = None,
    password: Annotated[
        str | None,
        typer.Option("--password", metavar="PASSWORD", envvar="MAILDEFER_PASSWORD", help="Log in with."),
    ] = None,
    sender: Annotated[str, typer.Option("--sender", metavar="ADDRESS", help="From whom.")] = "",
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="ADDRESS", help="To whom; may be given many times.")
    ] = None,
    subject: Annotated[str, typer.Option("--subject", metavar="TEXT", help="What it is about.")] = "",
    body: Annotated[
        str | None, typer.Option("--body", metavar="TEXT", help="Its text; from standard input without.")
    ] = None,
    attach: Annotated[
        list[str] | None,
        typer.Option("--attach", metavar="FILE", help="Attach this; may be given many times."),
    ] = None,
    lmtp: Annotated[bool, typer.Option("--lmtp", help="Speak LMTP.")] = False,
    ssl: Annotated[bool, typer.Option("--ssl", help="Speak TLS from the first byte.")] = False,
    starttls: Annotated[
        bool, typer.Option("--starttls", help="Turn to TLS before anything is said.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the conversation.")] = False,
) -> None:
    """Send one message over SMTP or LMTP."""
    import smtplib  # 10 MB with ssl, as are the next two with the e-mail package: for those who send

    from maildefer.message.outgoing.relay import Relay
    from maildefer.message.response import MailResponse

    if not to:
        raise typer.BadParameter("Give --to.")
    if ssl and (starttls or lmtp):
        raise typer.BadParameter("--ssl goes with neither --starttls nor --lmtp.")
    text = body if body is not None else sys.stdin.read()
    message = MailResponse(To=to, From=sender, Subject=subject, Body=text)
    for file in attach or []:
        message.attach(filename=file)
    relay = Relay(
        host,
        port,
        username=username,
        password=password,
        ssl=ssl,
        starttls=starttls,
        debug=int(debug),
        lmtp=lmtp,
    )
    try:
        relay.deliver(message, To=to, From=sender)
    except smtplib.SMTPResponseException as refusal:
        output.complain(f"{host}:{port} said {refusal.smtp_code} {_text(refusal.smtp_error)}")
        raise typer.Exit(EX_TEMPFAIL if 400 <= refusal.smtp_code < 500 else 1) from refusal
    except smtplib.SMTPRecipientsRefused as refusal:
        for address, (code, said) in refusal.recipients.items():
            output.complain(f"{host}:{port} refused {address}: {code} {_text(said)}")
        temporary = all(400 <= code < 500 for code, _ in refusal.recipients.values())
        raise typer.Exit(EX_TEMPFAIL if temporary else 1) from refusal
    except (OSError, smtplib.SMTPException) as fault:
        is_up = "is `maildefer log`, or your server, up there?"
        raise MaildeferError(f"{host}:{port}: {fault}: {is_up}") from fault
    output.say(f"sent to {', '.join(to)} by {host}:{port}")


def _text(reply: bytes | str) -> str:
    """A server's reply as text; smtplib usually gives bytes."""
    return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
