"""The files that come with a message: name, type and bytes."""

from __future__ import annotations

import pytest

from maildefer.mail import MailRequest, MailResponse


def received(data: bytes) -> MailRequest:
    return MailRequest("peer", "ann@x", "bob@x", data)


def sent(*names: str) -> MailRequest:
    made = MailResponse(To="a@x", From="b@x", Subject="s", Body="text", Html="<p>text")
    for name in names:
        made.attach(filename=name, content_type="application/pdf", data=b"\xff\x00" + name.encode())
    return received(made.to_bytes())


def test_attachments_have_name_type_and_bytes() -> None:
    request = sent("Überweisung.pdf", "plan.pdf")
    assert [(one.filename, one.content_type, one.data) for one in request.attachments] == [
        ("Überweisung.pdf", "application/pdf", b"\xff\x00" + "Überweisung.pdf".encode()),
        ("plan.pdf", "application/pdf", b"\xff\x00plan.pdf"),
    ]
    assert sent().attachments == []
    answer = MailResponse(To="a@x", From="b@x", Subject="s", Body="text")
    for one in request.attachments:
        answer.attach(filename=one.filename, content_type=one.content_type, data=one.data)
    assert received(answer.to_bytes()).attachments == request.attachments


@pytest.mark.parametrize(
    ("told", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\\\temp\\\\x.txt", "x.txt"),
        (".bashrc", "bashrc"),
        ("..", "attachment.pdf"),
        ("a\tb?.pdf", "a_b_.pdf"),
        ("x\u202efdp.exe", "x_fdp.exe"),
        ("con: <1>|2.pdf", "con_ _1__2.pdf"),
        ("é" * 200 + ".pdf", "é" * 73 + ".pdf"),
        ("x." + "y" * 300, "x." + "y" * 148),
        (" ", "attachment.pdf"),
    ],
)
def test_a_name_is_made_safe(told: str, safe: str) -> None:
    data = f'Content-Type: application/pdf\nContent-Disposition: attachment; filename="{told}"\n\nx'.encode()
    [found] = received(data).attachments
    assert found.filename == safe
    assert len(found.filename.encode()) <= 150


def test_names_are_told_apart_also_where_case_does_not_count() -> None:
    names = [one.filename for one in sent("a.pdf", "A.pdf", "a.pdf", "a-2.pdf").attachments]
    assert names == ["a.pdf", "A-2.pdf", "a-3.pdf", "a-2-2.pdf"]


def test_what_is_a_file_and_what_is_text() -> None:
    request = received(
        b"Content-Type: multipart/mixed; boundary=b\n\n"
        b"--b\nContent-Type: text/plain\n\nthe text\n"
        b"--b\nContent-Type: text/html\n\n<p>the text\n"
        b"--b\nContent-Type: text/plain; name=notes.txt; charset=latin-1\n\nn\xf8tes\r\n\n"
        b"--b\nContent-Type: text/csv\nContent-Disposition: attachment\n\na,b\n"
        b"--b\nContent-Type: image/png\nContent-Transfer-Encoding: base64\nContent-Disposition: inline\n\n/w==\n"
        b"--b\nContent-Type: (null)\nContent-Disposition: attachment; filename=x\n\nwhat\n"
        b"--b\nContent-Type: message/rfc822\n\nSubject:  as  it is\n\ninner\n"
        b"--b--\n"
    )
    assert [(one.filename, one.content_type, one.data) for one in request.attachments] == [
        ("notes.txt", "text/plain", b"n\xf8tes\r\n"),
        ("attachment.csv", "text/csv", b"a,b"),
        ("attachment.png", "image/png", b"\xff"),
        ("x", "application/octet-stream", b"what"),
        ("attachment.eml", "message/rfc822", b"Subject:  as  it is\n\ninner"),
    ]


def test_many_files_of_one_name_cost_what_they_are() -> None:
    part = b"--b\nContent-Type: image/png; name=x.png\n\nx\n"
    request = received(b"Content-Type: multipart/mixed; boundary=b\n\n" + part * 3000 + b"--b--\n")
    assert len({one.filename for one in request.attachments}) == 3000


def test_a_message_that_is_nothing_but_a_file_has_one() -> None:
    [found] = received(b"Content-Type: application/pdf; name*=utf-8''%C3%A9.pdf\n\nx").attachments
    assert (found.filename, found.data) == ("é.pdf", b"x")
    assert received(b"Subject: x\n\ntext").attachments == []
    assert received(b"").attachments == []


@pytest.mark.parametrize(
    "told",
    [
        b'filename="a\0b.p\0df"',
        b"filename=\0ab.pdf",
        b"filename*=utf-8''a%00b.pdf",
        b'filename="=?utf-8?q?a=00b.pdf?="',
        b"x=y; filename*0=\0a; filename*1=b.pdf\0",
    ],
)
def test_a_nul_in_a_name_is_taken_out_wherever_the_name_is_read(told: bytes) -> None:
    request = received(b"Content-Type: application/pdf\nContent-Disposition: attachment; " + told + b"\n\nx")
    assert [one.filename for one in request.attachments] == ["ab.pdf"]
    assert request.base.content_encoding["Content-Disposition"][1]["filename"] == "ab.pdf"


def test_a_nul_in_a_name_does_not_go_out() -> None:
    answer = MailResponse(To="ann@x", From="bob@x", Subject="x", Body="y")
    answer.attach(filename="a\0b.pdf", content_type="application/pdf", data=b"x")
    assert b"\0" not in answer.to_bytes()
    assert [one.filename for one in received(answer.to_bytes()).attachments] == ["ab.pdf"]
