"""Deliveries to Exim and Postfix, as they refuse, delay and encrypt."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator

import pytest

from maildefer.message.outgoing.relay import Relay
from tests.support import exim, postfix
from tests.support.front_end import wait_until
from tests.support.next_server import RealServer

pytestmark = [pytest.mark.slow, pytest.mark.lifecycle]
MESSAGE = b"From: ann@s.example\r\nSubject: hello\r\n\r\nIt works.\r\n.\r\n"
SLOW = "  warn local_parts = ^slow\n       delay = 20s\n"
LEAVING = "/^leaves/ 421 4.3.2 going down\n/^unknown/ 550 5.1.1 no such user\n"


@pytest.fixture(scope="module")
def an_exim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    with exim.delaying(tmp_path_factory.mktemp("certificates"), SLOW) as server:
        yield server


@pytest.fixture(scope="module")
def a_postfix() -> Iterator[RealServer]:
    with postfix.broken_tls(at_rcpt="/^unknown/ 550 5.1.1 no such user\n", at_end=LEAVING) as server:
        yield server


def deliver(server: RealServer, *recipients: str, tls: str = "", seconds: float = 60) -> dict[str, int]:
    """The codes of those that were refused."""
    relay = Relay("localhost", server.port, tls=tls)
    relay.timeout_seconds = seconds
    try:
        relay.deliver(MESSAGE, To=list(recipients), From="ann@s.example")
    except smtplib.SMTPRecipientsRefused as refused:
        return {one: code for one, (code, _) in refused.recipients.items()}
    return {}


def arrives(server: RealServer, recipient: str) -> None:
    wait_until(lambda: server.copies(recipient) > 0)
    assert server.copies(recipient) == 1


@pytest.mark.parametrize("which", ["an_exim", "a_postfix"])
def test_of_three_recipients_the_two_that_are_known_get_it(
    which: str, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue(which)
    recipients = [f"{name}-{which}@d.example" for name in ("bob", "unknown", "carl")]
    assert deliver(server, *recipients) == {recipients[1]: 550}
    arrives(server, recipients[0])
    arrives(server, recipients[2])


def test_what_is_greylisted_is_taken_at_the_next_attempt(an_exim: RealServer) -> None:
    assert deliver(an_exim, "grey-bob@d.example") == {"grey-bob@d.example": 451}
    assert deliver(an_exim, "grey-bob@d.example") == {}
    arrives(an_exim, "grey-bob@d.example")


def test_a_certificate_of_another_name_is_good_enough_unless_it_is_verified(an_exim: RealServer) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        deliver(an_exim, "verified@d.example", tls="verified")
    assert deliver(an_exim, "opportunistic@d.example", tls="opportunistic") == {}
    assert deliver(an_exim, "required@d.example", tls="required") == {}
    arrives(an_exim, "opportunistic@d.example")
    arrives(an_exim, "required@d.example")
    assert an_exim.copies("verified@d.example") == 0
    taken = [data for data in an_exim.messages() if b"d@d.example" in data or b"c@d.example" in data]
    assert [b"with esmtps" in data for data in taken] == [True, True]


def test_where_tls_is_broken_mail_goes_in_the_clear_only_if_that_is_enough(a_postfix: RealServer) -> None:
    with pytest.raises(smtplib.SMTPResponseException, match="454"):
        deliver(a_postfix, "required@d.example", tls="required")
    assert deliver(a_postfix, "opportunistic@d.example", tls="opportunistic") == {}
    arrives(a_postfix, "opportunistic@d.example")
    assert a_postfix.copies("required@d.example") == 0


def test_a_server_that_leaves_in_mid_message_has_not_taken_it(a_postfix: RealServer) -> None:
    with pytest.raises(smtplib.SMTPDataError, match="421"):
        deliver(a_postfix, "leaves@d.example")
    assert deliver(a_postfix, "next@d.example") == {}
    arrives(a_postfix, "next@d.example")
    assert a_postfix.copies("leaves@d.example") == 0


def test_a_server_that_is_too_slow_has_not_taken_it(an_exim: RealServer) -> None:
    with pytest.raises((OSError, smtplib.SMTPException)):
        deliver(an_exim, "slow@d.example", seconds=0.5)
    assert deliver(an_exim, "quick@d.example") == {}
    arrives(an_exim, "quick@d.example")
    assert an_exim.copies("slow@d.example") == 0
