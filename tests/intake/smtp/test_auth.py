"""AUTH: who a client is, by a file of hashed passwords or by a function of the project's."""

from __future__ import annotations

import base64
import os
import signal
import smtplib
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from maildefer.errors import ConfigurationError
from maildefer.intake import replies
from maildefer.intake.access import passwords
from maildefer.intake.replies import Reply
from maildefer.intake.smtp import sasl
from tests.support import certificates
from tests.support.front_end import FrontEnd, front_end, wait_until

Begin = Callable[..., AbstractContextManager[FrontEnd]]


def starter(folder: Path) -> Begin:
    """Starts front ends that know ann's password, `sesame`."""
    certificate = certificates.make(folder)
    known = {"ann": passwords.hashed("sesame"), "bøb": passwords.hashed("")}
    passwords.write(str(folder / "passwords"), known)

    @contextmanager
    def start(
        *arguments: str, kind: str = "smtps", known: str = "--auth-file=passwords"
    ) -> Iterator[FrontEnd]:
        trust = ("--tls-certificate", str(certificate), known)
        with front_end(folder, *trust, *arguments, kind=kind) as running:
            yield running

    return start


@pytest.fixture
def begin(tmp_path: Path) -> Begin:
    return starter(tmp_path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontEnd]:
    """One for all tests that look at replies only."""
    with starter(tmp_path_factory.mktemp("front"))() as running:
        yield running


def connect(server: FrontEnd) -> smtplib.SMTP_SSL:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = smtplib.SMTP_SSL("127.0.0.1", server.port, context=context, timeout=60)
    client.ehlo()
    return client


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.lifecycle
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_a_name_and_its_password_are_taken(begin: Begin, mechanism: str) -> None:
    with begin("--auth-required") as server:
        with connect(server) as client:
            assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]
            assert client.docmd("MAIL FROM:<a@b>") == (530, str(replies.AUTH_FIRST)[4:].encode())
            client.user, client.password = "ann", "sesame"
            client.auth(mechanism, getattr(client, f"auth_{mechanism.lower()}"))
            client.ehlo()
            assert not client.has_extn("auth")
            client.sendmail("a@b", "c@d", b"hi\r\n")
        (name,) = os.listdir(server.queue / "new")
        assert b" with ESMTPSA id " in (server.queue / "new" / name).read_bytes()
        assert "event=intake.authenticated" in server.log()


@pytest.mark.lifecycle
def test_without_an_initial_response_it_is_asked_for(begin: Begin) -> None:
    with begin() as server, connect(server) as client:
        assert client.docmd("AUTH PLAIN") == (334, b"")
        assert client.docmd(encoded("\0ann\0sesame"))[0] == 235
        assert client.docmd("AUTH PLAIN") == (503, str(replies.AUTH_NOT_NOW)[4:].encode())


@pytest.mark.lifecycle
@pytest.mark.parametrize(
    ("said", "reply"),
    [
        (["AUTH PLAIN " + encoded("\0ann\0Sesame")], replies.AUTH_FAILED),
        (["AUTH PLAIN " + encoded("\0ann\0")], replies.AUTH_FAILED),
        (["AUTH PLAIN " + encoded("\0nobody\0sesame")], replies.AUTH_FAILED),
        (["AUTH PLAIN " + encoded("bøb\0bøb\0")], "235 2.7.0"),
        (["AUTH PLAIN " + encoded("bob\0ann\0sesame")], replies.BAD_RESPONSE),
        (["AUTH PLAIN " + encoded("ann\0sesame")], replies.BAD_RESPONSE),
        (["AUTH PLAIN " + encoded("\0\0sesame")], replies.BAD_RESPONSE),
        (["AUTH PLAIN ann"], replies.BAD_RESPONSE),
        (["AUTH PLAIN ="], replies.BAD_RESPONSE),
        (["AUTH PLAIN", "*"], replies.AUTH_CANCELLED),
        (["AUTH PLAIN", "\xff"], replies.BAD_RESPONSE),
        (["AUTH LOGIN", encoded("ann"), "*"], replies.AUTH_CANCELLED),
        (["AUTH LOGIN " + encoded("ann"), encoded("sesame")], "235 2.7.0"),
        (["AUTH LOGIN", ""], replies.BAD_RESPONSE),
        (["AUTH CRAM-MD5"], replies.NO_MECHANISM),
        (["AUTH"], replies.NO_MECHANISM),
        (["MAIL FROM:<a@b>", "AUTH PLAIN"], replies.AUTH_NOT_NOW),
        (["MAIL FROM:<a@b> AUTH=x+40y"], replies.SENDER_OK),
    ],
)
def test_the_reply_to(server: FrontEnd, said: list[str], reply: Reply | str) -> None:
    with connect(server) as client:
        client.command_encoding = "latin-1"
        for line in said:
            code, text = client.docmd(line)
        assert f"{code} {text.decode()}".startswith(str(reply))
        assert client.noop()[0] == 250


@pytest.mark.lifecycle
def test_a_response_that_is_too_long_ends_the_exchange(server: FrontEnd) -> None:
    with connect(server) as client:
        assert client.docmd("AUTH PLAIN")[0] == 334
        code, text = client.docmd("A" * 20_000)
        assert f"{code} {text.decode()}" == str(replies.RESPONSE_TOO_LONG)
        assert client.mail("a@b")[0] == 250
        code, text = client.docmd("A" * 20_000)
        assert f"{code} {text.decode()}" == str(replies.LINE_TOO_LONG)


@pytest.mark.lifecycle
def test_no_password_is_taken_in_the_clear(begin: Begin) -> None:
    with begin(kind="smtp") as server, server.connect() as client:
        client.ehlo()
        assert not client.has_extn("auth")
        assert client.docmd("AUTH PLAIN " + encoded("\0ann\0sesame")) == (
            538,
            str(replies.TLS_FIRST_FOR_AUTH)[4:].encode(),
        )


@pytest.mark.lifecycle
def test_who_guesses_is_sent_away_and_no_password_is_logged(begin: Begin) -> None:
    with begin() as server:
        with connect(server) as client:
            answers = [client.docmd("AUTH PLAIN " + encoded(f"\0ann\0wrong-{n}"))[0] for n in range(3)]
            assert answers == [535, 535, 421]
            with pytest.raises(smtplib.SMTPServerDisconnected):
                client.noop()
        assert "wrong-" not in server.log()
        assert "user=ann" in server.log()


@pytest.mark.lifecycle
def test_passwords_are_read_again_at_hup_and_a_broken_file_is_not(begin: Begin, tmp_path: Path) -> None:
    path = tmp_path / "passwords"

    with begin() as server:

        def admitted(password: str) -> bool:
            with connect(server) as client:
                return client.docmd("AUTH PLAIN " + encoded(f"\0ann\0{password}"))[0] == 235

        assert admitted("sesame")
        passwords.write(str(path), {"ann": passwords.hashed("changed")})
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: admitted("changed"))
        assert not admitted("sesame")
        path.write_text("ann:changed\n")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "intake.stale" in server.log())
        assert admitted("changed")


@pytest.mark.lifecycle
@pytest.mark.invariant(11)
def test_a_function_of_the_projects_is_asked_in_a_process_of_its_own(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "known.py").write_text(
        "import os\n"
        "open('asked-in', 'w').write(str(os.getpid()))\n"
        "def check(user, password):\n"
        "    if user == 'broken':\n"
        "        raise OSError('the directory is down')\n"
        "    return (user, password) == ('ann', 'sésame')\n"
    )
    with begin(known="--auth-check=known.check") as server:
        for user, password, code in (("ann", "sésame", 235), ("ann", "sesame", 535), ("broken", "x", 454)):
            with connect(server) as client:
                assert client.docmd("AUTH PLAIN " + encoded(f"\0{user}\0{password}"))[0] == code
        assert (tmp_path / "asked-in").read_text() != str(server.process.pid)
        with connect(server) as client:  # nobody has said that any of these is wrong
            answers = [client.docmd("AUTH PLAIN " + encoded("\0broken\0x"))[0] for _ in range(4)]
            assert answers == [454] * 4


# The file


@pytest.mark.slow
def test_a_hash_matches_its_password_only() -> None:
    known = passwords.hashed("sésame")
    assert passwords.matches("sésame", known)
    assert not passwords.matches("sesame", known)
    assert known != passwords.hashed("sésame")
    with pytest.raises(ValueError, match="no hash"):
        passwords.matches("x", "$1$abc")


def test_what_is_written_is_read_and_is_the_owners_alone(tmp_path: Path) -> None:
    path, known = str(tmp_path / "passwords"), {"ann": passwords.hashed("a"), "b c": passwords.hashed("b")}
    passwords.write(path, known)
    assert passwords.read(path) == known
    assert os.stat(path).st_mode & 0o777 == 0o600
    os.chmod(path, 0o640)
    passwords.write(path, {})
    assert os.stat(path).st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["passwords"]


def test_a_file_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    path.write_text("# nobody yet\n\n")
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod o="):
        passwords.read(str(path))
    path.chmod(0o640)
    assert passwords.read(str(path)) == {}


HASH = "$scrypt$ln=1,r=8,p=1$c2FsdA$" + "A" * 43


@pytest.mark.parametrize(
    "text",
    [
        "ann",
        "ann:sesame",
        f":{HASH}",
        f"a{HASH}",
        f"ann:{HASH}\nann:{HASH}",
        "ann:$scrypt$ln=1,r=8$c2FsdA$AA",
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "passwords"
    path.write_text(f"bob:{HASH}\n{text}\n")
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=r"passwords, line [23]"):
        passwords.read(str(path))


# The dialogues


def test_a_dialogue_ends_with_a_claim() -> None:
    dialogue = sasl.login(None)
    assert base64.b64decode(next(dialogue)) == b"Username:"
    assert base64.b64decode(dialogue.send(encoded("ann"))) == b"Password:"
    with pytest.raises(StopIteration) as ended:
        dialogue.send(encoded("sesame"))
    assert ended.value.value == sasl.SaslIdentity("ann", "sesame")
