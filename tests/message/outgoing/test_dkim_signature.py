"""Signatures, verified by dkimpy as a receiving server would, against keys in a DNS of the test's own."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dkim
import pytest

from maildefer import log_context
from maildefer.errors import ConfigurationError
from maildefer.mail import MailRequest, MailResponse
from maildefer.message import authentication
from maildefer.message.authentication import TrustedServers
from maildefer.message.outgoing import dkim_signature
from maildefer.message.outgoing.dkim_signature import load_keys
from tests.message.outgoing.test_answer import Wire

HEAD = "Received: by mx\nFrom: Ann <ann@osb.example>\nMessage-ID: <1@osb.example>\n"


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "dkim.pem"
    made = subprocess.run(["openssl", "genrsa", "1024"], capture_output=True, check=True).stdout
    path.write_bytes(made)
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def record(pem: Path) -> bytes:
    command = ["openssl", "rsa", "-in", str(pem), "-pubout", "-outform", "DER"]
    der = subprocess.run(command, capture_output=True, check=True).stdout
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(der)


@pytest.fixture
def wire(pem: Path, monkeypatch: pytest.MonkeyPatch) -> Wire:
    config = {"osb.example": {"selector": "mail", "key": pem.name}}
    config["News.osb.example"] = {"selector": "2026", "key": str(pem), "domain": "osb.example"}
    monkeypatch.setattr(dkim_signature, "configured", load_keys(config, str(pem.parent)))
    return Wire()


def response(author: str = "post@osb.example", **more: Any) -> MailResponse:
    return MailResponse(
        **{"To": "bob@s.example", "From": author, "Subject": "Grüße", "Body": "Ja.\n\n."} | more
    )


def tags(data: bytes) -> dict[str, str]:
    assert data.startswith(b"DKIM-Signature:")
    head = data.split(b"\r\n\r\n")[0].replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ").split(b"\r\n")[0]
    pairs = (one.partition("=") for one in head.decode().partition(":")[2].split(";"))
    return {name.strip(): value.replace(" ", "") for name, _, value in pairs}


def verified(data: bytes, record: bytes, name: bytes = b"mail._domainkey.osb.example.") -> bool:
    return bool(dkim.verify(data, dnsfunc=lambda asked, timeout=5: record if asked == name else None))


def test_a_response_of_a_domain_with_a_key_is_signed(wire: Wire, record: bytes) -> None:
    message = response(Html="<p>Ja.</p>")
    message.attach(filename="a.bin", data=b"\0\xff" * 4000)
    wire.deliver(message)
    [(_, _, data)] = wire.sent
    assert verified(data, record)
    assert (tags(data)["d"], tags(data)["s"], tags(data)["c"]) == ("osb.example", "mail", "relaxed/relaxed")


def test_a_domain_may_sign_for_one_below_it(wire: Wire, record: bytes) -> None:
    wire.deliver(response("post@news.osb.example"))
    assert tags(wire.sent[0][2])["d"] == "osb.example"
    assert verified(wire.sent[0][2], record, b"2026._domainkey.osb.example.")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Ja.", b"Nein."),
        (b"To: bob@s.example", b"To: eve@s.example"),
        (b"MIME-Version", b"From: eve@osb.example\r\nMIME-Version"),
        (b"MIME-Version", b"Subject: other\r\nMIME-Version"),
        (b"MIME-Version", b"Reply-To: eve@s.example\r\nMIME-Version"),
        (b"MIME-Version", b"Cc: eve@s.example\r\nMIME-Version"),
        (b"MIME-Version", b"Date: Sat, 28 Nov 2026 11:00:00 +0000\r\nMIME-Version"),
    ],
)
def test_nothing_that_is_read_can_be_changed_or_added(
    wire: Wire, record: bytes, old: bytes, new: bytes
) -> None:
    wire.deliver(response())
    data = wire.sent[0][2].replace(b"Mime-Version", b"MIME-Version")
    assert verified(data, record)
    assert not verified(data.replace(old, new, 1), record)


def test_from_is_signed_once_more_than_it_is_there(wire: Wire) -> None:
    wire.deliver(response())
    signed = tags(wire.sent[0][2])["h"].split(":")
    assert [signed.count(name) for name in ("from", "to", "subject", "date", "cc")] == [2, 2, 2, 2, 1]


def test_a_line_may_be_added_above_and_a_field_folded_anew(wire: Wire, record: bytes) -> None:
    wire.deliver(response(Subject="a b"))
    data = wire.sent[0][2].replace(b"Subject: a b", b"subject:  a\r\n b")
    assert verified(b"Received: by mx.s.example\r\n" + data, record)


def test_an_answer_is_signed_with_its_thread(wire: Wire, record: bytes) -> None:
    asked = MailRequest("p", "bob@s.example", "post@osb.example", "Message-ID: <1@s.example>\n\n")
    answer = response()
    answer.answers = asked
    wire.deliver(answer)
    data = wire.sent[0][2]
    assert {"references", "in-reply-to", "auto-submitted"} <= set(tags(data)["h"].split(":"))
    assert verified(data, record)
    assert not verified(data.replace(b"References: <1@", b"References: <2@"), record)


@pytest.mark.parametrize("author", ["post@other.example", "post@sub.osb.example", '"a b"@osb.example', "x"])
def test_another_domains_mail_is_not_signed(wire: Wire, author: str) -> None:
    wire.deliver(response(author), From="post@osb.example")
    assert b"DKIM-Signature" not in wire.sent[0][2]


def test_what_was_received_is_not_signed_in_any_form(wire: Wire) -> None:
    request = MailRequest("p", "ann@osb.example", "bob@s.example", f"{HEAD}\nText.\n")
    request["Subject"] = "changed"
    for message in (request, request.to_message(), request.to_bytes(), str(request)):
        wire.deliver(message, To="bob@s.example")
    assert [b"DKIM-Signature" in data for _, _, data in wire.sent] == [False] * 4


def test_a_message_of_the_email_package_is_signed(wire: Wire, record: bytes) -> None:
    wire.deliver(response().to_message())
    assert verified(wire.sent[0][2], record)


@pytest.mark.parametrize("is_verified", [False, True])
@pytest.mark.parametrize("field", ["From: Ann <ann@osb.example>", 'From: "Ann, of osb" <Ann@osb.example>'])
def test_in_the_name_of_an_author_who_was_not_verified_nothing_is_signed(
    wire: Wire, record: bytes, monkeypatch: pytest.MonkeyPatch, is_verified: bool, field: str
) -> None:
    """As a list does, which sends on what came, from its author: a forgery would be signed by the author's domain."""
    monkeypatch.setattr(authentication, "configured", TrustedServers(servers=frozenset({"mx"})))
    word = "pass" if is_verified else "fail"
    head = f"Authentication-Results: mx; dmarc={word} header.from=osb.example\n{field}\n"
    message = MailRequest("p", "list-bounces@s.example", "list@osb.example", f"{head}\nText.\n")

    def handle(message: MailRequest) -> None:
        log_context.begin_handler(message, "m.START")
        wire.deliver(response(message["From"] or ""))
        wire.deliver(response("ann@osb.example"))
        wire.deliver(response("list@osb.example"))

    log_context.run_handlers(handle, message)
    assert [verified(data, record) for _, _, data in wire.sent] == [is_verified, is_verified, True]


@pytest.mark.parametrize(
    ("sender", "author", "domain"),
    [
        ("x@s.example", "Doe, Ann <ann@osb.example>", "osb.example"),  # no author that is read in one way
        ("ann@osb.example", "x@s.example", "s.example"),  # verified, and another's
    ],
)
def test_neither_is_it_in_the_name_of_an_address_that_only_stands_there(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, sender: str, author: str, domain: str
) -> None:
    monkeypatch.setattr(authentication, "configured", TrustedServers(servers=frozenset({"mx"})))
    head = f"Authentication-Results: mx; dmarc=pass header.from={domain}\nFrom: {author}\n"
    message = MailRequest("p", sender, "list@osb.example", f"{head}\nText.\n")

    def handle(message: MailRequest) -> None:
        log_context.begin_handler(message, "m.START")
        wire.deliver(response("ann@osb.example"))

    log_context.run_handlers(handle, message)
    assert b"DKIM-Signature" not in wire.sent[0][2]


def test_a_project_without_the_setting_imports_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dkim_signature, "signed", lambda message, data: pytest.fail("asked"))
    wire = Wire()
    wire.deliver(response())
    assert b"DKIM-Signature" not in wire.sent[0][2]


def test_a_key_that_is_not_there_or_not_a_key_is_named_at_load(pem: Path, tmp_path: Path) -> None:
    for name, text in {
        "garbage": b"garbage",
        "public": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "cut": pem.read_bytes()[:300],
        "empty": b"",
        "half": b"-----BEGIN RSA PRIVATE KEY-----\n!!!!\n-----END RSA PRIVATE KEY-----\n",
    }.items():
        (tmp_path / name).write_bytes(text)
        (tmp_path / name).chmod(0o600)
        with pytest.raises(
            ConfigurationError, match=f"dkim_config\\['osb.example'\\]: .*{name} is no RSA key.*openssl"
        ):
            load_keys({"osb.example": {"selector": "mail", "key": name}}, str(tmp_path))
    with pytest.raises(ConfigurationError, match="missing cannot be read: No such file"):
        load_keys({"osb.example": {"selector": "mail", "key": "missing"}}, str(tmp_path))
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        load_keys({"osb.example": {"selector": "mail", "key": "."}}, str(tmp_path))


def test_without_dkimpy_the_error_says_what_to_install(pem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dkim", None)
    with pytest.raises(ConfigurationError, match=r"dkimpy is missing: pip install 'maildefer\[dkim\]'"):
        load_keys({"osb.example": {"selector": "mail", "key": str(pem)}}, "/")


def test_a_key_that_any_user_can_read_is_refused(pem: Path, tmp_path: Path) -> None:
    path = tmp_path / "open.pem"
    path.write_bytes(pem.read_bytes())
    os.chmod(path, 0o644)
    with pytest.raises(ConfigurationError, match=f"any user can read the key {path}: chmod o= {path}"):
        load_keys({"osb.example": {"selector": "mail", "key": str(path)}}, "/")


@pytest.mark.parametrize("make", [["-traditional"], []])
def test_keys_in_both_forms_of_openssl_are_read_with_either_line_end(tmp_path: Path, make: list[str]) -> None:
    made = subprocess.run(["openssl", "genrsa", *make, "1024"], capture_output=True, check=True).stdout
    for data in (made, made.replace(b"\n", b"\r\n")):
        (tmp_path / "key").write_bytes(data)
        (tmp_path / "key").chmod(0o640)
        assert load_keys({"osb.example": {"selector": "mail", "key": "key"}}, str(tmp_path))


@pytest.mark.parametrize(
    ("domain", "entry"),
    [
        ("osb.example", None),
        ("osb.example", {"selector": "mail"}),
        ("osb.example", {"selector": "mail", "key": "k", "file": "x"}),
        ("osb.example", {"selector": "ma il", "key": "k"}),
        ("osb.example", {"selector": "mail;", "key": "k"}),
        ("osb_example\n", {"selector": "mail", "key": "k"}),
        ("osb.example", {"selector": "mail", "key": "k", "domain": "other.example"}),
        ("osb.example", {"selector": "mail", "key": "k", "domain": "sub.osb.example"}),
    ],
)
def test_a_setting_that_is_wrong_names_its_domain(domain: str, entry: Any) -> None:
    with pytest.raises(ConfigurationError, match="dkim_config"):
        load_keys({domain: entry}, "/")
