"""Connections to servers whose commands go out together where the server takes that (PIPELINING, RFC 2920).

They keep what the server said last, and say whether a message may have been taken when a connection breaks.
"""

from __future__ import annotations

import select
import smtplib
import socket
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from maildefer.message.outgoing.refusals import ServerReply

CONNECT_SECONDS: Final = 30.0
_MOST_LINES: Final = 200  # of one reply
_MOST_BYTES: Final = 8192  # of one line of it
_GO_AHEAD: Final = 354
_CLOSING: Final = 421

opened: Final[WeakValueDictionary[int, socket.socket]] = WeakValueDictionary()
"""By thread, the socket that it has opened last, for who breaks off what it waits for."""

if TYPE_CHECKING:
    _Base = smtplib.SMTP
else:
    _Base = object


class KeptConnection(_Base):
    """What the connections below have in common. `smtplib` would wait for each reply, and parse each address anew."""

    messages = 0
    """How many were sent over it before."""
    last_reply: ServerReply = (0, b"")
    """What the server said to the last message."""
    may_have_taken = False
    """Whether the last message went out whole, so that the server may have it whatever came then."""

    def is_idle(self) -> bool:
        """Whether it is open, and the server has said nothing unasked, as it does before it closes."""
        if self.sock is None:
            return False
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        made: socket.socket = super()._get_socket(host, port, min(timeout, CONNECT_SECONDS))  # type: ignore[misc]
        made.settimeout(timeout)
        opened[threading.get_ident()] = made
        return made

    def getreply(self) -> ServerReply:
        """Read one reply, of limited length; a code of -1 is no SMTP."""
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("the connection is closed")
        if self.file is None:
            self.file = self.sock.makefile("rb")
        texts: list[bytes] = []
        while len(texts) < _MOST_LINES:
            try:
                line = self.file.readline(_MOST_BYTES)
            except OSError as fault:
                self.close()
                raise smtplib.SMTPServerDisconnected(f"the connection broke: {fault}") from fault
            if not line.endswith(b"\n"):
                self.close()
                what = "sent an endless line" if len(line) == _MOST_BYTES else "closed the connection"
                raise smtplib.SMTPServerDisconnected(f"the server {what}")
            texts.append(line[4:].strip(b" \t\r\n"))
            if not line[:3].isdigit():
                return -1, b"this is no SMTP: " + line[:80].strip()
            if line[3:4] != b"-":
                return int(line[:3]), b"\n".join(texts)
        self.close()
        raise smtplib.SMTPServerDisconnected(f"the server sent a reply of over {_MOST_LINES} lines")

    def sendmail(  # type: ignore[override]
        self,
        from_addr: str,
        to_addrs: Sequence[str],
        msg: bytes,
        mail_options: Sequence[str] = (),
        rcpt_options: Sequence[str] = (),
    ) -> dict[str, ServerReply]:
        """Send one message, as `smtplib` does; `last_reply` has what the server said to it in the end."""
        self.may_have_taken, self.last_reply = False, (0, b"")
        self.ehlo_or_helo_if_needed()
        commands = self._commands(from_addr, to_addrs, len(msg), mail_options, rcpt_options)
        at_once = self.has_extn("pipelining")
        if at_once:
            self.send("".join(commands))

        def reply_to(command: str) -> ServerReply:
            if not at_once:
                self.send(command)
            reply = self.getreply()
            if reply[0] == _CLOSING:
                self.close()
            return reply

        by_sender = reply_to(commands[0])
        if not _is_good(by_sender) and (not at_once or self.sock is None):
            raise self._begun_anew(by_sender, smtplib.SMTPSenderRefused(*by_sender, from_addr))
        refused: dict[str, ServerReply] = {}
        reply = by_sender
        for one, command in zip(to_addrs, commands[1:-1], strict=True):
            if not _is_good(reply := reply_to(command)):
                refused[one] = reply
            if self.sock is None:
                raise smtplib.SMTPRecipientsRefused(refused)
        has_taker = _is_good(by_sender) and len(refused) < len(to_addrs)
        by_data = reply_to(commands[-1]) if has_taker or at_once else (0, b"")
        if not has_taker:
            if (
                by_data[0] == _GO_AHEAD
            ):  # for a lone dot (RFC 2920), which such a server may take for a message
                self.close()
            if not _is_good(by_sender):
                raise self._begun_anew(by_sender, smtplib.SMTPSenderRefused(*by_sender, from_addr))
            raise self._begun_anew(reply, smtplib.SMTPRecipientsRefused(refused))
        if by_data[0] != _GO_AHEAD:
            raise self._begun_anew(by_data, smtplib.SMTPDataError(*by_data))
        self.send(_stuffed(msg))
        self.may_have_taken = True
        self.last_reply = reply = self.getreply()
        self.may_have_taken = reply[0] < 0
        if not _is_good(reply):
            raise self._begun_anew(reply, smtplib.SMTPDataError(*reply))
        return refused

    def _commands(
        self,
        sender: str,
        recipients: Sequence[str],
        size: int,
        mail_options: Sequence[str],
        rcpt_options: Sequence[str],
    ) -> list[str]:
        """MAIL, RCPT for each recipient, and DATA. Raises SMTPNotSupportedError."""
        options = [f"SIZE={size}"] if self.has_extn("size") else []
        if "SMTPUTF8" in mail_options and not self.has_extn("smtputf8"):
            raise smtplib.SMTPNotSupportedError("SMTPUTF8 not supported by server")
        self.command_encoding = "utf-8" if "SMTPUTF8" in mail_options else "ascii"
        if self.does_esmtp:
            options += mail_options
        mail = " ".join((f"MAIL FROM:<{sender}>", *options))
        return [
            f"{mail}\r\n",
            *(" ".join((f"RCPT TO:<{one}>", *rcpt_options)) + "\r\n" for one in recipients),
            "DATA\r\n",
        ]

    def _begun_anew(self, reply: ServerReply, fault: smtplib.SMTPException) -> smtplib.SMTPException:
        """Begin anew after a refusal, so that the connection is good for the next message; else close it."""
        is_refusal = 400 <= reply[0] < 600 and reply[0] != _CLOSING
        try:
            if self.sock is not None and not (is_refusal and _is_good(self.rset())):
                self.close()
        except (OSError, smtplib.SMTPException):
            self.close()
        return fault


class SmtpConnection(KeptConnection, smtplib.SMTP):
    """By SMTP."""


class SmtpsConnection(KeptConnection, smtplib.SMTP_SSL):
    """By SMTP within TLS from the first byte on."""


class LmtpConnection(KeptConnection, smtplib.LMTP):
    """By LMTP, over TCP or to a socket file; for one recipient at a time."""


def _is_good(reply: ServerReply) -> bool:
    return 200 <= reply[0] < 300


def _stuffed(data: bytes) -> bytes:
    """The message as DATA carries it: leading dots doubled (RFC 5321, section 4.5.2), and its end."""
    if data.startswith(b"."):
        data = b"." + data
    data = data.replace(b"\r\n.", b"\r\n..")
    return data + (b".\r\n" if data.endswith(b"\r\n") or not data else b"\r\n.\r\n")
