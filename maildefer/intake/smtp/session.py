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
from maildefer.intake.smtp import sasl, syntax, xclient
from maildefer.intake.smtp.auth import AuthDialogue
from maildefer.intake.smtp.connection import Answer
from maildefer.intake.smtp.data_commands import DataCommands
from maildefer.intake.smtp.transaction import Transaction, note_refusal
from maildefer.message.dsn import parameters as dsn_parameters

Command = Callable[[Any, str], Answer]
_BODIES = {"7BIT", "8BITMIME"}
_BEFORE_TLS = frozenset(b"EHLO LHLO HELO STARTTLS NOOP RSET QUIT XCLIENT".split())  # RFC 3207, section 4

# Not printable, but parts of words in several scripts (RFC 5892, appendix A).
_JOINERS = {0x200C: None, 0x200D: None}
_HTTP_METHODS = {b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE"}


class SmtpSession(DataCommands):
    """One SMTP connection."""

    commands: ClassVar[Mapping[bytes, Command]]
    protocol: ClassVar[str] = "SMTP"

    def __init__(self, context: ServerContext, *, client: Client | None = None) -> None:
        super().__init__(context, client=client)
        self._auth = AuthDialogue(self, self.expect_line)
        self._expecting: Callable[[bytes], Answer] | None = None

    def expect_line(self, answer: Callable[[bytes], Answer]) -> None:
        """Let `answer` answer the next line, which is no command."""
        self._expecting = answer

    def greet(self) -> Reply:
        return replies.greeting(self.context.options.hostname, "LMTP" if self.lmtp else "ESMTP")

    def answer_line(self, line: bytes) -> Answer:
        if self._expecting is not None:
            answer, self._expecting = self._expecting, None
            return answer(line)
        verb, _, argument = line.strip(b" \t").partition(b" ")
        command = self.commands.get(verb := verb.upper())
        if command is None:
            return self._refuse_unknown(line, verb)
        if refusal := self._required_first(verb):
            return self.refuse_line(line, refusal)
        try:
            text = argument.decode()
        except UnicodeDecodeError:
            return self.refuse_line(line, replies.NOT_UTF8)
        if not text.isprintable() and not text.translate(_JOINERS).isprintable():
            return self.refuse_line(line, replies.UNPRINTABLE)
        return command(self, text.strip())

    def answer_long_line(self, start: bytes) -> Reply | None:
        """Refuse the line; it also ends an exchange of AUTH (RFC 4954, section 4)."""
        expected, self._expecting = self._expecting, None
        if expected is not None:
            return replies.RESPONSE_TOO_LONG
        return self.refuse_line(start, replies.LINE_TOO_LONG)

    def reset_session(self) -> None:
        self.client.forget()
        self._end_transaction()

    # The commands

    def helo(self, argument: str) -> Answer:
        return self._begin_session(argument) or replies.lines(self.context.options.hostname)

    def ehlo(self, argument: str) -> Answer:
        if refusal := self._begin_session(argument):
            return refusal
        self.client.extended = True
        return replies.lines(self.context.options.hostname, *self._extensions(), "SMTPUTF8")

    def mail(self, argument: str) -> Answer:
        if not self.client.helo:
            return replies.HELO_FIRST
        if self.transaction is not None:
            return replies.NESTED
        if argument[:5].upper() != "FROM:":
            return replies.SYNTAX_MAIL
        if syntax.is_source_route(argument[5:]):
            return replies.SOURCE_ROUTE
        if (path := syntax.path(argument[5:])) is None or not syntax.is_valid(path.address):
            return replies.BAD_SENDER
        utf8, dsn = False, ""
        if path.parameters:
            if (parameters := syntax.parameters(path.parameters)) is None:
                return replies.SYNTAX_MAIL
            utf8 = "SMTPUTF8" in parameters
            if parameters.pop("SMTPUTF8", ""):  # it has no value (RFC 6531, section 3.1)
                return replies.SYNTAX_MAIL
            if isinstance(taken := self._take_dsn(parameters, dsn_parameters.OF_MESSAGE), Reply):
                return taken
            if refusal := self._parameter_refusal(parameters):
                return refusal
            dsn = taken
        if refusal := _utf8_refusal(path.address, utf8):
            return refusal
        transaction = Transaction(sender=path.address, via=self._via(utf8), utf8=utf8, dsn=dsn)
        if (shortage := self.context.writer.known_shortage()) is None:
            return self._begin_if_capacity(transaction)
        return replies.FULL if shortage else self._begin_transaction(transaction)

    def rcpt(self, argument: str) -> Answer:
        if self.transaction is None:
            return replies.MAIL_FIRST
        if self._incoming is not None:
            return replies.IN_CHUNKS
        if argument[:3].upper() != "TO:":
            return replies.SYNTAX_RCPT
        if syntax.is_source_route(argument[3:]):
            return replies.SOURCE_ROUTE
        if (
            (path := syntax.path(argument[3:])) is None
            or not path.address
            or not syntax.is_valid(path.address)
        ):
            return replies.BAD_RECIPIENT
        address = self.context.recipients.qualified(path.address, self.context.options.hostname)
        if isinstance(dsn := self._recipient_dsn(path.parameters) if path.parameters else "", Reply):
            return dsn
        if dsn:
            self.transaction.recipient_dsn[address] = dsn
        refusal = _utf8_refusal(address, self.transaction.utf8) or self._recipient_refusal(
            address, len(self.transaction.recipients)
        )
        if refusal is None and self.context.policy is not None:
            return self._ask_policy(self.context.policy, self.transaction, address)
        return self._answer_recipient(self.transaction, address, refusal)

    def rset(self, argument: str) -> Answer:
        if argument:
            return replies.SYNTAX_RSET
        self._end_transaction()
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
        return self._auth.begin_exchange(argument)

    def starttls(self, argument: str) -> Answer:
        if self.context.security.certificate is None:
            return replies.NOT_HERE
        if argument:
            return replies.SYNTAX_STARTTLS
        if self.client.tls:
            return replies.ALREADY_TLS
        self.start_tls(self.context.security.certificate.context, replies.TLS_READY)
        return None

    # Parts of the commands

    def _refuse_unknown(self, line: bytes, verb: bytes) -> Reply | None:
        """A browser's connection is closed at once: a web page may have it post commands to any port of its host."""
        if verb not in _HTTP_METHODS:
            return self.refuse_line(line, replies.UNKNOWN)
        events.emit("intake.refused", client=str(self.client), reason=str(replies.NO_BROWSERS))
        self.close(replies.NO_BROWSERS)
        return None

    def _required_first(self, verb: bytes) -> Reply | None:
        options = self.context.options
        if options.tls_required and not self.client.tls and verb not in _BEFORE_TLS:
            return replies.TLS_FIRST
        if options.auth_required and not self.client.user and verb == b"MAIL":
            return replies.AUTH_FIRST
        return None

    def _begin_session(self, argument: str) -> Reply | None:
        if (name := syntax.greeting_name(argument)) is None:
            return replies.SYNTAX_HELO
        self._end_transaction()
        self.client.helo = name
        self.client.extended = False
        return None

    def _extensions(self) -> list[str]:
        """The extensions offered, but for SMTPUTF8, which stands last."""
        offered = ["PIPELINING", f"SIZE {self._limit_bytes}"]
        if self.context.security.certificate is not None and not self.client.tls:
            offered.append("STARTTLS")
        if self._auth.offered:
            offered.append(f"AUTH {' '.join(sasl.MECHANISMS)}")
        if xclient.allowed(self):
            offered += [f"XCLIENT {xclient.XCLIENT}", f"XFORWARD {xclient.XFORWARD}"]
        if self.context.options.dsn:
            offered.append("DSN")
        return [*offered, "8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING"]

    def _recipient_dsn(self, text: str) -> str | Reply:
        if (parameters := syntax.parameters(text)) is None:
            return replies.SYNTAX_RCPT
        dsn = self._take_dsn(parameters, dsn_parameters.OF_RECIPIENT)
        return replies.UNKNOWN_PARAMETER if parameters and isinstance(dsn, str) else dsn

    def _take_dsn(self, parameters: dict[str, str], names: tuple[str, ...]) -> str | Reply:
        """Remove RFC 3461's parameters, and return their text; where it is not offered, they stay, to be refused."""
        try:
            return dsn_parameters.taken(parameters, names) if self.context.options.dsn else ""
        except dsn_parameters.ParameterRefused as fault:
            return replies.bad_parameter(fault)

    def _parameter_refusal(self, parameters: dict[str, str]) -> Reply | None:
        """The refusal of a parameter of MAIL; None where all can be met."""
        if parameters.pop("BODY", "7BIT").upper() not in _BODIES:
            return replies.BAD_BODY
        if self.context.security.credentials is not None:
            parameters.pop("AUTH", None)  # who sent the message first; not used (RFC 4954, section 5)
        size = parameters.pop("SIZE", "0")
        if not (size.isascii() and size.isdigit()) or len(size) > 20:
            return replies.SYNTAX_MAIL
        if int(size) > self._limit_bytes:
            return replies.TOO_LARGE
        return replies.UNKNOWN_PARAMETER if parameters else None

    async def _begin_if_capacity(self, transaction: Transaction) -> Reply:
        return replies.FULL if await self.context.writer.shortage() else self._begin_transaction(transaction)

    def _begin_transaction(self, transaction: Transaction) -> Reply:
        self.transaction = transaction
        return replies.SENDER_OK

    def _via(self, utf8: bool) -> str:
        """The protocol for the Received line (RFC 3848; RFC 6531, section 4.3)."""
        secured = ("S" if self.client.tls else "") + ("A" if self.client.user else "")
        if utf8:
            return f"UTF8{self.protocol}{secured}"
        if self.lmtp:
            return f"LMTP{secured}"
        return f"ESMTP{secured}" if self.client.extended else "SMTP"

    async def _ask_policy(self, policy: PolicyClient, transaction: Transaction, address: str) -> Reply:
        refusal = await policy.ask(self.client, transaction.sender, address)
        return self._answer_recipient(transaction, address, refusal)

    def _answer_recipient(self, transaction: Transaction, address: str, refusal: Reply | None) -> Reply:
        if refusal is None:
            transaction.recipients.append(address)
            return replies.RECIPIENT_OK
        note_refusal(self.client, transaction.sender, str(refusal), recipient=address)
        return refusal

    def _recipient_refusal(self, address: str, others: int) -> Reply | None:
        if others >= self.context.options.max_recipients:
            return replies.TOO_MANY_RECIPIENTS
        return self.context.recipients.refusal(address)


def _utf8_refusal(address: str, utf8: bool) -> Reply | None:
    """The refusal of a non-ASCII address without SMTPUTF8 (RFC 6531, section 3.3)."""
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
