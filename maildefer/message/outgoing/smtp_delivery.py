"""Sends one message to servers: each group of recipients to the first of its hosts that answers."""

from __future__ import annotations

import smtplib
from collections.abc import Iterable, Mapping
from typing import Protocol

from maildefer.message.outgoing.mx import RelayUnresolved
from maildefer.message.outgoing.refusals import ServerReply, is_final

UNREACHED = 451  # of a server that has said nothing, or something else
_MOST_STALE = 3  # kept connections that may turn out to be closed
_CLOSED: ServerReply = (421, b"4.4.2 the server closed the connection before")
_NO_SMTPUTF8: ServerReply = (553, b"5.6.7 the server takes no addresses beyond ASCII (SMTPUTF8)")


class Connector(Protocol):
    """The part of a `Relay` that a delivery needs."""

    lmtp: bool

    def relay_hosts(self, To: str, /) -> list[str]: ...
    def open_connection(self, hostname: str, /) -> smtplib.SMTP: ...
    def end_connection(self, hostname: str, connection: smtplib.SMTP, /, *, is_good: bool) -> None: ...


class SmtpDelivery:
    """The delivery of one message. `taken` and `refused`: the recipients by the servers' replies so far."""

    def __init__(self, connector: Connector, sender: str, data: bytes, dsn: str = "") -> None:
        """`dsn`: parameters for servers that take them, as `message.dsn.parameters` has them."""
        self._connector = connector
        self._sender = sender
        self._data = data
        self._dsn = dsn.split()
        self._faults: list[Exception] = []
        self._is_in_doubt = self._is_stale = False
        self.connection: smtplib.SMTP | None = None  # the one that is in use
        self.is_aborted = False  # set by another thread: no connection that is opened from then on is used
        self.reached = False  # whether any host has answered
        self.encryption = ""  # the version of TLS, where the last connection has it
        self.asked = ""  # the host that was asked last
        self.takes_dsn = False  # whether it takes such parameters
        self.said: dict[str, tuple[str, ServerReply]] = {}
        """By recipient, the host that has answered last, and its reply to the message or to the recipient."""
        self.taken: set[str] = set()
        self.refused: dict[str, ServerReply] = {}

    def send(self, recipients: Iterable[str]) -> None:
        """Send to all recipients, over one connection for those with the same hosts; raises no network errors."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for recipient in recipients:
            try:
                hosts = tuple(self._connector.relay_hosts(recipient))
            except Exception as fault:  # noqa: BLE001  # errors of the name server's library have no common type
                self._faults += self._unreached([recipient], fault)
            else:
                groups.setdefault(hosts, []).append(recipient)
        for hosts, group in groups.items():
            self._send_to_one_of(hosts, group)

    def fault_for(self, recipients: list[str], refused: Mapping[str, ServerReply]) -> Exception:
        """The error to raise: the one error that concerns all recipients, or the replies for each."""
        if not self.taken and len(self._faults) == 1 and self.refused.keys() == set(recipients):
            return self._faults[0]
        return smtplib.SMTPRecipientsRefused(dict(refused))

    def _send_to_one_of(self, hosts: tuple[str, ...], recipients: list[str]) -> None:
        """Try each host with the recipients that none has taken or refused permanently (RFC 5321, section 5.1)."""
        faults: list[Exception] = []
        left = recipients
        for host in hosts:
            faults = self._send_to(host, left)
            left = [one for one in left if one in self.refused and not is_final(self.refused[one][0])]
            if not left or self._is_in_doubt or self.is_aborted:
                break
        self._faults += faults

    def _send_to(self, host: str, recipients: list[str]) -> list[Exception]:
        """Send to one host; returns the errors. A kept connection that the server has closed is not the last word."""
        for _ in range(_MOST_STALE):
            self._is_in_doubt = self._is_stale = False
            faults = self._send_by_one(host, recipients)
            if not self._is_stale or self.taken.intersection(recipients):
                break
        return faults

    def _send_by_one(self, host: str, recipients: list[str]) -> list[Exception]:
        """Send over one connection; returns the errors."""
        self.asked = host
        try:
            self.connection = connection = self._connector.open_connection(host)
        except (
            OSError,
            ValueError,
            smtplib.SMTPException,
        ) as fault:  # ValueError: no name for the DNS or for TLS
            return self._unreached(recipients, fault)
        faults: list[Exception] = []
        is_good = False
        try:
            try:
                if self.is_aborted:
                    raise ConnectionAbortedError("broken off")
                connection.ehlo_or_helo_if_needed()
            except (OSError, smtplib.SMTPException) as fault:
                return self._unreached(recipients, fault)
            self.reached = True
            version = getattr(getattr(connection, "sock", None), "version", None)
            self.encryption = (version and version()) or ""
            # LMTP answers DATA once for each recipient, of which smtplib reads the first only.
            for some in [[one] for one in recipients] if self._connector.lmtp else [recipients]:
                if (raised := self._send_over(connection, some)) is not None:
                    faults.append(raised)
                last_reply = getattr(connection, "last_reply", (250, b""))
                self.said |= {one: (host, self.refused.get(one, last_reply)) for one in some}
            is_good = not self._is_in_doubt
            is_closed = getattr(connection, "sock", connection) is None
            self._is_stale = is_closed and is_good and getattr(connection, "messages", 0) > 0
        finally:
            self.connection = None  # from now on, another message may go over it
            self._connector.end_connection(host, connection, is_good=is_good)
        return faults

    def _send_over(self, connection: smtplib.SMTP, recipients: list[str]) -> Exception | None:
        options = [] if all(one.isascii() for one in (self._sender, *recipients)) else ["SMTPUTF8"]
        if not self._data.isascii() and connection.has_extn("8bitmime"):
            options.append("BODY=8BITMIME")
        self.takes_dsn = self._dsn != [] and connection.has_extn("dsn")
        dsn = self._dsn if self.takes_dsn else []
        options += [word for word in dsn if word.startswith(("RET=", "ENVID="))]
        of_recipient = [word for word in dsn if word.startswith(("NOTIFY=", "ORCPT="))]
        replies: Mapping[str, ServerReply] = {}
        raised: Exception | None = None
        try:
            answer = connection.sendmail(
                self._sender, recipients, self._data, options, *([of_recipient] if of_recipient else ())
            )
            if isinstance(answer, dict):  # a substitute for smtplib in tests may return nothing
                replies = answer
        except smtplib.SMTPRecipientsRefused as fault:
            # With a 421, the server closes the connection, and the recipients after it have no reply.
            replies = dict.fromkeys(recipients, _CLOSED) | fault.recipients
            raised = smtplib.SMTPRecipientsRefused(dict(replies))
        except (smtplib.SMTPDataError, smtplib.SMTPSenderRefused) as fault:
            text = fault.smtp_error if isinstance(fault.smtp_error, bytes) else fault.smtp_error.encode()
            replies, raised = dict.fromkeys(recipients, (fault.smtp_code, text)), fault
        except smtplib.SMTPNotSupportedError:
            replies = dict.fromkeys(recipients, _NO_SMTPUTF8)
            raised = smtplib.SMTPRecipientsRefused(dict(replies))
        except (OSError, smtplib.SMTPException) as fault:
            # It may have been taken: no other host is tried.
            self._is_in_doubt = getattr(connection, "may_have_taken", True)
            replies, raised = dict.fromkeys(recipients, _reply_for(fault)), fault
        for one in recipients:
            if one in replies:
                self.refused[one] = replies[one]
            else:
                self.refused.pop(one, None)  # refused by a host before
                self.taken.add(one)
        return raised

    def _unreached(self, recipients: list[str], fault: Exception) -> list[Exception]:
        self.refused |= dict.fromkeys(recipients, _reply_for(fault))
        return [fault]


def _reply_for(fault: Exception) -> ServerReply:
    """The reply for an error that is no reply to the message or its recipient: temporary, unless the domain takes none.

    A 5yz to the connection, to STARTTLS or to AUTH tells of the server or of our settings.
    """
    if isinstance(fault, smtplib.SMTPResponseException):
        words = fault.smtp_error if isinstance(fault.smtp_error, bytes) else fault.smtp_error.encode()
        if 400 <= fault.smtp_code < 500:
            return fault.smtp_code, words
        return UNREACHED, words if fault.smtp_code < 0 else b"%d %b" % (fault.smtp_code, words)
    code = fault.final_code if isinstance(fault, RelayUnresolved) else None
    return code or UNREACHED, f"{type(fault).__name__}: {fault}".encode("utf-8", "replace")
