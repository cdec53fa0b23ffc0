from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from maildefer.bounce import bounce_to
from maildefer.errors import ConfigurationError
from maildefer.handling import handler_marks
from maildefer.handling.application import Application
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.handler_marks import MOST_MESSAGES
from maildefer.handling.outcomes import ACKED, NO_ROUTE, Buried, Deferred, HandedOff, Postponed
from maildefer.handling.project.settings import PoolSettings
from maildefer.handling.state.storage import MemoryStorage
from maildefer.mail import MailRequest
from maildefer.maildir.layout import Format, create_queue
from maildefer.maildir.names import EntryName
from maildefer.message.smtp_error import SMTPError
from maildefer.pool.receiver.consumer import Consumer
from maildefer.queue import Queue
from maildefer.routing import Defer, Reject, Router, batch, nolocking, route, route_like, stateless
from maildefer.server import QueueReceiver
from maildefer.tasks import task
from maildefer.testing import RouterConversation
from tests.lifecycle.project import eventually

Messages = list[MailRequest]


@pytest.fixture(autouse=True)
def _fresh_router(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The decorators know one router; each test leaves it as it was."""
    for name in ("REGISTERED", "HANDLERS", "DEFAULT_CAPTURES"):
        monkeypatch.setattr(Router, name, {})
    monkeypatch.setattr(Router, "ORDER", [])
    monkeypatch.setattr(Router, "STATE_STORE", MemoryStorage())
    monkeypatch.setattr(Router, "LOG_EXCEPTIONS", False)
    Router.generation += 1
    yield
    Router.generation += 1


@pytest.fixture
def in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    create_queue("run/queue", format=Format(beat_seconds=0.3, ttl_seconds=6))


def mail(to: str = "first@blog", key: str = "1.k") -> MailRequest:
    message = MailRequest("test", "ann@example.org", to, b"Subject: x\n\n")
    message.key, message.attempt, message.queue = key, 1, "run/queue"
    return message


def dispatcher(queues_of: Mapping[str, tuple[str, ...]] | None = None) -> Dispatcher:
    return Dispatcher(Router, [__name__], queues_of=queues_of)


def run(count: int = 3, queues_of: Mapping[str, tuple[str, ...]] | None = None) -> Any:
    """What dispatching so many messages at once gives."""
    by = dispatcher(queues_of)
    messages = [mail(f"post{number}@blog", f"{number}.k") for number in range(count)]
    steps = [by.batch_for(message) for message in messages]
    assert steps[0] is not None
    assert set(steps) == {steps[0]}
    return by.dispatch_batch(steps[0], messages)


def handler(action: Any) -> Any:
    @route("(post)@blog", post="[a-z0-9]+")
    @stateless
    @batch(limit=5, linger=0)
    def START(messages: Messages) -> object:
        return action(messages)

    return START


def test_a_batch_handler_gets_the_list_of_messages_with_their_captures() -> None:
    seen: list[Any] = []
    handler(lambda messages: seen.extend((m.key, m.captures) for m in messages))
    assert run() == [ACKED] * 3
    assert seen == [(f"{number}.k", {"post": f"post{number}"}) for number in range(3)]


def test_the_function_stays_one_that_tests_can_call() -> None:
    START = handler(len)
    assert START([mail(), mail()]) == 2
    assert handler_marks.batch_of(START) == (5, 0.0, False, False)


def test_defer_reject_and_smtp_replies_hold_for_all_of_the_batch() -> None:
    for fault, outcome in (
        (Defer("down", after=60), Deferred("down", 60)),
        (Reject("no such blog"), Buried("no such blog")),
        (SMTPError(450), Deferred(str(SMTPError(450)))),
        (SMTPError(550), Buried(str(SMTPError(550)))),
    ):
        Router.clear_routes()
        handler(_raiser(fault))
        assert run() == [outcome] * 3


def test_an_exception_is_one_failure_of_which_any_message_may_be_the_cause() -> None:
    handler(_raiser(KeyError("post7")))
    outcome = run()
    assert isinstance(outcome, Deferred)
    assert (outcome.error, outcome.module) == ("KeyError: 'post7'", __name__)


def test_a_mapping_says_it_for_each_message_by_itself() -> None:
    handler(
        lambda m: {m[0]: Defer("later", after=5), m[1]: Reject("never"), m[2]: ValueError("odd"), m[3]: None}
    )
    deferred, buried, failed, *rest = run(5)
    assert deferred == Deferred("later", 5)
    assert buried == Buried("never")
    assert isinstance(failed, Deferred)
    assert failed.error == "ValueError: odd"
    assert rest == [ACKED, ACKED]


@pytest.mark.parametrize("said", [Defer, 17, "no handoff", ["x"]])
def test_a_mapping_with_nonsense_in_it_is_a_failure(said: object) -> None:
    handler(lambda messages: {messages[0]: said})
    outcome = run()
    assert isinstance(outcome, Deferred)
    assert "give Defer(…)" in outcome.reason


def test_a_mapping_from_other_messages_is_a_failure() -> None:
    handler(lambda messages: {mail(): Defer("who?")})
    outcome = run()
    assert isinstance(outcome, Deferred)
    assert "none of its messages" in outcome.reason


def test_a_batch_or_one_of_its_messages_is_handed_on() -> None:
    @route("never@blog")
    @stateless
    def NEXT(message: MailRequest) -> None: ...

    queues_of = {__name__: ("run/next",)}
    on = HandedOff(__name__, "NEXT", "run/next")
    handler(lambda messages: f"{__name__}.NEXT")
    assert run(2, queues_of) == [on, on]
    Router.clear_routes()
    route("never@blog")(NEXT)
    handler(lambda messages: {messages[1]: f"{__name__}.NEXT"})
    assert run(3, queues_of) == [ACKED, on, ACKED]


def test_a_message_that_other_handlers_match_too_is_dispatched_alone() -> None:
    sizes: list[int] = []
    START = handler(lambda messages: sizes.append(len(messages)))

    @route_like(START)
    @stateless
    def COUNT(message: MailRequest, post: str) -> None:
        sizes.append(-1)

    by = dispatcher()
    assert by.batch_for(mail()) is None
    assert by.dispatch(mail()) == (ACKED, f"{__name__}.START,{__name__}.COUNT")
    assert sizes == [1, -1]


def test_a_message_without_a_batch_handler_is_nobodys_batch() -> None:
    handler(lambda messages: None)
    by = dispatcher()
    assert by.batch_for(mail("nobody@elsewhere")) is None
    assert by.dispatch(mail("nobody@elsewhere")) == (Buried(NO_ROUTE), "")


def test_alone_what_is_said_for_the_message_is_its_outcome() -> None:
    handler(lambda messages: {messages[0]: Defer("later", after=5)})
    assert dispatcher().dispatch(mail())[0] == Deferred("later", 5)


def test_a_conversation_of_a_test_speaks_to_it_with_one_message_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    seen: list[Any] = []
    handler(lambda messages: seen.append([(m.To, m.captures) for m in messages]))
    ann = RouterConversation("ann@example.org", "A test")
    ann.begin()
    ann.say("post1@blog", "Hello.")
    ann.say("post2@blog", "Hello.")
    assert seen == [[("post1@blog", {"post": "post1"})], [("post2@blog", {"post": "post2"})]]


# In a receiver


def pushed(count: int, to: str = "post{n}@blog") -> list[str]:
    queue = Queue("run/queue")
    recipients = [to.format(n=number) for number in range(count)]
    return [queue.push("Subject: x\n\n", sender="ann@example.org", recipient=to) for to in recipients]


def lying(folder: str) -> list[EntryName]:
    return [EntryName.parse(name) for name in os.listdir(f"run/queue/{folder}")]


@contextmanager
def receiving(**options: Any) -> Iterator[QueueReceiver]:
    """A receiver that goes on until the end of the block."""
    receiver = QueueReceiver("run/queue", sleep=0.1, **options)
    thread = threading.Thread(target=receiver.start)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.close()
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.usefixtures("in_a_directory")
def test_a_receiver_gives_it_what_waits() -> None:
    keys = pushed(7)
    seen: list[Any] = []
    handler(lambda messages: seen.append([(m.key, m.captures["post"]) for m in messages]))  # up to five
    QueueReceiver("run/queue", sleep=0).start(one_shot=True)
    assert sorted(map(len, seen)) == [2, 5]
    assert sorted(one for messages in seen for one in messages) == [
        (k, f"post{n}") for n, k in enumerate(keys)
    ]
    assert lying("new") == lying("cur") == []


@pytest.mark.usefixtures("in_a_directory")
def test_a_receivers_batch_is_settled_one_by_one_and_its_failure_is_one_messages() -> None:
    keys = pushed(5)

    def handle(messages: Messages) -> object:
        by_key = {message.key: message for message in messages}
        if keys[1] in by_key:
            raise ValueError("odd")
        return {by_key[keys[3]]: Reject("never")} if keys[3] in by_key else None

    handler(handle)
    QueueReceiver("run/queue", sleep=0).start(one_shot=True)
    assert [entry.key for entry in lying(".later/new")] == [keys[1]]
    assert [entry.key for entry in lying(".dead/new")] == [keys[3]]
    assert lying("new") == lying("cur") == []


@pytest.mark.usefixtures("in_a_directory")
def test_a_receivers_batch_lingers_and_its_other_messages_do_not_wait() -> None:
    seen: list[Any] = []

    @route("(post)@blog", post="[a-z0-9]+")
    @stateless
    @batch(limit=3, linger=300)
    def START(messages: Messages) -> None:
        seen.append(len(messages))

    @route("single@elsewhere")
    @stateless
    def SINGLE(message: MailRequest) -> None:
        seen.append("single")

    with receiving():
        pushed(2)
        eventually(lambda: len(lying("cur")) == 2, "two are claimed", 60)
        pushed(1, "single@elsewhere")
        eventually(lambda: seen == ["single"], "the other one is handled", 60)
        pushed(1)
        eventually(lambda: seen == ["single", 3], "the batch is full", 60)
        eventually(lambda: not lying("cur"), "it is settled", 60)


@pytest.mark.usefixtures("in_a_directory")
def test_a_receiver_that_is_closed_gives_back_what_lingers() -> None:
    @route("(post)@blog", post="[a-z0-9]+")
    @stateless
    @batch(limit=100, linger=300)
    def START(messages: Messages) -> None:
        raise AssertionError("it had not waited long enough")

    keys = pushed(40)  # more than a consumer without batches may hold
    with receiving():
        eventually(lambda: len(lying("cur")) == 40, "they are claimed", 60)
    found = {entry.key: (entry.attempts, entry.crashes) for entry in lying("new")}
    assert found == dict.fromkeys(keys, (0, 0))


@pytest.mark.usefixtures("in_a_directory")
def test_a_consumer_of_batches_that_breaks_is_charged_with_all_that_it_held() -> None:
    keys = pushed(3)

    def consume() -> None:
        with Consumer(create_queue("run/queue"), batches=True) as consumer:
            for _ in keys:
                assert consumer.claim() is not None
            raise KeyError("it broke")

    with pytest.raises(KeyError):
        consume()
    assert {entry.key: entry.crashes for entry in lying("new")} == dict.fromkeys(keys, 1)


def test_what_is_said_for_one_message_ends_a_bare_delivery_as_if_raised() -> None:
    handler(lambda messages: {messages[0]: ValueError("odd")})
    with pytest.raises(ValueError, match="odd"):
        Router.deliver(mail())


def test_nolocking_goes_with_a_batch() -> None:
    free: list[bool] = []

    @route("(post)@blog", post="[a-z0-9]+")
    @stateless
    @nolocking
    @batch(limit=5)
    def START(messages: Messages) -> None:
        free.append(_is_free_for_another_thread())

    assert run() == [ACKED] * 3
    Router.clear_routes()
    handler(lambda messages: free.append(_is_free_for_another_thread()))
    run()
    assert free == [True, False]


def test_a_state_cannot_be_a_batch() -> None:
    with pytest.raises(TypeError, match=r"START is a state.*put @stateless"):

        @route("(post)@blog", post=".+")
        @batch(limit=5)
        def START(messages: Messages) -> None: ...


def test_a_batch_stands_below_its_route() -> None:
    with pytest.raises(TypeError, match="@batch stands above the route"):

        @batch(limit=5)
        @route("(post)@blog", post=".+")
        @stateless
        def START(messages: Messages) -> None: ...


def test_calls_of_a_task_are_no_batch() -> None:
    with pytest.raises(TypeError, match="its calls come one by one"):
        task(queue="run/queue")(batch(limit=5)(_plain()))
    with pytest.raises(TypeError, match="takes one message at a time"):
        batch(limit=5)(task(queue="run/queue")(_plain()))


def test_bounces_are_told_apart_one_at_a_time() -> None:
    with pytest.raises(TypeError, match="@bounce_to looks at one message"):

        @bounce_to(soft=print, hard=print)
        @batch(limit=5)
        def above(messages: Messages) -> None: ...

    with pytest.raises(TypeError, match="takes one message at a time"):

        @batch(limit=5)
        @bounce_to(soft=print, hard=print)
        def below(message: MailRequest) -> None: ...


@pytest.mark.parametrize("limit", [0, -1, MOST_MESSAGES + 1, 2.5, True, "5"])
def test_a_limit_is_a_number_that_the_board_has_room_for(limit: Any) -> None:
    with pytest.raises(ValueError, match=r"@batch\(limit="):
        batch(limit=limit)


@pytest.mark.parametrize("linger", [-1, 3601, float("nan"), float("inf"), "10"])
def test_a_linger_ends(linger: Any) -> None:
    with pytest.raises(ValueError, match=r"@batch\(linger="):
        batch(linger=linger)


@pytest.mark.parametrize(
    "calls", [{"overlap": 1}, {"exclusive": "yes"}, {"overlap": True, "exclusive": True}]
)
def test_calls_overlap_or_are_exclusive_and_not_both(calls: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"@batch\(overlap="):
        batch(**calls)


def test_a_message_of_several_handlers_waits_until_no_call_of_its_batch_function_is_on() -> None:
    START = handler(len)
    asked: list[str] = []

    class Tokens:
        def take_token(self, conversation: str) -> bool:
            asked.append(conversation)
            return False

        def release_token(self, conversation: str) -> None: ...

    @route("(post)@blog", post="[a-z0-9]+")
    @stateless
    def ALONE(message: MailRequest, post: str) -> None: ...

    outcome, names = Dispatcher(Router, tokens=Tokens()).dispatch(mail())
    assert isinstance(outcome, Postponed)
    assert (asked, names) == ([f"batch {handler_marks.full_name(START)}"], "")


def test_a_receiver_refuses_an_exclusive_batch() -> None:
    @route("(post)@blog", post="[a-z0-9]+")
    @stateless
    @batch(exclusive=True)
    def START(messages: Messages) -> None: ...

    with pytest.raises(ConfigurationError, match="maildefer supervise"):
        QueueReceiver("run/queue").start(one_shot=True)


def test_a_crash_limit_of_one_is_refused_since_it_would_bury_whole_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "batched_handlers.py").write_text(
        "from maildefer.routing import batch, route, stateless\n\n\n"
        '@route("a@b")\n@stateless\n@batch(limit=5)\ndef START(messages): ...\n'
    )
    queues = {"run/queue": ("batched_handlers",)}
    settings = PoolSettings(
        project=str(tmp_path), module="conf.settings", queues=queues, router_defaults={}, max_crashes=1
    )
    try:
        with pytest.raises(ConfigurationError, match="max_crashes = 1 would bury all its messages"):
            Application(settings).import_handlers()
    finally:
        sys.modules.pop("batched_handlers", None)


def _plain() -> Any:
    def plain(number: int) -> None: ...

    plain.__qualname__ = "plain"
    return plain


def _raiser(fault: Exception) -> Any:
    def action(messages: Messages) -> None:
        raise fault

    return action


def _is_free_for_another_thread() -> bool:

    got: list[bool] = []

    def look() -> None:
        if Router.lock.acquire(blocking=False):
            Router.lock.release()
            got.append(True)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return bool(got)


def test_without_parentheses_it_is_refused() -> None:
    bare: Any = batch
    with pytest.raises(TypeError, match=r"@batch stands with parentheses, as @batch\(\)"):
        bare(lambda messages: None)
