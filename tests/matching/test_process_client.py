"""Matching by other processes, for threads that no signal reaches."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from maildefer.errors import RouteUntried
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.limits.admission import FAULT_SECONDS
from maildefer.handling.outcomes import ACKED, Buried, Deferred, Outcome, Postponed
from maildefer.matching import index, process, process_client
from tests.lifecycle.project import eventually
from tests.matching.test_many_routes import ENDLESS, ENDLESS_ADDRESS, mail, router
from tests.sampling import one_fast

SECONDS = 0.05


@pytest.fixture(autouse=True)
def _rest() -> Iterator[None]:
    with process_client.ended_afterwards():
        yield
    assert process_client.pids() == []


def compiled(regex: str) -> re.Pattern[str]:
    return re.compile(regex, re.IGNORECASE)


def matched(regex: str, address: str) -> dict[str, str | None] | None:
    found = process_client.matches([compiled(regex)], regex, address, 30)
    assert found is not None
    return None if found[0] is None else found[0].groupdict()


def is_too_slow(seconds: float = SECONDS) -> bool:
    return process_client.matches([compiled(ENDLESS)], ENDLESS, ENDLESS_ADDRESS, seconds) is None


def kill_all() -> bool:
    for pid in process_client.pids():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # just now
            pass
    return True


class Dispatched(threading.Thread):
    """One message, in a thread of its own."""

    def __init__(self, dispatcher: Dispatcher, to: str) -> None:
        super().__init__()
        self.outcome: Outcome | None = None
        self._work: Callable[[], Outcome] = lambda: dispatcher.dispatch(mail(to))[0]
        self.start()

    def run(self) -> None:
        self.outcome = self._work()

    def ended(self) -> Outcome | None:
        self.join(60)
        assert not self.is_alive()
        return self.outcome


@pytest.mark.parametrize(
    ("regex", "address"),
    [
        ("^(?P<a>x)(?P<b>y)?(z)(?P<c>.*)$", "XZ@Example"),
        ("^(?P<a>.+)@(?P<b>.*)$", "gr\u00fc\u00dfe@\U0001f4ec.example"),
        ("^(?P<a>.)(?P<b>.)(?P<c>.+)$", "\ud83d\udcec\udc80\n\0"),
        ("^(?P<a>(?P<b>a|b)+)(?(b)c|d)(?P<d>)$", "abac"),
        ("(?x)^ (?P<a> [a-k]+ ) $ # a comment", "a\u212a"),
        ("(?a)^(?P<a>\\w+)(?P<b>.*)$", "stra\u00dfe"),
        ("^(.+)$", "unnamed"),
        ("^a$", "b"),
        ("^(?P<a>.*)$", "x" * 300_000),
    ],
)
def test_captures_are_those_of_re(regex: str, address: str) -> None:
    found = compiled(regex).match(address)
    assert matched(regex, address) == (None if found is None else found.groupdict())


def test_several_are_matched_in_one_go() -> None:
    patterns = [compiled("^(?P<a>a)b$"), compiled("^b"), compiled("^a(?P<b>b)$")]
    found = process_client.matches(patterns, "table", "ab", 30)
    assert found is not None
    assert [each and each.groupdict() for each in found] == [{"a": "a"}, None, {"b": "b"}]


def test_one_that_takes_too_long_goes_on_with_the_next_address() -> None:
    assert is_too_slow()
    (pid,) = process_client.pids()
    assert matched("^(a+)+$", "aaa") == {}
    assert is_too_slow()
    assert process_client.pids() == [pid]


def test_one_that_was_killed_is_replaced() -> None:
    assert matched("^(?P<a>a+)+$", "aaa") == {"a": "aaa"}
    (pid,) = process_client.pids()
    os.kill(pid, signal.SIGKILL)
    assert matched("^(?P<a>a+)+$", "aa") == {"a": "aa"}
    assert pid not in process_client.pids()


def test_one_that_was_stopped_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_too_slow()
    (pid,) = process_client.pids()
    os.kill(pid, signal.SIGSTOP)
    start = process_client._MatchingProcesses._start

    def start_with_patience(them: process_client._MatchingProcesses) -> process_client._MatchingProcess:
        monkeypatch.setattr(process_client, "ANSWER_SECONDS", 60)
        return start(them)

    monkeypatch.setattr(process_client, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(process_client._MatchingProcesses, "_start", start_with_patience)
    assert is_too_slow()
    assert pid not in process_client.pids()


def test_a_message_on_which_they_die_comes_again_by_the_usual_backoff(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(index, "LIMIT_SECONDS", 60)
    dispatched = Dispatched(Dispatcher(router(ENDLESS)[0]), ENDLESS_ADDRESS)
    eventually(lambda: kill_all() and not dispatched.is_alive(), "its end")
    outcome = dispatched.ended()
    assert isinstance(outcome, Deferred)
    assert outcome.error is not None
    assert ENDLESS in outcome.reason


FAILING = "^((x)|y|z)*+$"  # in some versions of `re`, on "xyz": gh-101955 of CPython's


def ended_in(work: Callable[[], object]) -> object:
    try:
        return work()
    except (SystemError, RouteUntried) as fault:
        return fault


def test_what_re_itself_fails_on_is_not_the_end_of_a_process() -> None:
    here = ended_in(lambda: compiled(FAILING).match("xyz"))
    there = ended_in(lambda: matched(FAILING, "xyz"))
    assert isinstance(there, RouteUntried) == isinstance(here, SystemError)
    assert not isinstance(there, RouteUntried) or (there.failed and str(here) in str(there))
    (pid,) = process_client.pids()
    assert matched("^a$", "b") is None
    assert process_client.pids() == [pid]


def test_where_no_process_can_be_started_the_message_waits_uncharged(monkeypatch: pytest.MonkeyPatch) -> None:
    dispatcher = Dispatcher(router(ENDLESS)[0])
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    outcome = Dispatched(dispatcher, "aa@x").ended()
    assert isinstance(outcome, Postponed)
    assert outcome.seconds == FAULT_SECONDS
    assert "/nonexistent/python" in outcome.reason
    with pytest.raises(RouteUntried) as caught:
        matched(ENDLESS, "aa@x")
    assert not caught.value.failed
    monkeypatch.undo()
    assert Dispatched(dispatcher, "aa@x").ended() is ACKED


@pytest.mark.slow
def test_many_threads_match_at_once_and_two_processes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "LIMIT_SECONDS", SECONDS)
    made, called = router("^(?P<name>(a+)+)@x$")
    dispatcher = Dispatcher(made)
    addresses = [ENDLESS_ADDRESS, "aa@x", "b@x"] * 4
    outcomes = [thread.ended() for thread in [Dispatched(dispatcher, address) for address in addresses]]
    assert [isinstance(outcome, Buried) for outcome in outcomes] == [True, False, True] * 4
    assert all("takes more than" in str(outcome) for outcome in outcomes[::3])
    assert all("no route" in str(outcome) for outcome in outcomes[2::3])
    assert called == [("^(?P<name>(a+)+)@x$", {"name": "aa"})] * 4
    assert 1 <= len(process_client.pids()) <= process_client.KEPT


def test_nobody_waits_behind_a_hostile_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "LIMIT_SECONDS", 60)
    dispatcher = Dispatcher(router(ENDLESS)[0])
    hostile = Dispatched(dispatcher, ENDLESS_ADDRESS)
    eventually(process_client.pids, "a process for the hostile address")
    assert Dispatched(dispatcher, "aa@x").ended() is ACKED
    assert hostile.is_alive()
    eventually(lambda: kill_all() and not hostile.is_alive(), "the end of the hostile address")


def test_routes_of_harmless_shape_need_no_process() -> None:
    dispatcher = Dispatcher(router("^(?P<a>[a-z]+)-(?P<b>.+)@(?P<host>.+)$")[0])
    assert Dispatched(dispatcher, "a-b@x").ended() is ACKED
    assert process_client.pids() == []


def test_a_thread_that_blocks_all_signals_can_match_too() -> None:
    found: list[bool] = []

    def run() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        found.append(is_too_slow())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert found == [True]


FORK = """
import os, re, sys
from maildefer.matching import process_client as matchers
def matched(regex, address):
    return matchers.matches([re.compile(regex)], regex, address, 30)[0].groupdict()
assert matched("(?P<a>.)b", "ab") == {"a": "a"}
(pid,) = matchers.pids()
child = os.fork()
if child == 0:
    assert matchers.pids() == []
    assert matched("(?P<a>.)b", "cb") == {"a": "c"}
    assert matchers.pids() != [pid]
    sys.exit()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert matched("(?P<a>.)b", "db") == {"a": "d"}
assert matchers.pids() == [pid]
print(pid)
"""


def test_a_fork_has_processes_of_its_own_and_none_outlives_the_program() -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORK], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert not is_alive(int(ended.stdout))


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


KILLED = """
import re, threading, time
from maildefer.matching import process_client as matchers
ask = lambda: matchers.matches([re.compile("(a+)+@x")], "it", "a" * 60 + "@y", 1)
threading.Thread(target=ask).start()
while not matchers.pids():
    time.sleep(0.01)
print(*matchers.pids(), flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_a_match_without_end_does_not_outlive_a_program_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        program.kill()
    eventually(lambda: not is_alive(pid), "the end of its process")


DEAF = f"""
import signal
from maildefer.matching import process as matcher
matcher.GUARD_SECONDS = 0.05
signal.signal(signal.SIGVTALRM, signal.SIG_IGN)
matcher.answer([({ENDLESS!r}, 0)], {ENDLESS_ADDRESS!r}, 0.05)
"""


def test_a_match_that_looks_for_no_signal_is_ended_by_the_kernel() -> None:
    ended = subprocess.run([sys.executable, "-c", DEAF], timeout=60, check=False)
    assert ended.returncode == -signal.SIGPROF


@one_fast(
    "said",
    [
        b"[" * 100_000,
        b"1" + b"0" * 400,
        b"[NaN]",
        b"\xff",
        b"{}",
        b"[]",
        b"[[[0, 1], [0, 1], [0, 1]]]",
        b"[[[0, 1]]]",
        b"[[[0, 1], [0, 99]]]",
        b"[[[0, 1], [1, 0]]]",
        b"[[[0, 1], [true, null]]]",
        None,
    ],
)
def test_a_process_that_says_what_is_no_answer_is_ended_and_its_route_is_at_fault(
    said: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """None: that terabytes are to come."""
    frame = b"\xff" * 8 if said is None else len(said).to_bytes(8, "big") + said
    (tmp_path / "liar.py").write_text(f"import os, time\nos.write(0, {frame!r})\ntime.sleep(60)\n")
    monkeypatch.setattr(process, "__file__", str(tmp_path / "liar.py"))
    with pytest.raises(RouteUntried, match="no answer"):
        matched("^(?P<a>x)$", "x")
    assert process_client.pids() == []
    assert capfd.readouterr().err.count("child.misbehaved") == 2
    monkeypatch.undo()
    assert matched("^(?P<a>x)$", "x") == {"a": "x"}
