"""A report of a failure (RFC 3464): words for people, fields for programs, and the message or its header."""

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

MOST_RETURNED_BYTES: Final = 50_000  # of a message, as Postfix's bounce_size_limit
_MOST_WORDS: Final = 800  # characters, so that a field stays within a line of RFC 5322
_HEADER_END: Final = re.compile(rb"\n\r?\n")
_PLACE: Final = b"(the message)"
_TEXT: Final = """\
This is the mail system at {host}.

Your message could not be delivered to one recipient. It will not be
tried again.

<{recipient}>: {words}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedDelivery:
    """What is reported: one message, and the one recipient that does not get it."""

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


def report_of(
    failed: FailedDelivery, message: bytes, *, host: str, author: str, name: str, now: float
) -> bytes:
    """The report's bytes. `host` reports, `author` is the address in From, and `name` makes the Message-ID."""
    returned, kind = _returned(message, failed.dsn)
    boundary = f"={name}="
    while boundary.encode() in message:
        boundary += "="
    report = MIMEMultipart("report", boundary=boundary, report_type="delivery-status")
    report["From"] = f"Mail Delivery System <{author}>"
    report["To"] = f"<{failed.sender}>"
    report["Subject"] = "Undelivered Mail Returned to Sender"
    report["Date"] = date(now)
    report["Message-ID"] = f"<{name}@{author.rpartition('@')[2]}>"
    report["Auto-Submitted"] = "auto-replied"
    words = _TEXT.format(host=host, recipient=failed.recipient, words=failed.words)
    words = words.encode("utf-8", "replace").decode()  # an address may hold bytes that are none
    report.attach(MIMEText(words, "plain", "us-ascii" if words.isascii() else "utf-8"))
    report.attach(_status_part(failed, host, now))
    part = MIMEBase(*kind.split("/"))
    part["Content-Transfer-Encoding"] = "7bit" if returned.isascii() else "8bit"
    part.set_payload(_PLACE.decode())
    report.attach(part)
    # The message goes in as it is: the package would write it anew.
    before, _, after = report.as_bytes().rpartition(_PLACE)
    return before + returned + after


def _status_part(failed: FailedDelivery, host: str, now: float) -> MIMEBase:
    asked, words = failed.dsn, _printable(failed.words)
    of_message = {
        "Original-Envelope-Id": asked.envid,
        "Reporting-MTA": f"dns; {host}",
        "Arrival-Date": "" if failed.pushed_at is None else date(failed.pushed_at),
    }
    is_ascii = failed.recipient.isascii()
    of_recipient = {
        "Original-Recipient": asked.orcpt,
        "Final-Recipient": f"{'rfc822' if is_ascii else 'utf-8'}; {_printable(ascii_address(failed.recipient))}",
        "Action": "failed",
        "Status": failed.status,
        "Remote-MTA": f"dns; {_printable(failed.server)}" if failed.server else "",
        "Diagnostic-Code": f"smtp; {words}" if failed.code else f"x-maildefer; {words}",
        "Last-Attempt-Date": date(now),
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


def _returned(message: bytes, asked: DsnParameters) -> tuple[bytes, str]:
    """What comes back, and its type: the message if the sender wants it and it is not large, else its header."""
    if asked.ret == "FULL" and len(message) <= MOST_RETURNED_BYTES:
        return message, "message/rfc822"
    end = _HEADER_END.search(message)
    header = message[:1] if message.startswith(b"\n") else message[: end.start() + 1 if end else len(message)]
    if len(header) > MOST_RETURNED_BYTES:
        header = header[: header.rfind(b"\n", 0, MOST_RETURNED_BYTES) + 1]
    return header, "text/rfc822-headers"


def _printable(text: str) -> str:
    """Some text as one line of ASCII, not too long."""
    return "".join(sign if " " <= sign <= "~" else "?" for sign in " ".join(text.split())[:_MOST_WORDS])
