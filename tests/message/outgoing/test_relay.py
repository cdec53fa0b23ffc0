"""Relay against a real server, and SMTPError's words."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP

from maildefer.errors import AddressRefused
from maildefer.mail import MailRequest, MailResponse
from maildefer.message.outgoing import mx
from maildefer.message.outgoing.mx import RelayUnresolved
from maildefer.message.outgoing.relay import Relay
from maildefer.message.smtp_error import SMTPError


class Sink:
    """Takes everything but mail for `no@…`, and messages for `full@b`."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, list[str], bytes]] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("no@"):
            return "550 not here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if "full@b" in envelope.rcpt_tos:
            return "452 no room"
        self.taken.append((envelope.mail_from, envelope.rcpt_tos, envelope.original_content))
        return "250 OK"


def serve(kind: type[SMTP]) -> Iterator[tuple[Relay, Sink]]:
    sink = Sink()
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(
        loop.create_server(lambda: kind(sink, enable_SMTPUTF8=True, loop=loop), "127.0.0.1", 0)
    )
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield Relay("127.0.0.1", server.sockets[0].getsockname()[1], lmtp=kind is LMTP), sink
    finally:
        asyncio.run_coroutine_threadsafe(_close(server), loop).result(timeout=60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=60)
        loop.close()


async def _close(server: asyncio.Server) -> None:
    server.close()
    await server.wait_closed()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture
def smtp() -> Iterator[tuple[Relay, Sink]]:
    yield from serve(SMTP)


@pytest.fixture
def lmtp() -> Iterator[tuple[Relay, Sink]]:
    yield from serve(LMTP)


@pytest.mark.parametrize(
    ("full", "addresses", "said"),
    [
        ("mx1.example.org", [], "mx1.example.org"),
        ("mx1", ["192.0.2.7"], "[192.0.2.7]"),
        ("mx1", [], "[127.0.0.1]"),
    ],
)
def test_our_own_name_is_asked_for_once_a_process(
    monkeypatch: pytest.MonkeyPatch, full: str, addresses: list[str], said: str
) -> None:
    """With each delivery it would be a wait for the DNS, of seconds where that is slow."""
    asked: list[str] = []

    def getfqdn() -> str:
        asked.append("name")
        return full

    def gethostbyname(name: str) -> str:
        asked.append("address")
        if not addresses:
            raise socket.gaierror("nobody knows")
        return addresses[0]

    monkeypatch.setattr(socket, "getfqdn", getfqdn)
    monkeypatch.setattr(socket, "gethostbyname", gethostbyname)
    monkeypatch.setattr(smtplib.SMTP, "connect", lambda *_: (220, b"hello"))  # aiosmtpd asks for names, too
    mx._looked_up.cache_clear()
    try:
        names = [Relay("127.0.0.1").configure_relay("127.0.0.1").local_hostname for _ in range(3)]
    finally:
        mx._looked_up.cache_clear()
    assert names == [said] * 3
    assert asked == (["name"] if "." in full else ["name", "address"])


def test_a_response_goes_to_its_headers_addresses(smtp: tuple[Relay, Sink]) -> None:
    relay, sink = smtp
    relay.deliver(MailResponse(To="A <a@b>, c@d", From="S <s@x>", Subject="é", Body="hi"))
    [(sender, recipients, data)] = sink.taken
    assert (sender, recipients) == ("s@x", ["a@b", "c@d"])
    assert b"Subject: =?utf-8?" in data


def test_a_received_message_goes_to_its_envelope_byte_for_byte(smtp: tuple[Relay, Sink]) -> None:
    relay, sink = smtp
    data = b"Subject:  odd\r\nTo: other@y\r\n\r\n.dot\r\n\xe9\r\n"
    request = MailRequest("p", "s@x", "r@y", data)
    assert request["subject"] == "odd"
    relay.deliver(request)
    assert sink.taken == [("s@x", ["r@y"], data)]


def test_arguments_go_before_attributes_and_the_empty_sender_is_null(smtp: tuple[Relay, Sink]) -> None:
    relay, sink = smtp
    relay.deliver(MailRequest("p", "s@x", "r@y", b"x: y\r\n\r\n"), To="other@z", From="")
    relay.deliver("From: s@x\nTo: R <r@y>\n\nhello\n")
    relay.deliver(b"hello\r\n", To=["a@b", "c@d"], From="s@x")
    assert [taken[:2] for taken in sink.taken] == [
        ("<>", ["other@z"]),  # aiosmtpd's name for the null sender
        ("s@x", ["r@y"]),
        ("s@x", ["a@b", "c@d"]),
    ]


def test_bare_line_ends_cannot_smuggle_a_message(smtp: tuple[Relay, Sink]) -> None:
    relay, sink = smtp
    relay.deliver(b"a: b\n\nx\n.\nMAIL FROM:<evil@x>\r.\rend\n", To="r@y", From="s@x")
    [(_, _, data)] = sink.taken
    assert data.endswith(b"\r\na: b\r\n\r\nx\r\n.\r\nMAIL FROM:<evil@x>\r\n.\r\nend\r\n")


@pytest.mark.parametrize(
    "to",
    [
        "a@x.example\nBcc: evil@x.example",
        "a@x.example\r\nRCPT TO:<evil@x.example>",
        "a@x.example (c)\nBcc: evil@x.example",
        "=?utf-8?q?a=40x=2Ey=0ABcc:_evil=40x=2Ey?=",
        "a@x.example> NOTIFY=NEVER",
        "@a.example:b@x.example",
        "@x.example",
        "a@",
        ["c@x.example", "bad addr"],
        f"a@{'ü' * 80}.example",
    ],
)
def test_what_is_more_than_addresses_is_refused_from_header_and_argument(to: str | list[str]) -> None:
    response = MailResponse(To=to, From="s@x.example", Subject="s", Body="x")
    for given in (None, to):
        with pytest.raises(AddressRefused):
            Relay.envelope_of(response, given)
    if isinstance(to, str):
        with pytest.raises(AddressRefused):
            Relay.envelope_of(MailResponse(To="a@x", From=to, Subject="s", Body="x"))


@pytest.mark.parametrize(
    ("to", "found"),
    [
        ("root", ["root"]),
        ("root, Ann Smith <ann@x.example> (work)", ["root", "ann@x.example"]),
        ('"Ann, B" <ann@x.example>', ["ann@x.example"]),
        ("Ann\n <ann@x.example>", ["ann@x.example"]),
        ("=?utf-8?q?J=C3=B6rg?= <j@x.example>", ["j@x.example"]),
        ('"a b"@x.example', ['"a b"@x.example']),
        ("Friends: a@x.example, b@x.example;", ["a@x.example", "b@x.example"]),
        ("ann@[192.0.2.1]", ["ann@[192.0.2.1]"]),
        ("ann@bücher.example", ["ann@xn--bcher-kva.example"]),
        ("jörg@bücher.example", ["jörg@bücher.example"]),
    ],
)
def test_addresses_come_in_many_forms_and_a_domain_in_that_of_the_dns(to: str, found: list[str]) -> None:
    assert Relay.envelope_of(MailResponse(To=to, From="s@x.example", Subject="s", Body="x"))[1] == found
    assert Relay.envelope_of("Subject: s\n\nx", to, "s@x.example")[1] == found


def test_send_and_reply(smtp: tuple[Relay, Sink]) -> None:
    relay, sink = smtp
    relay.send("r@y", "s@x", "Subject", "Body")
    relay.reply(MailRequest("p", "asker@x", "us@y", b""), "us@y", "Re", "Answer")
    assert [taken[:2] for taken in sink.taken] == [("s@x", ["r@y"]), ("us@y", ["asker@x"])]
    assert b"Subject: Re\r\n" in sink.taken[1][2]


def test_one_refused_recipient_among_others_is_told(smtp: tuple[Relay, Sink]) -> None:
    relay, sink = smtp
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        relay.deliver(b"x\r\n", To=["a@b", "no@b"], From="s@x")
    assert list(refused.value.recipients) == ["no@b"]
    assert sink.taken[0][1] == ["a@b"]


def test_addresses_beyond_ascii_are_sent_as_utf8(smtp: tuple[Relay, Sink]) -> None:
    relay, sink = smtp
    relay.deliver(b"x\r\n", To="grüße@b", From="s@x")
    assert sink.taken[0][1] == ["grüße@b"]


def test_lmtp_takes_several_recipients(lmtp: tuple[Relay, Sink]) -> None:
    relay, sink = lmtp
    relay.deliver(b"x\r\n", To=["a@b", "c@d"], From="s@x")
    assert [taken[1] for taken in sink.taken] == [["a@b"], ["c@d"]]


def test_by_lmtp_a_refused_recipient_keeps_the_message_from_no_other(lmtp: tuple[Relay, Sink]) -> None:
    relay, sink = lmtp
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        relay.deliver(b"x\r\n", To=["no@b", "a@b", "full@b", "c@d"], From="s@x")
    assert refused.value.recipients == {"no@b": (550, b"not here"), "full@b": (452, b"no room")}
    assert [taken[1] for taken in sink.taken] == [["a@b"], ["c@d"]]


def test_by_lmtp_the_refusal_of_the_only_recipients_message_is_told_as_it_is(
    lmtp: tuple[Relay, Sink],
) -> None:
    relay, sink = lmtp
    with pytest.raises(smtplib.SMTPDataError) as refused:
        relay.deliver(b"x\r\n", To="full@b", From="s@x")
    assert refused.value.smtp_code == 452
    assert sink.taken == []


def test_a_closed_port_is_the_callers_error() -> None:
    with pytest.raises(OSError, match="refused"):
        Relay("127.0.0.1", 1).deliver(b"x", To="a@b", From="s@x")


def test_without_a_recipient_nothing_is_sent() -> None:
    with pytest.raises(RelayUnresolved, match="no recipient"):
        Relay().deliver(MailResponse(From="s@x", Body="x"))


@pytest.mark.parametrize("other", ["starttls", "lmtp"])
def test_ssl_goes_with_neither_starttls_nor_lmtp(other: str) -> None:
    with pytest.raises(TypeError, match="ssl"):
        Relay(ssl=True, **{other: True})  # type: ignore[arg-type]


class Resolver:
    """dnspython's resolver, as far as it is used."""

    class NoAnswer(Exception):
        pass

    class NXDOMAIN(Exception):
        pass

    @classmethod
    def resolve(cls, domain: str, kind: str) -> list[SimpleNamespace]:
        assert kind == "MX"
        if domain == "none.example":
            raise cls.NoAnswer
        if domain == "null.example":
            return [SimpleNamespace(preference=0, exchange=".")]
        return [
            SimpleNamespace(preference=20, exchange="b."),
            SimpleNamespace(preference=5, exchange="a.example."),
            SimpleNamespace(preference=30, exchange="c.example."),
        ]


def test_without_a_host_the_first_exchanger_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dns.resolver", Resolver)
    relay = Relay(host=None)
    assert relay.resolve_relay_host("r@two.example") == "a.example"
    assert relay.relay_hosts("r@two.example") == ["a.example", "b", "c.example"]
    assert relay.resolve_relay_host("r@none.example") == "none.example"
    with pytest.raises(RelayUnresolved, match="null MX"):
        relay.resolve_relay_host("r@null.example")
    with pytest.raises(RelayUnresolved, match="no domain"):
        relay.resolve_relay_host("root")
    assert Relay("fixed").resolve_relay_host("r@y") == "fixed"


def test_without_dnspython_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dns.resolver", None)
    with pytest.raises(RelayUnresolved, match=r"maildefer\[mx\]"):
        Relay(host=None).resolve_relay_host("r@y.example")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (425, "425 Persistent Transient Failure Mailbox Status"),
        (550, "550 Permanent Failure Mail Delivery Protocol Status"),
        (999, "999 "),
        (299, "299 Success"),
    ],
)
def test_a_bare_code_speaks_in_the_words_of_rfc_3463(code: int, text: str) -> None:
    assert str(SMTPError(code)) == text


def test_an_smtp_error_has_code_and_message() -> None:
    error = SMTPError(451, "later")
    assert (error.code, error.message, str(error), error.is_temporary) == (451, "later", "451 later", True)
    assert not SMTPError(550).is_temporary
