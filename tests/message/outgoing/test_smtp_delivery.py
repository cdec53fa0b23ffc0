"""What a relay does with a server's replies: who is tried again, where, and who is not."""

from __future__ import annotations

import email
import json
import os
import re
import smtplib
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from maildefer import log_context
from maildefer.digest import blake2b
from maildefer.handling.outcomes import Buried, Deferred
from maildefer.handling.results import outcome_of
from maildefer.mail import MailRequest, MailResponse
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.system import SYSTEM
from maildefer.maildir.upkeep.sweep import SENT_SECONDS, WATCHED_SECONDS, Sweeper
from maildefer.message.outgoing.refusals import DataRefused, RecipientsRefused, SenderRefused
from maildefer.message.outgoing.relay import Relay
from maildefer.server import SMTPError
from tests.message.outgoing.test_relay import Resolver
from tests.support import next_server

KEY = "1712345678.M123456P1234Q7Rdeadbeef.mx-0a1b2c,S=20"
THREE = ["a@x", "b@x", "c@x"]
Script = dict[str, Any]


class Servers(Relay):
    """A relay to servers that answer by script: a reply by recipient, or by host what is raised at the connection."""

    def __init__(self, script: Script, *, host: str | None = "h", lmtp: bool = False) -> None:
        super().__init__(host, lmtp=lmtp)
        self.script = script
        self.asked: list[tuple[str, list[str]]] = []
        self.copies: dict[str, list[bytes]] = {}

    def configure_relay(self, hostname: str) -> Any:
        if (fault := self.script.get(hostname)) is not None:
            self.asked.append((hostname, []))
            raise fault
        return SimpleNamespace(
            ehlo_or_helo_if_needed=lambda: None,
            has_extn=lambda name: True,
            quit=lambda: None,
            close=lambda: None,
            sendmail=lambda *sent: self._sent(hostname, *sent),
        )

    def _sent(
        self, host: str, sender: str, recipients: list[str], data: bytes, options: list[str]
    ) -> dict[str, tuple[int, bytes]]:
        self.asked.append((host, recipients))
        if isinstance(fault := self.script.get("data"), Exception):
            raise fault
        found = {one: self.script.get(f"{one} at {host}") or self.script.get(one) for one in recipients}
        refused = {one: (code, b"no") for one, code in found.items() if code}
        if len(refused) == len(recipients):
            raise smtplib.SMTPRecipientsRefused(refused)
        for one in recipients:
            if one not in refused:
                self.copies.setdefault(one, []).append(data)
        return refused


@pytest.fixture
def queue(tmp_path: Path) -> str:
    return create_queue(f"{tmp_path}/run/queue").path


def attempt(
    queue: str,
    handler: Callable[[MailRequest], object],
    number: int = 1,
    name: str = "m.START",
    key: str = KEY,
    came: str = "Subject: s\n\n",
) -> Exception | None:
    """As a worker would, on any host and after any crash: with a request of its own."""
    request = MailRequest("peer", "ann@x", "list@x", came)
    request.key, request.attempt, request.queue = key, number, queue

    def handle(request: MailRequest) -> Exception | None:
        log_context.begin_handler(request, name)
        try:
            handler(request)
        except Exception as fault:  # noqa: BLE001  # whatever comes
            return fault
        return None

    return log_context.run_handlers(handle, request)


def response(subject: str = "S") -> MailResponse:
    return MailResponse(To=THREE, From="list@lists.example", Subject=subject, Body="text")


def test_who_has_taken_it_gets_no_copy_more_while_another_is_tried_again(queue: str) -> None:
    servers = Servers({"b@x": 450})
    for number in (1, 2, 3):
        fault = attempt(queue, lambda _: servers.deliver(response()), number)
        assert isinstance(outcome_of(fault, "m") if fault else None, Deferred)
        assert isinstance(fault, smtplib.SMTPRecipientsRefused)
        assert fault.recipients == {"b@x": (450, b"no")}
    servers.script.clear()
    assert attempt(queue, lambda _: servers.deliver(response()), 4) is None
    assert attempt(queue, lambda _: servers.deliver(response()), 5) is None  # something else has failed since
    assert {one: len(copies) for one, copies in servers.copies.items()} == {"a@x": 1, "c@x": 1, "b@x": 2}
    assert [asked for _, asked in servers.asked] == [THREE, ["b@x"], ["b@x"], ["b@x"], ["b@x"]]


def test_each_message_of_a_handler_is_remembered_by_itself(queue: str) -> None:
    servers = Servers({"b@x": 450})

    def two(_: MailRequest) -> None:
        for subject in ("S", "S", "T"):
            try:
                servers.deliver(response(subject))
            except SMTPError as fault:
                kept = fault
        raise kept

    attempt(queue, two)
    attempt(queue, two, 2)
    attempt(queue, lambda _: servers.deliver(response()), 1, name="m.OTHER")
    attempt(queue, lambda _: servers.deliver(response()), 1, key="2" + KEY)
    assert [asked for _, asked in servers.asked] == [THREE] * 3 + [["b@x"]] * 3 + [THREE] * 2


def test_a_message_to_which_another_has_given_the_same_key_keeps_nothing_from_being_sent(queue: str) -> None:
    """As a broken front end can; nor do its copies pass for copies of the other, by their Message-ID."""
    servers = Servers({"b@x": 450})
    attempt(queue, lambda _: servers.deliver(response()), came="Subject: s\n\nevil\n")
    attempt(queue, lambda _: servers.deliver(response()))
    assert [asked for _, asked in servers.asked] == [THREE, THREE]
    first, second = (email.message_from_bytes(data)["Message-ID"] for data in servers.copies["a@x"])
    assert first != second


def test_what_a_version_has_recorded_that_knew_messages_by_their_keys_counts_still(queue: str) -> None:
    """While its last attempts are tried again, and not beyond the record that follows."""
    servers = Servers({"b@x": 450})
    attempt(queue, lambda _: servers.deliver(response()))
    [name] = os.listdir(f"{queue}/.maildefer/sent")
    facts = ["m.START", "list@lists.example", THREE, "Subject: S\r"]
    former = f"{KEY.partition(',')[0]}.{blake2b(json.dumps(facts).encode(), digest_size=9).hexdigest()}.1"
    os.rename(
        f"{queue}/.maildefer/sent/{name}", f"{queue}/.maildefer/sent/{former},{name.rpartition(',')[2]}"
    )
    attempt(queue, lambda _: servers.deliver(response()), 2)
    assert [asked for _, asked in servers.asked] == [THREE, ["b@x"]]
    [after] = os.listdir(f"{queue}/.maildefer/sent")
    assert after.rpartition(",")[0] == name.rpartition(",")[0]


def test_a_final_refusal_of_one_is_final_and_the_others_keep_their_copy(queue: str) -> None:
    servers = Servers({"b@x": 550})
    fault = attempt(queue, lambda _: servers.deliver(response()))
    assert isinstance(fault, RecipientsRefused)
    assert outcome_of(fault, "m") == Buried("550 b@x: no")
    assert sorted(servers.copies) == ["a@x", "c@x"]


def test_a_final_refusal_is_not_asked_for_again_while_another_recipient_is_tried(queue: str) -> None:
    servers = Servers({"a@x": 550, "b@x": 450})
    fault = attempt(queue, lambda _: servers.deliver(response()))
    assert isinstance(fault, SMTPError)
    assert str(fault) == "450 a@x: 550 no; b@x: 450 no"
    servers.script.clear()
    fault = attempt(queue, lambda _: servers.deliver(response()), 2)
    assert str(fault) == "550 a@x: no"
    assert [asked for _, asked in servers.asked] == [THREE, ["b@x"]]
    # The dead letter is requeued once the address is there.
    assert attempt(queue, lambda _: servers.deliver(response()), 1) is None
    assert {one: len(copies) for one, copies in servers.copies.items()} == {"a@x": 1, "b@x": 1, "c@x": 1}


@pytest.mark.parametrize(
    ("script", "kind", "outcome"),
    [
        ({"a@x": 550}, RecipientsRefused, Buried("550 a@x: no")),
        ({"a@x": 450}, RecipientsRefused, Deferred("450 a@x: no")),
        ({"data": smtplib.SMTPDataError(554, b"spam")}, DataRefused, Buried("554 spam")),
        ({"data": smtplib.SMTPDataError(451, b"later")}, DataRefused, Deferred("451 later")),
        (
            {"data": smtplib.SMTPSenderRefused(553, b"not you", "s@x")},
            SenderRefused,
            Buried("553 s@x: not you"),
        ),
        ({"data": smtplib.SMTPSenderRefused(-1, b"gone", "s@x")}, SenderRefused, Deferred("451 s@x: gone")),
    ],
)
def test_a_reply_of_5yz_is_final_and_one_of_4yz_is_not(
    queue: str, script: Script, kind: type, outcome: object
) -> None:
    def deliver(_: object = None) -> None:
        Servers(script).deliver(b"Subject: x\r\n\r\n", To="a@x", From="s@x")

    fault = attempt(queue, deliver)
    assert isinstance(fault, kind)
    assert outcome_of(fault, "m") == outcome  # type: ignore[arg-type]
    with pytest.raises(smtplib.SMTPException) as raised:  # in a program it is smtplib's own, as in Salmon
        deliver()
    assert isinstance(fault, type(raised.value))
    assert not isinstance(raised.value, SMTPError)


@pytest.mark.parametrize(
    "fault",
    [
        OSError("refused"),
        smtplib.SMTPAuthenticationError(535, b"no such password"),
        smtplib.SMTPConnectError(554, b"no service"),
    ],
)
def test_what_is_no_word_on_the_message_is_the_handlers_failure(fault: Exception) -> None:
    with pytest.raises(type(fault)) as raised:
        Servers({"h": fault}).deliver(response())
    assert isinstance(outcome_of(raised.value, "m"), Deferred)


def test_in_a_program_it_behaves_as_ever_and_notes_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    servers = Servers({"b@x": 450})
    for _ in range(2):
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            servers.deliver(response())
    assert [asked for _, asked in servers.asked] == [THREE, THREE]
    assert list(tmp_path.iterdir()) == []


def test_who_sends_to_one_recipient_or_is_refused_by_none_leaves_no_file(queue: str) -> None:
    servers = Servers({"b@x": 450})
    attempt(queue, lambda _: servers.deliver(response(), To="b@x"))
    servers.script.clear()
    attempt(queue, lambda _: servers.deliver(response()))
    assert not os.path.exists(f"{queue}/.maildefer/sent")


def test_a_note_that_cannot_be_written_is_told(queue: str) -> None:
    Path(f"{queue}/.maildefer/sent").touch()
    servers = Servers({"b@x": 450})
    fault = attempt(queue, lambda _: servers.deliver(response()))
    assert isinstance(fault, NotADirectoryError)  # before anything was sent: it could not be known who has it
    assert servers.asked == []
    os.unlink(f"{queue}/.maildefer/sent")
    os.rename(f"{queue}/.maildefer", f"{queue}/away")
    fault = attempt(queue, lambda _: servers.deliver(response()))
    assert isinstance(fault, SMTPError)
    assert "could not be noted" in fault.__notes__[0]


def test_notes_are_swept_when_no_message_can_be_tried_for_so_long(queue: str) -> None:
    servers = Servers({"b@x": 450})
    attempt(queue, lambda _: servers.deliver(response()))
    [name] = os.listdir(f"{queue}/.maildefer/sent")
    assert name.startswith(KEY.partition(",")[0] + ".")
    clock = [0.0]
    system: Any = SimpleNamespace(**{name: getattr(SYSTEM, name) for name in dir(SYSTEM) if name[0] != "_"})
    system.boottime = lambda: clock[0]
    sweeper = Sweeper(Layout(queue), system=system)
    now = os.stat(f"{queue}/.maildefer/sent/{name}").st_mtime
    sweeper.sweep(now)
    clock[0] = WATCHED_SECONDS + 1
    sweeper.sweep(now + SENT_SECONDS - 100)
    assert os.listdir(f"{queue}/.maildefer/sent") == [name]
    sweeper.sweep(now + SENT_SECONDS + 100)
    assert os.listdir(f"{queue}/.maildefer/sent") == []


def test_each_exchanger_is_tried_in_order_until_one_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dns.resolver", Resolver)
    servers = Servers({"a.example": OSError("refused"), "r@two.example at b": 451}, host=None)
    servers.deliver(b"x: y\r\n\r\n", To=["r@two.example", "s@two.example"], From="s@x")
    assert servers.asked == [
        ("a.example", []),
        ("b", ["r@two.example", "s@two.example"]),
        ("c.example", ["r@two.example"]),
    ]
    assert {one: len(copies) for one, copies in servers.copies.items()} == {
        "r@two.example": 1,
        "s@two.example": 1,
    }
    servers = Servers({"r@two.example": 550}, host=None)
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        servers.deliver(b"x: y\r\n\r\n", To=["r@two.example"], From="s@x")
    assert servers.asked == [("a.example", ["r@two.example"])]


def test_a_connection_that_breaks_off_while_it_sends_is_followed_by_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first host may have taken the message."""
    monkeypatch.setitem(sys.modules, "dns.resolver", Resolver)
    servers = Servers({"data": smtplib.SMTPServerDisconnected("gone")}, host=None)
    with pytest.raises(smtplib.SMTPServerDisconnected):
        servers.deliver(b"x: y\r\n\r\n", To=["r@two.example"], From="s@x")
    assert len(servers.asked) == 1


def test_a_host_that_is_away_keeps_the_message_from_no_other_hosts_recipients(
    queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Relay, "relay_hosts", lambda self, to: [to.partition("@")[2]])
    servers = Servers({"away": OSError("refused")}, host=None)
    mail = MailResponse(To=["a@away", "b@here"], From="s@x", Subject="x", Body="y")
    for number in (1, 2):
        fault = attempt(queue, lambda _: servers.deliver(mail), number)
        assert str(fault) == "451 a@away: OSError: refused"
    assert servers.asked == [("away", []), ("here", ["b@here"]), ("away", [])]


def test_by_lmtp_each_recipients_verdict_is_remembered(queue: str) -> None:
    servers = Servers({"b@x": 452}, lmtp=True)
    attempt(queue, lambda _: servers.deliver(response()))
    attempt(queue, lambda _: servers.deliver(response()), 2)
    assert [asked for _, asked in servers.asked] == [["a@x"], ["b@x"], ["c@x"], ["b@x"]]


def fields(data: bytes) -> tuple[str | None, str | None]:
    message = email.message_from_bytes(data)
    return message["Date"], message["Message-ID"]


def test_a_message_gets_a_date_and_an_id_that_stays_the_same_at_each_attempt(queue: str) -> None:
    servers = Servers({})
    for number in (1, 2):
        attempt(queue, lambda _: [servers.deliver(response()) for _ in "12"], number)
    stamps = [fields(data) for data in servers.copies["a@x"]]
    assert all(date and re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} \+0000", date) for date, _ in stamps)
    ids = [identity for _, identity in stamps]
    assert ids[:2] == ids[2:]
    assert ids[0] != ids[1]
    assert ids[0] is not None
    assert ids[0].startswith(f"<{KEY.partition(',')[0]}.")
    assert ids[0].endswith("@lists.example>")
    servers.deliver(response())
    servers.deliver(response())
    assert len({fields(data)[1] for data in servers.copies["a@x"]}) == 4


def test_a_date_and_an_id_that_are_there_are_kept_and_what_was_received_gets_none() -> None:
    servers = Servers({})
    mail = response()
    mail["Date"], mail["message-id"] = "yesterday", "<mine@x>"
    servers.deliver(mail)
    assert fields(servers.copies["a@x"][0]) == ("yesterday", "<mine@x>")
    received = b"Subject: x\r\n\r\nDate: in the text\r\n"
    servers.deliver(MailRequest("peer", "s@x", "r@x", received))
    assert servers.copies["r@x"] == [received]
    servers.deliver(b"no header\r\n", To="q@x", From="s@x")
    head, _, body = servers.copies["q@x"][0].partition(b"\r\n\r\n")
    assert (body, head.count(b"\r\n")) == (b"no header\r\n", 1)


def test_a_refusals_text_has_its_code_once() -> None:
    assert str(RecipientsRefused({"b@x": (550, b"no such user")})) == "550 b@x: no such user"
    both = RecipientsRefused({"a@x": (550, b"no such user"), "b@x": (450, b"later")})
    assert str(both) == "450 a@x: 550 no such user; b@x: 450 later"


def test_those_whom_a_closing_server_was_not_asked_about_have_not_taken_it() -> None:
    """With a 421 to the first of three, `smtplib` tells only of that one."""
    with next_server.running() as server:
        server.replies["RCPT"] = ["421 4.3.2 going down"]
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            Relay("127.0.0.1", server.port).deliver(b"Subject: s\r\n\r\n", To=THREE, From="s@x")
    assert refused.value.recipients.keys() == set(THREE)
    assert server.messages == []
