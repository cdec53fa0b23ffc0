"""Policies: what their answers mean, and that none of them can hold up or harm the front end."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from maildefer.errors import ConfigurationError
from maildefer.handling.outcomes import Defer, Reject
from maildefer.handling.policy.decide import PolicyFault, Session, decide
from maildefer.handling.policy.process import load
from maildefer.intake import replies
from maildefer.intake.access import policy_client
from maildefer.intake.access.policy_client import PolicyClient, PolicyQuestion
from maildefer.intake.client import Client
from maildefer.message.smtp_error import SMTPError
from tests.sampling import one_fast

PATIENCE_SECONDS = 120  # a busy machine starts a process slowly
CLIENT = Client(address="192.0.2.1", port=4242, helo="client.example", tls="TLSv1.3", user="ann")


def raising(fault: Exception) -> Callable[..., object]:
    def accept(session: Session, sender: str, recipient: str) -> object:
        raise fault

    return accept


@pytest.mark.parametrize(
    ("verdict", "reply"),
    [
        (None, None),
        (True, None),
        ("250 ok", None),
        (False, "550 5.7.1 refused by the policy of this server"),
        ("450 4.2.0 greylisted", "450 4.2.0 greylisted"),
        ("554 no", "554 5.7.1 no"),
        ("450 later, please", "450 4.7.1 later, please"),
        ("550 5.7.1 a\r\n250 forged\x00\x7f", "550 5.7.1 a 250 forged "),
        ("550 5.7.1 " + "x" * 9000, "550 5.7.1 " + "x" * 440),
    ],
)
def test_what_a_policy_returns_is_the_reply(verdict: object, reply: str | None) -> None:
    assert decide(lambda session, sender, recipient: verdict, Session(), "a@b", "c@d") == reply


@pytest.mark.parametrize(
    ("fault", "reply"),
    [
        (Defer("later"), "451 4.7.1 later"),
        (Reject("never\nmore"), "550 5.7.1 never more"),
        (SMTPError(452, "full"), "452 4.7.1 full"),
    ],
)
def test_a_policy_may_raise_what_a_handler_may(fault: Exception, reply: str) -> None:
    assert decide(raising(fault), Session(), "a@b", "c@d") == reply


@pytest.mark.parametrize("verdict", [0, 1, "", "yes", "350 what", "55", b"550 no", ["550 no"]])
def test_what_is_no_answer_is_a_fault_and_no_acceptance(verdict: object) -> None:
    with pytest.raises(PolicyFault):
        decide(lambda session, sender, recipient: verdict, Session(), "a@b", "c@d")


def test_a_session_of_another_version_is_read_as_far_as_it_is_known() -> None:
    assert Session.of({"address": "192.0.2.1", "new": 1}) == Session(address="192.0.2.1")


@pytest.mark.parametrize("name", ["accept", "nowhere.accept", "os.nothing", "os.sep"])
def test_a_policy_that_cannot_be_found_is_a_configuration_error(name: str) -> None:
    with pytest.raises(ConfigurationError):
        load(name)


# The processes

POLICY = """
import os, sys, time
from maildefer.routing import Defer

def accept(session, sender, recipient):
    match recipient.partition("@")[0]:
        case "no": return "554 5.7.1 not you"
        case "later": raise Defer("later")
        case "hang": time.sleep(60)
        case "crash": os._exit(9)
        case "bug": raise KeyError("bug")
        case "who": return f"554 5.7.1 {session.address} {session.helo} {session.tls} {session.user} {sender}"
        case "pid": return f"554 5.7.1 {os.getpid()}"
        case "loud": print("on standard output")
        case "say":
            os.write(int(sys.argv[2]), NONSENSE)
            time.sleep(60)
        case "twice": os.fork()
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mypolicy.py").write_text(POLICY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(policy_client, "_START_SECONDS", PATIENCE_SECONDS)
    return tmp_path


def ask(
    talk: Callable[[Callable[[str], Awaitable[str | None]], PolicyClient], Awaitable[None]],
    *,
    name: str = "mypolicy.accept",
    seconds: float = PATIENCE_SECONDS,
    processes: int = 1,
) -> None:
    async def run() -> None:
        policy = PolicyClient(name, seconds=seconds, processes=processes)

        async def asked(recipient: str) -> str | None:
            reply = await policy.ask(CLIENT, "a@b", recipient)
            return None if reply is None else str(reply)

        try:
            await talk(asked, policy)
        finally:
            await policy.close()

    asyncio.run(run())


def test_the_policy_of_the_project_is_asked_and_told_who_sends(project: Path) -> None:
    async def talk(asked, policy):
        assert await asked("yes@d") is None
        assert await asked("loud@d") is None
        assert await asked("no@d") == "554 5.7.1 not you"
        assert await asked("later@d") == "451 4.7.1 later"
        assert await asked("who@d") == "554 5.7.1 192.0.2.1 client.example TLSv1.3 ann a@b"

    ask(talk)


@pytest.mark.invariant(11)
def test_it_is_asked_in_another_process(project: Path) -> None:
    async def talk(asked, policy):
        assert int((await asked("pid@d")).split()[-1]) != os.getpid()

    ask(talk)


def test_an_exception_is_a_temporary_failure_and_leaves_the_process(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def talk(asked, policy):
        pid = await asked("pid@d")
        assert await asked("bug@d") == str(replies.NO_POLICY)
        assert await asked("pid@d") == pid

    ask(talk)
    told = capfd.readouterr().err
    assert "policy.failed" in told
    assert "KeyError" in told


@pytest.mark.slow
def test_a_crash_is_a_temporary_failure_and_another_process_takes_its_place(project: Path) -> None:
    async def talk(asked, policy):
        pid = await asked("pid@d")
        assert await asked("crash@d") == str(replies.NO_POLICY)
        assert await asked("yes@d") is None
        assert await asked("pid@d") != pid

    ask(talk)


@pytest.mark.slow
def test_a_policy_that_hangs_is_a_temporary_failure_and_holds_up_no_other(project: Path) -> None:
    async def talk(asked, policy):
        await asyncio.gather(asked("yes@d"), asked("yes@d"))
        hanging = asyncio.ensure_future(asked("hang@d"))
        assert [await asked("yes@d") for _ in range(20)] == [None] * 20
        assert not hanging.done()
        hanging.cancel()

    ask(talk, processes=2)


@pytest.mark.slow
def test_a_process_that_hangs_is_killed_after_the_time_limit(project: Path) -> None:
    async def talk(asked, policy):
        policy._seconds = PATIENCE_SECONDS
        pid = int((await asked("pid@d")).split()[-1])
        policy._seconds = 0.2
        assert await asked("hang@d") == str(replies.NO_POLICY)
        policy._seconds = PATIENCE_SECONDS
        assert await asked("yes@d") is None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    ask(talk)


def test_one_that_dies_while_nothing_is_asked_costs_no_recipient(project: Path) -> None:
    async def talk(asked, policy):
        pid = int((await asked("pid@d")).split()[-1])
        os.kill(pid, 9)
        while os.path.exists(f"/proc/{pid}"):
            await asyncio.sleep(0.01)
        assert await asked("yes@d") is None

    ask(talk)


def test_a_question_that_comes_as_its_process_is_gone_is_kept_for_another() -> None:
    async def run() -> None:
        policy = PolicyClient("nowhere.accept", seconds=1, processes=1)
        await policy.close()
        question = PolicyQuestion({}, recipient="c@d")
        policy._questions.put_nowait(question)
        reader, never = asyncio.StreamReader(), asyncio.ensure_future(asyncio.Event().wait())
        reader.feed_eof()
        assert await policy._next_question(reader, [never]) is None
        assert policy._questions.get_nowait() is question
        never.cancel()

    asyncio.run(run())


@pytest.mark.slow
def test_a_reload_replaces_the_processes(project: Path) -> None:
    async def talk(asked, policy):
        assert await asked("new@d") is None
        source = "def accept(session, sender, recipient):\n    return '554 5.7.1 new'\n"
        (project / "mypolicy.py").write_text(source)
        policy.reload()
        while await asked("new@d") is None:
            pass

    ask(talk)


@one_fast("source", ["1 / 0", "import sys; sys.exit()", "accept = 1"])
@pytest.mark.slow
def test_a_policy_that_cannot_be_loaded_accepts_nothing_and_is_tried_ever_more_slowly(
    project: Path, source: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (project / "mypolicy.py").write_text(source)

    async def talk(asked, policy):
        assert await asked("yes@d") == str(replies.NO_POLICY)
        assert policy._throttle.wait(policy._loop.time()) > 0
        assert await asked("yes@d") == str(replies.NO_POLICY)

    ask(talk)
    told = capfd.readouterr().err
    assert "mypolicy" in told
    assert "pool.throttled" in told


@one_fast(
    "nonsense",
    [
        b"[" * 60_000 + b"\n",
        b'{"number": 1' + b"0" * 400 + b', "reply": null}\n',
        b'{"number": NaN, "reply": null}\n',
        b"\xff\xfe\n",
        b"7\n",
        b"[]\n",
        b"x" * 70_000,
        b'{"number": 0, "reply": null}\n',
        b'{"number": -1, "fault": "no"}\n',
        b'{"number": 2, "reply": 7}\n{"number": 3, "reply": 7}\n',
        b'{"reply": null}\n',
        b'{"number": 2, "reply": "250 ok\\r\\n554 no"}\n',
    ],
)
@pytest.mark.slow
def test_what_is_no_answer_ends_its_process_and_its_recipient_is_to_come_again(
    project: Path, nonsense: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nested JSON, or a list, ended the task that serves: no question was ever answered again."""
    (project / "mypolicy.py").write_text(f"NONSENSE = {nonsense!r}\n{POLICY}")

    async def talk(asked, policy):
        pid = int((await asked("pid@d")).split()[-1])
        assert await asked("say@d") == str(replies.NO_POLICY)
        assert await asked("yes@d") is None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    ask(talk)
    told = capfd.readouterr().err
    assert "policy.failed" in told
    assert "it was killed" in told


@pytest.mark.slow
def test_the_answer_of_a_careless_fork_is_not_taken_for_the_next_ones(project: Path) -> None:
    async def talk(asked, policy):
        assert await asked("twice@d") is None
        # The fork's answer comes before one of the next, which is then refused for now; the process ends for it.
        after = Counter([await asked("no@d") for _ in range(4)])
        assert after.total() - after[str(replies.NO_POLICY)] == after["554 5.7.1 not you"] >= 3

    ask(talk)


@pytest.mark.parametrize("turns", range(5))
def test_a_task_that_is_cancelled_as_an_answer_comes_ends(turns: int) -> None:
    """Else a front end whose policy comes up while it ends would never end."""

    async def play() -> None:
        reader = asyncio.StreamReader()
        policy = PolicyClient.__new__(PolicyClient)
        reading = asyncio.get_running_loop().create_task(policy._read_answer(reader, PATIENCE_SECONDS))
        await asyncio.sleep(0.01)
        reader.feed_data(b'{"ready": true}\n')
        for _ in range(turns):
            await asyncio.sleep(0)
        if reading.cancel():  # it had not ended yet
            with pytest.raises(asyncio.CancelledError):
                await reading

    asyncio.run(play())
