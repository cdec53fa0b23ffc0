"""`cleanse` and `blast`: whole mailboxes, an mbox or a Maildir."""

from __future__ import annotations

import mailbox
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Annotated

import typer

from maildefer.cli import output
from maildefer.cli.parameters import Commands
from maildefer.errors import MaildeferError

app = Commands()


@app.command()
def cleanse(
    in_mailbox: Annotated[
        str, typer.Argument(metavar="IN_MAILBOX", help="An mbox or a Maildir; it is kept.")
    ],
    out_mailbox: Annotated[str, typer.Argument(metavar="OUT_MAILBOX", help="The Maildir to make.")],
) -> None:
    """Write all messages of a mailbox anew, in canonical form, into a Maildir."""
    from maildefer.message.mime.canonical import to_string  # the e-mail package, as in the next command
    from maildefer.message.mime.parser import from_string

    box = _opened(in_mailbox)
    written = failed = 0
    out = mailbox.Maildir(out_mailbox)
    for name, data in _messages(box):
        try:
            out.add(to_string(from_string(data), anew=True).encode("utf-8", "surrogateescape"))
            written += 1
        except (MaildeferError, ValueError, LookupError) as fault:
            output.complain(f"{name}: {fault}")
            failed += 1
    output.say(f"{output.count(written, 'message', 'messages')} written to {out_mailbox}, {failed} failed")
    if failed:
        raise typer.Exit(1)


@app.command()
def blast(
    mailbox: Annotated[str, typer.Argument(metavar="MAILBOX", help="An mbox or a Maildir.")],
    host: Annotated[str, typer.Option("--host", metavar="HOST", help="The server.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="PORT", min=1, help="Its port.")] = 8823,
    lmtp: Annotated[bool, typer.Option("--lmtp", help="Speak LMTP.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the conversations.")] = False,
) -> None:
    """Send every message of a mailbox to a server."""
    import smtplib  # 10 MB with ssl

    from maildefer.message.outgoing.relay import Relay
    from maildefer.message.request import MailRequest

    relay = Relay(host, port, debug=int(debug), lmtp=lmtp)
    sent = 0
    try:
        for _, data in _messages(_opened(mailbox)):
            relay.deliver(MailRequest(None, None, None, data))
            sent += 1
    except (OSError, smtplib.SMTPException, MaildeferError) as fault:
        print(f"Error: {output.clean(str(fault))}", file=sys.stderr)
        raise typer.Exit(1) from fault
    output.say(f"{output.count(sent, 'message', 'messages')} sent to {host}:{port}")


def _opened(path: str) -> mailbox.Mailbox[mailbox.Message]:
    """The mailbox at a path. Raises MaildeferError if there is none."""
    if not os.path.exists(path):
        raise MaildeferError(f"there is no mailbox {path}: give an mbox or a Maildir")
    if not os.path.isdir(path):
        return mailbox.mbox(path, create=False)
    if not os.path.isdir(os.path.join(path, "cur")):
        raise MaildeferError(f"{path} is no Maildir: give the folder that holds tmp, new and cur")
    return mailbox.Maildir(path, create=False)


def _messages(box: mailbox.Mailbox[mailbox.Message]) -> Iterator[tuple[str, bytes]]:
    """The key and the bytes of each message."""
    with closing(box):
        for key in box.keys():  # noqa: SIM118  # a mailbox iterates its messages
            yield str(key), box.get_bytes(key)
