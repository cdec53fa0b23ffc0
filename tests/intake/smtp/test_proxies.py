"""For whom a connection is, as proxies that are trusted say: the PROXY protocol, XCLIENT and XFORWARD."""

from __future__ import annotations

import os
import re
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from maildefer.intake import replies
from maildefer.intake.replies import Reply
from maildefer.intake.smtp import proxy_protocol
from tests.support import certificates
from tests.support.front_end import FrontEnd, front_end, wait_until

MAIL = b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nhi\r\n.\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def version_2(command: int, family: int, addresses: bytes) -> bytes:
    return (
        SIGNATURE + bytes([0x20 | command, family << 4 | 1]) + struct.pack("!H", len(addresses)) + addresses
    )


IPV4 = socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.2") + struct.pack("!HH", 1234, 25)
IPV6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1") * 2 + struct.pack("!HH", 1234, 25)


def received(server: FrontEnd) -> str:
    (name,) = os.listdir(server.queue / "new")
    return (server.queue / "new" / name).read_text().split("\n")[2]


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontEnd]:
    """One that believes us, for all tests that send one message."""
    networks = (
        "--proxy-networks",
        "127.0.0.0/8",
        "--xclient-networks",
        "127.0.0.0/8 192.0.2.0/24 2001:db8::/32",
    )
    with front_end(tmp_path_factory.mktemp("front"), *networks) as running:
        yield running


@pytest.mark.lifecycle
@pytest.mark.parametrize(
    ("header", "origin"),
    [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 25\r\n", "c ([192.0.2.1])"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 1234 25\r\n", "c ([IPv6:2001:db8::1])"),
        (b"PROXY UNKNOWN\r\n", "c ([127.0.0.1])"),
        (b"PROXY UNKNOWN whatever it is\r\n", "c ([127.0.0.1])"),
        (version_2(1, 1, IPV4), "c ([192.0.2.1])"),
        (version_2(1, 1, IPV4 + b"\x20\0\x05\0\0\0\0\0"), "c ([192.0.2.1])"),
        (version_2(1, 2, IPV6), "c ([IPv6:2001:db8::1])"),
        (version_2(0, 0, b""), "c ([127.0.0.1])"),
        (version_2(0, 1, IPV4), "c ([127.0.0.1])"),
        (version_2(1, 0, b""), "c ([127.0.0.1])"),
        (version_2(1, 3, b"\0" * 216), "c ([127.0.0.1])"),
    ],
)
def test_a_header_tells_the_client(trusting: FrontEnd, header: bytes, origin: str) -> None:
    answers = trusting.speak(header + MAIL).decode()
    (name,) = re.findall(r"queued as (\S+)", answers)
    assert (
        (trusting.queue / "new" / name).read_text().split("\n")[2].startswith(f"Received: from {origin} by ")
    )


@pytest.mark.lifecycle
def test_a_header_may_come_byte_by_byte_and_nothing_behind_it_is_lost(tmp_path: Path) -> None:
    with front_end(tmp_path, "--proxy-networks", "127.0.0.1") as server:
        for header in (b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 25\r\n", version_2(1, 1, IPV4)):
            with server.dial() as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for byte in header + MAIL + b"QUIT\r\n":
                    client.sendall(bytes([byte]))
                assert b"250 2.0.0 queued" in b"".join(iter(lambda: client.recv(4096), b""))
        assert len(server.entries()) == 2


@pytest.mark.lifecycle
@pytest.mark.parametrize(
    "header",
    [
        MAIL,
        b"PROXY TCP4 nowhere 192.0.2.2 1234 25\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1234\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 port 25\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 1234 25\r\n",
        b"PROXY " + b"x" * 200 + b"\r\n",
        SIGNATURE + b"\x31\x11\0\x0c" + IPV4,
        SIGNATURE + b"\x22\x11\0\x0c" + IPV4,
        version_2(1, 1, IPV4[:-1]),
        SIGNATURE + b"\x21\x11\xff\xff" + b"\0" * 65535,
        b"PROXY TCP4",
    ],
)
def test_who_has_to_send_a_header_and_does_not_gets_no_word(trusting: FrontEnd, header: bytes) -> None:
    before = trusting.log().count("no PROXY header")
    with trusting.dial() as client:
        client.sendall(header)
        try:
            client.shutdown(socket.SHUT_WR)
            assert client.recv(4096) == b""
        except OSError:  # it was reset
            pass
    wait_until(lambda: trusting.log().count("no PROXY header") > before)
    assert b"250 2.0.0 queued" in trusting.speak(b"PROXY UNKNOWN\r\n" + MAIL)


@pytest.mark.lifecycle
def test_nobody_else_is_believed(tmp_path: Path) -> None:
    with front_end(tmp_path, "--proxy-networks", "192.0.2.0/24") as server:
        answers = server.speak(b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 25\r\n" + MAIL)
        assert answers.split(b"\r\n")[1].startswith(b"500 5.5.1")
        assert received(server).startswith("Received: from c ([127.0.0.1]) by ")


@pytest.mark.lifecycle
def test_the_header_comes_before_tls(tmp_path: Path) -> None:
    certificate = certificates.make(tmp_path)
    arguments = ("--proxy-networks", "127.0.0.0/8", "--tls-certificate", str(certificate))
    context = ssl.create_default_context(cafile=str(certificate))
    with front_end(tmp_path, *arguments, kind="smtps") as server, server.dial() as client:
        client.sendall(version_2(1, 1, IPV4))
        with context.wrap_socket(client, server_hostname="localhost") as secure:
            secure.sendall(MAIL + b"QUIT\r\n")
            assert b"250 2.0.0 queued" in b"".join(iter(lambda: secure.recv(4096), b""))
        assert " with ESMTPS id " in received(server)
        assert received(server).startswith("Received: from c ([192.0.2.1]) by ")


def test_a_line_of_version_1_gives_address_and_port() -> None:
    client = proxy_protocol.parse_version_1(b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 25\r\n")
    assert client is not None
    assert (client.address, client.port) == ("192.0.2.1", 1234)


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY TCP4 192.0.2.1 192.0.2.2 70000 25\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 25\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1_0 25\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 x\r\n",
        b"PROXY TCP4 192.0.2.1 somewhere 1234 25\r\n",
        b"PROXY TCP4 192.0.2.1 2001:db8::2 1234 25\r\n",
    ],
)
def test_a_line_of_version_1_with_anything_else_in_it_is_none(line: bytes) -> None:
    with pytest.raises(proxy_protocol.BadHeader):
        proxy_protocol.parse_version_1(line)


# XCLIENT and XFORWARD


@pytest.mark.lifecycle
def test_xclient_begins_anew_as_that_client(tmp_path: Path) -> None:
    with front_end(tmp_path, "--xclient-networks", "127.0.0.1") as server:
        said = b"EHLO proxy\r\nXCLIENT NAME=mx.test ADDR=IPV6:2001:db8::1 PORT=1234 LOGIN=ann+2B1\r\n"
        answers = server.speak(said + MAIL).decode()
        assert "\r\n250-XCLIENT NAME ADDR" in answers
        assert answers.count("\r\n220 ") == 1
        assert received(server).startswith("Received: from c (mx.test [IPv6:2001:db8::1]) by ")
        assert " with ESMTPA id " in received(server)


@pytest.mark.lifecycle
def test_xforward_only_tells_for_whom_it_is(tmp_path: Path) -> None:
    with front_end(tmp_path, "--xclient-networks", "127.0.0.1") as server:
        said = b"XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.1\r\nXFORWARD HELO=spike.test PROTO=SMTP SOURCE=REMOTE\r\n"
        assert b"250 2.0.0 queued" in server.speak(MAIL[:8] + said + MAIL[8:])
        assert received(server).startswith("Received: from c ([127.0.0.1]) (for spike.test [192.0.2.1]) by ")
        server.speak(MAIL[:8] + said + MAIL[8:] + MAIL[8:])
        assert server.log().count("(for spike.test") == 2  # not with the message after it


@pytest.mark.lifecycle
@pytest.mark.parametrize(
    ("said", "reply"),
    [
        (b"XCLIENT\r\n", replies.SYNTAX_XCLIENT),
        (b"XCLIENT ADDR\r\n", replies.SYNTAX_XCLIENT),
        (b"XCLIENT COLOUR=blue\r\n", replies.SYNTAX_XCLIENT),
        (b"XFORWARD LOGIN=ann\r\n", replies.SYNTAX_XCLIENT),
        (b"XCLIENT ADDR=somewhere\r\n", replies.SYNTAX_XCLIENT),
        (b"XFORWARD ADDR=192.0.2.256\r\n", replies.SYNTAX_XCLIENT),
        (b"XCLIENT PORT=x\r\n", replies.SYNTAX_XCLIENT),
        (b"XCLIENT ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE]\r\n", "220 "),
        (b"XFORWARD NAME=a+0D+0Ab\r\n", replies.SYNTAX_XCLIENT),
        (b"EHLO c\r\nMAIL FROM:<a@b>\r\nXCLIENT ADDR=192.0.2.1\r\n", replies.NESTED),
        (b"XCLIENT ADDR=192.0.2.1\r\nXCLIENT ADDR=192.0.2.2\r\n", "220 "),
    ],
)
def test_the_reply_to(trusting: FrontEnd, said: bytes, reply: Reply | str) -> None:
    assert trusting.speak(b"PROXY UNKNOWN\r\n" + said).decode().split("\r\n")[-3].startswith(str(reply))
