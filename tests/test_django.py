"""Django's mail in a queue, with the real Django."""

from __future__ import annotations

import errno
import os
import threading
import unittest
from collections.abc import Callable, Iterator
from contextlib import suppress
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("django", reason="Django is not installed: .ci/setup test")

import django
from django.conf import settings
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage, EmailMultiAlternatives, get_connection, send_mass_mail
from django.db import connections, transaction
from django.test import TestCase, override_settings
from django.test.utils import setup_test_environment, teardown_test_environment

from maildefer.errors import NoSpace, PermissionRefused, QueueMissing
from maildefer.maildir import durable
from maildefer.maildir.layout import create_queue
from maildefer.maildir.outbox.current import current
from maildefer.maildir.push import Compose, Pusher
from maildefer.maildir.system import SYSTEM
from maildefer.message.envelope import Envelope
from maildefer.queue import Queue
from tests.support.front_end import stored

MEMORY = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
TO_ANN = [Envelope("shop@example.org", "ann@example.org")]


class Abandoned(Exception):
    """Ends a transaction."""


@pytest.fixture(scope="module", autouse=True)
def _django() -> None:
    if not settings.configured:
        settings.configure(DATABASES={"default": MEMORY, "orders": MEMORY})
        django.setup()


@pytest.fixture
def outgoing(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "outgoing"
    create_queue(str(path))
    backend = "maildefer.django.EmailBackend"
    with override_settings(EMAIL_BACKEND=backend, MAILDEFER_OUTGOING=str(path)):
        yield path


@pytest.fixture
def on_commit() -> Iterator[None]:
    with override_settings(MAILDEFER_ON_COMMIT=True):
        yield


def letter(*to: str, **more: object) -> EmailMessage:
    return EmailMessage("Hello", "It works.", "Shop <shop@example.org>", to or ("ann@example.org",), **more)


def envelopes(queue: Path) -> list[Envelope]:
    found = stored(queue) if (queue / "new").exists() else []
    return sorted(envelope for envelope, _ in found if envelope is not None)


def content(queue: Path) -> Message:
    [data] = {data for _, data in stored(queue)}
    return message_from_bytes(data)


def test_each_recipient_of_a_message_has_an_entry_and_bcc_is_in_no_header(outgoing: Path) -> None:
    sent = letter("Ann <ann@example.org>", cc=["bob@example.org"], bcc=["eve@example.org"]).send()
    assert sent == 1
    names = ("ann", "bob", "eve")
    assert envelopes(outgoing) == [Envelope("shop@example.org", f"{name}@example.org") for name in names]
    kept = content(outgoing)
    assert (kept["To"], kept["Cc"], kept["Bcc"]) == ("Ann <ann@example.org>", "bob@example.org", None)
    assert "eve" not in str(kept)
    assert kept["Date"]
    assert kept["Message-ID"]


def test_who_is_named_twice_gets_one_copy(outgoing: Path) -> None:
    letter("ann@example.org", "Ann <ann@example.org>", cc=["ann@example.org"]).send()
    assert envelopes(outgoing) == TO_ANN


def test_attachments_alternatives_and_headers_beyond_ascii_are_kept(outgoing: Path) -> None:
    message = EmailMultiAlternatives(
        "Grüße — für Łódź",
        "Schöne Grüße.",
        "Käthe <shop@example.org>",
        ["Änn <ann@example.org>"],
        reply_to=["help@example.org"],
        headers={"List-Unsubscribe": "<https://shop.example/>"},
    )
    message.attach_alternative("<p>Schöne Grüße.</p>", "text/html")
    message.attach("Größe.bin", bytes(range(256)), "application/octet-stream")
    message.send()
    kept = content(outgoing)
    texts = {part.get_content_type(): part for part in kept.walk() if not part.is_multipart()}
    assert str(make_header(decode_header(kept["Subject"]))) == "Grüße — für Łódź"
    assert str(make_header(decode_header(kept["From"]))) == "Käthe <shop@example.org>"
    assert (kept["Reply-To"], kept["List-Unsubscribe"]) == ("help@example.org", "<https://shop.example/>")
    assert texts["text/plain"].get_payload(decode=True).decode() == "Schöne Grüße."
    assert texts["text/html"].get_payload(decode=True).decode() == "<p>Schöne Grüße.</p>"
    assert texts["application/octet-stream"].get_payload(decode=True) == bytes(range(256))
    assert texts["application/octet-stream"].get_filename() == "Größe.bin"
    assert envelopes(outgoing) == TO_ANN


def test_a_domain_beyond_ascii_is_what_the_dns_knows(outgoing: Path) -> None:
    letter("ann@bücher.example", "Jörg <jörg@example.org>").send()
    assert {one.recipient for one in envelopes(outgoing)} == {"ann@xn--bcher-kva.example", "jörg@example.org"}


@pytest.mark.parametrize(
    "address",
    [
        "ann@example.org, eve@example.org",
        "ann@example.org\nBcc: eve@example.org",
        "ann@example.org> RCPT TO:<eve@example.org",
        "ann\n@example.org",
        "<>",
        "ann",
        f"{'a' * 1000}@example.org",
        f"ann@{'ü' * 80}.example",
    ],
)
@pytest.mark.parametrize("field", ["to", "cc", "bcc", "from_email"])
def test_what_is_not_one_address_stores_nothing(outgoing: Path, address: str, field: str) -> None:
    message = letter("ann@example.org")
    setattr(message, field, address if field == "from_email" else ["bob@example.org", address])
    with pytest.raises(ValueError, match="address"):
        get_connection(fail_silently=True).send_messages([letter(), message])
    assert envelopes(outgoing) == []


def test_messages_are_counted_and_not_entries(outgoing: Path) -> None:
    messages = [letter("ann@example.org", "bob@example.org"), letter("ann@example.org"), letter(bcc=[])]
    messages[-1].to = []
    assert get_connection().send_messages(messages) == 2
    assert get_connection().send_messages([]) == 0
    assert len(envelopes(outgoing)) == 3


def test_many_messages_share_the_syncs_of_the_folder(outgoing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Queue(str(outgoing)).push(b"Subject: before\n\n", recipient="ann@example.org")
    synced: list[str] = []
    fsync = SYSTEM.fsync
    monkeypatch.setattr(
        type(SYSTEM), "fsync", lambda self, fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))
    )
    mass = [("Hello", "It works.", "shop@example.org", [f"{n}@example.org"]) for n in range(20)]
    assert send_mass_mail(mass) == 20
    assert len(envelopes(outgoing)) == 21
    assert synced.count(f"{outgoing}/new") == 1


def test_a_connection_is_opened_and_closed_as_any_other(outgoing: Path) -> None:
    with get_connection() as connection:
        letter(connection=connection).send()
    connection.open()
    connection.close()
    assert letter(connection=connection).send() == 1
    assert len(envelopes(outgoing)) == 2


def test_a_connection_may_name_its_queue(outgoing: Path, tmp_path: Path) -> None:
    create_queue(str(tmp_path / "newsletter"))
    assert get_connection(queue=str(tmp_path / "newsletter")).send_messages([letter()]) == 1
    assert envelopes(tmp_path / "newsletter") == TO_ANN
    assert envelopes(outgoing) == []


@pytest.mark.parametrize("given", [1, "yes", "True", ["default"]])
def test_a_commit_of_no_database_is_refused_by_the_settings_name(outgoing: Path, given: Any) -> None:
    with override_settings(MAILDEFER_ON_COMMIT=given), pytest.raises(ImproperlyConfigured, match="ON_COMMIT"):
        mail.get_connection()


def test_without_a_queue_it_says_what_to_set() -> None:
    with (
        override_settings(MAILDEFER_OUTGOING=None),
        pytest.raises(ImproperlyConfigured, match="MAILDEFER_OUTGOING"),
    ):
        get_connection("maildefer.django.EmailBackend")


# Faults


class Full:
    """Lets so many files be written."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.begin_file = durable.begin_file

    def __call__(self, path: str, *arguments: object, **more: object) -> int:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "no space left", path)
        return self.begin_file(path, *arguments, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("left", [0, 2, 40])
def test_where_the_queue_can_not_take_all_it_has_none(
    outgoing: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    Queue(str(outgoing))
    messages = [letter(f"{n}@example.org", "bob@example.org") for n in range(30)]
    with monkeypatch.context() as patch:
        patch.setattr(durable, "begin_file", Full(left))
        with pytest.raises(NoSpace):
            get_connection().send_messages(messages)
    assert envelopes(outgoing) == []
    assert os.listdir(outgoing / "tmp") == []
    assert get_connection().send_messages(messages) == 30
    assert len(envelopes(outgoing)) == 60


def test_what_the_queue_can_not_take_fails_silently_where_that_is_asked_for(
    outgoing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Queue(str(outgoing))
    monkeypatch.setattr(durable, "begin_file", Full(0))
    assert letter().send(fail_silently=True) == 0
    assert envelopes(outgoing) == []


@pytest.mark.parametrize("is_there", [False, True])
def test_a_queue_that_is_not_there_or_not_for_us_fails_silently_where_that_is_asked_for(
    outgoing: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    if is_there:
        Queue(str(outgoing))

        def refused(queue: Queue) -> None:
            raise PermissionRefused(queue.dir, OSError(errno.EACCES, "not for you"))

        monkeypatch.setattr(Queue, "_pusher", refused)
    place = outgoing if is_there else outgoing / "no" / "queue"
    for on_commit in (False, True):
        connection = get_connection(queue=str(place), on_commit=on_commit, fail_silently=True)
        with transaction.atomic():
            assert connection.send_messages([letter()]) == 0


@pytest.mark.parametrize("is_folder", [False, True], ids=["a wrong name", "a mount that is away"])
def test_no_queue_is_made_that_nobody_serves(tmp_path: Path, is_folder: bool) -> None:
    place = tmp_path / "outgoin"
    if is_folder:
        place.mkdir()
    with pytest.raises(QueueMissing, match="in the settings here"):
        get_connection(backend="maildefer.django.EmailBackend", queue=str(place)).send_messages([letter()])
    assert not (place / "new").exists()


def test_a_queue_that_is_not_there_is_told_before_the_commit(outgoing: Path, on_commit: None) -> None:
    with pytest.raises(QueueMissing), transaction.atomic():
        get_connection(queue=str(outgoing / "no" / "queue")).send_messages([letter()])


# Transactions


def abandon(send: Callable[[], object], using: str = "default") -> None:
    with suppress(Abandoned), transaction.atomic(using=using):
        send()
        raise Abandoned


def test_at_once_is_the_default_also_in_a_transaction(outgoing: Path) -> None:
    abandon(lambda: letter().send())
    assert envelopes(outgoing) == TO_ANN


def test_on_commit_a_message_is_there_after_the_commit(outgoing: Path, on_commit: None) -> None:
    with transaction.atomic():
        message = letter()
        assert message.send() == 1
        assert envelopes(outgoing) == []
        message.to, message.body = ["eve@example.org"], "It was changed."
    assert envelopes(outgoing) == TO_ANN
    assert content(outgoing).get_payload() == "It works."


def test_on_commit_nothing_is_sent_of_what_was_rolled_back(outgoing: Path, on_commit: None) -> None:
    abandon(lambda: letter("never@example.org").send())
    with transaction.atomic():
        abandon(lambda: letter("savepoint@example.org").send())
        letter().send()
    assert envelopes(outgoing) == TO_ANN


def test_on_commit_outside_of_a_transaction_is_at_once(
    outgoing: Path, on_commit: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert letter().send() == 1
    assert envelopes(outgoing) == TO_ANN
    monkeypatch.setattr(durable, "begin_file", Full(0))
    assert letter().send(fail_silently=True) == 0


def test_the_commit_is_that_of_the_database_that_is_named(outgoing: Path) -> None:
    connection = get_connection(on_commit="orders")
    abandon(lambda: connection.send_messages([letter("never@example.org")]), using="orders")
    abandon(lambda: connection.send_messages([letter()]), using="default")
    assert envelopes(outgoing) == TO_ANN


def test_a_connection_may_send_at_once_where_the_settings_say_on_commit(
    outgoing: Path, on_commit: None
) -> None:
    abandon(lambda: get_connection(on_commit=False).send_messages([letter()]))
    assert envelopes(outgoing) == TO_ANN


def test_where_commits_are_made_by_hand_nothing_is_sent_before(outgoing: Path, on_commit: None) -> None:
    transaction.set_autocommit(False)
    try:
        with pytest.raises(transaction.TransactionManagementError):
            letter().send()
    finally:
        transaction.set_autocommit(True)
    assert envelopes(outgoing) == []


def test_a_queue_that_fails_after_the_commit_leaves_the_rows(
    outgoing: Path, on_commit: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    Queue(str(outgoing))
    with transaction.atomic(), connections["default"].cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS orders (number)")
    monkeypatch.setattr(durable, "begin_file", Full(0))

    def place(*, fail_silently: bool) -> None:
        with transaction.atomic(), connections["default"].cursor() as cursor:
            cursor.execute("INSERT INTO orders VALUES (17)")
            letter().send(fail_silently=fail_silently)

    place(fail_silently=True)
    with pytest.raises(NoSpace):
        place(fail_silently=False)
    with connections["default"].cursor() as cursor:
        assert cursor.execute("SELECT count(*) FROM orders").fetchone() == (2,)
        cursor.execute("DROP TABLE orders")


def test_threads_send_in_transactions_of_their_own(outgoing: Path, on_commit: None) -> None:
    turns = threading.Barrier(8, timeout=30)

    def send(number: int) -> None:
        try:
            with suppress(Abandoned), transaction.atomic():
                connection.send_messages([letter(f"{number}@example.org", "all@example.org")])
                turns.wait()
                if number % 2:
                    raise Abandoned
        finally:
            connections.close_all()

    connection = get_connection()  # one for all
    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    sent = [one.recipient for one in envelopes(outgoing)]
    assert sent == sorted([*(f"{number}@example.org" for number in range(0, 8, 2)), *["all@example.org"] * 4])


def test_in_a_test_of_django_the_outbox_is_djangos_and_commits_are_captured(
    outgoing: Path, on_commit: None
) -> None:
    """As `manage.py test` and pytest-django have it."""

    class Orders(TestCase):  # type: ignore[misc]
        databases = {"default", "orders"}  # noqa: RUF012

        def test_mail_is_in_djangos_outbox(self) -> None:
            letter().send()
            assert [one.to for one in mail.outbox] == [["ann@example.org"]]

        def test_a_backend_that_is_named_waits_for_the_captured_commit(self) -> None:
            named = get_connection("maildefer.django.EmailBackend")
            with self.captureOnCommitCallbacks(execute=True) as callbacks:
                named.send_messages([letter()])
                assert envelopes(outgoing) == []
            assert len(callbacks) == 1
            assert envelopes(outgoing) == TO_ANN

        def test_what_no_capture_runs_is_never_sent(self) -> None:
            get_connection("maildefer.django.EmailBackend").send_messages([letter("never@example.org")])

    setup_test_environment()
    try:
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(Orders).run(result)
    finally:
        teardown_test_environment()
    assert (result.testsRun, result.errors, result.failures) == (3, [], [])
    assert envelopes(outgoing) == TO_ANN


class Outputs:
    """What a handler has sent, and is not in its queue yet."""

    def __init__(self) -> None:
        self.sent: list[Compose] = []

    def pushing(self, pusher: Pusher) -> Callable[[Compose], str]:
        def push(entry: Compose) -> str:
            self.sent.append(entry)
            return "key"

        return push


def test_what_a_handler_sends_waits_until_it_has_returned(outgoing: Path) -> None:
    outputs = Outputs()
    reset = current.set(outputs)
    try:
        assert letter("ann@example.org", "bob@example.org").send() == 1
    finally:
        current.reset(reset)
    assert len(outputs.sent) == 2
    assert envelopes(outgoing) == []
