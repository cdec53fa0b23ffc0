"""An SMTP session (RFC 5321): one method for each command, which returns its reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from maildefer import events
from maildefer.intake import replies
from maildefer.intake.access.policy_client import PolicyClient
from maildefer.intake.client import Client
from maildefer.intake.context import ServerContext
from maildefer.intake.replies import Reply
from maildefer.intake.smtp import auth, sasl, syntax, xclient
from maildefer.intake.smtp.connection import Answer
from maildefer.intake.smtp.data_commands import DataCommands
from maildefer.intake.smtp.transaction import Transaction, note_refusal
from maildefer.message.envelope import encode_address

Command = Callable[[Any, str], Answer]
_BODIES = {"7BIT", "8BITMIME"}
_IN_THE_CLEAR = {
    b"EHLO",
    b"LHLO",
    b"HELO",
    b"STARTTLS",
    b"NOOP",
    b"RSET",
    b"QUIT",
    b"XCLIENT",
}  # RFC 3207, section 4

# Invisible, and parts of words in several scripts (RFC 5892, appendix A).
_JOINERS = {0x200C: None, 0x200D: None}
_HTTP = {b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE"}


class SmtpSession(DataCommands):
    """An SMTP connection to the hall's queue."""

    commands: ClassVar[Mapping[bytes, Command]]
    protocol: ClassVar[str] = "SMTP"

    def __init__(self, hall: ServerContext, *, client: Client | None = None) -> None:
        super().__init__(hall, client=client)
        self._exchange = auth.AuthDialogue(self)
        self._expecting: Callable[[bytes], Answer] | None = None

    def expect_line(self, then: Callable[[bytes], Answer]) -> None:
        """The next line is no command but what `then` answers."""
        self._expecting = then

    def greet(self) -> Reply:
        return Reply(220, "", f"{self.hall.options.hostname} {'LMTP' if self.lmtp else 'ESMTP'} maildefer")

    def obey(self, line: bytes) -> Answer:
        if self._expecting is not None:
            then, self._expecting = self._expecting, None
            return then(line)
        verb, _, argument = line.strip(b" \t").partition(b" ")
        command = self.commands.get(verb.upper())
        if command is None:
            return self._refuse_unknown(line, verb.upper())
        if barred := self._barred(verb.upper()):
            return self.disobey(line, barred)
        try:
            text = argument.decode()
        except UnicodeDecodeError:
            return self.disobey(line, replies.NOT_UTF8)
        if not text.isprintable() and not text.translate(_JOINERS).isprintable():
            return self.disobey(line, replies.UNPRINTABLE)
        return command(self, text.strip())

    def too_long(self, start: bytes) -> Reply | None:
        """It ends an exchange of AUTH as well (RFC 4954, section 4)."""
        expected, self._expecting = self._expecting, None
        if expected is not None:
            return replies.RESPONSE_TOO_LONG
        return self.disobey(start, replies.LINE_TOO_LONG)

    def forget(self) -> None:
        self.client.forget()
        self._reset()

    # The commands

    def helo(self, argument: str) -> Answer:
        return self._greeted(argument) or replies.lines([self.hall.options.hostname])

    def ehlo(self, argument: str) -> Answer:
        if refusal := self._greeted(argument):
            return refusal
        self.client.extended = True
        return replies.lines([self.hall.options.hostname, *self._extensions(), "SMTPUTF8"])

    def mail(self, argument: str) -> Answer:
        if not self.client.helo:
            return replies.HELO_FIRST
        if self.transaction is not None:
            return replies.NESTED
        if argument[:5].upper() != "FROM:":
            return replies.SYNTAX_MAIL
        if syntax.is_source_route(argument[5:]):
            return replies.SOURCE_ROUTE
        if (path := syntax.path(argument[5:])) is None or not _can_stand(path.address):
            return replies.BAD_SENDER
        if (parameters := syntax.parameters(path.parameters)) is None:
            return replies.SYNTAX_MAIL
        utf8 = "SMTPUTF8" in parameters
        if parameters.pop("SMTPUTF8", ""):  # it has no value (RFC 6531, section 3.1)
            return replies.SYNTAX_MAIL
        if refusal := self._unwanted(parameters) or _unsaid(path.address, utf8):
            return refusal
        if (shortage := self.hall.writer.known_shortage()) is None:
            return self._mail_if_room(path.address, utf8)
        return replies.FULL if shortage else self._begin_transaction(path.address, utf8)

    def rcpt(self, argument: str) -> Answer:
        if self.transaction is None:
            return replies.MAIL_FIRST
        if self._incoming is not None:
            return replies.IN_CHUNKS
        if argument[:3].upper() != "TO:":
            return replies.SYNTAX_RCPT
        if syntax.is_source_route(argument[3:]):
            return replies.SOURCE_ROUTE
        if (path := syntax.path(argument[3:])) is None or not path.address or not _can_stand(path.address):
            return replies.BAD_RECIPIENT
        address = self.hall.recipients.at_home(path.address, self.hall.options.hostname)
        if path.parameters:
            known = syntax.parameters(path.parameters) is not None
            return replies.UNKNOWN_PARAMETER if known else replies.SYNTAX_RCPT
        refusal = _unsaid(address, self.transaction.utf8) or self._refusal(
            address, len(self.transaction.recipients)
        )
        if refusal is None and self.hall.policy is not None:
            return self._rcpt_if_agreed(self.hall.policy, self.transaction, address)
        return self._settle_recipient(self.transaction, address, refusal)

    def rset(self, argument: str) -> Answer:
        if argument:
            return replies.SYNTAX_RSET
        self._reset()
        return replies.RESET

    def noop(self, argument: str) -> Answer:
        return replies.NOOP

    def vrfy(self, argument: str) -> Answer:
        return replies.VRFY if argument else replies.SYNTAX_VRFY

    def expn(self, argument: str) -> Answer:
        return replies.NOT_HERE

    def help(self, argument: str) -> Answer:
        return Reply(214, "2.0.0", " ".join(sorted(verb.decode() for verb in self.commands)))

    def quit(self, argument: str) -> Answer:
        self.close(replies.BYE)
        return None

    def auth(self, argument: str) -> Answer:
        return self._exchange.begin(argument)

    def starttls(self, argument: str) -> Answer:
        if self.hall.security.certificate is None:
            return replies.NOT_HERE
        if argument:
            return replies.SYNTAX_STARTTLS
        if self.client.tls:
            return replies.ALREADY_TLS
        self.encrypt(self.hall.security.certificate.context, replies.TLS_READY)
        return None

    # What they are made of

    def _refuse_unknown(self, line: bytes, verb: bytes) -> Reply | None:
        """A browser is sent away at once: a page may have it post commands to whatever listens on its own host."""
        if verb not in _HTTP:
            return self.disobey(line, replies.UNKNOWN)
        events.emit("intake.refused", client=str(self.client), reason=str(replies.NO_BROWSERS))
        self.close(replies.NO_BROWSERS)
        return None

    def _barred(self, verb: bytes) -> Reply | None:
        options = self.hall.options
        if options.tls_required and not self.client.tls and verb not in _IN_THE_CLEAR:
            return replies.TLS_FIRST
        if options.auth_required and not self.client.user and verb == b"MAIL":
            return replies.AUTH_FIRST
        return None

    def _greeted(self, argument: str) -> Reply | None:
        if (name := syntax.greeting_name(argument)) is None:
            return replies.SYNTAX_HELO
        self._reset()
        self.client.helo = name
        self.client.extended = False
        return None

    def _extensions(self) -> list[str]:
        """Without the last one, which every client is offered."""
        offered = ["PIPELINING", f"SIZE {self._limit_bytes}"]
        if self.hall.security.certificate is not None and not self.client.tls:
            offered.append("STARTTLS")
        if auth.offered(self):
            offered.append(f"AUTH {' '.join(sasl.MECHANISMS)}")
        if xclient.allowed(self):
            offered += [f"XCLIENT {xclient.XCLIENT}", f"XFORWARD {xclient.XFORWARD}"]
        return [*offered, "8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING"]

    def _unwanted(self, parameters: dict[str, str]) -> Reply | None:
        """The refusal of what MAIL asks for."""
        if parameters.pop("BODY", "7BIT").upper() not in _BODIES:
            return replies.BAD_BODY
        if self.hall.security.credentials is not None:
            parameters.pop("AUTH", None)  # whom it vouches for; nobody here asks (RFC 4954, section 5)
        size = parameters.pop("SIZE", "0")
        if not (size.isascii() and size.isdigit()) or len(size) > 20:
            return replies.SYNTAX_MAIL
        if int(size) > self._limit_bytes:
            return replies.TOO_LARGE
        return replies.UNKNOWN_PARAMETER if parameters else None

    async def _mail_if_room(self, sender: str, utf8: bool) -> Reply:
        return replies.FULL if await self.hall.writer.shortage() else self._begin_transaction(sender, utf8)

    def _begin_transaction(self, sender: str, utf8: bool) -> Reply:
        self.transaction = Transaction(sender=sender, via=self._via(utf8), utf8=utf8)
        return replies.SENDER_OK

    def _via(self, utf8: bool) -> str:
        """RFC 3848, and RFC 6531, section 4.3."""
        secured = ("S" if self.client.tls else "") + ("A" if self.client.user else "")
        if utf8:
            return f"UTF8{self.protocol}{secured}"
        if self.lmtp:
            return f"LMTP{secured}"
        return f"ESMTP{secured}" if self.client.extended else "SMTP"

    async def _rcpt_if_agreed(self, policy: PolicyClient, transaction: Transaction, address: str) -> Reply:
        refusal = await policy.ask(self.client, transaction.sender, address)
        return self._settle_recipient(transaction, address, refusal)

    def _settle_recipient(self, transaction: Transaction, address: str, refusal: Reply | None) -> Reply:
        if refusal is None:
            transaction.recipients.append(address)
            return replies.RECIPIENT_OK
        note_refusal(self.client, transaction.sender, str(refusal), recipient=address)
        return refusal

    def _refusal(self, address: str, others: int) -> Reply | None:
        if others >= self.hall.options.max_recipients:
            return replies.TOO_MANY_RECIPIENTS
        return self.hall.recipients.refusal(address)


def _can_stand(address: str) -> bool:
    if syntax.is_too_long(address):
        return False
    try:
        encode_address(address)
    except ValueError:
        return False
    return True


def _unsaid(address: str, utf8: bool) -> Reply | None:
    """RFC 6531, section 3.3: what is beyond ASCII has to be announced."""
    return None if utf8 or address.isascii() else replies.NEEDS_UTF8


SmtpSession.commands = {
    b"HELO": SmtpSession.helo,
    b"EHLO": SmtpSession.ehlo,
    b"MAIL": SmtpSession.mail,
    b"RCPT": SmtpSession.rcpt,
    b"DATA": SmtpSession.data,
    b"BDAT": SmtpSession.bdat,
    b"RSET": SmtpSession.rset,
    b"NOOP": SmtpSession.noop,
    b"VRFY": SmtpSession.vrfy,
    b"EXPN": SmtpSession.expn,
    b"HELP": SmtpSession.help,
    b"QUIT": SmtpSession.quit,
    b"STARTTLS": SmtpSession.starttls,
    b"AUTH": SmtpSession.auth,
    b"XCLIENT": xclient.xclient,
    b"XFORWARD": xclient.xforward,
}
