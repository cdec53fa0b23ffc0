"""SMTP smuggling: what somebody takes for the end of a message, and somebody else does not. Both directions."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from maildefer.errors import AddressRefused
from maildefer.mail import MailRequest
from maildefer.message.outgoing.relay import Relay
from maildefer.queue import Queue
from tests.support.client_fuzzer import ENDS
from tests.support.front_end_security import ENVELOPE, GREETING, AttackedFrontEnd

pytestmark = pytest.mark.lifecycle
FALSE_ENDS = [end for end in ENDS if end.count(b"\r\n.\r\n") == 0]
SMUGGLED = b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<post@osb.example>\r\nDATA\r\nsmuggled"


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, AttackedFrontEnd]]:
    smtp, lmtp = tmp_path_factory.mktemp("smtp"), tmp_path_factory.mktemp("lmtp")
    with AttackedFrontEnd(smtp) as one, AttackedFrontEnd(lmtp, "--lmtp") as other:
        yield {"SMTP": one, "LMTP": other}


@pytest.fixture(params=["SMTP", "LMTP"])
def attacked(doors: dict[str, AttackedFrontEnd], request: pytest.FixtureRequest) -> AttackedFrontEnd:
    found = doors[request.param]
    for entry in (found.queue / "new").iterdir():
        entry.unlink()
    return found


MAIL = ENVELOPE + b"DATA\r\nhello\r\n.\r\n"


def greeting(attacked: AttackedFrontEnd) -> bytes:
    return b"LHLO c\r\n" if "--lmtp" in attacked.arguments else GREETING


@pytest.mark.parametrize("end", FALSE_ENDS, ids=repr)
def test_a_false_end_of_data_ends_no_message_that_comes_in(attacked: AttackedFrontEnd, end: bytes) -> None:
    data = b"first" + end + SMUGGLED
    replies = attacked.speak(greeting(attacked) + ENVELOPE + b"DATA\r\n" + data + b"\r\n.\r\n")
    assert replies.count(b"queued as") == 1
    ((envelope, kept),) = attacked.entries()
    assert envelope is not None
    assert envelope.sender == "ann@example.org"
    assert kept == re.sub(rb"(?<=\r\n)\.", b"", data).replace(b"\r\n", b"\n") + b"\n"


@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_no_end_of_data_counts_in_a_chunk(attacked: AttackedFrontEnd, end: bytes) -> None:
    data = b"first" + end + SMUGGLED + b"\r\n.\r\n"
    replies = attacked.speak(greeting(attacked) + ENVELOPE + b"BDAT %d LAST\r\n" % len(data) + data)
    assert replies.count(b"queued as") == 1
    assert [kept for _, kept in attacked.entries()] == [data.replace(b"\r\n", b"\n")]


@pytest.mark.parametrize(
    "line",
    [b"BDAT\t%d LAST", b"BDAT %d LAST\0", b"BDAT %d \xff", b"BDAT %d LAST" + b" " * 13_000, b" bdat=%d"],
)
def test_a_chunk_behind_a_line_that_is_not_obeyed_is_not_taken_for_commands(
    attacked: AttackedFrontEnd, line: bytes
) -> None:
    chunk = ENVELOPE + b"DATA\r\nsmuggled\r\n.\r\n"
    replies = attacked.speak(greeting(attacked) + line % len(chunk) + b"\r\n" + chunk)
    assert re.search(rb"\r\n50[01] [^\r]*\r\n\Z", replies)
    assert attacked.entries() == []


@pytest.mark.parametrize(
    "name", [b"(((", b'"', b"a;b", b"a\\", b"x" * 255, "\u00e4(".encode(), b"[(]"], ids=repr
)
def test_a_greeting_opens_nothing_in_a_trace_field(attacked: AttackedFrontEnd, name: bytes) -> None:
    """RFC 5322: a comment or quoted string that it opened would hide what the front end itself says behind it."""
    attacked.speak(
        greeting(attacked).replace(b"client.example", name).replace(b" c\r\n", b" " + name + b"\r\n") + MAIL
    )
    (path,) = (attacked.queue / "new").iterdir()
    (received,) = re.findall(rb"^Received: (.*)", path.read_bytes(), re.MULTILINE)
    assert re.fullmatch(
        rb"from [A-Za-z0-9?]+ \(\[127\.0\.0\.1\]\) by [^()\"]+ \(maildefer\) with [^()\"]+", received
    )


def test_a_dot_that_ends_with_the_next_command_in_one_packet_ends_one_message(
    attacked: AttackedFrontEnd,
) -> None:
    """The true end, with what is pipelined behind it: that is no smuggling, and both are the client's own."""
    second = ENVELOPE + b"DATA\r\nsecond\r\n.\r\n"
    replies = attacked.speak(greeting(attacked) + ENVELOPE + b"DATA\r\nfirst\r\n.\r\n" + second)
    assert replies.count(b"queued as") == 2
    assert sorted(kept for _, kept in attacked.entries()) == [b"first\n", b"second\n"]


class Wire:
    """A server that says yes to all, and keeps what stands between DATA and the connection's end."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.received = b""
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        client = self._listener.accept()[0]
        client.settimeout(60)
        with client, client.makefile("rb") as lines, suppress(ConnectionError):
            client.sendall(b"220 wire\r\n")
            while line := lines.readline():
                self.received += line
                verb = line[:4].upper()
                client.sendall(b"354 go\r\n" if verb == b"DATA" else b"250 yes\r\n")
                if verb == b"QUIT":
                    return
                while verb == b"DATA" and (line := lines.readline()):
                    self.received += line
                    if line == b".\r\n":
                        client.sendall(b"250 yes\r\n")
                        break

    def close(self) -> None:
        socket.create_connection(("127.0.0.1", self.port), timeout=30).close()  # where nobody else came
        self._thread.join(30)
        self._listener.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    server = Wire()
    yield server
    server.close()


@pytest.mark.parametrize("end", ENDS, ids=repr)
@pytest.mark.parametrize("kind", ["bytes", "request"])
def test_nothing_that_goes_out_has_an_end_of_data_in_it_for_anybody(
    wire: Wire, end: bytes, kind: str
) -> None:
    """No bare CR or LF, and no dot alone on a line but the last: so no server can take another end for one."""
    data = b"Subject: x\n\nfirst" + end + SMUGGLED.replace(b"\r\n", b"\n") + b"\n"
    message = data if kind == "bytes" else MailRequest("test", "ann@example.org", "bob@example.org", data)
    Relay("127.0.0.1", wire.port).deliver(message, To="bob@example.org", From="ann@example.org")
    sent = wire.received
    assert re.search(rb"(?<!\r)\n|\r(?!\n)", sent) is None
    body = sent[sent.index(b"\r\nSubject: x") :]
    assert [line for line in body.split(b"\r\n") if line == b"."] == [b"."]
    assert body.count(b"\r\n.\r\n") == 1
    assert body.endswith(b"\r\n.\r\nquit\r\n")


@pytest.mark.parametrize(
    "address", ["a@b>\r\nRCPT TO:<evil@example.org", "a@b\r\nDATA\r\n", "a@b\nRSET", "a@b\rRSET", "a\0@b"]
)
@pytest.mark.parametrize("which", ["To", "From"])
def test_no_address_brings_a_command_along_to_where_mail_goes_out(
    wire: Wire, address: str, which: str
) -> None:
    addresses: dict[str, Any] = {"To": "bob@example.org", "From": "ann@example.org", which: address}
    with pytest.raises(AddressRefused):
        Relay("127.0.0.1", wire.port).deliver(b"Subject: x\n\nx\n", **addresses)
    assert wire.received == b""


def test_sendmail_stores_one_message_whatever_is_in_it(tmp_path: Path) -> None:
    queue = Queue(str(tmp_path / "queue"))
    data = b"Subject: x\n\nfirst" + SMUGGLED.join(ENDS) + b"\n"
    command = [sys.executable, "-m", "maildefer", "sendmail", "-i", "-f", "ann@example.org"]
    command += ["--queue", str(tmp_path / "queue"), "--", "bob@example.org"]
    subprocess.run(command, input=data, check=True, timeout=60, capture_output=True)
    assert len(queue) == 1
    _, message = queue.pop()
    assert message is not None
    assert len(queue) == 0
    stored = message.to_bytes().replace(b"\r\n", b"\n")
    assert stored.endswith(data.replace(b"\r\n", b"\n"))  # below From and Date, which it adds
