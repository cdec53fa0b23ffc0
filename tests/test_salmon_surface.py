"""The surface that Salmon's users know, row by row: names, signatures, defaults, exceptions, behaviour.

Written against the tables alone, with the package's name in one place. Where maildefer differs on purpose, the test
says what it does instead; `docs/from-salmon.md` says why.
"""

from __future__ import annotations

import email
import email.charset
import email.message
import inspect
import io
import logging
import os
import shelve
import smtplib
import subprocess
import sys
import textwrap
import types
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module, invalidate_caches, reload
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

PACKAGE = "maildefer"


def module(name: str) -> Any:
    return import_module(f"{PACKAGE}.{name}")


routing = module("routing")
queue = module("queue")
mail = module("mail")
encoding = module("encoding")
server = module("server")
view = module("view")
bounce = module("bounce")
confirm = module("confirm")
testing = module("testing")
utils = module("utils")
Router = routing.Router

DATA = "From: ann@example.org\nTo: post@osb.example\nSubject: A title\n\nText.\n"
REPORT = """\
From: MAILER-DAEMON@mx.example.org
To: ann@example.org
Subject: Undelivered Mail Returned to Sender
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="XX"

--XX
Content-Description: Notification
Content-Type: text/plain

It did not work.
--XX
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.org
Received: from a by b

Final-Recipient: rfc822; bob@example.com
Action: failed
Status: {status}
Remote-MTA: dns; mail.example.com
Diagnostic-Code: smtp; 550-5.1.1 no such user

--XX
Content-Description: Undelivered Message
Content-Type: message/rfc822

Received: from c by d
Subject: Hello

It was me.
--XX--
"""


def request(to: Any = "post@osb.example", sender: Any = "ann@example.org", data: Any = DATA) -> Any:
    return mail.MailRequest("peer", sender, to, data)


def report(status: str = "5.1.1") -> Any:
    return request("ann@example.org", "mailer-daemon@mx.example.org", REPORT.format(status=status))


def parameters(function: Any, *names: str) -> dict[str, Any]:
    """Names of the positional parameters and their defaults; more may follow by keyword."""
    found = [p for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    return {p.name: ... if p.default is p.empty else p.default for p in found if p.name != "self"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own, a router as new, no settings."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, value in vars(routing.RoutingBase()).items():
        monkeypatch.setattr(Router, name, value)
    for variable in ("MAILDEFER_SETTINGS_MODULE", "SALMON_SETTINGS_MODULE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(module("handling.project.settings"), "_loaded", None)
    monkeypatch.delitem(vars(utils), "settings", raising=False)
    monkeypatch.setattr(view, "LOADER", None)
    for name in list(sys.modules):  # this project's own, if other tests have loaded it
        if name.partition(".")[0] in ("conf", "config", "workers"):
            monkeypatch.delitem(sys.modules, name)
    before = set(sys.modules)
    yield tmp_path
    vars(utils).pop("settings", None)
    for name in set(sys.modules) - before:
        if not name.startswith(PACKAGE):
            del sys.modules[name]


@pytest.fixture
def write(here: Path) -> Callable[[str, str], str]:
    def write(name: str, source: str) -> str:
        path = here / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in list(path.relative_to(here).parents)[:-1]:
            (here / folder / "__init__.py").touch()
        imports = f"from {PACKAGE}.routing import *\nfrom {PACKAGE}.server import SMTPError\n"
        path.write_text(imports + textwrap.dedent(source))
        invalidate_caches()
        return name

    return write


class Kept(list[Any]):
    def push(self, message: Any) -> None:
        self.append(message)


# routing: from pattern to regular expression


def test_captures_come_from_the_defaults_and_then_from_the_route():
    Router.defaults(list="[a-z]+", host=r"x\.org")

    @routing.route("(list)-(op)@(host)", op="add")
    def START(message, list=None, op=None, host=None):
        pass

    assert Router.ORDER == [r"^(?P<list>[a-z]+)-(?P<op>add)@(?P<host>x\.org)$"]


def test_a_default_that_is_set_later_has_no_effect_on_a_route():
    @routing.route("(who)@x")
    def START(message):
        pass

    Router.defaults(who="ann")
    assert Router.ORDER == ["^(who)@x$"]


def test_a_pattern_is_a_regular_expression_of_which_named_groups_alone_are_passed():
    got = []

    @routing.route(".+(unknown)?@(host)", host="x.org")
    def START(message, **groups):
        got.append((message.To, groups))

    Router.deliver(request("Ann@X.ORG"))
    Router.deliver(request("bob@xyorg"))
    Router.deliver(request("bob@x.org.evil"))
    assert got == [("ann@x.org", {"host": "x.org"}), ("bob@xyorg", {"host": "xyorg"})]


def test_routes_match_in_any_case():
    assert list(Router.match("x@y")) == []
    Router.register_route("^ANN@x$", len)
    [(functions, groups)] = Router.match("ann@X")
    assert (functions, groups) == ([len], {})


# routing: order and selection


def test_a_regular_expression_stands_once_at_its_first_place_with_all_its_functions():
    @routing.route("a@x")
    def START(message):
        pass

    @routing.route("b@x")
    def OTHER(message):
        pass

    @routing.route("a@x")
    def END(message):
        pass

    assert Router.ORDER == ["^a@x$", "^b@x$"]
    compiled, functions = Router.REGISTERED["^a@x$"]
    assert compiled.pattern == "^a@x$"
    assert functions == [START, END]


def test_all_stateless_functions_run_and_one_stateful_one(write):
    write(
        "first",
        """
        ran = []
        @route(".+@x")
        @stateless
        def ANY(message): ran.append("any")
        @route(".+@x")
        def START(message): ran.append("start")
        @route("a@.+")
        @stateless
        def MORE(message): ran.append("more")
        """,
    )
    write("second", "import first\n@route('.+@x')\ndef START(message): first.ran.append('never')")
    Router.load(["first", "second"])
    Router.deliver(request("a@x"))
    assert sys.modules["first"].ran == ["any", "start", "more"]


def test_a_stateful_function_sees_what_a_stateless_one_before_it_has_set(write):
    write(
        "moving",
        """
        ran = []
        @route("a@x")
        @stateless
        def FIRST(message): Router.set_state(__name__, message, "SECOND")
        @route("a@.")
        def SECOND(message): ran.append("second")
        """,
    )
    Router.load(["moving"])
    Router.deliver(request("a@x"))
    assert sys.modules["moving"].ran == ["second"]


def test_what_no_handler_takes_is_undeliverable():
    Router.UNDELIVERABLE_QUEUE = Kept()
    sent = request()
    assert Router.deliver(sent) is None
    assert list(Router.UNDELIVERABLE_QUEUE) == [sent]
    Router.UNDELIVERABLE_QUEUE = None
    Router.deliver(sent)


# routing: results


def test_a_function_is_the_next_state_of_its_own_module(write):
    write("other", "@route('never')\ndef LATER(message): pass")
    write(
        "mine",
        """
        import other
        @route("a@x")
        def START(message): return other.LATER
        """,
    )
    Router.load(["other", "mine"])
    Router.deliver(request("a@x"))
    assert (Router.get_state("other", request()), Router.get_state("mine", request())) == ("LATER", "START")


@pytest.mark.parametrize("result", ["None", "False", "''", "0"])
def test_a_falsy_result_leaves_the_state(write, result):
    write("app", f"@route('a@x')\ndef START(message): return {result}")
    Router.load(["app"])
    Router.deliver(request("a@x"))
    assert Router.get_state("app", request()) == "START"


def test_what_a_stateless_handler_returns_is_ignored(write):
    write("app", "@route('a@x')\n@stateless\ndef ANY(message): return ANY")
    Router.load(["app"])
    Router.deliver(request("a@x"))
    assert Router.get_state("app", request()) == "START"


def test_an_smtp_error_passes_through_and_changes_nothing(write):
    write("app", "@route('a@x')\ndef START(message): raise SMTPError(451, 'later')")
    Router.load(["app"])
    Router.UNDELIVERABLE_QUEUE = Kept()
    with pytest.raises(server.SMTPError):
        Router.deliver(request("a@x"))
    assert Router.get_state("app", request()) == "START"
    assert Router.UNDELIVERABLE_QUEUE == []


@pytest.mark.parametrize("decorator", ["", "@stateless\n"])
def test_another_exception_ends_in_the_error_state_and_the_undeliverable_queue(write, decorator):
    write("app", f"@route('a@x')\n{decorator}def START(message): raise ValueError")
    Router.load(["app"])
    Router.UNDELIVERABLE_QUEUE = Kept()
    Router.deliver(request("a@x"))
    assert Router.get_state("app", request()) == "ERROR"
    assert len(Router.UNDELIVERABLE_QUEUE) == 1
    assert Router.in_error(sys.modules["app"].START, request())


def test_without_log_exceptions_it_is_raised():
    @routing.route("a@x")
    def START(message):
        raise ValueError

    Router.LOG_EXCEPTIONS = False
    with pytest.raises(ValueError, match=r"^$"):
        Router.deliver(request("a@x"))


def test_a_function_named_error_gets_the_next_messages_until_it_moves_on(write):
    write(
        "app",
        """
        ran = []
        @route("a@x")
        def START(message):
            ran.append("start")
            raise ValueError
        @route_like(START)
        def ERROR(message):
            ran.append("error")
            return START
        """,
    )
    Router.load(["app"])
    for _ in range(3):
        Router.deliver(request("a@x"))
    assert sys.modules["app"].ran == ["start", "error", "start"]


def test_the_router_has_its_defaults():
    fresh = routing.RoutingBase()
    assert (fresh.RELOAD, fresh.UNDELIVERABLE_QUEUE, fresh.LOG_EXCEPTIONS) == (False, None, True)
    assert isinstance(fresh.STATE_STORE, routing.MemoryStorage)
    assert isinstance(Router, routing.RoutingBase)


def test_reload_before_each_delivery(write, here):
    write("app", "@route('a@x')\n@stateless\ndef START(message): message.seen = 1")
    Router.load(["app"])
    Router.RELOAD = True
    write("app", "@route('a@x')\n@stateless\ndef START(message): message.seen = 'new version'")
    os.utime(here / "app.py", (1, 1))
    got = request("a@x")
    Router.deliver(got)
    assert got.seen == "new version"


@pytest.mark.parametrize("fault", ["raise TypeError", "nowhere", "import nothing_of_that_name"])
def test_a_broken_module_at_reload_is_logged_or_raised(write, here, fault):
    write("app", "@route('a@x')\n@stateless\ndef START(message): pass")
    Router.load(["app"])
    write("app", fault)
    os.utime(here / "app.py", (1, 1))
    Router.reload()
    Router.LOG_EXCEPTIONS = False
    with pytest.raises((TypeError, NameError, ImportError)):
        Router.reload()


# routing: names


def test_the_decorators_have_their_parameters():
    assert parameters(routing.route) == {"format": ...}
    assert any(p.kind is p.VAR_KEYWORD for p in inspect.signature(routing.route).parameters.values())
    assert parameters(routing.route_like) == {"func": ...}
    assert routing.ROUTE_FIRST_STATE == "START"
    assert routing.DEFAULT_STATE_KEY("module", None) == "module"
    assert routing.LOG.name == "routing"


def test_a_route_on_a_method_fails_at_the_call():
    class Handlers:
        @routing.route("a@x")
        def START(self, message):
            pass

    with pytest.raises(TypeError):
        Handlers().START(request())


def test_route_like_takes_the_same_routes_and_refuses_a_function_without():
    @routing.route("(who)@x", who="a")
    def START(message, who):
        pass

    @routing.route_like(START)
    def END(message, who):
        pass

    assert Router.REGISTERED["^(?P<who>a)@x$"][1] == [START, END]
    with pytest.raises(TypeError):
        routing.route_like(len)


def test_stateless_above_the_route_is_refused():
    with pytest.raises(TypeError):

        @routing.stateless
        @routing.route("a@x")
        def START(message):
            pass

    assert Router.ORDER == ["^a@x$"]


def test_nolocking_runs_outside_the_lock():
    held = []

    @routing.route("a@x")
    @routing.stateless
    @routing.nolocking
    def FREE(message):
        held.append(Router.lock._is_owned())

    @routing.route("a@x")
    @routing.stateless
    def BOUND(message):
        held.append(Router.lock._is_owned())

    Router.deliver(request("a@x"))
    assert held == [False, True]


def test_a_state_key_generator_serves_its_module(write):
    write(
        "app",
        """
        @state_key_generator
        def key(module_name, message): return f"{module_name}:{message.To}"
        @route(".+@x")
        def START(message): return END
        @route_like(START)
        def END(message): pass
        """,
    )
    Router.load(["app"])
    assert Router.state_key("app", request("a@x")) == "app:a@x"
    assert Router.HANDLERS["app"] is sys.modules["app"].key
    Router.deliver(request("a@x"))
    assert Router.get_state("app", request("a@x")) == "END"
    assert Router.get_state("app", request("b@x")) == "START"
    assert Router.in_state(sys.modules["app"].END, request("a@x"))


@pytest.mark.parametrize("call", [("get", "k", "s"), ("set", "k", "s", "X"), ("clear",)], ids=lambda c: c[0])
def test_the_base_of_storages_does_nothing(call):
    with pytest.raises(NotImplementedError):
        getattr(routing.StateStorage(), call[0])(*call[1:])


def test_the_memory_storage_keeps_states_by_the_repr_of_key_and_sender():
    store = routing.MemoryStorage()
    store.set("k", "s", "X")
    assert (store.states, store.get("k", "s")) == ({repr(["k", "s"]): "X"}, "X")
    store.set("k", "s", "START")
    assert (store.states, store.get("k", "s")) == ({}, "START")
    store.set("k", "s", "X")
    store.clear()
    assert store.states == {}


def test_the_shelve_storage_keeps_states_in_its_file(here):
    routing.ShelveStorage("states").set("k", "s", "X")
    again = routing.ShelveStorage(database_path="states")
    assert (again.get("k", "s"), again.get("k", "t")) == ("X", "START")
    again.clear()
    assert again.get("k", "s") == "START"


def test_load_takes_a_module_twice_and_complains_of_import_errors_only(write):
    write("app", "@route('a@x')\ndef START(message): pass")
    Router.load(["app"])
    Router.load(["app"])
    assert Router.ORDER == ["^a@x$"]
    assert Router.HANDLERS == {"app": routing.DEFAULT_STATE_KEY}
    Router.load(["no_such_module"])
    write("worse", "raise KeyError('x')")
    with pytest.raises(KeyError):
        Router.load(["worse"])
    Router.LOG_EXCEPTIONS = False
    with pytest.raises(ImportError):
        Router.load(["no_such_module"])


def test_the_rest_of_the_router_is_there():
    assert parameters(Router.register_route) == {"format": ..., "func": ...}
    assert parameters(Router.match) == {"address": ...}
    assert parameters(Router.get_state) == {"module_name": ..., "message": ...}
    assert parameters(Router.set_state) == {"module_name": ..., "message": ..., "state": ...}
    assert parameters(Router.in_state) == {"func": ..., "message": ...}
    assert parameters(Router.in_error) == {"func": ..., "message": ...}
    assert parameters(Router.state_key) == {"module_name": ..., "message": ...}
    assert parameters(Router.call_safely) == {"func": ..., "message": ..., "kwargs": ...}
    assert parameters(Router.load) == {"modules": ...}
    assert parameters(Router.deliver) == {"message": ...}
    Router.defaults(a="b")
    Router.register_route("^x$", len)
    Router.set_state("m", request(), "X")
    assert Router.DEFAULT_CAPTURES == {"a": "b"}
    Router.clear_routes()
    Router.clear_states()
    assert (Router.REGISTERED, Router.ORDER, Router.get_state("m", request())) == ({}, [], "START")


# queue


def test_a_queue_makes_its_folders_and_has_its_attributes(here):
    made = queue.Queue("run/q", pop_limit=9, oversize_dir="run/big")
    assert parameters(queue.Queue) == {"queue_dir": ..., "safe": False, "pop_limit": 0, "oversize_dir": None}
    assert (made.dir, made.pop_limit) == ("run/q", 9)
    assert os.path.samefile(made.oversize_dir, here / "run/big/new")
    assert {"tmp", "new", "cur"} <= set(os.listdir("run/q"))
    assert made.mbox.__class__.__name__ == "Maildir"
    assert isinstance(queue.Queue("run/s", safe=True).mbox, queue.SafeMaildir)


@pytest.mark.parametrize(
    "message", [DATA, DATA.encode(), request(), "object"], ids=["str", "bytes", "request", "str()"]
)
def test_what_is_pushed_is_popped(message):
    box = queue.Queue("run/q")
    if message == "object":
        message = mail.MailResponse(
            To="post@osb.example", From="ann@example.org", Subject="A title", Body="Text.\n"
        )
    key = box.push(message)
    assert (box.keys(), len(box), box.count()) == ([key], 1, 1)
    popped, got = box.pop()
    assert popped == key
    assert (got["Subject"], got.body(), got.From) == ("A title", "Text.\n", "ann@example.org")
    assert box.pop() == (None, None)


def test_bytes_stay_as_they_are():
    data = b"Subject: \xff\xfe\r\nX: y \r\n\r\nFrom here\n\x00\xff"
    box = queue.Queue("run/q")
    box.push(data)
    assert box.pop()[1].Data == data


def test_what_is_too_large_for_pop_goes_to_its_own_folder():
    box = queue.Queue("run/q", pop_limit=20, oversize_dir="run/big")
    big = box.push("Subject: " + "x" * 100 + "\n\n")
    assert box.oversize(big)[0] is True
    assert os.path.exists(box.oversize(big)[1])
    small = box.push("Subject: x\n\n")
    assert box.oversize(small)[0] is False
    assert box.pop()[0] == small
    assert box.pop() == (None, None)
    assert queue.Queue("run/big").count() == 1
    assert queue.Queue("run/other").oversize("any") == (False, None)


def test_get_leaves_the_message_and_remove_takes_it():
    box = queue.Queue("run/q")
    key = box.push(DATA)
    got = box.get(key)
    assert (got.Peer, got.From, len(box)) == ("run/q", "ann@example.org", 1)
    box.remove(key)
    assert len(box) == 0
    for call in (box.get, box.remove):
        with pytest.raises(KeyError):
            call(key)


def test_clear_empties_the_queue():
    box = queue.Queue("run/q")
    box.push(DATA)
    box.push(DATA)
    box.clear()
    assert (box.keys(), box.count(), len(box)) == ([], 0, 0)


def test_a_queue_error_has_its_data():
    fault = queue.QueueError("what", "data")
    assert (fault.data, isinstance(fault, Exception)) == ("data", True)
    assert "what" in str(fault)


def test_the_hashed_name_of_the_host_stands_in_the_keys_of_safe_queues():
    assert f".{queue.HASHED_HOSTNAME}" in queue.Queue("run/queue", safe=True).push(DATA)
    assert os.uname().nodename not in queue.HASHED_HOSTNAME


def test_a_safe_maildir_hides_the_host():
    box = queue.SafeMaildir("box")
    assert os.uname().nodename not in box.add("Subject: x\n\n").partition(".")[2]


# mail


def test_a_request_has_its_parameters_and_attributes():
    assert parameters(mail.MailRequest) == {"Peer": ..., "From": ..., "To": ..., "Data": ...}
    got = request()
    assert (got.Peer, got.From, got.To, got.Data) == ("peer", "ann@example.org", "post@osb.example", DATA)
    assert isinstance(got.base, encoding.MailBase)
    assert got.bounce is None


@pytest.mark.parametrize(
    "given", ["Ann <ANN@example.org>", b"ann@EXAMPLE.org", ["<ann@example.org>"], "ann@example.org"]
)
def test_addresses_of_the_envelope_are_bare_and_in_lower_case(given):
    got = request(given, given)
    assert (got.To, got.From) == ("ann@example.org", "ann@example.org")


def test_without_an_envelope_the_headers_tell():
    got = mail.MailRequest("peer", None, None, "From: a@x\nTo: b@x\nDelivered-To: c@x\n\n")
    assert (got.From, got.To) == ("a@x", "b@x")
    assert mail.ROUTABLE_TO_HEADER == "to"


def test_the_header_that_routes_can_be_chosen(monkeypatch):
    monkeypatch.setattr(mail, "ROUTABLE_TO_HEADER", "Delivered-To")
    assert mail.MailRequest("peer", None, None, "From: a@x\nTo: b@x\nDelivered-To: c@x\n\n").To == "c@x"


def test_without_headers_the_envelope_fills_them_in():
    got = request("b@x", "a@x", "Subject: x\n\nhi\n")
    assert (got["From"], got["To"]) == ("a@x", "b@x")


TWO = """\
Subject: x
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=B

--B

one
--B
Content-Type: text/html

<p>two
--B--
"""


def test_body_and_parts():
    single, double = request(), request(data=TWO)
    assert (single.body(), single.all_parts(), list(single.walk())) == ("Text.\n", [], [])
    assert double.body() == "one"
    assert [part.body for part in double.all_parts()] == ["one", "<p>two"]
    assert list(double.walk()) == double.all_parts()
    assert inspect.isgenerator(double.walk())


def test_headers_by_name_in_any_case():
    got = request(data="Received: a\nreceived: b\nmime-version: 1.0\nSubject: =?utf-8?q?=C3=A9?=\n\n")
    assert (got["SUBJECT"], got["absent"], "subject" in got, "absent" in got) == ("é", None, True, False)
    assert [name for name in got.keys() if name not in ("From", "To")] == [  # noqa: SIM118
        "Received",
        "Received",
        "Mime-Version",
        "Subject",
    ]
    got["received"] = "c"
    assert [pair for pair in got.items() if pair[0] == "Received"] == [("Received", "c")]
    assert got.keys()[-1] == "Received"
    del got["Received"]
    assert "received" not in got
    assert isinstance(got.keys(), list)
    assert isinstance(got.items(), list)


def test_a_request_as_a_message_and_as_text():
    got = request()
    assert isinstance(got.to_message(), email.message.Message)
    assert "Subject: A title" in str(got)
    assert email.message_from_string(str(got)).get_payload() == "Text.\n"


def test_original_is_the_old_name_of_data():
    with pytest.warns(DeprecationWarning, match="Data"):
        assert request().original == DATA


def test_is_bounce_analyses_at_first_use():
    got = report()
    assert parameters(got.is_bounce) == {"threshold": 0.3}
    assert got.is_bounce()
    assert isinstance(got.bounce, bounce.BounceAnalyzer)
    assert not got.is_bounce(threshold=1.0)
    assert not request().is_bounce()


def test_a_response_has_its_parameters_and_attributes():
    assert parameters(mail.MailResponse) == dict.fromkeys(("To", "From", "Subject", "Body", "Html"))
    made = mail.MailResponse("b@x", "a@x", "S", "text")
    assert (made.Body, made.Html, made.multipart, made.attachments) == ("text", None, False, [])
    assert isinstance(made.base, encoding.MailBase)
    assert (made["to"], made["from"], made["subject"]) == ("b@x", "a@x", "S")


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"Body": "t"}, "text/plain"),
        ({"Html": "<p>"}, "text/html"),
        ({"Body": "t", "Html": "<p>"}, "multipart/alternative"),
    ],
    ids=["text", "html", "both"],
)
def test_the_structure_of_a_response(given, kind):
    made = mail.MailResponse("b@x", "a@x", "S", **given)
    for _ in range(2):
        assert made.to_message().get_content_type() == kind


def test_attachments_follow_the_texts(here):
    Path("notes.txt").write_text("notes")
    made = mail.MailResponse("b@x", "a@x", "S", "text", "<p>")
    assert parameters(made.attach) == dict.fromkeys(("filename", "content_type", "data", "disposition"))
    made.attach(filename="notes.txt")
    made.attach(data=b"\x00", content_type="application/x")
    made.attach(filename="a.png", data=b"png", disposition="inline")
    message = made.to_message()
    assert message.is_multipart()
    assert [part.get_content_type() for part in message.get_payload()] == [
        "text/plain",
        "text/html",
        "text/plain",
        "application/x",
        "image/png",
    ]
    assert [part.get_content_disposition() for part in message.get_payload()][2:] == [
        "attachment",
        None,
        "inline",
    ]
    assert made.multipart
    assert len(made.all_parts()) == 5
    made.clear()
    assert (made.attachments, made["subject"]) == ([], "S")


def test_an_attachment_that_is_nowhere_or_of_no_type_is_refused():
    made = mail.MailResponse("b@x", "a@x", "S", "text")
    with pytest.raises(TypeError):
        made.attach(filename="absent.txt")
    with pytest.raises(TypeError):
        made.attach()
    with pytest.raises(ValueError, match="type"):
        made.attach(filename="unknown.of-no-type", data=b"x")


def test_a_file_is_read_when_the_message_is_built(here):
    Path("notes.txt").write_text("old")
    made = mail.MailResponse("b@x", "a@x", "S")
    made.attach(filename="notes.txt")
    Path("notes.txt").write_text("new")
    assert "new" in str(made)


def test_parts_of_a_received_message_can_be_used_again():
    made = mail.MailResponse("b@x", "a@x", "S")
    made.attach_all_parts(request(data=TWO))
    assert len(made.to_message().get_payload()) == 2
    made = mail.MailResponse("b@x", "a@x", "S", "text")
    made.attach_part(request(data=TWO).all_parts()[1])
    assert [part.get_content_type() for part in made.to_message().get_payload()] == [
        "text/plain",
        "text/html",
    ]


def test_update_sets_many_headers():
    made = mail.MailResponse("b@x", "a@x", "S", "text")
    made.update({"Subject": "T", "X-More": "é"})
    assert (made["subject"], made["x-more"]) == ("T", "é")
    assert "é" not in str(made)
    assert "X-More" in made
    del made["X-More"]
    assert [name for name, _ in made.items()] == made.keys()
    assert "X-More" not in made


# encoding


def test_a_mail_base_from_pairs_and_from_a_message():
    assert parameters(encoding.MailBase) == {"mime_part_or_headers": None, "parent": None}
    made = encoding.MailBase([("to", "a@x"), ("subject", "s")])
    assert (made["To"], len(made), list(made), made.parts, made.parent) == (
        "a@x",
        2,
        ["To", "Subject"],
        [],
        None,
    )
    message = email.message_from_string("sUbject: x\n\nhi")
    read = encoding.MailBase(message)
    assert (read.mime_part, read["subject"], read.keys(), read.body) == (message, "x", ["Subject"], "hi")


def test_headers_can_be_repeated_and_all_be_read():
    made = encoding.MailBase()
    made.append_header("x-one", "1")
    made.append_header("X-One", "2")
    assert (made.get_all("X-ONE"), made.get_all("none")) == (["1", "2"], [])
    made.mime_part["x-spelt"] = "v"
    assert (made["X-Spelt"], made.mime_part.keys()[-1], made.keys()[-1]) == ("v", "x-spelt", "X-Spelt")


def test_a_body_is_text_or_bytes_by_its_type():
    text = encoding.from_string("Content-Type: text/plain; charset=latin-1\n\n\xe9".encode("latin-1"))
    data = encoding.from_string("Content-Type: image/png\nContent-Transfer-Encoding: base64\n\neHh4\n")
    assert (text.body, data.body, encoding.from_string("\nplain").body) == ("é", b"xxx", "plain")
    text.body = "other"
    assert text.body == "other"


def test_attached_types_must_be_in_lower_case():
    made = encoding.MailBase()
    made.attach_text("text", "text/plain")
    made.attach_file("n.bin", b"x", "application/x", "attachment")
    assert len(made.parts) == 2
    assert list(made.walk()) == made.parts
    with pytest.raises(encoding.EncodingError):
        made.attach_text("text", "text/PLAIN")
    with pytest.raises(encoding.EncodingError):
        made.attach_file("n.bin", b"x", "Application/x", "attachment")


def test_content_encoding_is_a_pair_without_the_boundary():
    made = encoding.from_string("Content-Type: Multipart/Mixed; boundary=B; x=Y\n\n--B\n\na\n--B--\n")
    coding = made.content_encoding["content-type"]
    assert coding == ("multipart/mixed", {"x": "Y"})
    coding[1]["x"] = "Z"
    assert made.content_encoding["Content-Type"][1] == {"x": "Y"}
    assert made.content_encoding["Content-Disposition"] == (None, {})
    made.content_encoding["Content-Disposition"] = ("inline", {"filename": "f"})
    assert made.content_encoding["Content-Disposition"] == ("inline", {"filename": "f"})
    with pytest.raises(encoding.EncodingError):
        made.content_encoding["Subject"]
    with pytest.raises(encoding.EncodingError):
        made.content_encoding["Subject"] = ("x", {})


def test_the_constants_of_encoding():
    assert set(encoding.CONTENT_ENCODING_KEYS) == {
        "Content-Type",
        "Content-Transfer-Encoding",
        "Content-Disposition",
        "Mime-Version",
    }
    assert encoding.CONTENT_ENCODING_REMOVED_PARAMS == ["boundary"]
    assert issubclass(encoding.EncodingError, Exception)
    assert encoding.MIMEPart("text/plain", charset="utf-8").get_content_charset() == "utf-8"
    assert isinstance(encoding.MIMEPart("text/plain"), email.message.Message)


def test_reading_and_writing():
    for made in (
        encoding.from_string(DATA),
        encoding.from_string(DATA.encode()),
        encoding.from_file(io.StringIO(DATA)),
        encoding.from_file(io.BytesIO(DATA.encode())),
        encoding.from_message(email.message_from_string(DATA), parent=None),
    ):
        assert isinstance(made, encoding.MailBase)
        assert (made["subject"], made.body) == ("A title", "Text.\n")
        out = io.StringIO()
        encoding.to_file(made, out)
        assert out.getvalue() == encoding.to_string(made)
        assert encoding.to_string(made, envelope_header=True).startswith("From ")
        assert isinstance(encoding.to_message(made), encoding.MIMEPart)


def test_to_message_writes_its_type_back_as_the_last_header():
    made = encoding.MailBase([("Subject", "x")])
    made.body = "text"
    encoding.to_message(made)
    assert (made.keys()[-1], made.content_encoding["Content-Type"][0]) == ("Content-Type", "text/plain")
    parts = encoding.MailBase([("Subject", "x")])
    parts.attach_text("text", "text/plain")
    assert encoding.to_message(parts).get_content_type() == "multipart/mixed"
    quoted = encoding.from_string("Content-Type: text/plain; format=flowed\nSubject: x\n\nhi")
    encoding.to_message(quoted)
    assert quoted.mime_part.items()[-1] == ("Content-Type", 'text/plain; format="flowed"')


def test_parts_below_a_text_are_refused():
    made = encoding.MailBase([("Subject", "x")])
    made.attach_text("text", "text/plain")
    made.content_encoding["Content-Type"] = ("text/plain", {})
    with pytest.raises(encoding.EncodingError):
        encoding.to_message(made)


def test_the_canonical_form():
    made = encoding.MailBase([("Subject", "é"), ("To", "Zoë <zoe@x>"), ("X-Plain", "plain")])
    made.body = "é"
    text = encoding.to_string(made)
    assert text.isascii()
    assert "plain" in text
    assert '" <zoe@x>' in text
    assert "=?utf-8?" in text.lower()
    again = encoding.from_string(text)
    assert (again["subject"], again.body.strip()) == ("é", "é")
    kept = encoding.from_string("Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\naGk=\n")
    assert encoding.to_message(kept)["Content-Transfer-Encoding"] == "base64"
    image = encoding.from_string("Content-Type: image/png\n\nx")
    image.body = b"y"  # what is not changed is written as it came
    assert encoding.to_message(image)["Content-Transfer-Encoding"] == "base64"
    signed = encoding.from_string(
        "Content-Type: multipart/signed; micalg=pgp-sha1; protocol=p; boundary=B\n\n--B\n\na\n--B--\n"
    )
    assert "micalg" in encoding.to_string(signed)


def test_a_charset_that_does_not_fit_warns():
    made = encoding.from_string("Content-Type: text/plain; charset=us-ascii\n\nhi")
    made.body = "é"
    with pytest.warns(UnicodeWarning):
        encoding.to_string(made)


def test_the_smaller_names_of_encoding():
    assert encoding.DEFAULT_ENCODING == "utf-8"
    assert (encoding.VALUE_IS_EMAIL_ADDRESS("a@b"), encoding.VALUE_IS_EMAIL_ADDRESS("ab")) == (True, False)
    assert list(parameters(encoding.properly_encode_header)) == ["value", "encoder", "not_email"]
    quoted, shortest = email.charset.Charset("utf-8"), email.charset.Charset("utf-8")
    quoted.header_encoding = email.charset.QP
    assert encoding.properly_encode_header("plain", quoted, False) == "plain"
    assert encoding.properly_encode_header("é", quoted, False) == "=?utf-8?q?=C3=A9?="
    assert encoding.properly_encode_header("é <a@b>", quoted, False) == '"=?utf-8?q?=C3=A9?=" <a@b>'
    assert "a@b" not in encoding.properly_encode_header("é a@b", shortest, True)
    assert encoding.properly_decode_header(encoding.properly_encode_header("é ü")) == "é ü"


def test_a_mime_part_takes_text_and_bodies():
    part = encoding.MIMEPart("text/plain")
    part.add_text("é")
    assert (part.get_content_charset(), part.get_payload(decode=True)) == ("utf-8", "é".encode())
    part = encoding.MIMEPart("text/html")
    part.add_text("plain")
    assert (part["Content-Type"], part.get_payload()) == ('text/html; charset="us-ascii"', "plain")
    made = encoding.MailBase([("Content-Type", "application/pdf")])
    made.body = b"\xff"
    part = encoding.MIMEPart("text/plain")
    part.extract_payload(made)
    assert (part.get_content_type(), part["Content-Transfer-Encoding"]) == ("application/pdf", "base64")
    assert (part.get_payload(decode=True), part.as_string().count("Content-Type")) == (b"\xff", 1)


def test_header_coding():
    assert encoding.header_to_mime_encoding("") == encoding.header_to_mime_encoding(None) == ""
    assert encoding.header_to_mime_encoding(["a", "b"]) == "a; b"
    assert parameters(encoding.header_to_mime_encoding)["not_email"] is False
    assert encoding.header_from_mime_encoding(None) is None
    assert encoding.header_from_mime_encoding(["=?utf-8?q?=C3=A9?="]) == ["é"]
    assert encoding.properly_decode_header("=?utf-8?b?w6k=?=\n =?utf-8?b?w6k=?= x") == "éé x"
    assert encoding.properly_decode_header("=?utf-8?q?=C3?=\n =?utf-8?q?=A9?=") == "é"
    assert encoding.attempt_decoding("ascii", "text") == "text"
    assert encoding.attempt_decoding("no-such-charset", "é".encode()) == "é"
    assert encoding.guess_encoding_and_decode("ascii", "é".encode()) == "é"
    assert parameters(encoding.guess_encoding_and_decode)["errors"] == "strict"
    assert encoding.apply_charset_to_header("utf-8", "b", b"w6k=") == "é"
    assert encoding.apply_charset_to_header("utf-8", "Q", "=C3=A9") == "é"
    with pytest.raises(encoding.EncodingError):
        encoding.apply_charset_to_header("utf-8", "X", "x")
    assert encoding.normalize_header("mime-version") == "Mime-Version"
    message = email.message_from_string("Content-Type: TEXT/plain; charset=utf-8\n\n")
    assert encoding.parse_parameter_header(message, "Content-Type") == ("text/plain", {"charset": "utf-8"})


# server


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (425, "425 Persistent Transient Failure Mailbox Status"),
        (510, "510 Permanent Failure Addressing Status"),
        (999, "999 "),
    ],
)
def test_an_smtp_error_without_a_message(code, text):
    assert str(server.SMTPError(code)) == text


def test_an_smtp_error_with_a_message():
    fault = server.SMTPError(451, "later")
    assert (fault.code, fault.message, str(fault)) == (451, "later", "451 later")
    assert parameters(server.SMTPError) == {"code": ..., "message": None}


def test_a_relay_has_its_parameters_and_attributes():
    assert parameters(server.Relay) == {
        "host": "127.0.0.1",
        "port": 25,
        "username": None,
        "password": None,
        "ssl": False,
        "starttls": False,
        "debug": 0,
        "lmtp": False,
    }
    made = server.Relay("h", 1, "u", "p", lmtp=True)
    assert (made.hostname, made.port, made.username, made.password) == ("h", 1, "u", "p")
    assert (made.ssl, made.starttls, made.debug, made.lmtp) == (False, False, 0, True)
    for wrong in ({"starttls": True}, {"lmtp": True}):
        with pytest.raises(TypeError):
            server.Relay(ssl=True, **wrong)


class FakeSMTP:
    """What `smtplib` would have been asked."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.sent: list[tuple[str, list[str], bytes]] = []

    def __call__(self, host: str, port: int, **more: Any) -> FakeSMTP:
        self.calls.append(f"{host}:{port}")
        return self

    def sendmail(self, sender: str, recipients: list[str], data: bytes, *more: Any) -> dict[str, Any]:
        self.sent.append((sender, recipients, data))
        return {}

    def has_extn(self, name: str) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self.calls.append(name)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("SMTP", {}), ("SMTP_SSL", {"ssl": True}), ("LMTP", {"lmtp": True})],
    ids=lambda o: str(o),
)
def test_a_relay_sends_by_smtplib(monkeypatch, kind, options):
    fake = FakeSMTP()
    monkeypatch.setattr(smtplib, kind, fake)
    server.Relay("h", 2, **options).deliver(mail.MailResponse("b@x", "a@x", "S", "text"))
    [(sender, recipients, data)] = fake.sent
    assert (sender, list(recipients), fake.calls[0], "quit" in fake.calls) == ("a@x", ["b@x"], "h:2", True)
    assert b"text" in data


def test_a_relay_logs_in_and_encrypts_if_it_is_told_to(monkeypatch):
    fake = FakeSMTP()
    monkeypatch.setattr(smtplib, "SMTP", fake)
    server.Relay("h", 2, username="u", password="p", starttls=True).deliver(DATA, To="c@x", From="d@x")
    assert ("starttls" in fake.calls, "login" in fake.calls) == (True, True)
    assert fake.sent[0][:2] == ("d@x", ["c@x"])
    server.Relay("h", 2, username="u").send("b@x", "a@x", "S", "text")
    server.Relay("h", 2).reply(request(), "a@x", "S", "text")
    assert fake.calls.count("login") == 1
    assert [list(to) for _, to, _ in fake.sent] == [["c@x"], ["b@x"], ["ann@example.org"]]
    assert parameters(server.Relay.deliver) == {"message": ..., "To": None, "From": None}
    assert list(parameters(server.Relay.send)) == ["To", "From", "Subject", "Body"]
    assert list(parameters(server.Relay.reply)) == ["original", "From", "Subject", "Body"]
    assert server.Relay("h").resolve_relay_host("a@x") == "h"
    assert list(parameters(server.Relay.configure_relay)) == ["hostname"]


@pytest.mark.parametrize("kind", [mock.Mock, mock.MagicMock])
def test_a_mock_can_stand_in_for_smtplib_where_the_server_has_it(monkeypatch, kind):
    made = kind()
    monkeypatch.setattr(f"{PACKAGE}.server.smtplib.SMTP", made)
    server.Relay("h", 2).deliver(mail.MailResponse("b@x", "a@x", "S", "text"))
    assert made.call_args.args == ("h", 2)
    assert made.return_value.sendmail.call_args.args[:2] == ("a@x", ["b@x"])
    assert made.return_value.quit.call_count == 1


def test_a_relay_lets_socket_errors_through():
    with pytest.raises(OSError, match=r"."):
        server.Relay("127.0.0.1", 1).deliver(DATA)


@pytest.mark.parametrize(("kind", "port"), [("SMTPReceiver", 8825), ("LMTPReceiver", 8824)])
def test_the_receivers_have_their_parameters_and_listen_once_made(kind, port):
    receiver = getattr(server, kind)
    given = parameters(receiver)
    assert (given["host"], given["port"]) == ("127.0.0.1", port)
    assert ("socket" in given) == (kind == "LMTPReceiver")
    made = receiver("127.0.0.1", 0)
    try:
        with __import__("socket").create_connection(("127.0.0.1", made.port), 5):
            pass
    finally:
        made.close()


@pytest.fixture
def receiver():
    made = server.SMTPReceiver("127.0.0.1", 0)
    yield made
    made.close()


def test_process_message_delivers_to_the_router(receiver):
    got = []

    @routing.route("(who)@x", who=".+")
    @routing.stateless
    def START(message, who):
        got.append((who, message.Peer, message.From))
        if who == "smtp":
            raise server.SMTPError(550, "no")
        if who == "bad":
            raise ValueError

    Router.UNDELIVERABLE_QUEUE = Kept()
    args = list(inspect.signature(receiver.process_message).parameters)
    assert args[:4] == ["Peer", "From", "To", "Data"]
    assert receiver.process_message("p", "a@x", "ok@x", DATA, anything="else") is None
    assert receiver.process_message("p", "a@x", "smtp@x", DATA) == "550 no"
    assert Router.UNDELIVERABLE_QUEUE == []
    assert receiver.process_message("p", "a@x", "bad@x", DATA) is None
    assert len(Router.UNDELIVERABLE_QUEUE) == 1
    assert got == [("ok", "p", "a@x"), ("smtp", "p", "a@x"), ("bad", "p", "a@x")]


def test_a_failed_message_is_kept_once_however_it_is_raised(receiver):
    @routing.route("bad@x")
    @routing.stateless
    def START(message):
        raise ValueError

    Router.LOG_EXCEPTIONS = False
    Router.UNDELIVERABLE_QUEUE = Kept()
    assert receiver.process_message("p", "a@x", "bad@x", DATA) is None
    assert len(Router.UNDELIVERABLE_QUEUE) == 1


def test_what_fails_outside_of_a_handler_is_kept_raw(receiver, monkeypatch):
    def deliver(message: Any) -> None:
        raise KeyError

    Router.UNDELIVERABLE_QUEUE = Kept()
    monkeypatch.setattr(Router, "deliver", deliver, raising=False)
    assert receiver.process_message("p", "a@x", "b@x", DATA) is None
    assert Router.UNDELIVERABLE_QUEUE == [DATA]


def test_a_queue_receiver_has_its_parameters():
    assert parameters(server.QueueReceiver) == {
        "queue_dir": ...,
        "sleep": 10,
        "size_limit": 0,
        "oversize_dir": None,
        "workers": 10,
    }
    assert parameters(server.QueueReceiver.start) == {"one_shot": False}


def test_a_queue_receivers_process_message_never_raises():
    @routing.route("(who)@x", who=".+")
    @routing.stateless
    def START(message, who):
        raise server.SMTPError(550, "no") if who == "smtp" else ValueError

    Router.UNDELIVERABLE_QUEUE = Kept()
    made = server.QueueReceiver("run/q")
    for who in ("smtp", "bad"):
        assert made.process_message(request(f"{who}@x")) is None
    assert len(Router.UNDELIVERABLE_QUEUE) == 2


def test_a_message_can_be_made_undeliverable():
    server.undeliverable_message("raw", "why")
    Router.UNDELIVERABLE_QUEUE = Kept()
    server.undeliverable_message("raw", "why")
    assert Router.UNDELIVERABLE_QUEUE == ["raw"]


# view


class Templates:
    def get_template(self, name: str) -> Any:
        return types.SimpleNamespace(render=lambda variables: f"{name}: {variables['who']}")


def test_a_view_needs_a_loader():
    assert view.LOADER is None
    with pytest.raises(TypeError):
        view.load("x")
    view.LOADER = Templates()
    assert view.load("x").render({"who": "ann"}) == "x: ann"
    assert view.render({"who": "ann"}, "x") == "x: ann"
    assert list(parameters(view.render)) == ["variables", "template"]


def test_respond_renders_and_formats():
    view.LOADER = Templates()
    made = view.respond(
        {"who": "ann"}, Body="b", Html="h", To="%(who)s@x", From="c@x", Subject="Hello %(who)s"
    )
    assert isinstance(made, mail.MailResponse)
    assert (made.Body, made.Html) == ("b: ann", "h: ann")
    assert (made["To"], made["From"], made["Subject"]) == ("ann@x", "c@x", "Hello ann")
    with pytest.raises(TypeError):
        view.respond({"who": "ann"}, To="b@x")
    assert parameters(view.respond) == {"variables": ..., "Body": None, "Html": None}


def test_respond_takes_the_template_first_too_and_answers_the_message():
    view.LOADER = Templates()
    made = view.respond("b", {"who": "ann"})
    assert (made.Body, made["To"]) == ("b: ann", None)
    made = view.respond("b", {"who": "ann", "message": request()}, Subject="Hello %(who)s")
    assert (made["To"], made["From"], made["Subject"]) == ("ann@example.org", "post@osb.example", "Hello ann")
    made = view.respond({"who": "ann", "message": request()}, Html="h")
    assert (made.Html, made["Subject"]) == ("h: ann", "Re: A title")
    assert view.respond("b", {"who": "x", "message": request(sender="")})["To"] is None
    for wrong in ((), ("b",), ({"who": "ann"}, {"who": "ann"})):
        with pytest.raises((TypeError, KeyError)):
            view.respond(*wrong)


def test_work_is_deferred_to_a_queue_as_salmons_pages_do_it(write, here, caplog):
    """A handler that answers by `respond('page_ready.msg', locals())` and pushes on, and one that logs."""
    view.LOADER = types.SimpleNamespace(
        get_template=lambda name: types.SimpleNamespace(
            render=lambda variables: f"{name}: {variables['post_name']} by {variables['address']}"
        )
    )
    write("config.settings", "queue_config = {'queue': 'run/posts', 'sleep': 10}\n")
    write(
        "app.handlers.post",
        f"""
        from email.utils import parseaddr
        from config import settings
        from {PACKAGE} import queue, view

        @route("(post_name)@osb\\\\.(host)", post_name="[a-z]+", host=".+")
        @stateless
        def POSTING(message, post_name=None, host=None):
            name, address = parseaddr(message['from'])
            msg = view.respond('page_ready.msg', locals())
            settings.relay.deliver(msg)
            index_q = queue.Queue("run/posts")
            index_q.push(message)
        """,
    )
    write(
        "app.handlers.index",
        """
        import logging

        @route("(post_name)@osb\\\\.(host)", post_name="[a-z]+", host=".+")
        @stateless
        def START(message, post_name=None, host=None):
            logging.debug("Got message from %s", message['from'])
        """,
    )
    from config import settings  # type: ignore[import-not-found]

    settings.relay = Outbox()
    Router.load(["app.handlers.post"])
    Router.deliver(request())
    [answer] = settings.relay
    assert (answer["To"], answer["From"]) == ("ann@example.org", "post@osb.example")
    assert answer.Body == "page_ready.msg: post by ann@example.org"
    Router.clear_routes()
    Router.load(["app.handlers.index"])
    caplog.set_level(logging.DEBUG)
    receiver = server.QueueReceiver(settings.queue_config["queue"], settings.queue_config["sleep"])
    receiver.start(one_shot=True)
    assert "Got message from ann@example.org" in caplog.text
    assert queue.Queue("run/posts").count() == 0


def test_attach_renders_an_attachment():
    view.LOADER = Templates()
    made = mail.MailResponse("b@x", "a@x", "S", "text")
    view.attach(
        made, {"who": "ann"}, "t.html", filename="page.html", content_type="text/html", disposition="inline"
    )
    assert "t.html: ann" in str(made)
    assert list(parameters(view.attach)) == [
        "msg",
        "variables",
        "template",
        "filename",
        "content_type",
        "disposition",
    ]


# bounce


def test_bounce_to_sends_bounces_to_functions_of_their_own():
    ran = []

    def note(name: str) -> Callable[..., Any]:
        return lambda message: ran.append(name)

    @routing.route("(who)@(host)", who=".+", host=".+")
    @bounce.bounce_to(soft=note("soft"), hard=note("hard"))
    def START(message, who=None, host=None):
        ran.append(who)

    for message in (report("5.1.1"), report("4.2.2"), request()):
        Router.deliver(message)
    assert ran == ["hard", "soft", "post"]
    assert list(parameters(bounce.bounce_to)) == ["soft", "hard"]
    for wrong in ({"soft": None, "hard": len}, {"soft": len, "hard": "x"}):
        with pytest.raises(TypeError):
            bounce.bounce_to(**wrong)


def test_what_the_chosen_function_returns_is_the_result():
    handler = bounce.bounce_to(soft=lambda message: "soft", hard=lambda message: "hard")(
        lambda message: "own"
    )
    assert [handler(m) for m in (report("5.1.1"), report("4.0.0"), request())] == ["hard", "soft", "own"]


def test_a_report_is_scored_and_read():
    found = bounce.detect(report())
    assert isinstance(found, bounce.BounceAnalyzer)
    assert found.score == 1.0
    assert found.primary_status == (5, "Permanent Failure")
    assert found.secondary_status == (1, "Addressing Status")
    assert found.combined_status == (11, "Bad destination mailbox address")
    assert (found.remote_mta, found.reporting_mta) == ("mail.example.com", "mx.example.org")
    assert (found.final_recipient, found.action) == ("bob@example.com", "failed")
    assert list(found.diagnostic_codes) == ["550-5.1.1", "no such user"]
    assert found.is_hard()
    assert not found.is_soft()
    assert found.probable()
    assert "Bad destination" in found.error_for_humans()


def test_the_headers_of_a_report_are_matched():
    assert bounce.BOUNCE_MAX == 16
    asked = report()
    matched = bounce.match_bounce_headers(asked)
    assert matched == bounce.detect(asked).headers
    assert matched["Status"] == [("5", "1", "1")]
    assert bounce.match_bounce_headers(request()) == {}


def test_the_parts_of_a_report():
    found = bounce.detect(report())
    assert set(found.content_parts) == {"notification", "delivery report", "undelivered message"}
    assert found.headers["Content-Description-Parts"] == found.content_parts
    assert found.notification.body == "It did not work."
    assert found.original["subject"] == "Hello"
    assert [part["Final-Recipient"] for part in found.report][1] == "rfc822; bob@example.com"


def test_what_is_no_bounce_has_nothing():
    found = bounce.detect(request())
    assert (found.score, found.headers, found.probable()) == (0, {}, False)
    assert found.primary_status == found.secondary_status == found.combined_status == (None, None)
    assert found.remote_mta is found.reporting_mta is found.final_recipient is found.action is None
    assert list(found.diagnostic_codes) == [None, None]
    assert found.notification is found.original is found.report is None
    assert not found.is_hard()
    assert not found.is_soft()
    assert found.error_for_humans()


def test_a_header_that_does_not_parse_scores_a_point_less():
    good, bad = bounce.detect(report()), bounce.detect(report("nonsense"))
    assert good.score - bad.score == 1 / 16
    assert "Status" not in bad.headers
    assert bad.primary_status == (None, None)


def test_the_root_is_not_looked_at():
    assert bounce.detect(request(data="Status: 5.1.1\nAction: failed\n\nhi\n")).score == 0


def test_matchers_can_be_added(monkeypatch):
    import re

    assert set(bounce.BOUNCE_MATCHERS) == {
        "Action",
        "Content-Description",
        "Diagnostic-Code",
        "Final-Recipient",
        "Received",
        "Remote-Mta",
        "Reporting-Mta",
        "Status",
    }
    before = bounce.detect(report()).score
    monkeypatch.setitem(bounce.BOUNCE_MATCHERS, "Content-Type", re.compile("(.+)"))
    assert bounce.detect(report()).score > before


# confirm


@pytest.fixture
def engine():
    view.LOADER = Templates()
    return confirm.ConfirmationEngine("run/pending", confirm.ConfirmationStorage())


class Outbox(list[Any]):
    def deliver(self, message: Any) -> None:
        self.append(message)


def test_a_confirmation_storage():
    store = confirm.ConfirmationStorage()
    assert store.get("t", "a@x") == (None, None)
    store.store("t", "a@x", "secret", "id")
    assert (store.get("t", "a@x"), store.key("t", "a@x")) == (("secret", "id"), b"t:a@x")
    assert list(store.confirmations) == [b"t:a@x"]
    store.delete("t", "a@x")
    store.delete("t", "a@x")
    assert store.get("t", "a@x") == (None, None)
    store.store(target="t", from_address="a@x", secret="secret", pending_id="id")
    store.clear()
    assert len(store.confirmations) == 0
    assert confirm.ConfirmationStorage().confirmations is not store.confirmations
    own: dict[bytes, Any] = {}
    assert confirm.ConfirmationStorage(own).confirmations is own
    assert list(parameters(confirm.ConfirmationStorage)) == ["db"]


def test_a_confirmation_storage_on_a_shelf(here):
    shelf = shelve.open("confirmations")  # and it is never closed
    confirm.ConfirmationStorage(shelf).store("t", "a@x", "secret", "id")
    confirm.ConfirmationStorage(shelf).store("t", "é@x", "other", "id2")
    read = "import shelve; print(sorted(shelve.open('confirmations', 'r').items()))"
    seen = subprocess.run(
        [sys.executable, "-c", read], capture_output=True, text=True, timeout=60, check=True
    )
    assert seen.stdout.strip() == "[('t:\\\\xe9@x', ('other', 'id2')), ('t:a@x', ('secret', 'id'))]"
    store = confirm.ConfirmationStorage(shelf)
    assert store.get("t", "a@x") == ("secret", "id")
    engine = confirm.ConfirmationEngine("run/pending", store)
    address = engine.register("u", request())
    assert engine.verify("u", "Ann <ann@example.org>", address.rpartition("-")[2])["subject"] == "A title"
    store.delete("t", "a@x")
    store.delete("t", "a@x")
    assert store.get("t", "a@x") == (None, None)
    store.clear()
    assert len(shelf) == 0
    shelf.close()


def test_a_confirmation_is_sent_and_verified(engine):
    out = Outbox()
    engine.send(out, "sub", request(), "ask", {"host": "lists.example", "who": "ann"})
    [question] = out
    secret = engine.storage.get("sub", "ann@example.org")[0]
    assert question["From"] == question["Reply-To"] == f"sub-confirm-{secret}@lists.example"
    assert (question["To"], question.Body) == ("ann@example.org", "ask: ann")
    assert int(secret, 16) > 0
    assert isinstance(engine.pending, queue.Queue)
    assert engine.verify(target="sub", from_address="ann@example.org", secret="wrong") is None
    got = engine.verify("sub", "Ann <ann@example.org>", secret)
    assert got["Subject"] == "A title"
    assert len(engine.pending) == 1
    assert engine.verify("sub", "ann@example.org", secret) is None


def test_a_confirmation_is_cancelled_with_the_right_secret_only(engine):
    name = engine.register("sub", request())
    secret = name.rpartition("-")[2]
    engine.cancel("sub", "ann@example.org", "wrong")
    assert len(engine.pending) == 1
    engine.cancel("sub", "ann@example.org", secret)
    assert (len(engine.pending), engine.storage.get("sub", "ann@example.org")) == (0, (None, None))


def test_the_steps_of_a_confirmation(engine):
    key = engine.push_pending(request())
    assert engine.get_pending(key)["Subject"] == "A title"
    engine.delete_pending(key)
    assert len(engine.pending) == 0
    assert engine.make_random_secret() != engine.make_random_secret()
    engine.register("sub", request())
    engine.clear()
    assert (len(engine.pending), len(engine.storage.confirmations)) == (0, 0)


# testing


def test_a_conversation_with_the_router(write):
    write(
        "app",
        f"""
        from {PACKAGE}.server import Relay
        @route("(who)@x", who=".+")
        def START(message, who):
            Relay("192.0.2.1", 1).reply(message, "robot@x", "Re: hello", "Welcome, " + message.body())
            return END
        @route_like(START)
        def END(message, who): pass
        """,
    )
    Router.load(["app"])
    client = testing.RouterConversation("ann@example.org", "hello")
    client.begin()
    got = client.say("post@x", "my dear", "Welcome, my dear")
    assert got["To"] == "ann@example.org"
    testing.assert_in_state("app", "post@x", "ann@example.org", "END")
    with pytest.raises(AssertionError):
        testing.assert_in_state("app", "post@x", "ann@example.org", "START")
    with pytest.raises(AssertionError):
        client.say("post@x", "again", expect="no such answer", Subject="other")
    client.begin()
    testing.assert_in_state("app", "post@x", "ann@example.org", "START")
    assert testing.queue().count() == 0
    assert parameters(client.say) == {"To": ..., "Body": ..., "expect": None, "Subject": None}
    assert list(parameters(testing.RouterConversation)) == ["From", "Subject"]


def test_the_queue_of_tests():
    box = testing.queue()
    assert (box.dir.endswith("/run/queue"), isinstance(box, queue.Queue)) == (True, True)
    assert queue.Queue(testing.TEST_QUEUE).layout == box.layout
    assert not Path("run/queue").exists()
    assert testing.delivered("nothing") is False
    box.push(DATA)
    assert testing.delivered("A ti[t]le")["Subject"] == "A title"
    assert testing.delivered("A title", to_queue=queue.Queue("run/other")) is False
    testing.clear_queue()
    assert box.count() == 0
    assert parameters(testing.queue) == parameters(testing.clear_queue) == {"queue_dir": "run/queue"}


def test_the_relay_of_tests():
    made = testing.relay(port=12)
    assert isinstance(made, server.Relay)
    assert (made.hostname, made.port) == ("127.0.0.1", 12)
    assert parameters(testing.relay) == {"hostname": "127.0.0.1", "port": 8824}


def test_a_conversation_over_a_relay():
    sent = []

    class Wire:
        def send(self, To: str, From: str, Subject: str, Body: str) -> None:
            sent.append((To, From, Subject, Body))
            testing.queue().push(f"Subject: Re: {Subject}\n\n{Body}\n")

    client = testing.TestConversation(Wire(), "ann@example.org", "hello")
    client.begin()
    assert client.say("post@x", "text", "Re: hello")["Subject"] == "Re: hello"
    assert sent == [("post@x", "ann@example.org", "hello", "text")]
    assert list(parameters(testing.TestConversation)) == ["relay_to_use", "From", "Subject"]


# utils


@pytest.mark.parametrize("package", ["conf", "config"])
def test_settings_are_loaded_before_the_boot_module(write, package):
    assert utils.settings is None
    write(f"{package}.settings", "handlers = []\nloaded = []")
    write(f"{package}.boot", f"from {PACKAGE}.utils import settings\nsettings.loaded.append('boot')")
    got = utils.import_settings(False)
    assert (got.__name__, got.loaded, utils.settings) == (f"{package}.settings", [], got)
    assert utils.import_settings(True) is got
    assert got.loaded == ["boot"]
    assert parameters(utils.import_settings) == {"boot_also": ..., "boot_module": "config.boot"}


def test_conf_comes_before_config_and_a_variable_before_both(write, monkeypatch):
    write("conf.settings", "which = 'conf'")
    write("config.settings", "which = 'config'")
    write("mine", "which = 'mine'")
    write("others.boot", f"from {PACKAGE}.utils import settings\nsettings.booted = True")
    assert utils.import_settings(False).which == "conf"
    vars(utils).pop("settings")
    monkeypatch.setenv("SALMON_SETTINGS_MODULE", "mine")
    assert utils.import_settings(True, "others.boot").which == "mine"
    assert utils.settings.booted


def test_fake_settings_listen_and_are_made_once(here):
    made = utils.make_fake_settings("127.0.0.1", 0)
    try:
        assert made.relay is None
        assert utils.settings is made
        assert utils.make_fake_settings("127.0.0.1", 0) is made
    finally:
        made.receiver.close()


def test_the_steps_of_start(here, monkeypatch):
    Path("a.pid").write_text("1")
    with pytest.raises(SystemExit) as end:
        utils.check_for_pid("a.pid", False)
    assert end.value.code == 1
    utils.check_for_pid("a.pid", True)
    assert not Path("a.pid").exists()
    utils.check_for_pid("a.pid", False)
    assert list(parameters(utils.drop_priv)) == ["uid", "gid"]
    become = mock.Mock()
    for name in ("setgroups", "setgid", "setuid"):
        monkeypatch.setattr(os, name, getattr(become, name))
    become.setgroups.side_effect = PermissionError
    utils.drop_priv(3, 4)
    assert become.mock_calls == [mock.call.setgroups([]), mock.call.setgid(4), mock.call.setuid(3)]
    assert callable(utils.daemonize)
    assert callable(utils.start_server)


# handlers


def loaded(name: str) -> Any:
    found = import_module(f"{PACKAGE}.handlers.{name}")
    Router.clear_routes()
    return reload(found)


@pytest.mark.parametrize("name", ["log", "queue", "forward"])
def test_a_ready_handler_is_registered_by_its_import(name):
    found = loaded(name)
    assert Router.REGISTERED["^(?P<to>.+)@(?P<host>.+)$"][1] == [found.START]


def test_the_queue_handler_keeps_the_message():
    loaded("queue")
    Router.deliver(request())
    assert queue.Queue("run/queue").pop()[1]["Subject"] == "A title"


def test_the_queue_handler_does_not_feed_the_queue_that_it_works_off():
    loaded("queue")
    queue.Queue("run/queue").push(request())
    Router.deliver(queue.Queue("run/queue").pop()[1])
    assert (queue.Queue("run/queue").count(), queue.Queue("run/log").count()) == (0, 1)


def test_the_log_handler_logs(caplog):
    loaded("log")
    with caplog.at_level("INFO"):
        Router.deliver(request())
    assert "post@osb.example" in caplog.text


def test_the_forward_handler_delivers_by_the_settings_relay(monkeypatch):
    loaded("forward")
    out = Outbox()
    monkeypatch.setitem(vars(utils), "settings", types.SimpleNamespace(relay=out))
    Router.deliver(request())
    assert [message["Subject"] for message in out] == ["A title"]


def test_nothing_here_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reload(testing)
