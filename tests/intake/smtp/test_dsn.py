"""RFC 3461 at the front end: what is offered, refused, and kept with each entry."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.front_end import FrontEnd, front_end

pytestmark = pytest.mark.lifecycle
HELLO = b"EHLO client.example\r\n"
MAIL = HELLO + b"MAIL FROM:<a@b> RET=HDRS ENVID=QQ314\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontEnd]:
    folder = tmp_path_factory.mktemp("dsn")
    with front_end(folder, "--dsn", "--max-errors", "1000", "--buffer-bytes", "1000") as running:
        yield running


def last_code(server: FrontEnd, said: bytes) -> str:
    return server.speak(said).decode().split("\r\n")[-3]


def taken_since(server: FrontEnd, before: set[str]) -> dict[str, str]:
    """By recipient, what its new entry says."""
    envelopes = [envelope for envelope, _ in server.entries() if envelope is not None]
    return {one.recipient: one.dsn for one in envelopes if one.recipient not in before}


def test_ehlo_offers_dsn_where_the_project_sends_reports(server: FrontEnd) -> None:
    assert b"\r\n250-DSN\r\n" in server.speak(HELLO)


@pytest.mark.parametrize(
    "value",
    [
        b"ENVID=a+0D+0ARCPT",
        b"ENVID=" + b"x" * 101,
        b"ENVID=" + b"x" * 10_000,
        b"ENVID=a+2",
        b"RET=SOME",
        b"RET",
        b"RET=FULL RET=HDRS",
    ],
)
def test_wrong_parameters_of_mail_are_refused_with_501(server: FrontEnd, value: bytes) -> None:
    assert last_code(server, HELLO + b"MAIL FROM:<a@b> " + value + b"\r\n").startswith("501 5.5.4 ")


@pytest.mark.parametrize(
    "value",
    [
        b"NOTIFY=NEVER,SUCCESS",
        b"NOTIFY=SUCCESS,NEVER",
        b"NOTIFY=",
        b"NOTIFY",
        b"NOTIFY=SOMETIMES",
        b"NOTIFY=NEVER NOTIFY=NEVER",
        b"ORCPT=c@d",
        b"ORCPT=rfc822;c+0D+0ADATA@d",
        b"ORCPT=rfc822;" + b"c" * 10_000,
        b"ORCPT=rfc822;+FF@d",
    ],
)
def test_wrong_parameters_of_rcpt_are_refused_with_501(server: FrontEnd, value: bytes) -> None:
    assert last_code(server, MAIL + b"RCPT TO:<c@d> " + value + b"\r\n").startswith("501 5.5.4 ")


def test_parameters_of_the_other_command_are_not_known(server: FrontEnd) -> None:
    assert last_code(server, HELLO + b"MAIL FROM:<a@b> NOTIFY=NEVER\r\n").startswith("555 5.5.4 ")
    assert last_code(server, MAIL + b"RCPT TO:<c@d> RET=FULL\r\n").startswith("555 5.5.4 ")


@pytest.mark.parametrize("size", [10, 5000], ids=["small", "written while it comes"])
def test_each_entry_has_what_was_asked_for_its_recipient(server: FrontEnd, size: int) -> None:
    before = {envelope.recipient for envelope, _ in server.entries() if envelope is not None}
    one, two, three = (f"{name}{size}@osb.example" for name in ("one", "two", "three"))
    with server.connect() as client:
        client.ehlo()
        assert client.has_extn("dsn")
        client.mail("a@b", ["RET=FULL", "ENVID=QQ+2B314"])
        assert client.rcpt(one, ["NOTIFY=SUCCESS,DELAY", f"ORCPT=rfc822;{one}"])[0] == 250
        assert client.rcpt(two, ["NOTIFY=NEVER"])[0] == 250
        assert client.rcpt(three)[0] == 250
        assert client.data(b"Subject: x\r\n\r\n" + b"x\r\n" * (size // 3))[0] == 250
    assert taken_since(server, before) == {
        one: f"RET=FULL ENVID=QQ+2B314 NOTIFY=SUCCESS,DELAY ORCPT=rfc822;{one}",
        two: "RET=FULL ENVID=QQ+2B314 NOTIFY=NEVER",
        three: "RET=FULL ENVID=QQ+2B314",
    }


def test_the_next_transaction_begins_without_them(server: FrontEnd) -> None:
    before = {envelope.recipient for envelope, _ in server.entries() if envelope is not None}
    with server.connect() as client:
        client.sendmail("a@b", ["four@d"], b"x\r\n", ["RET=HDRS"], ["NOTIFY=NEVER"])
        client.sendmail("a@b", ["five@d", "six@d"], b"x\r\n", [], ["NOTIFY=FAILURE"])
        client.mail("a@b", ["RET=HDRS", "ENVID=1"])
        client.rset()
        client.sendmail("a@b", ["seven@d"], b"x\r\n")
    assert taken_since(server, before) == {
        "four@d": "RET=HDRS NOTIFY=NEVER",
        "five@d": "NOTIFY=FAILURE",
        "six@d": "NOTIFY=FAILURE",
        "seven@d": "",
    }


def test_lmtp_takes_them_too(tmp_path: Path) -> None:
    with front_end(tmp_path, "--dsn", kind="lmtp") as server:
        with smtplib.LMTP("127.0.0.1", server.port) as client:
            client.sendmail("a@b", ["c@d"], b"x\r\n", ["ENVID=1"], ["NOTIFY=NEVER"])
        assert taken_since(server, set()) == {"c@d": "ENVID=1 NOTIFY=NEVER"}
