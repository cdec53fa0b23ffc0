"""MailResponse: texts, attachments, headers."""

from __future__ import annotations

from pathlib import Path

import pytest

from maildefer.mail import MailRequest, MailResponse


def response(**more: str) -> MailResponse:
    return MailResponse(To="r@y.example", From="s@x.example", Subject="Hi", **more)


def types(message: MailResponse) -> list[str]:
    return [part.get_content_type() for part in message.to_message().walk()]


def test_one_text_makes_a_single_part() -> None:
    assert types(response(Body="text")) == ["text/plain"]
    assert types(response(Html="<p>")) == ["text/html"]
    assert types(response()) == ["text/plain"]
    assert not response(Body="text").multipart


def test_body_and_html_make_an_alternative() -> None:
    message = response(Body="text", Html="<p>")
    assert message.multipart
    assert types(message) == ["multipart/alternative", "text/plain", "text/html"]


def test_attachments_come_after_the_texts_and_building_can_be_repeated() -> None:
    message = response(Body="text", Html="<p>")
    assert types(message)[0] == "multipart/alternative"
    message.attach(filename="a.png", data=b"\x89PNG")
    for _ in range(2):
        assert types(message) == ["multipart/mixed", "text/plain", "text/html", "image/png"]
    assert str(message) == str(message)
    message.clear()
    assert types(message) == ["multipart/alternative", "text/plain", "text/html"]
    assert message["Subject"] == "Hi"


def test_a_response_turns_single_again_when_cleared() -> None:
    message = response(Body="text")
    message.attach(data=b"x", content_type="application/pdf")
    assert types(message) == ["multipart/mixed", "text/plain", "application/pdf"]
    message.clear()
    assert types(message) == ["text/plain"]
    assert message.to_message().get_payload() == "text"


def test_a_file_is_read_when_the_message_is_built_and_told_by_its_last_name(tmp_path: Path) -> None:
    file = tmp_path / "note.txt"
    file.write_text("early")
    message = response(Body="text")
    message.attach(filename=str(file))
    file.write_text("late")
    part = message.all_parts()[1]
    assert part.content_encoding["Content-Disposition"] == ("attachment", {"filename": "note.txt"})
    assert "late" in str(message)
    assert str(tmp_path) not in str(message)


def test_attaching_nothing_or_what_cannot_be_typed_is_refused() -> None:
    with pytest.raises(TypeError, match="nothing to attach"):
        response().attach()
    with pytest.raises(TypeError, match="nothing to attach"):
        response().attach(filename="/no/such/file", content_type="text/plain")
    with pytest.raises(ValueError, match="content_type"):
        response().attach(filename="no-suffix-at-all", data="x")
    with pytest.raises(ValueError, match="content_type"):
        response().attach(data="x")


def test_all_parts_of_a_received_message_survive_with_their_bytes() -> None:
    original = response(Body="text")
    original.attach(filename="a.bin", content_type="application/octet-stream", data=bytes(range(256)))
    request = MailRequest("p", None, None, str(original))
    forwarded = response()
    forwarded.attach_all_parts(request)
    again = MailRequest("p", None, None, forwarded.to_bytes())
    assert [part.body for part in again.all_parts()] == ["text", bytes(range(256))]
    assert len(request.all_parts()) == 2


def test_headers_are_set_decoded_and_cannot_add_another() -> None:
    message = response(Body="x")
    message.update({"X-One": "ä", "Subject": "a\r\nBcc: victim@x"})
    assert message["x-one"] == "ä"
    assert "bcc" not in message
    assert not any(line.lower().startswith("bcc:") for line in str(message).splitlines())
    assert message.keys() == ["To", "From", "X-One", "Subject", "Content-Type"]
    del message["X-One"]
    assert "X-One" not in message


def test_several_recipients_stand_in_one_header() -> None:
    assert MailResponse(To=["a@b", "c@d"], From="s@x")["To"] == "a@b, c@d"


def test_the_texts_are_what_they_were() -> None:
    message = response(Body="grüße\nvon hier", Html="<p>漢字</p>")
    request = MailRequest("p", None, None, message.to_bytes())
    assert [part.body for part in request.all_parts()] == ["grüße\nvon hier", "<p>漢字</p>"]
    assert message.to_bytes().isascii()


def test_a_body_set_later_is_not_bound_by_the_charset_of_an_earlier_one() -> None:
    message = response(Body="ascii")
    assert 'charset="us-ascii"' in str(message)
    message.Body = "žlutý"
    assert MailRequest("p", None, None, str(message)).body() == "žlutý"
