"""Exim and Postfix that hang up amid a message, since its line stands still for longer than they wait."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from maildefer.handling.outcomes import Defer
from tests.handling.outgoing.test_delivery import BODY, Sender
from tests.support import exim, postfix, slow_line
from tests.support.front_end import wait_until
from tests.support.next_server import RealServer

pytestmark = [pytest.mark.slow, pytest.mark.lifecycle]


@pytest.fixture(scope="module", params=["exim", "postfix"])
def server(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    if request.param == "exim":
        with exim.home() as home, exim.running(home, patience_seconds=1) as started:
            yield started
    else:
        with postfix.home() as home, postfix.taking(home, "smtpd_timeout = 1s") as started:
            yield started


@pytest.mark.parametrize(
    "size", [20_000, 8_000_000], ids=["all of which is on its way", "that is being sent"]
)
def test_after_421_amid_a_message_it_comes_again_and_is_there_once(server: RealServer, size: int) -> None:
    """The server's 421 may be lost where it hangs up on what it has not read."""
    recipient = f"bob-{size}@b.example"
    message = BODY + b"".join([b"It works.\r\n"] * (size // 11))
    with slow_line.to(server.port, 4000) as line:
        sender = Sender(line, tls="off")  # type: ignore[arg-type]  # it needs the port alone
        with pytest.raises(Defer) as deferred:
            sender.send(recipient, data=message)
        line.stalls = False
        sender.send(recipient, data=message, attempt=2)
        sender.destinations.of(recipient).relay.kept.close_all()
    if size < 100_000:
        assert "421 " in str(deferred.value)
    wait_until(lambda: server.copies(recipient) > 0)
    assert server.copies(recipient) == 1
