"""Real mail through all that reads and writes messages: no crash, and every byte as it was.

A part of each corpus in `make test-fast`, all of it in `make test`. A corpus that can't be had is skipped with the
reason, but not in CI.
"""

from __future__ import annotations

import os
import warnings
from functools import cache

import pytest

from benchmarks.corpora import CORPORA, Corpus, divided
from benchmarks.corpus import CorpusMissing
from maildefer.encoding import MailBase, from_string, to_message, to_string
from maildefer.mail import MailRequest, MailResponse
from maildefer.message import envelope
from maildefer.message.mime.wire_form import ends_with_empty_line
from maildefer.message.request import received
from maildefer.queue import Queue

STEM = "1712345678.M123456P1234Q7Rdeadbeef.mx-0a1b2c"
PART = 12  # messages of each corpus that every run looks at
every_corpus = pytest.mark.parametrize("corpus", CORPORA, ids=lambda corpus: corpus.name)


@cache
def messages(corpus: Corpus) -> list[tuple[str, bytes]]:
    try:
        return list(corpus.messages())
    except CorpusMissing as why:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(why))


@every_corpus
def test_a_corpus_is_whole(corpus: Corpus) -> None:
    found = messages(corpus)
    assert len(found) >= corpus.least
    assert len(dict(found)) == len(found)
    assert all(data for _, data in found)


@pytest.mark.slow
@every_corpus
def test_a_part_of_each_corpus_goes_through_everything(corpus: Corpus) -> None:
    found = sorted(messages(corpus), key=lambda one: len(one[1]))[: 4 * PART]
    for name, data in found[:: max(1, len(found) // PART)]:
        check(name, data)


@pytest.mark.slow
@every_corpus
def test_every_message_goes_through_everything(corpus: Corpus) -> None:
    for name, data in messages(corpus):
        check(name, data)


def check(name: str, data: bytes) -> None:
    block = envelope.block(STEM, "Ann@example.org", "bob@x.example", host="mx", when=0, via="push")
    request = received(block + data, f"{STEM},S=1", 1, "run/queue", "peer")
    assert (request.Data, request.From, request.To) == (data, "ann@example.org", "bob@x.example"), name
    headers_first(name, data)
    read(request)
    assert request.Data == data, name
    assert isinstance(request.is_automatic, bool), name
    assert not request.authentication.is_verified, name
    assert isinstance(request.is_bounce(), bool), name
    assert isinstance(request.bounce.error_for_humans(), str), name
    assert request.to_message().as_bytes() == data, name
    assert request.to_bytes() == data, name
    changes_alone(name, data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnicodeWarning)  # some declare a charset that their text is not in
        canonical(name, data)
        attached(name, request)


def headers_first(name: str, data: bytes) -> None:
    """What is read before the body is what the whole message says."""
    alone, whole = MailRequest("p", None, None, data), MailRequest("p", None, None, data)
    assert whole.base is not None
    assert (alone.items(), alone.From, alone.To) == (whole.items(), whole.From, whole.To), name


def read(request: MailRequest) -> None:
    assert all(isinstance(value, str) for _, value in request.items())
    assert all(isinstance(request[key], str) for key in request.keys())  # noqa: SIM118  # no mapping
    assert isinstance(request.body(), str | bytes | None)
    for part in request.walk():
        assert isinstance(part.body, str | bytes | None)
        assert all("\n" not in value for value in (part["subject"] or "", part["from"] or ""))


def changes_alone(name: str, data: bytes) -> None:
    """A header more, and then one less, in the message and in its parts, leaves all others."""
    mail = from_string(data)
    before, regular = shape(mail), all(map(is_regular, (mail, *mail.walk())))
    for part in (mail, *mail.walk()):
        part["X-Not-There"] = "yes"
    longer = to_message(mail).as_bytes()
    assert b"X-Not-There: yes" in longer, name
    for part in (mail, *mail.walk()):
        del part["X-Not-There"]
    assert to_message(mail).as_bytes() == data, name
    again = from_string(longer)
    assert again["X-Not-There"] == "yes", name
    assert shape(again) == before or not regular, name


def is_regular(mail: MailBase) -> bool:
    """Whether an empty line divides its headers from what follows."""
    return mail.wire_form is not None and ends_with_empty_line(mail.wire_form.head)


def canonical(name: str, data: bytes) -> None:
    """The canonical form says the same, and is its own canonical form."""
    first = from_string(data)
    text = to_string(first, anew=True)
    again = from_string(text)
    assert to_string(again, anew=True) == text, name
    assert shape(again) == shape(first), name


def shape(mail: MailBase) -> list[tuple[object, ...]]:
    """Type and content of each part, line ends aside."""
    return [
        (part.content_encoding["Content-Type"][0], plain(part.body), len(part.parts))
        for part in (mail, *mail.walk())
    ]


def plain(body: object) -> object:
    return body.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") if isinstance(body, str) else body


def attached(name: str, request: MailRequest) -> None:
    """Its parts can be sent on."""
    response = MailResponse(To="a@x", From="b@x", Subject="on", Body="See below.")
    response.attach_all_parts(request)
    assert len(from_string(response.to_bytes()).parts) == (
        len(request.all_parts()) + 1 if request.all_parts() else 0
    )


def test_a_corpus_goes_through_a_queue_with_its_bytes_intact(tmp_path) -> None:
    queue = Queue(str(tmp_path / "queue"))
    for corpus in CORPORA:
        if corpus.name in ("flufl.bounce", "test_email"):
            for name, data in messages(corpus)[:PART]:
                key = queue.push(data, sender="ann@x", recipient="bob@x")
                assert queue.get(key).Data == data, name
                popped = queue.pop()[1]
                assert popped is not None
                assert popped.Data == data, name


def test_an_mbox_is_divided_into_its_messages() -> None:
    one = b"From ann@x Mon Jan  1 00:00:00 2024\nSubject: 1\n\nFrom here on\n\n\n"
    two = b"From bob@x Mon Jan  1 00:00:00 2024\nSubject: 2\n\ntwo\n"
    assert divided(one + two) == [b"Subject: 1\n\nFrom here on\n\n", b"Subject: 2\n\ntwo\n"]
    assert divided(one) == [one]
    assert divided(b"Subject: x\n\n" + one + two) == [b"Subject: x\n\n" + one + two]
