"""When a relay encrypts, against real servers with real certificates."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from maildefer.message.outgoing.relay import Relay
from tests.support import certificates, next_server
from tests.support.next_server import NextServer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def good(folder: Path) -> Path:
    return certificates.make(folder)


@pytest.fixture(scope="module")
def wrong_name(folder: Path) -> Path:
    return certificates.make(folder, "other.example")


@pytest.fixture
def server() -> Iterator[NextServer]:
    with next_server.running() as started:
        yield started


def offers(server: NextServer, certificate: Path) -> None:
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.tls.load_cert_chain(certificate)


def send(server: NextServer, tls: str, authority: Path | None = None, host: str = "localhost") -> None:
    relay = Relay(host, server.port, tls=tls)
    if authority is not None:
        relay.tls_context = ssl.create_default_context(cafile=str(authority))
    relay.deliver(b"Subject: s\r\n\r\nhello\r\n", To="a@b", From="s@x")


def test_where_the_server_offers_it_an_opportunistic_relay_encrypts(server: NextServer, good: Path) -> None:
    offers(server, good)
    send(server, "opportunistic")
    assert (server.encrypted, len(server.messages)) == (1, 1)


def test_where_it_is_not_offered_an_opportunistic_relay_sends_in_the_clear(server: NextServer) -> None:
    send(server, "opportunistic")
    assert (server.encrypted, len(server.messages)) == (0, 1)


@pytest.mark.parametrize("reply", ["454 4.7.0 not now", "220 go ahead, but not really"])
def test_where_it_is_broken_an_opportunistic_relay_connects_again(
    server: NextServer, good: Path, reply: str
) -> None:
    offers(server, good)
    server.replies["STARTTLS"] = reply
    send(server, "opportunistic")
    assert (server.connections, server.encrypted, len(server.messages)) == (2, 0, 1)


@pytest.mark.parametrize("tls", ["required", "verified"])
def test_a_relay_that_has_to_encrypt_sends_nothing_in_the_clear(server: NextServer, tls: str) -> None:
    with pytest.raises(smtplib.SMTPNotSupportedError, match="STARTTLS"):
        send(server, tls)
    assert server.messages == []


def test_only_a_verified_relay_asks_who_the_server_is(server: NextServer, good: Path) -> None:
    offers(server, good)
    send(server, "required")
    server.encrypted = 0
    with pytest.raises(ssl.SSLCertVerificationError):
        send(server, "verified")
    server.encrypted = 0
    send(server, "verified", good)
    assert len(server.messages) == 2


def test_a_certificate_for_another_name_is_none(server: NextServer, wrong_name: Path) -> None:
    offers(server, wrong_name)
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for 'localhost'"):
        send(server, "verified", wrong_name)
    assert server.messages == []


def test_an_unknown_way_to_encrypt_is_refused() -> None:
    with pytest.raises(ValueError, match="opportunistic, required, verified"):
        Relay(tls="maybe")
