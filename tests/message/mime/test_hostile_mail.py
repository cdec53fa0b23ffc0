"""Mail that is made to hurt: what it costs grows with its size and no faster, and nobody crashes.

Work is counted in function calls, of Python's and of C's, and in the characters of the texts that methods go through;
a test's message is read, analysed, changed, and written as it came and anew.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from maildefer.mail import MailRequest, MailResponse
from maildefer.message.mime import headers
from maildefer.message.mime.canonical import to_string
from maildefer.message.request import received

MULTIPART = "Content-Type: multipart/mixed; boundary=b\n\n"


def nested(depth: int, tail: str = "") -> str:
    heads = (f'Content-Type: multipart/mixed; boundary="b{n}"\n\n--b{n}\n' for n in range(depth))
    return "".join(heads) + "\nx\n" + tail


def used(data: bytes) -> MailRequest:
    """Everything that a handler could ask of it."""
    request = MailRequest("peer", None, None, data)
    assert isinstance(request.From, str)
    assert all(isinstance(value, str) for _, value in request.items())
    assert isinstance(request.body(), str | bytes | None)
    for part in request.walk():
        assert isinstance(part.body, str | bytes | None)
    request.is_bounce()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnicodeWarning)
        assert request.to_message().as_bytes() == data
        assert request.to_bytes() == data
        assert to_string(request.base, anew=True)
        request["X-New"] = "new"
        assert b"X-New: new" in request.to_bytes()
    return request


LOOKS = {"find", "index", "rfind", "startswith", "endswith"}  # which need not go through all of a text


class Work:
    """Counts calls, and what methods of texts go through."""

    def __init__(self) -> None:
        self.done = 0

    def __call__(self, frame: FrameType, event: str, called: Any) -> None:
        if event == "call":
            self.done += 1
        elif event == "c_call":
            text = getattr(called, "__self__", None)
            self.done += 1
            if isinstance(text, str | bytes) and called.__name__ not in LOOKS:
                self.done += len(text) // 8


def work(data: str, use: Callable[[bytes], object] = used) -> int:
    counted = Work()
    sys.setprofile(counted)
    try:
        use(data.encode("latin-1"))
    finally:
        sys.setprofile(None)
    return counted.done


GROWING: dict[str, Callable[[int], str]] = {
    "parts": lambda n: MULTIPART + "--b\nContent-Type: text/plain\n\nx\n" * n + "--b--\n",
    "empty parts": lambda n: MULTIPART + "--b\n" * n + "--b--\n",
    "messages in messages": lambda n: "Content-Type: message/rfc822\n\n" * n,
    "lines in parts fifty deep": lambda n: nested(50, "line\n" * n),
    "headers": lambda n: "X-A: b\n" * n + "\nx",
    "folded lines": lambda n: "Subject: x\n" + " y =?utf-8?q?a?=\n" * n + "\nx",
    "beginnings of encoded words": lambda n: "Subject: " + "=?a?q?" * n + "\n\nx",
    "addresses": lambda n: "To: " + ", ".join(f'"A, {i}" <a{i}@b>' for i in range(n)) + "\n\nx",
    "quotes": lambda n: "To: " + '"a@b ,' * n + "\n\nx",
    "parameters": lambda n: "Content-Type: text/plain; " + "; ".join(f"a*{i}=x" for i in range(n)) + "\n\nx",
    "quoted parameters": lambda n: (
        "Content-Type: text/plain; " + "; ".join(f'a{i}="x;y"' for i in range(n)) + "\n\nx"
    ),
    "parameters of what has parts": lambda n: (
        f"Content-Type: multipart/mixed; boundary=b{'; a=b' * n}\n\n" + "--b\n\nx\n" * n
    ),
    "headers of what has parts": lambda n: "X-A: b\n" * n + MULTIPART + "--b\n\nx\n" * n,
    "types": lambda n: "Content-Type: text/plain\nContent-Disposition: inline\n" * n + "\nx",
    "encoded words": lambda n: "Subject: " + "\n ".join(["=?utf-8?q?a=C3=A9?="] * n) + "\n\nx",
    "groups of a report": lambda n: (
        MULTIPART + "--b\nContent-Type: message/delivery-status\n\n" + "Action: failed\nStatus: 5.1.1\n\n" * n
    ),
    "semicolons": lambda n: "Content-Type: text/plain" + ";" * n + '"' * n + "\n\nx",
    "boundaries that are none": lambda n: MULTIPART + "--bb\n" * n,
    "lone line ends": lambda n: "Subject: x\r" + "\r" * n,
    "uuencoded": lambda n: "Content-Transfer-Encoding: x-uuencode\n\nbegin 644 x\n" + "!!\n" * n,
}


CHEAP = {"empty parts", "addresses", "folded lines", "boundaries that are none"}  # for the fast tests


@pytest.mark.parametrize(
    "shape", [pytest.param(shape, marks=[pytest.mark.slow] * (shape not in CHEAP)) for shape in GROWING]
)
def test_twice_as_much_costs_twice_as_much(shape: str) -> None:
    once, twice = work(GROWING[shape](400)), work(GROWING[shape](800))
    assert twice <= 2.3 * once + 2000


@pytest.mark.slow
def test_nesting_without_end_costs_no_more_than_nesting_that_is_refused() -> None:
    refused, deep = (work(nested(depth, "line\n" * 20_000)) for depth in (62, 900))
    assert deep <= refused + 400 * 900
    used(nested(900).encode())
    request = MailRequest("peer", None, None, nested(900))
    assert request["content-type"] == 'multipart/mixed; boundary="b0"'
    assert isinstance(request.body(), str)
    assert request.all_parts() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "number", "parts"),
    [("parts", 100_000, 100_000), ("groups of a report", 50_000, 50_001), ("encoded words", 500_000, 0)],
)
def test_hundreds_of_thousands_are_read_and_written(shape: str, number: int, parts: int) -> None:
    request = used(GROWING[shape](number).encode())
    assert sum(1 for _ in request.walk()) == parts
    assert len(request["subject"] or "") == (2 * number if parts == 0 else 0)


def test_the_bytes_of_encoded_words_are_joined_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Word(bytes):
        def __radd__(self, other: object) -> bytes:
            pytest.fail("a word was added to those before it, which are copied for it")

        __add__ = __radd__  # type: ignore[assignment]

    original = headers._word_bytes
    monkeypatch.setattr(headers, "_word_bytes", lambda *word: Word(original(*word)))
    assert headers.properly_decode_header("=?utf-8?q?=C3?= =?utf-8?q?=A9?= " * 3) == "ééé "


@pytest.mark.parametrize("text", ["=?a?q?x" * 1000, "=?a?q?x?= " * 1000, "=?a?q?" * 1000, "=?" * 1000])
def test_no_place_of_a_header_is_looked_at_twice_for_encoded_words(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    pattern = headers._WORD

    class Pattern:
        def search(self, text: str, at: int) -> object:
            found = pattern.search(text, at)
            looked.append((found.end() if found else len(text)) - at)
            return found

    monkeypatch.setattr(headers, "_WORD", Pattern())
    headers.properly_decode_header(text)
    assert sum(looked) <= len(text) + 2


@pytest.mark.parametrize("number", [1, 10_000])
@pytest.mark.parametrize("sign", ["(", "<", '"', "[", ":", ";", ",", "@", "\\", "=?", "(a@b,", "<@a,@b:"])
@pytest.mark.slow
def test_addresses_that_parse_oddly_are_no_address_or_some(sign: str, number: int) -> None:
    given = sign * number
    request = used(f"From: {given}\nTo: {given} ann@example.org\nCc: {given}\n\nx".encode())
    assert "\n" not in request.From
    assert (
        received(f"Return-Path: {given}\nDelivered-To: {given}\n\nx".encode(), "k", 1, "q", "p").From
        is not None
    )
    assert MailRequest("peer", given, [given, given.encode()], b"").To == request.To or number >= 1
    MailResponse(To=given, From=given, Subject=given, Body="x").to_bytes()


CHARSETS = [
    *(
        "no-such",
        "",
        "'",
        "=?q?",
        "x" * 5000,
        "\0",
        "utf-7",
        "utf-16",
        "idna",
        "punycode",
        "undefined",
        "charmap",
    ),
    *(
        "rot13",
        "zlib",
        "hex",
        "base64",
        "unicode_escape",
        "raw_unicode_escape",
        "mbcs",
        "oem",
        "../../etc/passwd",
    ),
]


@pytest.mark.parametrize("charset", CHARSETS, ids=lambda charset: ascii(charset[:20]))
@pytest.mark.parametrize(
    "coding", ["8bit", "base64", "quoted-printable", "no-such", "x" * 5000], ids=lambda c: c[:20]
)
def test_an_unknown_charset_or_coding_is_guessed(charset: str, coding: str) -> None:
    head = f'Content-Type: text/plain; charset="{charset}"\nContent-Transfer-Encoding: {coding}\n'
    subject = f"Subject: =?{charset}?q?=FC=00?= =?{charset}?b?/P==?=\n\n"
    request = used((head + subject).encode() + b"\xfc\x00=FC/P==")
    assert isinstance(request.body(), str)
    assert isinstance(request["subject"], str)


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [
        b"Subject: " + b"x" * 2_000_000 + b"\n\nx",
        b"x" * 2_000_000 + b": x\n\nx",
        b"x" * 2_000_000,
        b"Subject: " + "ä".encode() * 200_000 + b"\n\nx",
        b'Content-Type: multipart/mixed; boundary="' + b"(" * 100_000 + b'"\n\n--x\n',
        b"\0" * 500_000,
        b"\r" * 500_000,
        b"",
    ],
    ids=["value", "name", "no headers", "beyond ascii", "boundary", "nul", "cr", "empty"],
)
def test_huge_headers_and_none_are_read(data: bytes) -> None:
    used(data)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "C:\\x\\y.txt", "a/b\0c", "..", "a\nb: c"]
)
def test_a_path_in_the_name_of_a_received_attachment_touches_no_file(
    name: str, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    response = MailResponse(To="a@x", From="b@x", Subject="s", Body="text")
    response.attach(filename=name, content_type="text/plain", data="data")
    [_, attachment] = used(response.to_bytes()).all_parts()
    told = attachment.content_encoding["Content-Disposition"][1]["filename"]
    assert "/" not in told
    assert "\n" not in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\n\n", "\r\n ", "\x85", "\u2028", "\x0b", "\x0c"])
def test_a_line_end_in_anything_begins_no_header(end: str) -> None:
    evil = f"x{end}Bcc: eve@example.org{end}{end}body"
    response = MailResponse(
        To=f"ann@example.org{end}Bcc: eve@example.org", From=evil, Subject=evil, Body="text"
    )
    response["X-Own"] = evil
    response.update({"Reply-To": evil})
    response.attach(filename=evil, content_type="text/plain", data="data")
    request = MailRequest("peer", None, None, response.to_bytes())
    assert "bcc" not in request
    assert all(part["bcc"] is None for part in request.walk())
    assert request.body() == "text"
