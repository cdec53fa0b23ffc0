"""Receivers as boot modules use them."""

from __future__ import annotations

import os
import smtplib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from maildefer import events
from maildefer.errors import ConfigurationError
from maildefer.handling.project import settings as settings_module
from maildefer.handling.retry import RetryPolicy
from maildefer.maildir.operator import entries
from maildefer.maildir.reasons import read_reason
from maildefer.matching import index, process_client
from maildefer.message.request import MailRequest
from maildefer.middleware import CallOutcome, HandlerCall
from maildefer.queue import Queue
from maildefer.routing import Defer, MemoryStorage, Reject, Router, batch, nolocking, route, stateless
from maildefer.server import LMTPReceiver, QueueReceiver, SMTPError, SMTPReceiver, undeliverable_message

DATA = b"Subject: hello\r\n\r\nhello\r\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, no settings, an empty router; all as it was afterwards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", os.getcwd())])
    monkeypatch.setattr(settings_module, "_loaded", None)
    registered, order = dict(Router.REGISTERED), list(Router.ORDER)
    handlers, captures = dict(Router.HANDLERS), dict(Router.DEFAULT_CAPTURES)
    Router.clear_routes()
    Router.HANDLERS.clear()
    yield tmp_path
    Router.clear_routes()
    Router.clear_states()
    Router.REGISTERED.update(registered)
    Router.ORDER.extend(order)
    Router.HANDLERS.clear()
    Router.HANDLERS.update(handlers)
    Router.DEFAULT_CAPTURES.clear()
    Router.DEFAULT_CAPTURES.update(captures)
    Router.RELOAD = False
    Router.UNDELIVERABLE_QUEUE = None
    Router.generation += 1


class Note:
    """What the handler below has seen."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str | None]] = []
        self.behave: Callable[[], object] = lambda: None


@pytest.fixture
def note() -> Note:
    """A loaded handler of everything at osb.example."""
    noted = Note()

    @route("(name)@osb.example", name="[a-z]+")
    @stateless
    @nolocking
    def START(message, name):  # type: ignore[no-untyped-def]
        noted.seen.append((message.From, message.To, message.key))
        return noted.behave()

    return noted


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def send(port: int, *recipients: str, sender: str = "author@example.org") -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.sendmail(sender, recipients, DATA)


# QueueReceiver


@pytest.mark.slow
def test_one_shot_handles_what_is_there_and_returns(note: Note) -> None:
    queue = Queue("run/posts")
    keys = [queue.push(DATA, sender="A@b", recipient="post@osb.example") for _ in range(20)]
    QueueReceiver("run/posts", sleep=1).start(one_shot=True)
    assert sorted(key or "" for _, _, key in note.seen) == sorted(keys)
    assert note.seen[0][:2] == ("a@b", "post@osb.example")
    assert os.listdir("run/posts/new") == os.listdir("run/posts/cur") == []


def test_the_log_tells_what_a_receiver_takes_and_when_it_waits(
    note: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(events, "emit", lambda event, **facts: told.append((event, facts)))
    key = Queue("run/posts").push(DATA, sender="A@b", recipient="post@osb.example")
    receiver = QueueReceiver("run/posts", sleep=0.05)
    thread = threading.Thread(target=receiver.start)
    thread.start()
    wait_until(lambda: note.seen and told and told[-1] == ("queue.waiting", {"queue": "run/posts"}))
    receiver.close()
    thread.join()
    envelope = {"sender": "a@b", "recipient": "post@osb.example"}
    peer = os.path.abspath("run/posts")
    assert ("claim.taken", {"queue": "run/posts", "key": key, "peer": peer, **envelope}) in told


@pytest.mark.slow
def test_one_shot_also_handles_what_its_handlers_push(note: Note) -> None:
    queue = Queue("run/posts")
    queue.push(DATA, sender="a@b", recipient="first@osb.example")

    def push_once() -> None:
        if len(note.seen) == 1:
            queue.push(DATA, sender="a@b", recipient="second@osb.example")

    note.behave = push_once
    QueueReceiver("run/posts").start(one_shot=True)
    assert [to for _, to, _ in note.seen] == ["first@osb.example", "second@osb.example"]


def test_a_deferred_message_waits_in_later(note: Note) -> None:
    def defer() -> None:
        raise Defer("database down", after=60)

    note.behave = defer
    Queue("run/posts").push(DATA, sender="a@b", recipient="post@osb.example")
    QueueReceiver("run/posts").start(one_shot=True)
    assert len(os.listdir("run/posts/.later/new")) == 1


@pytest.mark.parametrize("error", [Reject("no such blog"), SMTPError(550)])
@pytest.mark.slow
def test_a_refused_message_is_a_dead_letter(note: Note, error: Exception) -> None:
    def refuse() -> None:
        raise error

    note.behave = refuse
    Queue("run/posts").push(DATA, sender="a@b", recipient="post@osb.example")
    QueueReceiver("run/posts").start(one_shot=True)
    assert len(os.listdir("run/posts/.dead/new")) == 1


def test_a_message_without_a_route_is_a_dead_letter(note: Note) -> None:
    Queue("run/posts").push(DATA, sender="a@b", recipient="post@elsewhere.example")
    QueueReceiver("run/posts").start(one_shot=True)
    assert len(os.listdir("run/posts/.dead/new")) == 1


def test_a_handlers_change_of_directory_ends_with_its_message(note: Note, project: Path) -> None:
    places = []

    def move() -> None:
        places.append(os.getcwd())
        os.chdir("run")

    note.behave = move
    for _ in range(3):
        Queue("run/posts").push(DATA, sender="a@b", recipient="post@osb.example")
    QueueReceiver("run/posts", workers=1).start(one_shot=True)
    assert (places, os.getcwd()) == ([str(project)] * 3, str(project))
    assert not hasattr(os.chdir, "__wrapped__")


def test_a_message_over_the_limit_goes_to_the_oversize_queue(note: Note) -> None:
    queue = Queue("run/posts")
    queue.push(b"x" * 101, sender="a@b", recipient="post@osb.example")
    queue.push(b"x" * 100, sender="a@b", recipient="post@osb.example")
    QueueReceiver("run/posts", size_limit=100, oversize_dir="run/big").start(one_shot=True)
    assert len(note.seen) == 1
    [found] = entries.list_entries(Queue("run/big").layout, "undeliverable")
    assert (
        read_reason(Queue("run/big").layout, found.entry)["reason"]
        == "over the receiver's limit of 100 bytes"
    )


def test_a_message_over_the_limit_is_a_dead_letter_where_there_is_no_oversize_queue(note: Note) -> None:
    Queue("run/posts").push(b"x" * 101, sender="a@b", recipient="post@osb.example")
    QueueReceiver("run/posts", size_limit=100).start(one_shot=True)
    assert note.seen == []
    assert len(os.listdir("run/posts/.dead/new")) == 1


@pytest.mark.slow
def test_messages_are_handled_side_by_side_by_nolocking_handlers(note: Note) -> None:
    together = threading.Barrier(3)

    def meet() -> None:
        together.wait(60)

    note.behave = meet
    queue = Queue("run/posts")
    for _ in range(3):
        queue.push(DATA, sender="a@b", recipient="post@osb.example")
    QueueReceiver("run/posts", workers=3).start(one_shot=True)
    assert len(note.seen) == 3
    assert os.listdir("run/posts/.later/new") == []


@pytest.mark.parametrize("where", ["main thread", pytest.param("another thread", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [stateless, pytest.param(batch(limit=5), marks=pytest.mark.slow)])
def test_an_address_on_which_a_route_backtracks_without_end_is_a_dead_letter_and_holds_up_nobody(
    note: Note, monkeypatch: pytest.MonkeyPatch, where: str, kind: Callable[..., Any]
) -> None:
    monkeypatch.setattr(index, "LIMIT_SECONDS", 0.05)
    names: list[str] = []

    def START(message, name=None):  # type: ignore[no-untyped-def]
        messages = message if isinstance(message, list) else [message]
        names.extend(name or each.captures["name"] for each in messages)

    route("(name)@slow.example", name="([a-z]+)+")(stateless(START if kind is stateless else kind(START)))
    hostile = [f"{'a' * 60}{number}@slow.example" for number in range(2)]
    queue = Queue("run/posts")
    for to in (*hostile, "one@osb.example", "good@slow.example", *hostile, "two@osb.example"):
        queue.push(DATA, sender="a@b", recipient=to)
    start = partial(QueueReceiver("run/posts", sleep=1).start, one_shot=True)
    if where == "main thread":
        start()
    else:
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
    assert sorted(to for _, to, _ in note.seen) == ["one@osb.example", "two@osb.example"]
    assert names == ["good"]
    reasons = [path.read_text() for path in Path("run/posts/.maildefer/dead").iterdir()]
    assert len(reasons) == len(os.listdir("run/posts/.dead/new")) == 4
    assert all("@slow.example$ takes more than 0.05 s" in reason for reason in reasons)
    assert os.listdir("run/posts/new") == os.listdir("run/posts/cur") == []
    assert process_client.pids() == []


@pytest.mark.slow
def test_a_stand_in_for_the_router_gets_what_receivers_process(
    receivers: list[SMTPReceiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered: list[str] = []

    class StandIn:
        UNDELIVERABLE_QUEUE = None

        def deliver(self, message: MailRequest) -> None:
            delivered.append(message.To)
            raise SMTPError(450, "later")

    monkeypatch.setattr("maildefer.routing.Router", StandIn())
    receivers.append(SMTPReceiver("127.0.0.1", 0))
    assert receivers[0].process_message("p", "a@b", "one@x", DATA) == "450 later"
    QueueReceiver("run/posts").process_message(MailRequest("p", "a@b", "two@x", DATA))
    Queue("run/posts").push(DATA, sender="a@b", recipient="three@x")
    QueueReceiver("run/posts").start(one_shot=True)
    assert delivered == ["one@x", "two@x", "three@x"]


@pytest.mark.slow
def test_a_stand_in_for_the_routers_deliver_gets_what_comes_from_the_queue(
    note: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered: list[str] = []
    monkeypatch.setattr(Router, "deliver", lambda message: delivered.append(message.To), raising=True)
    Queue("run/posts").push(DATA, sender="a@b", recipient="post@osb.example")
    QueueReceiver("run/posts").start(one_shot=True)
    assert (delivered, note.seen) == (["post@osb.example"], [])


@pytest.mark.slow
def test_close_ends_the_loop_when_what_is_in_hand_is_settled(note: Note) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert go_on.wait(60)

    note.behave = wait
    Queue("run/posts").push(DATA, sender="a@b", recipient="post@osb.example")
    receiver = QueueReceiver("run/posts", sleep=10)
    thread = threading.Thread(target=receiver.start)
    thread.start()
    assert begun.wait(60)
    receiver.close()
    go_on.set()
    thread.join(60)
    assert not thread.is_alive()
    assert os.listdir("run/posts/cur") == os.listdir("run/posts/new") == []


def test_a_receiver_that_goes_on_for_ever_does_not_start_without_routes() -> None:
    key = Queue("run/posts").push(DATA)
    with pytest.raises(ConfigurationError):
        QueueReceiver("run/posts").start()
    assert os.listdir("run/posts/new") == [key]


def test_one_shot_empties_the_queue_without_routes_too() -> None:
    Queue("run/posts").push(DATA)
    QueueReceiver("run/posts").start(one_shot=True)
    assert [len(os.listdir(f"run/posts/{folder}/new")) for folder in (".", ".dead")] == [0, 1]


@pytest.mark.parametrize("kind", ["no route", "rejected", "given up"])
@pytest.mark.slow
def test_what_would_be_buried_goes_to_the_undeliverable_queue_of_the_boot_module(
    note: Note, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: None)

    def fail() -> None:
        raise Reject("no") if kind == "rejected" else ValueError

    note.behave = fail
    Router.UNDELIVERABLE_QUEUE = Queue("run/undeliverable")
    to = "post@elsewhere.example" if kind == "no route" else "post@osb.example"
    Queue("run/posts").push(DATA, sender="ann@example.org", recipient=to)
    QueueReceiver("run/posts").start(one_shot=True)
    [found] = entries.list_entries(Router.UNDELIVERABLE_QUEUE.layout, "undeliverable")
    told = read_reason(Router.UNDELIVERABLE_QUEUE.layout, found.entry)
    assert {"no route": "no route", "rejected": "no", "given up": "given up after 1"}[kind] in str(
        told["reason"]
    )
    assert told["queue"] == os.path.abspath("run/posts")
    _, kept = Router.UNDELIVERABLE_QUEUE.pop()
    assert (kept.Data, kept.From, kept.To) == (DATA, "ann@example.org", to)
    assert [len(os.listdir(f"run/posts/{folder}/new")) for folder in (".", ".dead", ".later")] == [0, 0, 0]


def test_what_the_undeliverable_queue_does_not_take_is_buried() -> None:
    class Full:
        def push(self, message: object) -> None:
            raise OSError("full")

    Router.UNDELIVERABLE_QUEUE = Full()
    Queue("run/posts").push(DATA)
    QueueReceiver("run/posts").start(one_shot=True)
    assert len(os.listdir("run/posts/.dead/new")) == 1


@pytest.mark.slow
def test_a_process_message_of_a_subclass_takes_the_handlers_place(note: Note) -> None:
    seen = []

    class Own(QueueReceiver):
        def process_message(self, msg: Any) -> None:
            seen.append(msg.To)
            if len(seen) == 2:
                raise Defer("later", after=3600)

    for number in range(2):
        Queue("run/posts").push(DATA, sender="a@b", recipient=f"post{number}@elsewhere.example")
    Own("run/posts", workers=1).start(one_shot=True)
    assert (sorted(seen), note.seen) == (["post0@elsewhere.example", "post1@elsewhere.example"], [])
    assert [len(os.listdir(f"run/posts/{folder}/new")) for folder in (".", ".dead", ".later")] == [0, 0, 1]


@pytest.mark.parametrize("kind", ["handler", "process_message"])
@pytest.mark.slow
def test_middleware_of_the_settings_surrounds_what_a_receiver_calls(
    kind: str, note: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    @contextmanager
    def hook(call: HandlerCall) -> Iterator[None]:
        yield
        assert (call.queue, call.attempt) == ("run/queue", 1)
        seen.append((call.message.To, call.outcome))
        if call.message.To == "bad@osb.example":
            raise RuntimeError("boom")

    hooks, settings = ModuleType("receiver_hooks"), ModuleType("conf.settings")
    vars(hooks)["hook"] = hook
    vars(settings).update(handlers=[__name__], middleware=["receiver_hooks.hook"])
    monkeypatch.setitem(sys.modules, "receiver_hooks", hooks)
    monkeypatch.setattr(settings_module, "_loaded", settings)
    monkeypatch.setattr(Router, "middleware", None)
    receiver = QueueReceiver("run/queue", workers=4)
    if kind == "process_message":
        receiver.process_message = lambda message: None  # type: ignore[method-assign, assignment]
    for name in ("good", "bad"):
        Queue("run/queue").push(DATA, sender="a@b", recipient=f"{name}@osb.example")
    receiver.start(one_shot=True)
    assert sorted(to for to, outcome in seen if outcome == CallOutcome("acked")) == [
        "bad@osb.example",
        "good@osb.example",
    ]
    assert [len(os.listdir(f"run/queue/{folder}/new")) for folder in (".", ".dead", ".later")] == [0, 0, 1]


def test_process_message_never_raises(note: Note) -> None:
    def fail() -> None:
        raise ValueError("broken")

    note.behave = fail
    queue = Queue("run/posts")
    receiver = QueueReceiver("run/posts")
    for recipient in ("post@osb.example", "post@elsewhere.example"):
        queue.push(DATA, sender="a@b", recipient=recipient)
        assert receiver.process_message(queue.pop()[1]) is None  # type: ignore[func-returns-value, arg-type]


@pytest.mark.slow
def test_a_string_result_hands_the_entry_to_the_queue_that_lists_the_module(
    note: Note, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = ModuleType("conf.settings")
    conf.queues = {"run/posts": ["tests_posting"], "run/index": ["later_index"]}  # type: ignore[attr-defined]
    monkeypatch.setattr(settings_module, "_loaded", conf)
    (project / "later_index.py").write_text(
        "from maildefer.routing import route, stateless\n"
        "@route('.+')\n@stateless\ndef START(message):\n    raise AssertionError('not in this queue')\n"
    )
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.delitem(sys.modules, "later_index", raising=False)
    note.behave = lambda: "later_index.START"
    key = Queue("run/posts").push(DATA, sender="a@b", recipient="post@osb.example")
    Queue("run/index")
    QueueReceiver("run/posts").start(one_shot=True)
    assert Queue("run/index").keys() == [key]


# SMTPReceiver


@pytest.mark.slow
def test_a_front_end_with_a_process_message_of_its_own_gives_it_what_it_took(
    receivers: list[SMTPReceiver],
) -> None:
    seen = []

    class Own(SMTPReceiver):
        def process_message(self, Peer: Any, From: Any, To: Any, Data: Any, **kwargs: Any) -> str | None:
            seen.append((From, To, Data))
            return "550 no more" if len(seen) == 2 else None

    receivers.append(Own("127.0.0.1", 0))
    receivers[0].start()
    for _ in range(2):
        send(receivers[0].port, "Post@osb.example")
    wait_until(lambda: len(os.listdir("run/queue/.dead/new")) == 1)
    assert [(sender, to) for sender, to, _ in seen] == [("author@example.org", ["post@osb.example"])] * 2
    assert os.listdir("run/queue/new") == []


@pytest.fixture
def receivers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[SMTPReceiver]]:
    monkeypatch.setattr("maildefer.pool.receiver.receiver._LOOK_SECONDS", 0.02)  # so soon each is closed
    made: list[SMTPReceiver] = []
    yield made
    for receiver in made:
        receiver.close()


@pytest.mark.slow
def test_close_while_it_starts_leaves_nothing_running(
    note: Note, receivers: list[SMTPReceiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    receivers.append(SMTPReceiver("127.0.0.1", 0))
    ready = receivers[0]._launcher.await_ready
    monkeypatch.setattr(receivers[0]._launcher, "await_ready", lambda: (ready(), receivers[0].close()))
    receivers[0].start()
    assert receivers[0]._thread is not None
    assert not receivers[0]._thread.is_alive()
    assert receivers[0].ended() == 0


def test_a_front_end_listens_once_it_is_constructed(receivers: list[SMTPReceiver]) -> None:
    receivers.append(SMTPReceiver("127.0.0.1", 0))
    with socket.create_connection(("127.0.0.1", receivers[0].port), timeout=60):
        pass


def test_an_address_in_use_is_named(receivers: list[SMTPReceiver]) -> None:
    receivers.append(SMTPReceiver("127.0.0.1", 0))
    with pytest.raises(ConfigurationError, match=str(receivers[0].port)):
        SMTPReceiver("127.0.0.1", receivers[0].port)


def test_a_misspelt_limit_is_refused() -> None:
    with pytest.raises(TypeError, match="max_byte"):
        SMTPReceiver("127.0.0.1", 0, max_byte=17)


@pytest.mark.slow
def test_a_front_end_without_handlers_only_enqueues(receivers: list[SMTPReceiver]) -> None:
    receivers.append(SMTPReceiver("127.0.0.1", 0))
    receivers[0].start()
    send(receivers[0].port, "any@where.example")
    request = Queue("run/queue").pop()[1]
    assert request is not None
    assert (request.From, request.To) == ("author@example.org", "any@where.example")


@pytest.mark.slow
def test_a_front_end_with_loaded_handlers_also_handles(note: Note, receivers: list[SMTPReceiver]) -> None:
    receivers.append(SMTPReceiver("127.0.0.1", 0))
    receivers[0].start()
    send(receivers[0].port, "post@osb.example")
    wait_until(lambda: note.seen)
    assert note.seen[0][:2] == ("author@example.org", "post@osb.example")
    wait_until(lambda: not os.listdir("run/queue/cur"))


@pytest.mark.slow
def test_a_recipient_that_no_loaded_route_takes_is_refused(note: Note, receivers: list[SMTPReceiver]) -> None:
    receivers.append(SMTPReceiver("127.0.0.1", 0))
    receivers[0].start()
    with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
        send(receivers[0].port, "post@elsewhere.example")
    assert caught.value.recipients["post@elsewhere.example"][0] == 554


def write_project(project: Path, handler: str) -> None:
    (project / "conf").mkdir()
    (project / "conf" / "__init__.py").touch()
    (project / "conf" / "settings.py").write_text("queues = {'run/queue': ['probed_handler']}\n")
    (project / "probed_handler.py").write_text(handler)


@pytest.mark.slow
def test_without_loaded_handlers_a_probe_tells_the_recipients(
    project: Path, receivers: list[SMTPReceiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(
        project,
        "from maildefer.routing import route, stateless\n"
        "@route('post@osb.example')\n@stateless\ndef START(message):\n    pass\n",
    )
    monkeypatch.setenv("MAILDEFER_SETTINGS_MODULE", "conf.settings")
    receivers.append(SMTPReceiver("127.0.0.1", 0))
    receivers[0].start()
    assert "probed_handler" not in sys.modules
    send(receivers[0].port, "post@osb.example")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(receivers[0].port, "other@osb.example")


@pytest.mark.slow
def test_a_broken_application_does_not_start(
    project: Path, receivers: list[SMTPReceiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(project, "this is no python\n")
    monkeypatch.setenv("MAILDEFER_SETTINGS_MODULE", "conf.settings")
    receivers.append(SMTPReceiver("127.0.0.1", 0))
    with pytest.raises(ConfigurationError, match="probed_handler"):
        receivers[0].start()


@pytest.mark.slow
def test_settings_that_name_no_handlers_do_for_a_receiver_whose_boot_module_loads_them(
    project: Path, note: Note, receivers: list[SMTPReceiver]
) -> None:
    write_project(project, "")
    (project / "conf" / "settings.py").write_text("relay_config = {'host': 'localhost', 'port': 8825}\n")
    settings_module.load_settings()
    receivers.append(SMTPReceiver("127.0.0.1", 0))
    receivers[0].start()
    send(receivers[0].port, "post@osb.example")
    wait_until(lambda: note.seen)


@pytest.mark.slow
def test_settings_that_name_no_handlers_do_for_a_receiver_with_its_own_process_message(
    project: Path, receivers: list[SMTPReceiver]
) -> None:
    write_project(project, "")
    (project / "conf" / "settings.py").write_text("")
    settings_module.load_settings()
    seen: list[object] = []
    receivers.append(SMTPReceiver("127.0.0.1", 0))
    receivers[0].process_message = lambda Peer, From, To, Data: seen.append(To)  # type: ignore[assignment, misc]
    receivers[0].start()
    send(receivers[0].port, "post@osb.example")
    wait_until(lambda: seen == [["post@osb.example"]])


@pytest.mark.slow
def test_a_receiver_imports_another_queues_module_only_when_a_message_is_handed_to_it(
    project: Path, note: Note
) -> None:
    write_project(
        project,
        "from maildefer.routing import route, stateless\n@route('.+')\n@stateless\ndef START(message): ...\n",
    )
    (project / "conf" / "settings.py").write_text(
        "queues = {'run/slow': ['probed_handler'], 'run/posts': []}\n"
    )
    settings_module.load_settings()
    sys.modules.pop("probed_handler", None)
    queue, slow = Queue("run/posts"), Queue("run/slow")
    queue.push(DATA, sender="a@b", recipient="post@osb.example")
    QueueReceiver("run/posts").start(one_shot=True)
    assert len(note.seen) == 1
    assert "probed_handler" not in sys.modules
    note.behave = lambda: "probed_handler.START"
    queue.push(DATA, sender="a@b", recipient="post@osb.example")
    QueueReceiver("run/posts").start(one_shot=True)
    assert (len(queue), len(slow)) == (0, 1)
    del sys.modules["probed_handler"]


@pytest.mark.slow
def test_close_ends_the_intake_process_and_may_be_called_twice(receivers: list[SMTPReceiver]) -> None:
    receivers.append(SMTPReceiver("127.0.0.1", 0))
    receivers[0].start()
    assert receivers[0].ended() is None
    receivers[0].close()
    receivers[0].close()
    assert receivers[0].ended() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", receivers[0].port), timeout=60)


def test_serve_forever_ends_at_close(receivers: list[SMTPReceiver]) -> None:
    receivers.append(SMTPReceiver("127.0.0.1", 0))
    thread = threading.Thread(target=receivers[0].serve_forever)
    thread.start()
    with smtplib.SMTP("127.0.0.1", receivers[0].port, timeout=60):
        pass
    receivers[0].close()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.slow
def test_an_intake_process_that_dies_at_once_ends_the_receiver(receivers: list[SMTPReceiver]) -> None:
    receivers.append(SMTPReceiver("127.0.0.1", 0))
    receivers[0].start()
    process = receivers[0]._process
    assert process is not None
    process.kill()
    wait_until(lambda: receivers[0].ended() is not None)


@pytest.mark.slow
def test_an_intake_process_that_served_for_a_while_gets_a_successor(
    receivers: list[SMTPReceiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maildefer.pool.receiver.smtp_receiver._SOUND_SECONDS", 0)
    receivers.append(SMTPReceiver("127.0.0.1", 0))
    receivers[0].start()
    first = receivers[0]._process
    assert first is not None
    first.kill()
    first.wait(60)
    assert receivers[0].ended() is None
    assert receivers[0]._process is not first
    send(receivers[0].port, "any@where.example")


def test_process_message_delivers_here_and_now(note: Note, receivers: list[SMTPReceiver]) -> None:
    receivers.append(SMTPReceiver("127.0.0.1", 0))
    assert receivers[0].process_message(("127.0.0.1", 1), "A@b", ["post@osb.example"], DATA) is None
    assert note.seen == [("a@b", "post@osb.example", None)]


def test_process_message_gives_the_text_of_an_smtp_error(note: Note, receivers: list[SMTPReceiver]) -> None:
    def refuse() -> None:
        raise SMTPError(451, "come back later")

    note.behave = refuse
    receivers.append(SMTPReceiver("127.0.0.1", 0))
    answer = receivers[0].process_message("peer", "a@b", "post@osb.example", DATA)
    assert answer == "451 come back later"


@pytest.mark.slow
def test_lmtp_answers_for_each_recipient(note: Note, receivers: list[SMTPReceiver], project: Path) -> None:
    receivers.append(LMTPReceiver(socket="run.lmtp"))
    receivers[0].start()
    with smtplib.LMTP(str(project / "run.lmtp")) as client:
        refused = client.sendmail("a@b", ["post@osb.example", "post@elsewhere.example"], DATA)
    assert list(refused) == ["post@elsewhere.example"]
    wait_until(lambda: note.seen)


def test_a_socket_file_that_nobody_listens_on_is_replaced(receivers: list[SMTPReceiver]) -> None:
    receivers.append(LMTPReceiver(socket="run.lmtp"))
    with pytest.raises(ConfigurationError, match="another process listens"):
        LMTPReceiver(socket="run.lmtp")
    receivers[0].close()
    receivers.append(LMTPReceiver(socket="run.lmtp"))


def test_undeliverable_messages_go_where_the_router_says() -> None:
    undeliverable_message(DATA, "no queue is set")
    Router.UNDELIVERABLE_QUEUE = queue = Queue("run/undeliverable")
    undeliverable_message(DATA, "handler failed")
    assert queue.count() == 1


@pytest.mark.slow
def test_a_receivers_threads_never_handle_one_conversation_on_the_same_state(project, monkeypatch) -> None:
    meeting = threading.Barrier(2)
    ran: list[str] = []

    class MeetingStorage(MemoryStorage):
        def get(self, key: str, sender: str | None) -> str:
            state = super().get(key, sender)
            try:
                meeting.wait(0.2)  # for the other thread, which must not come
            except threading.BrokenBarrierError:
                meeting.reset()
            return state

    @route(".+@x")
    def START(message):
        ran.append("START")
        return END

    @route(".+@x")
    def END(message):
        ran.append("END")
        return START

    monkeypatch.setattr(Router, "STATE_STORE", MeetingStorage())
    for _ in range(2):
        Queue("run/queue").push(DATA, sender="ann@example.org", recipient="post@x")
    QueueReceiver("run/queue", workers=2).start(one_shot=True)
    assert ran == ["START", "END"]
