"""A report on a message (RFC 3464): words for people, fields for programs, and the message or its header."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.message import Message
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Final

from maildefer.message.dsn.parameters import DsnParameters, ascii_address
from maildefer.message.envelope import date
from maildefer.message.notices.config import Action

MOST_RETURNED_BYTES: Final = 50_000  # of a message, as Postfix's bounce_size_limit
_MOST_WORDS: Final = 800  # characters, so that a field stays within a line of RFC 5322
_HEADER_END: Final = re.compile(rb"\n\r?\n")
_PLACE: Final = b"(the message)"
_TEXT: Final = """\
This is the mail system at {host}.

{what}

<{recipient}>: {words}
"""
_SUBJECTS: Final[dict[Action, str]] = {
    "failed": "Undelivered Mail Returned to Sender",
    "delayed": "Delayed Mail (still being retried)",
    "relayed": "Successful Mail Relay Report",
    "delivered": "Successful Mail Delivery Report",
}
_WHAT: Final[dict[Action, str]] = {
    "failed": "Your message could not be delivered to one recipient. It will not be\ntried again.",
    "delayed": "Your message could not be delivered to one recipient yet. It will be\n"
    "tried again: you need not send it again.",
    "relayed": "Your message was passed on for one recipient to a server that does not\n"
    "report what becomes of it there.",
    "delivered": "Your message was delivered to one recipient.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What is reported: what became of one message to one recipient."""

    action: Action = "failed"
    sender: str
    recipient: str
    words: str
    """Why, in one line: a server's reply, or what a handler says."""
    status: str = "5.0.0"
    """The enhanced status code (RFC 3463)."""
    code: int = 0
    """Of the server's reply that the words are; 0 where they are no reply."""
    server: str = ""
    dsn: DsnParameters
    pushed_at: float | None = None
    retried_until: float | None = None


def report_of(reported: Reported, message: bytes, *, host: str, author: str, name: str, now: float) -> bytes:
    """The report's bytes. `host` reports, `author` is the address in From, and `name` makes the Message-ID."""
    returned, kind = _returned(message, reported)
    boundary = f"={name}="
    while boundary.encode() in message:
        boundary += "="
    report = MIMEMultipart("report", boundary=boundary, report_type="delivery-status")
    report["From"] = f"Mail Delivery System <{author}>"
    report["To"] = f"<{reported.sender}>"
    report["Subject"] = _SUBJECTS[reported.action]
    report["Date"] = date(now)
    report["Message-ID"] = f"<{name}@{author.rpartition('@')[2]}>"
    report["Auto-Submitted"] = "auto-replied"
    what = _WHAT[reported.action]
    words = _TEXT.format(host=host, what=what, recipient=reported.recipient, words=reported.words)
    words = words.encode("utf-8", "replace").decode()  # an address may hold bytes that are none
    words = "".join(sign if sign.isprintable() or sign == "\n" else "?" for sign in words)
    report.attach(MIMEText(words, "plain", "us-ascii" if words.isascii() else "utf-8"))
    report.attach(_status_part(reported, host, now))
    part = MIMEBase(*kind.split("/"))
    part["Content-Transfer-Encoding"] = "7bit" if returned.isascii() else "8bit"
    part.set_payload(_PLACE.decode())
    report.attach(part)
    # The message goes in as it is: the package would write it anew.
    before, _, after = report.as_bytes().rpartition(_PLACE)
    return before + returned + after


def _status_part(reported: Reported, host: str, now: float) -> MIMEBase:
    asked, words = reported.dsn, _printable(reported.words)
    of_message = {
        "Original-Envelope-Id": asked.envid,
        "Reporting-MTA": f"dns; {host}",
        "Arrival-Date": "" if reported.pushed_at is None else date(reported.pushed_at),
    }
    is_ascii = reported.recipient.isascii()
    of_recipient = {
        "Original-Recipient": asked.orcpt,
        "Final-Recipient": f"{'rfc822' if is_ascii else 'utf-8'}; {_printable(ascii_address(reported.recipient))}",
        "Action": reported.action,
        "Status": reported.status,
        "Remote-MTA": f"dns; {_printable(reported.server)}" if reported.server else "",
        "Diagnostic-Code": f"smtp; {words}" if reported.code else f"x-maildefer; {words}",
        "Last-Attempt-Date": date(now),
        "Will-Retry-Until": "" if reported.retried_until is None else date(reported.retried_until),
    }
    part = MIMEBase("message", "delivery-status")
    part.set_payload([_block(of_message), _block(of_recipient)])
    return part


def _block(fields: dict[str, str]) -> Message:
    block = Message()
    for name, value in fields.items():
        if value:
            block[name] = value
    return block


def _returned(message: bytes, reported: Reported) -> tuple[bytes, str]:
    """What comes back, and its type: of a failure the message, if the sender wants it and it is small; else its header.

    RET is of failures alone (RFC 3461, section 4.3).
    """
    if reported.action == "failed" and reported.dsn.ret == "FULL" and len(message) <= MOST_RETURNED_BYTES:
        return message, "message/rfc822"
    end = _HEADER_END.search(message)
    header = message[:1] if message.startswith(b"\n") else message[: end.start() + 1 if end else len(message)]
    if len(header) > MOST_RETURNED_BYTES:
        header = header[: header.rfind(b"\n", 0, MOST_RETURNED_BYTES) + 1]
    return header, "text/rfc822-headers"


def _printable(text: str) -> str:
    """Some text as one line of ASCII, not too long."""
    return "".join(sign if " " <= sign <= "~" else "?" for sign in " ".join(text.split())[:_MOST_WORDS])
