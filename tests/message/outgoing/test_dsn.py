"""Parameters of RFC 3461 that go on to the next server, where it takes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from maildefer.delivery import forwarded
from maildefer.mail import MailRequest
from maildefer.message.envelope import block
from maildefer.message.outgoing.relay import Relay
from maildefer.message.request import received
from maildefer.queue import Queue
from tests.support import next_server
from tests.support.next_server import NextServer

ASKED = "RET=HDRS ENVID=QQ314 NOTIFY=FAILURE,DELAY ORCPT=rfc822;ann@osb.example"


@pytest.fixture
def server() -> Iterator[NextServer]:
    with next_server.running() as started:
        yield started


def message() -> MailRequest:
    top = block("1.s", "list@osb.example", "bob@osb.example", host="h", when=0, via="ESMTP", dsn=ASKED)
    return received(top + b"Subject: s\n\nhello\n", "1.s,S=20", 1, None, None)


def envelope_lines(server: NextServer) -> list[str]:
    return [line for line in server.lines if line.startswith(("mail ", "rcpt "))]


def test_a_server_that_offers_dsn_is_told_what_the_sender_asks(server: NextServer) -> None:
    server.extensions.append("DSN")
    Relay("127.0.0.1", server.port).deliver(message(), To="ann@home.example")
    assert envelope_lines(server) == [
        "mail FROM:<list@osb.example> RET=HDRS ENVID=QQ314",
        "rcpt TO:<ann@home.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;ann@osb.example",
    ]


def test_what_is_forwarded_goes_on_with_what_it_came_with(server: NextServer, tmp_path: Path) -> None:
    server.extensions.append("DSN")
    came = message()
    Relay("127.0.0.1", server.port).deliver(forwarded(came, "c@d"), To="c@d", From=came.From)
    assert [line.partition("> ")[2] for line in envelope_lines(server)] == ASKED.replace(
        "ENVID=QQ314 ", "ENVID=QQ314|"
    ).split("|")
    queue = Queue(str(tmp_path / "queue"))
    queue.push(forwarded(came), sender=came.From, recipient="c@d")
    assert queue.get(queue.keys()[0]).dsn.envid == "QQ314"


def test_lmtp_is_told_too(server: NextServer) -> None:
    server.extensions.append("DSN")
    Relay("127.0.0.1", server.port, lmtp=True).deliver(message(), To=["ann@home.example", "bob@home.example"])
    assert [line.partition("> ")[2] for line in envelope_lines(server)] == ASKED.replace(
        "ENVID=QQ314 ", "ENVID=QQ314|"
    ).split("|") * 2


def test_a_server_without_dsn_is_told_nothing(server: NextServer) -> None:
    Relay("127.0.0.1", server.port).deliver(message())
    assert envelope_lines(server) == ["mail FROM:<list@osb.example>", "rcpt TO:<bob@osb.example>"]


def test_what_another_sender_sends_on_asks_for_nothing(server: NextServer) -> None:
    server.extensions.append("DSN")
    Relay("127.0.0.1", server.port).deliver(message(), From="owner@osb.example")
    assert envelope_lines(server) == ["mail FROM:<owner@osb.example>", "rcpt TO:<bob@osb.example>"]
