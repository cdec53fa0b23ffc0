"""The errors that a relay raises in a handler when a server refuses: errors of `smtplib` that are `SMTPError` too.

So a 4yz defers the message that is being handled, and a 5yz buries it, unless the handler catches the error. In a
program that handles no message they are errors of `smtplib` alone, as in Salmon. Imported only where `smtplib` is
loaded.
"""

from __future__ import annotations

import smtplib
from collections.abc import Mapping

from maildefer.message.outgoing.mx import RelayUnresolved
from maildefer.message.smtp_error import SMTPError

ServerReply = tuple[int, bytes]
_MOST_NAMED = 10


class RecipientsRefused(SMTPError, smtplib.SMTPRecipientsRefused):
    """Some or all recipients were refused: `recipients` has the reply for each; the others have the message.

    Its code is a 4yz as long as one of them may be tried again.
    """

    def __init__(self, recipients: Mapping[str, ServerReply]) -> None:
        self.recipients: dict[str, ServerReply] = dict(recipients)
        code = next(
            (code for code, _ in recipients.values() if not is_final(code)),
            next(iter(recipients.values()))[0],
        )
        is_one = {own for own, _ in recipients.values()} == {code}  # the code stands in front of the text
        replies = [
            f"{recipient}: {'' if is_one else f'{own} '}{text_of(text)}"
            for recipient, (own, text) in list(recipients.items())[:_MOST_NAMED]
        ]
        if len(recipients) > _MOST_NAMED:
            replies.append(f"and {len(recipients) - _MOST_NAMED} more")
        _set_reply(self, code, "; ".join(replies))


class DataRefused(SMTPError, smtplib.SMTPDataError):
    """The message was refused, for all recipients."""

    def __init__(self, code: int, text: bytes | str) -> None:
        self.smtp_code, self.smtp_error = code, text
        _set_reply(self, code, text_of(text))


class SenderRefused(SMTPError, smtplib.SMTPSenderRefused):
    """The sender was refused."""

    def __init__(self, code: int, text: bytes | str, sender: str) -> None:
        self.smtp_code, self.smtp_error, self.sender = code, text, sender  # type: ignore[assignment]  # str or bytes
        _set_reply(self, code, f"{sender or '<>'}: {text_of(text)}")


class DomainRefused(SMTPError, RelayUnresolved):
    """The recipient's domain takes no mail, or does not exist."""

    def __init__(self, code: int, text: str) -> None:
        self.final_code = code
        _set_reply(self, code, text)


def as_reply(fault: Exception) -> Exception:
    """The error as an `SMTPError`, if a server has refused; any other error as it is."""
    match fault:
        case smtplib.SMTPRecipientsRefused():
            return RecipientsRefused(fault.recipients)
        case smtplib.SMTPSenderRefused():
            return SenderRefused(fault.smtp_code, fault.smtp_error, fault.sender)
        case smtplib.SMTPDataError():
            return DataRefused(fault.smtp_code, fault.smtp_error)
        case RelayUnresolved() if fault.final_code:
            return DomainRefused(fault.final_code, str(fault))
    return fault


def is_final(code: int) -> bool:
    """Whether the reply is permanent. The code of a closed connection is -1."""
    return 500 <= code < 600


def text_of(text: bytes | str) -> str:
    """A reply's text in one line."""
    readable = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return " ".join(readable.split())


def _set_reply(error: SMTPError, code: int, message: str) -> None:
    """Set the attributes of `SMTPError`, whose `__init__` would call the one of `smtplib`'s class."""
    error.code = code if is_final(code) or 400 <= code < 500 else 451
    error.message = message
    error.args = (f"{error.code} {message}",)
