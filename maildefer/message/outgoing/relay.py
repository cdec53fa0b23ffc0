"""Sends messages, each delivery over connections of its own."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from maildefer import log_context
from maildefer.message import addresses
from maildefer.message.dsn.asked import passing_on
from maildefer.message.envelope import encode_address
from maildefer.message.outgoing.mx import RelayUnresolved, exchangers, own_name
from maildefer.message.request import MailRequest

if TYPE_CHECKING:
    import smtplib
    import ssl as tls

    from maildefer.message.outgoing.wire_message import WireMessage

TLS_MODES: Final = ("", "opportunistic", "required", "verified")


class Relay:
    """Sends messages by SMTP or LMTP to one host, or with `host=None` to each recipient's own (by MX).

    May be used by several threads and after a fork, since nothing is kept between deliveries. `tls` says when a
    connection is encrypted by STARTTLS: `opportunistic`, where the server offers it and it works (RFC 7435);
    `required`, else nothing is sent; `verified`, where besides the server's certificate is good for its host's name,
    also with `ssl`. `starttls` is `required` by Salmon's name. Where a password is sent, the certificate is verified
    in any case; for one of your own authority, set `tls_context`. With `queue`, an entry for each recipient is put
    there, and nothing sent.
    Raises `TypeError` for `ssl` together with `starttls` or `lmtp`, `ValueError` for another `tls`.
    """

    timeout_seconds: float = 300  # RFC 5321, section 4.5.3.2
    tls_context: tls.SSLContext | None = None

    def __init__(
        self,
        host: str | None = "127.0.0.1",
        port: int = 25,
        username: str | None = None,
        password: str | None = None,
        ssl: bool = False,
        starttls: bool = False,
        debug: int = 0,
        lmtp: bool = False,
        *,
        tls: str = "",
        queue: str = "",
    ) -> None:
        if ssl and (starttls or lmtp or tls in ("opportunistic", "required")):
            raise TypeError(
                "ssl goes neither with starttls (which upgrades a plain connection) nor with lmtp"
            )
        if tls not in TLS_MODES:
            raise ValueError(f"tls={tls!r}: give one of {', '.join(TLS_MODES[1:])}")
        self.hostname = host
        self.port = port
        self.username = username
        self.password = password
        self.ssl = ssl
        self.starttls = starttls
        self.tls = tls or ("required" if starttls else "")
        self.debug = debug
        self.queue = queue
        self.lmtp = lmtp
        self._home = _working_directory()  # where the relative paths of the project's queues begin

    def deliver(
        self, message: Any, To: addresses.Given = None, From: addresses.Given = None, *, now: bool = False
    ) -> None:
        """Send a request, a response, an `email` message, text or bytes. `now`: also where the handler fails then.

        Recipients and sender: the argument, else the message's attribute, else its header; `From=""` is the null
        sender. A received message that was not changed goes out byte for byte; anything else gets a `Date` and a
        `Message-ID` if it has none, in a handler the same at each attempt. A response that answers a message (see
        `message.outgoing.answer`) gets `In-Reply-To`, `References` and `Auto-Submitted`, too. If that message is
        automatic, the answer is not sent, but logged as `answer.withheld`, unless it has an `Auto-Submitted` already.

        Raises what `smtplib` does, also when only some of the recipients are refused (`SMTPRecipientsRefused`, its
        `recipients`). In a handler of a queue's message, a refusal is an `SMTPError` too: a 4yz defers that message,
        and a 5yz is final. At the next attempt the sent message goes only to recipients that have not taken it. Raises
        `RelayUnresolved` without a recipient, and OSError if the record of these recipients can't be read.
        """
        sender, recipients = self.envelope_of(message, To, From)
        # With smtplib, 10 MB with ssl: only for a process that sends.
        from maildefer.message.outgoing.answer import is_withheld
        from maildefer.message.outgoing.queued import put
        from maildefer.message.outgoing.sent_message import sent_message_of
        from maildefer.message.outgoing.wire_message import WireMessage, completed, wire_bytes

        if is_withheld(message, recipients):
            return None
        data = wire_bytes(message)
        sent = sent_message_of(sender, recipients, data, self._home)
        name, dsn = sent.name if sent else None, passing_on(message, sender)
        data = completed(message, data, sender=sender, recipients=recipients, name=name, host=own_name())
        wire = WireMessage(sender=sender, recipients=recipients, data=data, dsn=dsn, sent=sent)
        if self.queue:
            if sent is not None and sent.attempt > 1 and len(recipients) > 1:
                known = set[str]().union(*sent.recorded())  # who has it from an attempt that sent it directly
                wire = replace(wire, recipients=[one for one in recipients if one not in known])
            return put(self.queue, wire, now=now)
        return self._send(wire)

    def _send(self, wire: WireMessage) -> None:
        from maildefer.message.outgoing.refusals import as_reply, is_final  # as above
        from maildefer.message.outgoing.smtp_delivery import SmtpDelivery

        recipients, outgoing = wire.recipients, wire.sent
        taken: set[str] = set()
        refused: dict[str, tuple[int, bytes]] = {}
        if outgoing is not None and len(recipients) > 1:
            taken, refused = outgoing.recorded()
        sending = SmtpDelivery(self, wire.sender, wire.data, wire.dsn)
        sending.send([one for one in recipients if one not in taken and one not in refused])
        if not sending.refused and not refused:
            return
        taken |= sending.taken
        refused |= sending.refused
        fault = sending.fault_for(recipients, refused)
        if log_context.current() is not None:
            fault = as_reply(fault)
        finals = sum(is_final(code) for code, _ in refused.values())
        if outgoing is not None and (taken or 0 < finals < len(refused)):
            try:
                outgoing.record(taken, refused)
            except OSError as failed:
                fault.add_note(
                    f"the recipients that have taken it could not be noted, and get it again: {failed}"
                )
        raise fault

    @staticmethod
    def envelope_of(
        message: Any, To: addresses.Given = None, From: addresses.Given = None
    ) -> tuple[str, list[str]]:
        """The sender and the recipients that `deliver` would send it with.

        Raises `RelayUnresolved` without a recipient, `AddressRefused` for text that is more than an address.
        """
        recipients = _addresses(_first_given(message, To, "To"))
        if not recipients:
            raise RelayUnresolved("the message has no recipient: give To, or set its To header")
        senders = _addresses(_first_given(message, From, "From"))
        return senders[0] if senders else "", recipients

    def configure_relay(self, hostname: str) -> smtplib.SMTP:
        """A connection to that host, encrypted and logged in as asked."""
        relay = self._connect(hostname)
        try:
            if self.tls and not self.ssl:
                relay = self._encrypt(relay, hostname)
            if self.username and self.password:
                relay.login(self.username, self.password)
        except BaseException:
            relay.close()
            raise
        return relay

    def open_connection(self, hostname: str) -> smtplib.SMTP:
        """A connection for one delivery, which `end_connection` ends."""
        return self.configure_relay(hostname)

    def end_connection(self, hostname: str, connection: smtplib.SMTP, *, is_good: bool) -> None:
        """End a delivery's connection, which `is_good` unless it has failed. Raises nothing."""
        import smtplib  # as above

        try:
            connection.quit()
        except (OSError, smtplib.SMTPException):
            connection.close()  # the server has closed the connection; all replies have come

    def _connect(self, hostname: str) -> smtplib.SMTP:
        plain, within_tls, local = self._kinds()
        options: dict[str, Any] = {"local_hostname": own_name(), "timeout": self.timeout_seconds}
        if self.ssl:
            options["context"] = self._context()
        relay = (local if self.lmtp else within_tls if self.ssl else plain)(hostname, self.port, **options)
        relay.set_debuglevel(self.debug)
        return relay

    def _kinds(self) -> tuple[type[smtplib.SMTP], type[smtplib.SMTP], type[smtplib.SMTP]]:
        """The classes of connections by SMTP, within TLS, and by LMTP."""
        import smtplib  # as above

        return smtplib.SMTP, smtplib.SMTP_SSL, smtplib.LMTP

    def _encrypt(self, relay: smtplib.SMTP, hostname: str) -> smtplib.SMTP:
        """Encrypt the connection; a server whose encryption fails gets another one, in the clear if that is enough."""
        if self.tls != "opportunistic" or self.password:
            relay.starttls(context=self._context())
            return relay
        import smtplib  # as above

        relay.ehlo_or_helo_if_needed()
        if not relay.has_extn("starttls"):
            return relay
        try:
            relay.starttls(context=self.tls_context)
        except (OSError, ValueError, smtplib.SMTPException):  # ValueError: a host name that is none in TLS
            relay.close()
            return self._connect(hostname)
        return relay

    def _context(self) -> tls.SSLContext | None:
        if self.tls_context is not None or not (self.password or self.tls == "verified"):
            return self.tls_context
        import ssl  # comes with smtplib

        return ssl.create_default_context()

    def resolve_relay_host(self, To: str) -> str:
        """The host to deliver to: the configured one, else the recipient's first MX, else the recipient's domain.

        Raises `RelayUnresolved` for an address without a domain, what `exchangers` refuses, and where `dnspython`
        isn't installed.
        """
        return self.relay_hosts(To)[0]

    def relay_hosts(self, To: str) -> list[str]:
        """As `resolve_relay_host`, with all hosts of the recipient's domain, in the order in which they are tried."""
        if self.hostname is not None:
            return [self.hostname]
        domain = addresses.first(To).rpartition("@")[2]
        if "@" not in To or not domain:
            raise RelayUnresolved(f"{To!r} has no domain to look up: give local@domain, or the relay a host")
        return exchangers(domain, (own_name().lower(),))

    def send(self, To: addresses.Given, From: str, Subject: str, Body: str, *, now: bool = False) -> None:
        """Send a plain text message."""
        from maildefer.message.response import MailResponse  # the e-mail package, for a process that sends

        message = MailResponse(To=(to := addresses.every(To)), From=From, Subject=Subject, Body=Body)
        self.deliver(message, To=to, now=now)

    def reply(self, original: Any, From: str, Subject: str, Body: str, *, now: bool = False) -> None:
        """Send a plain text message to the sender of a received one, as an answer to it."""
        from maildefer.message.response import MailResponse  # as above

        recipients = addresses.every(original.From)
        answer = MailResponse(To=recipients, From=From, Subject=Subject, Body=Body)
        answer.answers = original if isinstance(original, MailRequest) else None
        self.deliver(answer, To=recipients, now=now)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return "/"


def _addresses(given: addresses.Given) -> list[str]:
    """The bare addresses. Raises AddressRefused for text that could be read as further commands."""
    texts = [given] if given is None or isinstance(given, (str, bytes)) else given
    found = []
    for one in texts:
        text = one.decode("utf-8", "surrogateescape") if isinstance(one, bytes) else one or ""
        found += addresses.sendable(text)
    for address in found:
        encode_address(address)
    return found


def _first_given(message: Any, given: addresses.Given, name: str) -> addresses.Given:
    if given is not None:
        return given
    attribute: addresses.Given = getattr(message, name, None)
    if attribute is not None:
        return attribute
    if isinstance(message, (str, bytes)):
        from maildefer.message.mime.parser import from_string  # the e-mail package, for a process that sends

        return from_string(message).raw(name)
    header: addresses.Given = message[name]
    return header
