from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maildefer.errors import MountFault
from maildefer.handling import handler_marks
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.limits.admission import FAULT_SECONDS, TOKEN_SECONDS
from maildefer.handling.outcomes import (
    ACKED,
    NO_ROUTE,
    Buried,
    Defer,
    Deferred,
    HandedOff,
    Outcome,
    Postponed,
    Reject,
)
from maildefer.handling.routes import RoutingBase
from maildefer.handling.state.directory import DirectoryStorage
from maildefer.handling.state.storage import MemoryStorage
from maildefer.mail import MailRequest
from maildefer.message.smtp_error import SMTPError

Action = Callable[..., object]


class Project:
    """A router of its own, with handlers that note their calls."""

    def __init__(self) -> None:
        self.router = RoutingBase()
        self.ran: list[str] = []

    def add(
        self,
        name: str,
        action: Action = lambda message, **groups: None,
        *,
        regex: str = "^.*$",
        stateless: bool = True,
        nolocking: bool = False,
    ) -> Callable[..., Any]:
        module, _, state = name.rpartition(".")

        def function(message: MailRequest, **groups: str) -> object:
            self.ran.append(name)
            return action(message, **groups)

        function.__module__, function.__name__ = module, state
        if stateless:
            handler_marks.mark_stateless(function)
        if nolocking:
            handler_marks.mark_nolocking(function)
        self.router.register_route(regex, function)
        return function

    def dispatch(self, message: MailRequest | None = None, **options: Any) -> tuple[Outcome, str]:
        return Dispatcher(self.router, **options).dispatch(message or mail())

    def state(self, module: str = "m", message: MailRequest | None = None) -> str:
        return self.router.get_state(module, message or mail(key=None))


@pytest.fixture
def project() -> Project:
    return Project()


def mail(to: str = "post@osb", sender: str = "ann@example.org", key: str | None = "KEY1") -> MailRequest:
    message = MailRequest("peer", sender, to, b"Subject: x\n\nhi\n")
    message.key = key
    return message


def raising(error: BaseException) -> Action:
    def action(message: MailRequest, **groups: str) -> object:
        raise error

    return action


# What a queue sees


def test_a_handler_that_returns_is_acked_under_its_full_name(project: Project) -> None:
    project.add("workers.index.START")
    assert project.dispatch() == (ACKED, "workers.index.START")


def test_named_groups_reach_the_handler(project: Project) -> None:
    got: list[dict[str, str]] = []
    project.add("m.START", lambda message, **groups: got.append(groups), regex="^(?P<name>.+)@(osb)$")
    project.dispatch(mail("post@osb"))
    assert got == [{"name": "post"}]


def test_what_a_handler_does_to_its_named_groups_reaches_no_other_message(project: Project) -> None:
    """What an address has matched is kept for the next message to it."""
    got: list[dict[str, str]] = []

    def emptying(message: MailRequest, **groups: str) -> None:
        got.append(dict(groups))
        groups.clear()

    project.add("m.FIRST", emptying, regex="^(?P<name>.+)@(osb)$")
    project.add("m.SECOND", emptying, regex="^(?P<name>.+)@(osb)$")
    dispatcher = Dispatcher(project.router)
    for _ in range(2):
        dispatcher.dispatch(mail("post@osb"))
    for _, groups in project.router.match("post@osb"):
        groups.clear()
    project.router.deliver(mail("post@osb"))
    assert got == [{"name": "post"}] * 6


def test_each_queue_sees_only_the_functions_of_its_own_modules(project: Project) -> None:
    project.add("workers.posting.START")
    project.add("workers.index.START")
    assert project.dispatch(modules=["workers.index"]) == (ACKED, "workers.index.START")
    assert project.ran == ["workers.index.START"]


def test_without_modules_all_are_seen(project: Project) -> None:
    project.add("workers.posting.START")
    project.add("workers.index.START")
    assert project.dispatch() == (ACKED, "workers.posting.START,workers.index.START")


def test_each_handler_is_told_of_before_it_runs(project: Project) -> None:
    told: list[tuple[str, list[str]]] = []
    project.add("m.ONE")
    project.add("m.TWO", raising(ValueError("odd")))
    project.dispatch(running=lambda name, seconds, most: told.append((name, list(project.ran))))
    assert told == [("m.ONE", []), ("m.TWO", ["m.ONE"])]


def test_no_matching_route_is_buried(project: Project) -> None:
    project.add("m.START", regex="^other$")
    assert project.dispatch() == (Buried(NO_ROUTE), "")
    assert project.dispatch(modules=["elsewhere"]) == (Buried(NO_ROUTE), "")


def test_a_message_without_a_recipient_is_buried(project: Project) -> None:
    project.add("m.START", regex="^.+$")
    assert project.dispatch(MailRequest("p", "", "", b"")) == (Buried(NO_ROUTE), "")


def test_routes_registered_later_are_seen(project: Project) -> None:
    dispatcher = Dispatcher(project.router)
    assert dispatcher.dispatch(mail()) == (Buried(NO_ROUTE), "")
    project.add("m.START")
    assert dispatcher.dispatch(mail()) == (ACKED, "m.START")
    project.router.clear_routes()
    assert dispatcher.dispatch(mail()) == (Buried(NO_ROUTE), "")


def test_matches_names_all_functions_for_an_address(project: Project) -> None:
    project.add("m.START", stateless=False)
    project.add("m.END", stateless=False)
    project.add("m.OTHER", regex="^other$")
    assert Dispatcher(project.router).matches("post@osb") == ["m.START", "m.END"]


# Outcomes


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Defer("later", after=60), Deferred("later", 60)),
        (Defer("later"), Deferred("later")),
        (Reject("no such blog"), Buried("no such blog")),
        (SMTPError(451, "busy"), Deferred("451 busy")),
        (SMTPError(550, "unknown"), Buried("550 unknown")),
    ],
)
def test_what_a_handler_asks_for_by_raising_is_its_outcome(
    project: Project, error: Exception, outcome: Outcome
) -> None:
    project.add("m.START", raising(error))
    assert project.dispatch() == (outcome, "m.START")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("boom"),
        SystemExit("boom"),
        KeyboardInterrupt("boom"),
        GeneratorExit("boom"),
        MemoryError("boom"),
        RecursionError("boom"),
        SMTPError(250, "boom"),
    ],
)
def test_any_exception_is_a_failure_with_its_traceback_and_ends_no_worker(
    project: Project, error: BaseException
) -> None:
    project.add("m.START", raising(error))
    outcome, handler = project.dispatch()
    assert handler == "m.START"
    assert isinstance(outcome, Deferred)
    assert outcome.after_seconds is None
    assert outcome.module == "m"
    assert outcome.error is not None
    assert type(error).__name__ in outcome.error
    assert "boom" in outcome.reason
    assert outcome.detail is not None
    assert "in action" in outcome.detail


def test_an_exception_without_a_text_is_a_failure_too(project: Project) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("cannot say")

    project.add("m.START", raising(Mute()))
    outcome, _ = project.dispatch()
    assert isinstance(outcome, Deferred)


def test_a_handler_that_does_not_take_what_the_route_gives_is_a_failure(project: Project) -> None:
    project.add("m.START", lambda message: None, regex="^(?P<name>.*)$")
    outcome, _ = project.dispatch()
    assert isinstance(outcome, Deferred)
    assert "name" in str(outcome.error)


def test_all_matching_handlers_run_and_the_worst_outcome_counts(project: Project) -> None:
    project.add("m.ONE", raising(Defer("later")))
    project.add("m.TWO", raising(Reject("never")))
    project.add("m.THREE", raising(ValueError("boom")))
    project.add("m.FOUR")
    assert project.dispatch() == (Buried("never"), "m.ONE,m.TWO,m.THREE,m.FOUR")
    assert project.ran == ["m.ONE", "m.TWO", "m.THREE", "m.FOUR"]


def test_a_failure_is_worse_than_a_deferral_and_that_than_a_handoff(project: Project) -> None:
    project.add("n.NEXT", regex="^elsewhere$")
    project.add("m.ONE", lambda message: "n.NEXT")
    assert project.dispatch()[0] == HandedOff("n", "NEXT")
    project.add("m.TWO", raising(Defer("later")))
    assert project.dispatch()[0] == Deferred("later")
    project.add("m.THREE", raising(ValueError("boom")))
    assert getattr(project.dispatch()[0], "error", None) == "ValueError: boom"


# Conversations


def test_only_the_first_function_in_its_modules_state_runs(project: Project) -> None:
    project.add("m.OTHER", stateless=False)
    project.add("m.START", stateless=False)
    project.add("n.START", stateless=False)
    assert project.dispatch() == (ACKED, "m.START")


def test_a_returned_function_is_the_next_state(project: Project) -> None:
    END = project.add("m.END", stateless=False)
    project.add("m.START", lambda message: END, stateless=False)
    assert project.dispatch() == (ACKED, "m.START")
    assert project.state() == "END"
    assert project.dispatch() == (ACKED, "m.END")
    assert project.state() == "END"


def test_a_stateful_function_sees_what_a_stateless_one_before_it_set(project: Project) -> None:
    project.add("m.LATER", stateless=False, regex="^never$")
    project.add("m.END", stateless=False)
    project.add("m.MOVE", lambda message: project.router.set_state("m", message, "LAST"))
    project.add("m.LAST", stateless=False)
    assert project.dispatch() == (ACKED, "m.MOVE,m.LAST")


def test_a_result_that_means_nothing_is_a_failure(project: Project) -> None:
    project.add("m.START", lambda message: "done", stateless=False)
    outcome, _ = project.dispatch()
    assert isinstance(outcome, Deferred)
    assert "'done'" in str(outcome.error)


def test_a_sender_in_a_state_without_a_function_is_buried_with_another_reason_than_no_route(
    project: Project,
) -> None:
    project.add("m.START", stateless=False)
    project.router.set_state("m", mail(key=None), "ERROR")
    outcome, handler = project.dispatch()
    assert isinstance(outcome, Buried)
    assert (outcome.reason, handler) == ("no handler in the sender's state", "")


def test_a_failure_keeps_the_state_so_that_the_retry_finds_its_handler(project: Project) -> None:
    project.add("m.START", raising(ValueError("boom")), stateless=False)
    project.dispatch()
    assert project.state() == "START"
    assert project.dispatch()[1] == "m.START"


def test_when_the_entry_is_buried_after_a_failure_its_conversation_is_in_error(project: Project) -> None:
    project.add("m.START", raising(ValueError("boom")), stateless=False)
    dispatcher = Dispatcher(project.router)
    outcome, _ = dispatcher.dispatch(mail())
    dispatcher.buried(mail(), outcome)
    assert project.state() == "ERROR"


@pytest.mark.parametrize("error", [Reject("never"), Defer("later"), SMTPError(550, "no")])
def test_what_a_handler_asked_for_does_not_lead_to_error(project: Project, error: Exception) -> None:
    project.add("m.START", raising(error), stateless=False)
    dispatcher = Dispatcher(project.router)
    dispatcher.buried(mail(), dispatcher.dispatch(mail())[0])
    assert project.state() == "START"


def test_a_module_without_state_functions_gets_no_error_state(project: Project) -> None:
    project.add("m.START", raising(ValueError("boom")))
    dispatcher = Dispatcher(project.router)
    dispatcher.buried(mail(), dispatcher.dispatch(mail())[0])
    assert project.state() == "START"


def test_a_retry_runs_the_handler_of_the_first_try_again(project: Project, tmp_path: Path) -> None:
    project.router.STATE_STORE = DirectoryStorage(str(tmp_path))
    END = project.add("m.END", stateless=False)
    project.add("m.START", lambda message: END, stateless=False)
    assert project.dispatch(mail(key="KEY1"))[1] == "m.START"
    assert project.dispatch(mail(key="KEY1"))[1] == "m.START"
    assert project.dispatch(mail(key="KEY2"))[1] == "m.END"


def test_a_state_store_that_cannot_be_read_postpones_uncharged(project: Project) -> None:
    class Broken(MemoryStorage):
        def get(self, key: str, sender: str | None) -> str:
            raise MountFault("/states", OSError(5, "Input/output error"))

    project.router.STATE_STORE = Broken()
    project.add("m.START", stateless=False)
    outcome, _ = project.dispatch()
    assert isinstance(outcome, Postponed)
    assert outcome.seconds == FAULT_SECONDS
    assert project.ran == []


def test_a_state_that_cannot_be_read_after_a_handler_ran_is_a_failure(project: Project) -> None:
    class Broken(MemoryStorage):
        def get(self, key: str, sender: str | None) -> str:
            raise MountFault("/states", OSError(5, "Input/output error"))

    project.router.STATE_STORE = Broken()
    project.add("m.FIRST")
    project.add("m.START", stateless=False)
    outcome, handler = project.dispatch()
    assert isinstance(outcome, Deferred)
    assert outcome.error is not None
    assert handler == "m.FIRST"


def test_a_store_of_the_users_that_fails_ends_no_worker(project: Project) -> None:
    class Broken(MemoryStorage):
        def set(self, key: str, sender: str | None, state: str) -> None:
            raise ConnectionError("database away")

    project.router.STATE_STORE = Broken()
    END = project.add("m.END", stateless=False, regex="^never$")
    project.add("m.START", lambda message: END, stateless=False)
    outcome, _ = project.dispatch()
    assert isinstance(outcome, Deferred)
    assert outcome.error == "ConnectionError: database away"
    Dispatcher(project.router).buried(mail(), outcome)


# Tokens


class Tokens:
    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.held: list[str] = []
        self.log: list[str] = []

    def take_token(self, conversation: str) -> bool:
        if any(part in conversation for part in self.refused):
            return False
        self.held.append(conversation)
        self.log.append(conversation)
        return True

    def release_token(self, conversation: str) -> None:
        self.held.remove(conversation)


def test_a_conversation_is_handled_under_its_token(project: Project) -> None:
    tokens = Tokens()
    held: list[list[str]] = []
    project.add("m.START", lambda message: held.append(list(tokens.held)), stateless=False)
    project.dispatch(tokens=tokens)
    assert held == [["['m', 'ann@example.org']"]]
    assert tokens.held == []


def test_a_token_in_other_hands_postpones_before_anything_runs(project: Project) -> None:
    tokens = Tokens("'n'")
    project.add("m.FIRST")
    project.add("m.START", stateless=False)
    project.add("n.START", stateless=False)
    outcome, handler = project.dispatch(tokens=tokens)
    assert isinstance(outcome, Postponed)
    assert (outcome.seconds, handler) == (TOKEN_SECONDS, "")
    assert project.ran == []
    assert tokens.held == []


def test_tokens_are_given_back_after_a_failure(project: Project) -> None:
    tokens = Tokens()
    project.add("m.START", raising(SystemExit()), stateless=False)
    project.dispatch(tokens=tokens)
    assert len(tokens.log) == 1
    assert tokens.held == []


def test_stateless_and_nolocking_handlers_need_no_token(project: Project) -> None:
    tokens = Tokens()
    project.add("m.FIRST")
    project.add("m.START", stateless=False, nolocking=True)
    assert project.dispatch(tokens=tokens) == (ACKED, "m.FIRST,m.START")
    assert tokens.log == []


# Handoffs

QUEUES = {"workers.posting": ["run/queue"], "workers.index": ["run/posts"], "twice": ["run/a", "run/b"]}


def test_a_handoff_names_the_one_queue_that_lists_the_module(project: Project) -> None:
    project.add("workers.index.START")
    project.add("workers.posting.START", lambda message: "workers.index.START", stateless=False)
    outcome, handler = project.dispatch(modules=["workers.posting"], queues_of=QUEUES)
    assert outcome == HandedOff("workers.index", "START", "run/posts")
    assert handler == "workers.posting.START"


def test_a_stateless_handler_may_hand_off_too(project: Project) -> None:
    project.add("workers.index.START")
    project.add("workers.posting.START", lambda message: "workers.index.START")
    outcome, _ = project.dispatch(modules=["workers.posting"], queues_of=QUEUES)
    assert outcome == HandedOff("workers.index", "START", "run/posts")


def test_what_else_a_stateless_handler_returns_is_ignored(project: Project) -> None:
    project.add("m.START", lambda message: "all done.")
    assert project.dispatch() == (ACKED, "m.START")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("workers.index.MISSING", "no handler workers.index.MISSING"),
        ("workers.none.START", "no handler workers.none.START"),
        ("unlisted.START", "unlisted.START is in no queue"),
        ("twice.START", "twice.START is in several queues: run/a, run/b"),
    ],
)
def test_a_handoff_that_leads_nowhere_is_buried_with_its_reason(
    project: Project, target: str, reason: str
) -> None:
    for name in ("workers.index.START", "unlisted.START", "twice.START"):
        project.add(name, regex="^never$")
    project.add("workers.posting.START", lambda message: target, stateless=False)
    outcome, _ = project.dispatch(queues_of=QUEUES)
    assert isinstance(outcome, Buried)
    assert outcome.reason == reason


@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_a_state_function_that_is_handed_to_gets_the_message(
    project: Project, tmp_path: Path, kind: str
) -> None:
    if kind == "directory":
        project.router.STATE_STORE = DirectoryStorage(str(tmp_path))
    project.add("workers.index.START", stateless=False)
    project.add("workers.index.REBUILD", stateless=False)
    project.add("workers.posting.START", lambda message: "workers.index.REBUILD", stateless=False)
    message = mail(key="KEY1")
    assert isinstance(project.dispatch(message, modules=["workers.posting"])[0], HandedOff)
    assert project.dispatch(message, modules=["workers.index"]) == (ACKED, "workers.index.REBUILD")
    assert project.state("workers.posting") == "START"


def test_a_handoff_outdone_by_a_worse_outcome_moves_no_state(project: Project) -> None:
    project.add("workers.index.REBUILD", stateless=False, regex="^never$")
    project.add("workers.posting.START", lambda message: "workers.index.REBUILD", stateless=False)
    project.add("workers.posting.LOG", raising(Defer("later")))
    assert project.dispatch(modules=["workers.posting"])[0] == Deferred("later")
    assert project.state("workers.index") == "START"


def test_a_message_that_is_handed_on_to_two_queues_is_buried_and_told_where_it_was_to_go(
    project: Project,
) -> None:
    queues = {"n": ["run/n"], "o": ["run/o"]}
    for name in ("n.N1", "o.O1"):
        project.add(name, regex="^never$")
    project.add("m.A1", lambda message: "n.N1")
    project.add("m.A2", lambda message: "o.O1")
    outcome, handlers = project.dispatch(queues_of=queues)
    assert handlers == "m.A1,m.A2"
    assert isinstance(outcome, Buried)
    assert outcome.reason == (
        "handed on to several places: n.N1 (run/n), o.O1 (run/o): let one handler hand on, "
        "and the others push a copy into the queue that they mean, or call a task"
    )


def test_handoffs_to_one_queue_are_one(project: Project) -> None:
    queues = {"n": ["run/n"], "o": ["run/n"]}
    for name in ("n.N1", "o.O1"):
        project.add(name, regex="^never$")
    project.add("m.A1", lambda message: "n.N1")
    project.add("m.A2", lambda message: "o.O1")
    assert project.dispatch(queues_of=queues)[0] == HandedOff("n", "N1", "run/n")


def test_of_handoffs_to_one_queue_the_state_is_begun_whichever_comes_first(project: Project) -> None:
    project.add("n.N1", regex="^never$")
    project.add("n.REBUILD", regex="^never$", stateless=False)
    project.add("m.A1", lambda message: "n.N1")
    project.add("m.A2", lambda message: "n.REBUILD")
    outcome, _ = project.dispatch(modules=["m"], queues_of={"n": ["run/n"]})
    assert outcome == HandedOff("n", "REBUILD", "run/n")
    assert project.state("n") == "REBUILD"


def test_handoffs_to_two_states_are_buried_since_one_of_them_would_never_run(project: Project) -> None:
    for name in ("n.ONE", "n.OTHER"):
        project.add(name, regex="^never$", stateless=False)
    project.add("m.A1", lambda message: "n.ONE")
    project.add("m.A2", lambda message: "n.OTHER")
    outcome, _ = project.dispatch(modules=["m"], queues_of={"n": ["run/n"]})
    assert isinstance(outcome, Buried)
    assert "n.ONE (run/n), n.OTHER (run/n)" in outcome.reason
    assert project.state("n") == "START"


def test_a_message_that_is_to_come_again_is_not_buried_for_its_handoffs(project: Project) -> None:
    for name in ("n.N1", "o.O1"):
        project.add(name, regex="^never$")
    project.add("m.A1", lambda message: "n.N1")
    project.add("m.A2", lambda message: "o.O1")
    project.add("m.A3", raising(Defer("later")))
    assert project.dispatch(queues_of={"n": ["run/n"], "o": ["run/o"]})[0] == Deferred("later")


# Cost


def test_a_stateless_handler_that_does_nothing_costs_few_calls(project: Project, tmp_path: Path) -> None:
    def START(message: MailRequest, post_name: str, host: str) -> None: ...

    handler_marks.mark_stateless(START)
    project.router.register_route(r"^(?P<post_name>[a-z0-9]+)@(?P<host>osb\.example)$", START)
    project.router.STATE_STORE = DirectoryStorage(str(tmp_path))
    dispatcher = Dispatcher(project.router, [__name__])
    message = mail("post@osb.example")
    assert dispatcher.dispatch(message)[0] is ACKED
    calls: list[str] = []
    sys.setprofile(lambda frame, event, arg: calls.append(event) if event in ("call", "c_call") else None)
    try:
        dispatcher.dispatch(message)
    finally:
        sys.setprofile(None)
    # dispatch, its table, match, the walk, groupdict, run, the lock twice, the handler; and setprofile itself;
    # and for the context of the log: copy, run and what it runs, begin, set
    assert len(calls) <= 20, calls
