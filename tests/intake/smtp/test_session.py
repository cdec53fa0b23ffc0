"""What the front end says to which command: RFC 5321 and its extensions, byte for byte."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from maildefer.intake import replies
from maildefer.intake.replies import Reply
from maildefer.message.envelope import Envelope
from tests.support.front_end import FrontEnd, front_end, wait_until

pytestmark = pytest.mark.lifecycle
HELLO = b"EHLO client.example\r\n"
TO = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontEnd]:
    """One for all tests that look at replies only."""
    with front_end(
        tmp_path_factory.mktemp("front"), "--max-bytes", "100000", "--max-errors", "1000"
    ) as running:
        yield running


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[FrontEnd]:
    """One for what a test stores."""
    with front_end(tmp_path, "--max-bytes", "100000") as running:
        yield running


def lines(answers: bytes) -> list[str]:
    """The replies behind the greeting, without those of EHLO and QUIT."""
    found = [line for line in answers.decode().split("\r\n")[1:] if line and not line.startswith("221 ")]
    return [line for line in found if not line.startswith("250-") and line != "250 SMTPUTF8"]


def test_ehlo_offers_what_there_is(server: FrontEnd) -> None:
    answers = server.speak(HELLO).decode().split("\r\n")
    offered = {line[4:].split()[0] for line in answers if line.startswith("250")}
    assert offered >= {"PIPELINING", "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING", "SMTPUTF8"}
    assert not offered & {"STARTTLS", "AUTH", "XCLIENT", "XFORWARD", "DSN", "BINARYMIME"}
    assert "250-SIZE 95904" in answers


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        (b"HELO client.example\r\n", "250 "),
        (b"HELO\r\n", replies.SYNTAX_HELO),
        (b"EHLO two words\r\n", replies.SYNTAX_HELO),
        (b"ehlo client.example\r\nmail from:<a@b>\r\n", replies.SENDER_OK),
        (b"MAIL FROM:<a@b>\r\n", replies.HELO_FIRST),
        (HELLO + b"MAIL FROM:<>\r\n", replies.SENDER_OK),
        (HELLO + b"MAIL FROM: <a@b>\r\n", replies.SENDER_OK),
        (HELLO + b"MAIL FROM:<a@b> BODY=8BITMIME SIZE=95904\r\n", replies.SENDER_OK),
        (HELLO + b"MAIL FROM:<a@b> SIZE=95905\r\n", replies.TOO_LARGE),
        (HELLO + b"MAIL FROM:<a@b> SIZE=x\r\n", replies.SYNTAX_MAIL),
        (HELLO + b"MAIL FROM:<a@b> SIZE=1 SIZE=2\r\n", replies.SYNTAX_MAIL),
        (HELLO + b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n", replies.BAD_BODY),
        (HELLO + b"MAIL FROM:<a@b> RET=HDRS ENVID=x\r\n", replies.UNKNOWN_PARAMETER),
        (HELLO + b"MAIL FROM:<a@b> AUTH=<>\r\n", replies.UNKNOWN_PARAMETER),
        (HELLO + b"MAIL <a@b>\r\n", replies.SYNTAX_MAIL),
        (HELLO + b"MAIL FROM:a b@c\r\n", replies.BAD_SENDER),
        (HELLO + b"MAIL FROM:<" + b"a" * 64 + b"@b>\r\n", replies.SENDER_OK),
        (HELLO + b"MAIL FROM:<" + b"a" * 65 + b"@b>\r\n", replies.BAD_SENDER),
        (HELLO + b'MAIL FROM:<"' + b" " * 63 + b'"@b>\r\n', replies.BAD_SENDER),
        (HELLO + b"MAIL FROM:<a@" + b"b" * 255 + b">\r\n", replies.SENDER_OK),
        (HELLO + b"MAIL FROM:<a@" + b"b" * 256 + b">\r\n", replies.BAD_SENDER),
        (HELLO + "MAIL FROM:<{}@b> SMTPUTF8\r\n".format("ä" * 33).encode(), replies.BAD_SENDER),
        (HELLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<" + b"a" * 65 + b"@b>\r\n", replies.BAD_RECIPIENT),
        (HELLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<" + b"a" * 65 + b">\r\n", replies.BAD_RECIPIENT),
        (HELLO + b"MAIL FROM:<a@[192.0.2.1]>\r\n", replies.SENDER_OK),
        (HELLO + b"MAIL FROM:<a@[IPv6:2001:db8::1]>\r\n", replies.SENDER_OK),
        (HELLO + b"MAIL FROM:<a@[192.0.2.256]>\r\n", replies.BAD_SENDER),
        (HELLO + b"MAIL FROM:<a@[IPv6:192.0.2.1]>\r\n", replies.BAD_SENDER),
        (HELLO + b"MAIL FROM:<@relay:a@b>\r\n", replies.SOURCE_ROUTE),
        (HELLO + "MAIL FROM:<ä@b>\r\n".encode(), replies.NEEDS_UTF8),
        (HELLO + "MAIL FROM:<ä@b> SMTPUTF8\r\n".encode(), replies.SENDER_OK),
        (HELLO + b"MAIL FROM:<a@b> SMTPUTF8=1\r\n", replies.SYNTAX_MAIL),
        (HELLO + "MAIL FROM:<x@نامه\u200cای.example> SMTPUTF8\r\n".encode(), replies.SENDER_OK),
        (HELLO + "MAIL FROM:<a\u00a0b@c> SMTPUTF8\r\n".encode(), replies.UNPRINTABLE),
        (HELLO + b"MAIL FROM:<\xe4@b>\r\n", replies.NOT_UTF8),
        (HELLO + b"MAIL FROM:<a\0@b>\r\n", replies.UNPRINTABLE),
        (HELLO + b"MAIL FROM:<a@b>\rRCPT\r\n", replies.UNPRINTABLE),
        (HELLO + b"MAIL FROM:<a@b>\r\nMAIL FROM:<a@b>\r\n", replies.NESTED),
        (HELLO + b"RCPT TO:<c@d>\r\n", replies.MAIL_FIRST),
        (HELLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<>\r\n", replies.BAD_RECIPIENT),
        (HELLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<postmaster>\r\n", replies.RECIPIENT_OK),
        (HELLO + b'MAIL FROM:<a@b>\r\nRCPT TO:<"c, \\" d"@e>\r\n', replies.RECIPIENT_OK),
        (HELLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d> NOTIFY=NEVER\r\n", replies.UNKNOWN_PARAMETER),
        (HELLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d> ORCPT=rfc822;c@d\r\n", replies.UNKNOWN_PARAMETER),
        (HELLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d> =\r\n", replies.SYNTAX_RCPT),
        (HELLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d> ORCPT=\xff\r\n", replies.NOT_UTF8),
        (HELLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<@r1,@r2:c@d>\r\n", replies.SOURCE_ROUTE),
        (HELLO + "MAIL FROM:<a@b>\r\nRCPT TO:<ü@d>\r\n".encode(), replies.NEEDS_UTF8),
        (HELLO + b"DATA\r\n", replies.RCPT_FIRST),
        (HELLO + TO + b"DATA now\r\n", replies.SYNTAX_DATA),
        (HELLO + b"BDAT 5 LAST\r\nhello", replies.RCPT_FIRST),
        (HELLO + b"BDAT 0 LAST\r\n", replies.RCPT_FIRST),
        (HELLO + TO + b"BDAT\r\n", replies.SYNTAX_BDAT),
        (HELLO + TO + b"BDAT 5 FIRST\r\n", replies.SYNTAX_BDAT),
        (HELLO + TO + b"BDAT -5 LAST\r\n", replies.SYNTAX_BDAT),
        (HELLO + TO + b"BDAT\t5 LAST\r\nNOOP\r\n", replies.UNKNOWN),
        (HELLO + TO + b"bdat 5 \xff\r\nNOOP\r\n", replies.NOT_UTF8),
        (HELLO + TO + b" BDAT 5 \0\r\nNOOP\r\n", replies.UNPRINTABLE),
        (HELLO + TO + b"BDAT 5 " + b"x" * 20_000 + b"\r\nNOOP\r\n", replies.LINE_TOO_LONG),
        (HELLO + TO + b"BDAT=5\r\nNOOP\r\n", replies.UNKNOWN),
        (HELLO + TO + b"BDATA 5\r\nNOOP\r\n", replies.NOOP),
        (HELLO + TO + b"BDAT 1\r\nxDATA\r\n", replies.IN_CHUNKS),
        (HELLO + TO + b"BDAT 1\r\nxRCPT TO:<e@f>\r\n", replies.IN_CHUNKS),
        (HELLO + TO + b"RSET\r\nDATA\r\n", replies.RCPT_FIRST),
        (HELLO + TO + b"EHLO again\r\nDATA\r\n", replies.RCPT_FIRST),
        (HELLO + b"RSET now\r\n", replies.SYNTAX_RSET),
        (b"NOOP whatever\r\n", replies.NOOP),
        (b"NOOP\n", replies.NOOP),
        (b"VRFY someone\r\n", replies.VRFY),
        (b"VRFY\r\n", replies.SYNTAX_VRFY),
        (b"EXPN list\r\n", replies.NOT_HERE),
        (b"HELP\r\n", "214 2.0.0 "),
        (b"STARTTLS\r\n", replies.NOT_HERE),
        (b"AUTH PLAIN AGEAYg==\r\n", replies.NOT_HERE),
        (b"XCLIENT ADDR=192.0.2.1\r\n", replies.NOT_FOR_YOU),
        (b"GET / HTTP/1.1\r\n", replies.NO_BROWSERS),
        (b"TURN\r\n", replies.UNKNOWN),
        (b"\r\n", replies.UNKNOWN),
        (b"NOOP " + b"x" * 20_000 + b"\r\n", replies.LINE_TOO_LONG),
        (b"x" * 200_000 + b"\r\nNOOP\r\n", replies.NOOP),
    ],
)
def test_the_reply_to(server: FrontEnd, said: bytes, reply: Reply | str) -> None:
    assert lines(server.speak(said))[-1].startswith(str(reply))


def test_every_reply_has_an_enhanced_status_code() -> None:
    found = {name: reply for name, reply in vars(replies).items() if isinstance(reply, Reply)}
    assert len(found) > 60
    for name, reply in found.items():
        if reply is not replies.START_DATA:
            assert re.match(r"([245])\d\d \1\.\d\.\d{1,2} [ -~]+\Z", str(reply)), name


def test_a_line_without_an_end_is_cut_off(server: FrontEnd) -> None:
    with server.dial() as client, pytest.raises(OSError, match=r"reset|Broken pipe|aborted"):
        client.sendall(b"x" * 100_000_000)
    assert lines(server.speak(b"NOOP\r\n")) == [str(replies.NOOP)]


def test_replies_to_pipelined_commands_come_in_order_whatever_is_waited_for(fresh: FrontEnd) -> None:
    one = TO + b"RCPT TO:<>\r\nDATA\r\nhi\r\n.\r\n"
    answers = lines(fresh.speak(HELLO + one * 10))
    codes = [answer[:9] for answer in answers]
    assert codes == ["250 2.1.0", "250 2.1.5", "553 5.1.3", "354 End d", "250 2.0.0"] * 10


def test_a_client_that_says_no_more_is_still_answered(fresh: FrontEnd) -> None:
    with fresh.dial() as client:
        client.sendall(HELLO + TO + b"DATA\r\nhi\r\n.\r\n")
        client.shutdown(1)
        answers = b"".join(iter(lambda: client.recv(4096), b""))
    assert lines(answers)[-1].startswith("250 2.0.0 queued")


def test_half_a_message_is_none(fresh: FrontEnd) -> None:
    with fresh.dial() as client:
        client.sendall(HELLO + TO + b"DATA\r\nhi\r\n.")
        client.shutdown(1)
        assert b"queued" not in b"".join(iter(lambda: client.recv(4096), b""))
    assert fresh.entries() == []


# CHUNKING


@pytest.mark.invariant(9)
@pytest.mark.parametrize(
    ("chunks", "stored"),
    [
        ([b"one\r\ntwo\r\n"], b"one\ntwo\n"),
        ([b"one\r", b"\ntwo\r\n"], b"one\ntwo\n"),
        ([b"one\r\n", b"", b".\r\n"], b"one\n.\n"),
        ([b"", b"one\r\n"], b"one\n"),
        ([b".\r\n.\r\n..\r\n"], b".\n.\n..\n"),
        ([b"no end"], b"no end"),
        ([b"a\r"], b"a\r"),
        ([b"a\r", b"b\n", b"\0\xff\r\n"], b"a\rb\n\0\xff\n"),
        ([b"MAIL FROM:<x@y>\r\nQUIT\r\n"], b"MAIL FROM:<x@y>\nQUIT\n"),
    ],
)
def test_a_message_in_chunks_is_stored_as_it_came(
    fresh: FrontEnd, chunks: list[bytes], stored: bytes
) -> None:
    wire = b"".join(b"BDAT %d\r\n%b" % (len(chunk), chunk) for chunk in chunks)
    answers = lines(fresh.speak(HELLO + TO + wire + b"BDAT 0 LAST\r\n" + TO + b"BDAT 3 LAST\r\nx\r\n"))
    assert [answer for answer in answers if "octets" in answer] == [
        f"250 2.0.0 {len(chunk)} octets" for chunk in chunks
    ]
    assert answers[-1].startswith("250 2.0.0 queued")
    assert [data for _, data in fresh.entries()] == [stored, b"x\n"]


def test_a_message_in_chunks_that_gets_too_large_is_refused_and_rset_helps(fresh: FrontEnd) -> None:
    chunk = b"BDAT 50000\r\n" + b"x" * 50_000
    answers = lines(
        fresh.speak(
            HELLO + TO + chunk * 2 + b"BDAT 1 LAST\r\nx" + TO + b"RSET\r\n" + TO + b"BDAT 1 LAST\r\nx"
        )
    )
    assert answers[2:5] == ["250 2.0.0 50000 octets", *[str(replies.TOO_LARGE)] * 2]
    assert answers[-1].startswith("250 2.0.0 queued")
    assert len(fresh.entries()) == 1


def test_a_chunk_of_a_monstrous_size_ends_the_connection(server: FrontEnd) -> None:
    assert lines(server.speak(HELLO + TO + b"BDAT 999999999999 LAST\r\n"))[-1] == str(replies.TOO_LARGE)


def test_chunks_bring_a_message_on_however_many_they_are_and_empty_ones_do_not(tmp_path: Path) -> None:
    with front_end(tmp_path, "--exempt-networks", "", "--max-commands", "5") as running:
        answers = lines(running.speak(HELLO + TO + b"BDAT 1\r\nx" * 50 + b"BDAT 1 LAST\r\nx"))
        assert answers[-1].startswith("250 2.0.0 queued")
        with running.dial() as client:
            client.sendall(HELLO + TO + b"BDAT 0\r\n" * 4)  # with EHLO, five
            answers = lines(b"".join(iter(lambda: client.recv(4096), b"")))
        assert answers[-1] == str(replies.TOO_MANY_COMMANDS)


@pytest.mark.parametrize("envelope", [b"", TO])
def test_a_chunk_may_come_byte_by_byte(fresh: FrontEnd, envelope: bytes) -> None:
    with fresh.dial() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(HELLO + envelope)
        for byte in b"BDAT 0\r\nBDAT 5\r\nhelloBDAT 5 LAST\r\nworld":
            client.send(bytes([byte]))
        client.sendall(b"QUIT\r\n")
        answers = lines(b"".join(iter(lambda: client.recv(4096), b"")))
    if envelope:
        assert answers[-1].startswith("250 2.0.0 queued")
    else:
        assert answers == [str(replies.RCPT_FIRST)] * 3


def test_rset_drops_the_chunks_that_came(fresh: FrontEnd) -> None:
    fresh.speak(HELLO + TO + b"BDAT 3\r\nabcRSET\r\n" + TO + b"BDAT 3 LAST\r\ndef")
    assert [data for _, data in fresh.entries()] == [b"def"]


def test_large_chunked_messages_are_whole(tmp_path: Path) -> None:
    """They go to the writer in parts."""
    piece = b"0123456789abcde\r\n" * 10_000
    with front_end(tmp_path, "--buffer-bytes", "65536") as running:
        wire = (b"BDAT %d\r\n" % len(piece) + piece) * 5
        answers = running.speak(HELLO + TO + wire + b"BDAT 0 LAST\r\n")
        assert lines(answers)[-1].startswith("250 2.0.0 queued")
        assert [data for _, data in running.entries()] == [piece.replace(b"\r\n", b"\n") * 5]
        wait_until(lambda: not list((running.queue / "tmp").iterdir()))


def test_lmtp_answers_the_last_chunk_for_each_recipient(tmp_path: Path) -> None:
    routes = tmp_path / "routes"
    routes.write_text(json.dumps([{"pattern": "^[a-c]@d$"}]))
    with front_end(tmp_path, "--routes", str(routes), kind="lmtp") as running:
        said = b"LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@d>\r\nRCPT TO:<x@d>\r\nRCPT TO:<b@d>\r\nBDAT 2 LAST\r\n\r\n"
        answers = lines(running.speak(said))
        assert [answer[:9] for answer in answers[1:]] == [
            "250 2.1.5",
            "550 5.1.1",
            "250 2.1.5",
            *["250 2.0.0"] * 2,
        ]
        assert sorted(envelope for envelope, _ in running.entries() if envelope) == [
            Envelope("", "a@d"),
            Envelope("", "b@d"),
        ]


# Lines of messages


@pytest.mark.invariant(9)
@pytest.mark.parametrize("size", [998, 999, 2048, 100_000])
def test_a_line_of_any_length_is_kept(tmp_path: Path, size: int) -> None:
    with front_end(tmp_path) as running:
        line = b"x" * size
        running.speak(HELLO + TO + b"DATA\r\n" + line + b"\r\n." + line + b"\r\n.\r\n")
        assert [data for _, data in running.entries()] == [line + b"\n" + line + b"\n"]


@pytest.mark.invariant(9)
def test_nul_and_bare_line_ends_are_kept_in_a_message(fresh: FrontEnd) -> None:
    fresh.speak(HELLO + TO + b"DATA\r\na\0b\rc\nd\n\r\ne\r\n.\r\n")
    assert [data for _, data in fresh.entries()] == [b"a\0b\rc\nd\n\ne\n"]


def test_by_ipv6_the_log_and_the_received_line_name_the_address_as_such(tmp_path: Path) -> None:
    listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    with front_end(tmp_path, listener=listener) as running:
        assert f"at=smtp://[::1]:{running.port} " in running.log()
        with socket.create_connection(("::1", running.port), timeout=60) as client:
            client.sendall(HELLO + TO + b"DATA\r\nx\r\n.\r\nQUIT\r\n")
            assert b"250 2.0.0 queued" in b"".join(iter(lambda: client.recv(4096), b""))
        [name] = (running.queue / "new").iterdir()
        assert b"Received: from client.example ([IPv6:::1])" in name.read_bytes()
