"""What wild clients send: real conversations, and what mutation makes of them."""

from __future__ import annotations

from random import Random
from typing import Final

ENDS: Final = (
    b"\r\n.\r\n",  # the only one
    *(b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\r\n.\r\r\n", b"\r\r\n.\r\r\n"),
    *(b"\n.\r", b"\r.\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\0\r\n.\r\n", b"\r\n..\r\n", b"\r\n. \r\n"),
    *(b"\r\n\x85.\r\n", b"\n\n.\r\n", b"\r\n.\r\n.\r\n", b"\x0b.\x0b", b"\xe2\x80\xa8.\xe2\x80\xa8"),
)
COMMANDS: Final = (
    *(b"EHLO client.example", b"HELO c", b"LHLO c", b"NOOP", b"NOOP x y", b"RSET", b"VRFY a@b", b"EXPN all"),
    *(b"HELP", b"QUIT", b"STARTTLS", b"AUTH PLAIN AGFubgBzZWNyZXQ=", b"AUTH LOGIN", b"=", b"*", b"TURN"),
    *(b"XCLIENT ADDR=192.0.2.7 NAME=evil", b"XFORWARD ADDR=192.0.2.7", b"ETRN #x", b"DATA", b"DATA now", b""),
    *(b"MAIL FROM:<ann@example.org>", b"MAIL FROM:<>", b"MAIL FROM:<a@b> SIZE=100 BODY=8BITMIME", b"MAIL"),
    *(b"MAIL FROM:<a@b> SIZE=99999999", b"mail from: <a@b>", b"MAIL FROM:<a@b> SMTPUTF8", b"MAIL FROM:<a@b"),
    "MAIL FROM:<j\u00fcrgen@ex\u00e4mple.org> SMTPUTF8".encode(),
    *(
        b"RCPT TO:<post@osb.example>",
        b"RCPT TO:<bob@osb.example>",
        b"rcpt to:<carl@osb.example>",
        b"RCPT TO:<>",
    ),
    *(b'RCPT TO:<"post"@osb.example>', rb'RCPT TO:<"p\o\"s\\t"@osb.example>', b"POST / HTTP/1.1"),
    *(b'RCPT TO:<"a b"@osb.example>', b"RCPT TO:<postmaster>", b"RCPT TO:<@relay:x@osb.example>", b"RCPT"),
    *(b"RCPT TO:<a@b> NOTIFY=NEVER", b"RCPT TO:<../../etc/passwd@osb.example>", b"RCPT TO:<a\0b@c>"),
    *(b"GET / HTTP/1.1", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2", b"\x16\x03\x01\x02\x00\x01", b"\r", b"\0"),
)
LINES: Final = (
    *(b"Subject: hello", b"", b".", b"..", b".dot", b"From MAILER", b"Return-Path: <forged@example.org>"),
    *(b"Delivered-To: somebody@else.example", b"Received: from a by b; now", b"\xff\xfe\0binary", b"x" * 998),
    *(
        b"bare\rcr",
        b"bare\nlf",
        b"MAIL FROM:<smuggled@example.org>",
        b"RCPT TO:<smuggled@osb.example>",
        b"DATA",
    ),
)


def stream(chance: Random, lmtp: bool) -> bytes:
    """All bytes of one client."""
    parts = [b"LHLO c\r\n" if lmtp else b"EHLO c\r\n"] if chance.random() < 0.9 else []
    for _ in range(chance.randint(1, 6)):
        parts += chance.choice((_transaction, _transaction, _transaction, _commands, _noise))(chance)
    if chance.random() < 0.3:
        _shuffle(chance, parts)
    made = b"".join(parts)
    for _ in range(chance.choice((0, 0, 0, 1, 3, 20))):
        made = _mutated(chance, made)
    return made


def _transaction(chance: Random) -> list[bytes]:
    parts = [b"MAIL FROM:<ann@example.org>\r\n"]
    for number in range(chance.randint(1, 3)):
        parts.append(b"RCPT TO:<user%d@osb.example>\r\n" % (chance.randint(0, 9) if number else 0))
    if chance.random() < 0.2:
        parts.insert(chance.randrange(len(parts) + 1), chance.choice(COMMANDS) + b"\r\n")
    return parts + (_by_data(chance) if chance.random() < 0.7 else _by_chunks(chance))


def _by_data(chance: Random) -> list[bytes]:
    parts = [b"DATA\r\n", _text(chance)]
    for _ in range(chance.choice((0, 0, 1, 3))):
        parts += [chance.choice(ENDS), _text(chance)]
    return [*parts, ENDS[0] if chance.random() < 0.9 else chance.choice(ENDS)]


def _by_chunks(chance: Random) -> list[bytes]:
    parts = []
    count = chance.randint(1, 4)
    for number in range(count):
        chunk = _text(chance) + chance.choice((b"", b"\r", b"\n", b"\r\n", b"\r\n.\r\n"))
        size = len(chunk) if chance.random() < 0.9 else max(0, len(chunk) + chance.randint(-9, 9))
        last = b" LAST" if number == count - 1 else b""
        parts += [b"BDAT %d%s\r\n" % (size, last), chunk]
    return parts


def _text(chance: Random) -> bytes:
    lines = [chance.choice(LINES) for _ in range(chance.choice((0, 1, 3, 10, 30)))]
    end = chance.choice((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n"))
    return end.join(lines) + (b"" if chance.random() < 0.5 else b"\r\n")


def _commands(chance: Random) -> list[bytes]:
    return [
        chance.choice(COMMANDS) + chance.choice((b"\r\n", b"\r\n", b"\n", b" \r\n", b"\r\r\n"))
        for _ in range(chance.randint(1, 8))
    ]


def _noise(chance: Random) -> list[bytes]:
    size = chance.choice((1, 30, 500, 13_000, 40_000))
    return [chance.choice((chance.randbytes(size), b"\n" * size, b"a" * size, b"\r\n.\r\n" * (size // 5)))]


def _shuffle(chance: Random, parts: list[bytes]) -> None:
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(parts))
        what = chance.random()
        if what < 0.4:
            parts.insert(chance.randrange(len(parts)), parts[at])
        elif what < 0.7 and len(parts) > 1:
            del parts[at]
        else:
            parts.append(parts.pop(at))


def _mutated(chance: Random, data: bytes) -> bytes:
    if not data:
        return data
    at, size = chance.randrange(len(data)), chance.choice((1, 1, 2, 5, 50))
    match chance.randrange(5):
        case 0:  # one bit
            return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
        case 1:
            return data[:at] + data[at + size :]
        case 2:
            return data[:at] + data[at : at + size] + data[at:]
        case 3:
            return (
                data[:at]
                + chance.choice((b"\r", b"\n", b"\0", b".", b" ", b"\r\n", b"\r\n.\r\n"))
                + data[at:]
            )
        case _:
            other = chance.randrange(len(data))
            return data[:at] + data[other : other + size] + data[at:]
