"""An answer names what it answers, says that a program wrote it, and is not sent to programs."""

from __future__ import annotations

import re
from typing import Any

import pytest

from maildefer import events, log_context, view
from maildefer.confirm import ConfirmationEngine, ConfirmationStorage
from maildefer.mail import MailRequest, MailResponse
from maildefer.message.mime.parser import headers_from_string
from maildefer.message.outgoing.relay import Relay
from maildefer.routing import Reject

ASKED = "Message-ID: <1@s.example>\nFrom: Ann <ann@s.example>\nSubject: Hello\n"


class Wire(Relay):
    """Keeps what would go over the network."""

    def __init__(self) -> None:
        super().__init__("mx")
        self.sent: list[tuple[str, list[str], bytes]] = []

    def configure_relay(self, hostname: str) -> Any:
        wire = self

        class Connection:
            def ehlo_or_helo_if_needed(self) -> None: ...
            def has_extn(self, name: str) -> bool:
                return True

            def quit(self) -> None: ...
            def sendmail(
                self, sender: str, recipients: list[str], data: bytes, options: list[str]
            ) -> dict[str, Any]:
                wire.sent.append((sender, recipients, data))
                return {}

        return Connection()

    def head(self, number: int = 0) -> Any:
        return headers_from_string(self.sent[number][2])


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def withheld(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(events, "emit", lambda event, **facts: told.append({"event": event, **facts}))
    return told


def asked(head: str = ASKED, sender: str = "ann@s.example", key: str = "1.M1P1") -> MailRequest:
    message = MailRequest("peer", sender, "post@osb.example", f"{head}\nText.\n")
    message.key, message.queue, message.attempt = key, "run/queue", 1
    return message


def answer(answers: MailRequest | None = None, **more: Any) -> MailResponse:
    given = {"To": "ann@s.example", "From": "post@osb.example", "Subject": "Re: Hello", "Body": "Yes."}
    response = MailResponse(**given | more)
    response.answers = answers
    return response


def handled(message: Any, send: Any) -> None:
    def handle(message: Any) -> None:
        log_context.begin_handler(message, "m.START")
        send()

    log_context.run_handlers(handle, message)


def test_what_a_handler_answers_names_the_message_and_says_that_a_program_wrote_it(wire: Wire) -> None:
    handled(asked(), lambda: wire.deliver(answer()))
    head = wire.head()
    assert head["In-Reply-To"] == head["References"] == "<1@s.example>"
    assert head["Auto-Submitted"] == "auto-replied"
    assert {"Date", "Message-Id"} <= set(head.keys())


def test_the_answer_of_a_later_attempt_is_the_same_message(wire: Wire) -> None:
    for _ in range(2):
        handled(asked(), lambda: wire.deliver(answer()))
    assert wire.head(0)["Message-Id"] == wire.head(1)["Message-Id"]
    assert wire.head(0)["References"] == wire.head(1)["References"]


@pytest.mark.parametrize(
    ("head", "references"),
    [
        ("References: <a@x> <b@x>\nIn-Reply-To: <b@x>\n", "<a@x> <b@x> <1@s.example>"),
        ("References: <a@x>\n <b@x>\n\t(a comment) <c@x>\n", "<a@x> <b@x> <c@x> <1@s.example>"),
        ("In-Reply-To: <b@x>\n", "<b@x> <1@s.example>"),
        ("In-Reply-To: <a@x> <b@x>\n", "<1@s.example>"),
        ("References: <a@x> <1@s.example> <a@x> <b@x>\n", "<a@x> <b@x> <1@s.example>"),
        (
            'References: <no at> <> <a@b@c> <a b@x> <ü@x> <(@x> <"a@x> <ok@x\n <ok@x>\n',
            "<ok@x> <1@s.example>",
        ),
        (f"References: <{'a' * 300}@x> <b@x>\n", "<b@x> <1@s.example>"),
    ],
)
def test_the_thread_goes_on_with_the_ids_that_are_in_order(wire: Wire, head: str, references: str) -> None:
    handled(asked(ASKED + head), lambda: wire.deliver(answer()))
    assert wire.head()["References"] == references


@pytest.mark.parametrize("id_", ["", "Message-ID: 1@s.example\n", "Message-ID: <a\n b@x>\n"])
def test_a_message_without_an_id_in_order_begins_no_thread(wire: Wire, id_: str) -> None:
    handled(asked(f"{id_}References: <a@x>\nFrom: ann@s.example\n"), lambda: wire.deliver(answer()))
    assert not {"In-Reply-To", "References"} & set(wire.head().keys())
    assert wire.head()["Auto-Submitted"] == "auto-replied"


def test_of_a_long_thread_the_first_and_the_last_are_named_in_short_lines(wire: Wire) -> None:
    chain = " ".join(f"<{number}.{'x' * 150}@s.example>" for number in range(30_000))
    handled(asked(f"{ASKED}References: {chain}\n"), lambda: wire.deliver(answer()))
    named = [one.partition(".")[0] for one in wire.head()["References"].split()]
    assert named == ["<0", *(f"<{number}" for number in range(29_982, 30_000)), "<1@s"]
    assert max(map(len, wire.sent[0][2].split(b"\r\n"))) < 998


def test_what_the_handler_has_set_itself_stays(wire: Wire) -> None:
    response = answer()
    response["In-Reply-To"], response["Auto-Submitted"] = "<other@x>", "auto-generated"
    handled(asked(), lambda: wire.deliver(response))
    assert wire.head()["In-Reply-To"] == "<other@x>"
    assert wire.head()["Auto-Submitted"] == "auto-generated"
    assert "References" not in wire.head()


def test_an_answer_to_reply_to_is_an_answer_too(wire: Wire) -> None:
    message = asked(f"{ASKED}Reply-To: Ann <Office@s.example>\n")
    handled(message, lambda: wire.deliver(answer(To="office@s.example")))
    assert wire.head()["In-Reply-To"] == "<1@s.example>"


@pytest.mark.parametrize(
    ("more", "to"),
    [
        ({"To": "bob@x.example"}, None),  # a notice to somebody else
        ({}, "bob@x.example"),  # a copy of an answer
        ({"To": "list@osb.example"}, "ann@s.example"),  # a list's copy for its author
        ({"From": "Ann <ann@s.example>"}, None),  # a person's mail that is passed on to its author
    ],
)
def test_what_is_passed_on_or_goes_to_others_is_no_answer(wire: Wire, more: dict[str, Any], to: Any) -> None:
    handled(asked(), lambda: wire.deliver(answer(**more), To=to))
    assert not {"In-Reply-To", "References", "Auto-Submitted"} & set(wire.head().keys())


@pytest.mark.parametrize(
    ("more", "to"),
    [
        ({"To": ["bob@x.example", "Ann@s.example"]}, None),
        ({}, ["bob@x.example", "ann@s.example"]),
        ({"To": "bob@x.example", "Cc": "ann@s.example"}, ["bob@x.example", "ann@s.example"]),
    ],
)
def test_an_answer_with_copies_for_others_is_an_answer(wire: Wire, more: dict[str, Any], to: Any) -> None:
    def send() -> None:
        response = answer(**{name: given for name, given in more.items() if name != "Cc"})
        if "Cc" in more:
            response["Cc"] = more["Cc"]
        wire.deliver(response, To=to)

    handled(asked(), send)
    assert (wire.head()["Auto-Submitted"], wire.head()["In-Reply-To"]) == ("auto-replied", "<1@s.example>")
    assert len(wire.sent[0][1]) == 2
    handled(asked(f"{ASKED}Precedence: bulk\n"), send)
    assert len(wire.sent) == 1


def test_a_received_message_and_bytes_are_passed_on_as_they_are(wire: Wire) -> None:
    message = asked()
    handled(message, lambda: wire.deliver(message, To="ann@s.example"))
    handled(message, lambda: wire.deliver(b"From: x@y\r\n\r\nhi\r\n", To="ann@s.example"))
    assert b"Auto-Submitted" not in wire.sent[0][2] + wire.sent[1][2]


def test_in_a_batch_the_one_message_of_the_recipient_is_answered(wire: Wire) -> None:
    batch = [
        asked(),
        asked("Message-ID: <2@s.example>\n", "bob@s.example"),
        asked("", "cy@s.example"),
        asked("", "cy@s.example"),
    ]
    handled(batch, lambda: wire.deliver(answer(To="bob@s.example")))
    handled(batch, lambda: wire.deliver(answer(To="cy@s.example")))  # which of the two?
    assert wire.head(0)["In-Reply-To"] == "<2@s.example>"
    assert "Auto-Submitted" not in wire.head(1)


def test_outside_of_handlers_reply_and_answers_say_what_is_answered(wire: Wire) -> None:
    message = asked()
    wire.reply(message, "post@osb.example", "Re: Hello", "Yes.")
    wire.deliver(answer(To="office@x.example", answers=message))
    wire.deliver(answer())
    assert ["Auto-Submitted" in wire.head(number) for number in range(3)] == [True, True, False]


def test_a_response_by_a_template_is_an_answer_if_it_goes_to_the_author(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Loader:
        def get_template(self, name: str) -> Any:
            return type("Template", (), {"render": lambda self, variables: "Yes."})()

    monkeypatch.setattr(view, "LOADER", Loader())
    message = asked()

    def send() -> None:
        wire.deliver(view.respond({"message": message}, "yes.msg"))
        wire.deliver(view.respond({"message": message}, "yes.msg"), To="admin@osb.example")

    handled(message, send)
    assert ["Auto-Submitted" in wire.head(number) for number in range(2)] == [True, False]


@pytest.mark.parametrize("sender", ["ann@s.example", "noreply@s.example"])
def test_an_automatic_message_is_not_answered_and_the_log_says_why(
    wire: Wire, withheld: list[dict[str, Any]], sender: str
) -> None:
    message = asked(f"{ASKED}Precedence: bulk\n", sender)
    handled(message, lambda: wire.deliver(answer(To=sender)))
    wire.reply(message, "post@osb.example", "Re: Hello", "Yes.")
    assert wire.sent == []
    sign = "Precedence: bulk" if sender.startswith("ann") else "sender noreply@s.example"
    assert [(one["event"], one["to"], one["sign"]) for one in withheld] == [
        ("answer.withheld", sender, sign)
    ] * 2
    assert withheld[0]["key"] == "1.M1P1"


def test_an_answer_that_says_itself_what_it_is_goes_to_automatic_mail_too(wire: Wire) -> None:
    response = answer()
    response["Auto-Submitted"] = "no"
    handled(asked(f"{ASKED}Precedence: bulk\n"), lambda: wire.deliver(response))
    assert wire.head()["Auto-Submitted"] == "no"


@pytest.mark.parametrize("copies", [[], ["c@c.example"]])
def test_two_projects_that_answer_everything_stop_after_one_answer_each(
    wire: Wire, copies: list[str]
) -> None:
    """Each hears of the other's messages as they are on the wire; neither asks whether a message is automatic."""

    def echo(message: MailRequest) -> None:
        to = [message.From, *copies]
        wire.deliver(MailResponse(To=to, From=message.To, Subject="Re", Body="Echo."), From=message.To)

    wire.deliver(MailResponse(To="b@b.example", From="a@a.example", Subject="Hello", Body="First."))
    for number in range(20):
        if number == len(wire.sent):
            break
        sender, recipients, data = wire.sent[number]
        for recipient in recipients:
            message = MailRequest("peer", sender, recipient, data)
            handled(message, lambda message=message: echo(message))
    assert [recipients for _, recipients, _ in wire.sent] == [["b@b.example"], ["a@a.example", *copies]]


def test_no_confirmation_is_asked_for_an_automatic_message(wire: Wire, tmp_path: Any) -> None:
    engine = ConfirmationEngine(f"{tmp_path}/pending", ConfirmationStorage())
    with pytest.raises(Reject, match=re.escape("Precedence: bulk")):
        engine.send(wire, "join", asked(f"{ASKED}Precedence: bulk\n"), "confirm.msg", {"host": "osb.example"})
    assert (wire.sent, len(engine.pending)) == ([], 0)
