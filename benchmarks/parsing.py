"""What a handler pays that looks at the envelope, at two headers, at the body: beside parsing all of it at once."""

from __future__ import annotations

import email
import time
from collections.abc import Callable
from functools import partial

from benchmarks.figures import Figure, Limit, interleave
from benchmarks.filler import entry_bytes
from maildefer.message.request import MailRequest, received

KEY = "1704067200.M000000P1Q1Rabcdef.bench-000000"
MEBIBYTE = 1 << 20
PARTS = 20
STANDARD = "email.message_from_bytes"
TEXT, LARGE = "one text of 2 KiB", "20 attachments of 1 MiB in all"
TIMES_OF = {TEXT: 2_000, LARGE: 20}


def measure(quick: bool) -> list[Figure]:
    """Microseconds a message."""
    rounds, share = (3, 10) if quick else (9, 1)
    figures = []
    for case, data in {TEXT: entry_bytes(KEY), LARGE: _large()}.items():
        number = max(1, TIMES_OF[case] // share)
        looks = {name: partial(_microseconds, look, data, number) for name, look in LOOKS.items()}
        samples = interleave(looks, rounds, print)
        whole = samples[STANDARD]
        for name, values in samples.items():
            ratio = sorted(mine / theirs for mine, theirs in zip(values, whole, strict=True))[rounds // 2]
            limit = LIMITS.get((case, name))
            figures.append(
                Figure(
                    benchmark="parsing",
                    case=case,
                    name=name,
                    unit="µs",
                    samples=values,
                    ratio=ratio,
                    limit=limit,
                )
            )
    return figures


# The ratio is the share of what the standard library takes for the whole message.
LIMITS = {
    (TEXT, "envelope"): Limit(bound=0.1, at_most=True),
    (LARGE, "envelope"): Limit(bound=0.1, at_most=True),
    (LARGE, "two headers"): Limit(bound=0.1, at_most=True),
}


def _request(data: bytes) -> MailRequest:
    return received(data, KEY, 1, "run/queue", "run/queue")


def _envelope(data: bytes) -> tuple[str, str]:
    request = _request(data)
    return request.From, request.To


def _headers(data: bytes) -> tuple[str | None, str | None]:
    request = _request(data)
    return request["Subject"], request["Message-ID"]


def _whole(data: bytes) -> list[object]:
    request = _request(data)
    return [part.body for part in (request.base, *request.walk())]


LOOKS: dict[str, Callable[[bytes], object]] = {
    "envelope": _envelope,
    "two headers": _headers,
    "all of it": _whole,
    STANDARD: email.message_from_bytes,
}


def _large() -> bytes:
    line = b"QWxsIHdvcmsgYW5kIG5vIHBsYXkgbWFrZXMgYSBkdWxsIHF1ZXVlLgpBbGwgd29yayBhbmQgbm8g\n"
    head = entry_bytes(KEY).replace(b"text/plain; charset=utf-8", b'multipart/mixed; boundary="b"')
    part = b"--b\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n"
    return head + b"\n" + (part + line * (MEBIBYTE // PARTS // len(line))) * PARTS + b"--b--\n"


def _microseconds(look: Callable[[bytes], object], data: bytes, number: int) -> float:
    began = time.process_time_ns()
    for _ in range(number):
        look(data)
    return (time.process_time_ns() - began) / 1000 / number
