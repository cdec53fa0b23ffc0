from __future__ import annotations

import ast
import importlib
import json
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from maildefer import routing, utils, view
from maildefer.errors import ConfigurationError, HandlerMissing
from maildefer.handling import handler_marks
from maildefer.handling.application import (
    Application,
    PoolSettings,
    load_settings,
    module_files,
    pool_settings,
)
from maildefer.handling.handoff_check import check_handoffs
from maildefer.handling.outcomes import ACKED, HandedOff
from maildefer.handling.project import settings as settings_room
from maildefer.handling.project.finder import PACKAGES
from maildefer.handling.project.mail_settings import provide
from maildefer.handling.routes import DEFAULT_STATE_KEY, Router, RoutingBase
from maildefer.handling.state.directory import DirectoryStorage
from maildefer.handling.state.storage import ShelveStorage
from maildefer.mail import MailRequest
from maildefer.message import authentication, templates
from maildefer.message.outgoing.relay import Relay

Write = Callable[[str, str], Path]

HANDLER = """
from maildefer.routing import route, stateless
@route("(name)@(host)")
@stateless
def START(message, name=None, host=None): ...
"""
CAPTURES = r'router_defaults = {"host": r"osb\.example", "name": "[a-z]+"}' + "\n"
TWO_QUEUES = CAPTURES + 'queues = {"run/queue": ["app.posting"], "run/posts": ["app.index"]}\n'


@pytest.fixture(autouse=True)
def _nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tests of a project, `tests/blog`, have loaded in this process."""
    monkeypatch.setattr(view, "LOADER", None)
    monkeypatch.setattr(templates, "configured", None)
    monkeypatch.setattr(settings_room, "_loaded", None)
    monkeypatch.delitem(vars(utils), "settings", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """A project in the working directory, with settings in `app.settings`; `project(file, text)` writes into it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("MAILDEFER_SETTINGS_MODULE", "app.settings")
    for name, value in vars(RoutingBase()).items():
        monkeypatch.setattr(Router, name, value)

    def write(file: str, text: str) -> Path:
        path = tmp_path / "app" / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        importlib.invalidate_caches()
        return path

    write("__init__.py", "")
    write("posting.py", HANDLER)
    write("index.py", HANDLER)
    yield write
    for name in [name for name in sys.modules if name.split(".")[0] == "app"]:
        del sys.modules[name]


def module(**names: object) -> types.ModuleType:
    made = types.ModuleType("made.settings")
    vars(made).update(names)
    return made


HOOKS = """
import sys
from contextlib import contextmanager
assert "app.posting" not in sys.modules, "hooks are loaded before the handlers"
SEEN = []
@contextmanager
def hook(call):
    yield
    SEEN.append((call.handler, call.queue, call.outcome.word))
"""


def test_middleware_is_loaded_before_the_handlers_and_surrounds_them(project: Write) -> None:
    project("settings.py", TWO_QUEUES + 'middleware = ["app.hooks.hook"]\n')
    project("hooks.py", HOOKS)
    application = Application.load()
    message = MailRequest("peer", "ann@x", "post@osb.example", b"Subject: x\n\ny\n")
    message.queue = "run/queue"
    assert application.dispatcher("run/queue").dispatch(message) == (ACKED, "app.posting.START")
    assert sys.modules["app.hooks"].SEEN == [("app.posting.START", "run/queue", "acked")]
    assert any(file.endswith("app/hooks.py") for file in application.files())  # whose change reloads the pool


def test_hooks_may_import_handlers_whose_routes_need_the_settings_captures(project: Write) -> None:
    project("settings.py", TWO_QUEUES + 'middleware = ["app.hooks.hook"]\n')
    project("hooks.py", HOOKS.replace("assert", "import app.posting #"))
    assert Application.load().dispatcher("run/queue").matches("post@osb.example") == ["app.posting.START"]


def test_a_project_with_a_middleware_that_is_none_does_not_load(project: Write) -> None:
    path = project("settings.py", TWO_QUEUES + 'middleware = ["app.hooks.hok"]\n')
    project("hooks.py", HOOKS)
    with pytest.raises(ConfigurationError, match=rf"{path}:3: .*hooks\.py has no hok: correct the name app"):
        Application.load()
    path.write_text(TWO_QUEUES + 'middleware = "app.hooks.hook"\n')
    del sys.modules["app.settings"]
    with pytest.raises(ConfigurationError, match=rf"{path}:3: middleware is .*give a list of names"):
        Application.load()


def test_two_tasks_of_one_name_are_refused_since_each_call_would_be_made_by_both(project: Write) -> None:
    project("settings.py", TWO_QUEUES)
    path = project(
        "posting.py", "from maildefer.tasks import task\n\n@task\ndef a(x): ...\n\n@task\ndef a(x): ...\n"
    )
    with pytest.raises(ConfigurationError, match=rf"{path}:6: a second @task .* at {path}:3: .*rename one"):
        Application.load()


# The settings module


def test_the_settings_module_is_found_in_the_working_directory(project: Write) -> None:
    project("settings.py", TWO_QUEUES)
    assert load_settings().__name__ == "app.settings"


def test_a_module_named_by_the_caller_comes_before_the_variable(project: Write) -> None:
    project("other.py", "")
    assert load_settings("app.other").__name__ == "app.other"


def test_a_syntax_error_is_named_with_file_and_line(project: Write) -> None:
    path = project("settings.py", "a = 1\nb = (\n")
    with pytest.raises(ConfigurationError, match=rf"{path}:2: syntax error: .*correct that line"):
        load_settings()


def test_missing_settings_are_named_with_the_remedy(project: Write) -> None:
    with pytest.raises(
        ConfigurationError, match=r"no module app\.settings in .*change to the project's folder"
    ):
        load_settings()


@pytest.mark.parametrize("line", ["1 / 0", "import no_such_module", "raise SystemExit(3)", "undefined"])
def test_settings_that_fail_are_named_with_file_and_line(project: Write, line: str) -> None:
    path = project("settings.py", f"a = 1\n{line}\n")
    with pytest.raises(ConfigurationError, match=rf"{path}:2: app\.settings can't be imported"):
        load_settings()


def test_handlers_and_programs_see_the_loaded_settings_in_utils(project: Write) -> None:
    project("settings.py", TWO_QUEUES)
    project("posting.py", "from maildefer.utils import settings\nassert settings.queues\n" + HANDLER)
    Application.load()
    assert utils.settings is sys.modules["app.settings"]


def test_import_settings_loads_once_then_boots_if_asked(
    project: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(utils), "settings", None)
    project("settings.py", "count = 0\n")
    project("boot.py", "from maildefer.utils import settings\nsettings.count += 1\n")
    loaded = utils.import_settings(False)
    assert loaded.count == 0
    assert utils.import_settings(True, boot_module="app.boot") is loaded
    assert loaded.count == 1
    assert utils.settings is loaded


def test_settings_or_a_boot_module_that_are_not_there_are_an_import_error_too(
    project: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(utils), "settings", None)
    with pytest.raises(ImportError, match=r"^there is no module app\.settings in "):
        utils.import_settings(False)
    project("settings.py", "")
    with pytest.raises(ImportError, match=r"^there is no module app\.boot in "):
        utils.import_settings(True, "app.boot")
    project("boot.py", "import nothing_of_that_name\n")
    with pytest.raises(ImportError, match=r"boot\.py:1: app\.boot can't be imported") as caught:
        utils.import_settings(True, "app.boot")
    assert isinstance(caught.value, ConfigurationError)


def test_utils_has_no_other_names_than_its_own() -> None:
    with pytest.raises(AttributeError):
        utils.no_such_name  # noqa: B018


# What a pool needs of it


def test_queues_keep_their_order_and_their_paths_are_normal() -> None:
    settings = pool_settings(module(queues={"run/posts/": ["b"], "./run/queue": ["a", "c", "a"]}), {})
    assert list(settings.queues.items()) == [("run/posts", ("b",)), ("run/queue", ("a", "c"))]


def test_without_queues_salmons_names_make_two() -> None:
    settings = pool_settings(
        module(handlers=["a"], queue_config={"queue": "run/posts", "sleep": 10}, queue_handlers=["b"]), {}
    )
    assert settings.queues == {"run/queue": ("a",), "run/posts": ("b",)}


def test_handlers_of_one_and_the_same_queue_are_put_together() -> None:
    settings = pool_settings(
        module(handlers=["a"], queue_config={"queue": "run/queue"}, queue_handlers=["b"]), {}
    )
    assert settings.queues == {"run/queue": ("a", "b")}


def test_queues_come_before_salmons_names() -> None:
    settings = pool_settings(module(queues={"q": ["a"]}, handlers=["b"], queue_handlers=["c"]), {})
    assert settings.queues == {"q": ("a",)}


def test_what_is_not_said_has_the_documented_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert pool_settings(module(handlers=["a"]), {}) == PoolSettings(
        project=str(tmp_path),
        module="made.settings",
        queues={"run/queue": ("a",)},
        router_defaults={},
        receiver_config=None,
        workers=6,
        handler_timeout_seconds=3600,
        drain_seconds=30,
        max_attempts=20,
        lifetime_seconds=432_000,
        max_crashes=5,
        max_bytes=67_108_864,
        messages_per_worker=10_000,
        memory_bytes_per_worker=0,
        idle_seconds_per_worker=300,
        reload=False,
        state_path="run/queue/.maildefer/states",
    )


def test_plain_names_in_the_module_count_and_variables_come_before_them() -> None:
    made = module(handlers=["a"], workers=3, drain_seconds=5, reload=True, state_path="/mnt/states")
    settings = pool_settings(made, {"MAILDEFER_WORKERS": "7", "MAILDEFER_DRAIN_SECONDS": ""})
    assert (settings.workers, settings.drain_seconds, settings.reload) == (7, 5.0, True)
    assert settings.state_path == "/mnt/states"
    assert isinstance(settings.drain_seconds, float)


@pytest.mark.parametrize(("text", "value"), [("1", True), ("Yes", True), ("off", False), ("false", False)])
def test_a_variable_for_a_switch_takes_the_usual_words(text: str, value: bool) -> None:
    assert pool_settings(module(handlers=["a"], reload=not value), {"MAILDEFER_RELOAD": text}).reload is value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("WORKERS", "many"),
        ("WORKERS", "0"),
        ("WORKERS", "2.5"),
        ("DRAIN_SECONDS", "-1"),
        ("DRAIN_SECONDS", "inf"),
        ("DRAIN_SECONDS", "nan"),
        ("RELOAD", "perhaps"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"MAILDEFER_{name}='{text}': give"):
        pool_settings(module(handlers=["a"]), {f"MAILDEFER_{name}": text})


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("workers", 'workers = "8"'),
        ("workers", "workers = True"),
        ("workers", "workers = 0"),
        ("drain_seconds", "drain_seconds: float = -1"),
        ("lifetime_seconds", "lifetime_seconds = None"),
        ("reload", "reload = 1"),
        ("queues", 'queues = ["run/queue"]'),
        (r"queues\['run/queue'\]", 'queues = {"run/queue": "app.posting"}'),
        ("handlers", 'handlers = "app.posting"'),
        ("router_defaults", "router_defaults = {'host': 3}"),
        ("receiver_config", "receiver_config = ('localhost', 8823)"),
        ("queue_config", "queue_config = {}; queue_handlers = ['app.index']"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_named_with_its_line(project: Write, setting: str, line: str) -> None:
    others = "" if setting.startswith("queue") or setting == "handlers" else 'handlers = ["app.posting"]'
    path = project("settings.py", f"{others}\n{line}\n")
    with pytest.raises(ConfigurationError, match=rf"{path}:2: {setting} is .*: give "):
        Application.load()


def test_settings_without_queues_say_what_to_add(project: Write) -> None:
    project("settings.py", CAPTURES)
    with pytest.raises(ConfigurationError, match="no queues: add queues ="):
        Application.load()


def test_without_queues_the_front_queue_is_the_first() -> None:
    settings = pool_settings(module(), {})
    assert (settings.first_queue, settings.state_path) == ("run/queue", "run/queue/.maildefer/states")
    assert pool_settings(module(queues={"run/a": ["m"], "run/b": ["n"]}), {}).first_queue == "run/a"


def test_pool_settings_cross_processes_as_json() -> None:
    settings = pool_settings(module(handlers=["a"], receiver_config={"host": "127.0.0.1", "port": 8823}), {})
    data = json.loads(json.dumps(settings.to_json()))
    assert PoolSettings.from_json(data) == settings
    assert PoolSettings.from_json(data | {"of_a_newer_version": 1}) == settings


# The application


def test_each_queue_dispatches_to_its_own_handlers(project: Write) -> None:
    project("settings.py", TWO_QUEUES)
    application = Application.load()
    message = MailRequest("p", "a@b", "post@osb.example", b"")
    assert application.dispatcher("run/queue").dispatch(message) == (ACKED, "app.posting.START")
    assert application.dispatcher("run/posts/").dispatch(message) == (ACKED, "app.index.START")
    assert Router.HANDLERS == {"app.posting": DEFAULT_STATE_KEY, "app.index": DEFAULT_STATE_KEY}


def test_a_queue_is_known_by_its_absolute_path_too(project: Write, tmp_path: Path) -> None:
    project("settings.py", TWO_QUEUES)
    assert Application.load().queue_named(str(tmp_path / "run" / "posts")) == "run/posts"


def test_a_queue_without_handlers_is_an_error_that_names_those_there_are(project: Write) -> None:
    project("settings.py", TWO_QUEUES)
    with pytest.raises(
        ConfigurationError, match="no handlers for run/post: the settings have run/queue, run/posts"
    ):
        Application.load().dispatcher("run/post")


def test_a_handoff_finds_the_queue_of_its_module(project: Write) -> None:
    project("settings.py", TWO_QUEUES)
    project("posting.py", HANDLER.replace("...", 'return "app.index.START"'))
    application = Application.load()
    outcome, _ = application.dispatcher("run/queue").dispatch(
        MailRequest("p", "a@b", "post@osb.example", b"")
    )
    assert outcome == HandedOff("app.index", "START", "run/posts")


def test_queue_for_refuses_none_and_several(project: Write) -> None:
    project("settings.py", CAPTURES + 'queues = {"a": ["app.posting", "app.index"], "b": ["app.index"]}\n')
    application = Application.load()
    assert application.queue_for("app.posting") == "a"
    with pytest.raises(HandlerMissing, match="several queues"):
        application.queue_for("app.index")
    with pytest.raises(HandlerMissing, match="in no queue"):
        application.queue_for("app.other")


def test_the_table_of_routes_is_plain_data(project: Write) -> None:
    project("settings.py", TWO_QUEUES)
    table = Application.load().routes_table()
    assert json.loads(json.dumps(table)) == table
    assert table[1] == {
        "queue": "run/posts",
        "pattern": r"^(?P<name>[a-z]+)@(?P<host>osb\.example)$",
        "module": "app.index",
        "function": "START",
        "stateless": True,
        "async": False,
        "retry": None,
        "timeout_seconds": None,
        "keep_seconds": None,
        "exclusive": False,
        "limits": [],
    }


def test_the_retry_policy_is_that_of_the_settings(project: Write) -> None:
    project("settings.py", TWO_QUEUES + "max_attempts = 3\nlifetime_seconds = 10\n")
    policy = Application.load().retry_policy()
    assert (policy.max_attempts, policy.lifetime_seconds) == (3, 10)


def test_the_files_are_those_whose_change_matters(project: Write, tmp_path: Path) -> None:
    project("settings.py", TWO_QUEUES)
    project("blog.py", "")
    project("posting.py", "from app import blog\n" + HANDLER)
    names = {"__init__.py", "settings.py", "posting.py", "index.py", "blog.py"}
    assert set(Application.load().files()) == {str(tmp_path / "app" / name) for name in names}
    assert module_files(["app.blog", "app.never_imported"]) == [str(tmp_path / "app" / "blog.py")]


def test_states_are_shared_in_the_first_queue_unless_the_settings_choose(
    project: Write, tmp_path: Path
) -> None:
    project("settings.py", TWO_QUEUES)
    Application.load()
    assert isinstance(Router.STATE_STORE, DirectoryStorage)
    assert Router.STATE_STORE.path == str(tmp_path / "run/queue/.maildefer/states")


def test_a_store_that_the_settings_module_sets_stays(project: Write) -> None:
    project(
        "settings.py",
        TWO_QUEUES
        + "from maildefer.routing import Router, ShelveStorage\nRouter.STATE_STORE = ShelveStorage('s')\n",
    )
    Application.load()
    assert isinstance(Router.STATE_STORE, ShelveStorage)


def test_relay_config_becomes_a_relay_before_handlers_are_imported(project: Write) -> None:
    project("settings.py", TWO_QUEUES + 'relay_config = {"host": "localhost", "port": 8825}\n')
    project("posting.py", "from app.settings import relay\n" + HANDLER)
    Application.load()
    relay = sys.modules["app.posting"].relay
    assert isinstance(relay, Relay)
    assert (relay.hostname, relay.port) == ("localhost", 8825)


def test_a_relay_puts_messages_into_a_queue_of_the_settings_only(project: Write) -> None:
    queues = CAPTURES + 'queues = {"run/queue": ["app.posting"], "run/outgoing": []}\n'
    project("posting.py", HANDLER)
    project("settings.py", queues + 'relay_config = {"queue": "run/outgoing"}\n')
    Application.load()
    assert sys.modules["app.settings"].relay.queue == "run/outgoing"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            '{"queue": "run/outgoing", "host": "a", "port": 25}',
            "outgoing_config names .*: take away host, port",
        ),
        ('{"queue": "run/queue"}', "run/queue is the front end's"),
        ('{"queu": "run/outgoing"}', "relay_config: got an unexpected .*'queu': give the arguments"),
    ],
)
def test_a_relay_that_contradicts_itself_is_refused(project: Write, config: str, said: str) -> None:
    project("posting.py", HANDLER)
    queues = 'queues = {"run/queue": ["app.posting"], "run/outgoing": []}\nreceiver_config = {}\n'
    project("settings.py", f"{queues}relay_config = {config}\n")
    with pytest.raises(ConfigurationError, match=said):
        Application.load()


@pytest.mark.parametrize("queue", ['"run/outgiong"', "3", "[]"])
def test_a_queue_for_mail_that_nobody_serves_is_an_error_at_load(project: Write, queue: str) -> None:
    project("posting.py", HANDLER)
    path = project("settings.py", f'relay_config = {{"queue": {queue}}}\n' + TWO_QUEUES)
    with pytest.raises(ConfigurationError, match=rf"{path}:1: relay_config: .*maildefer.handlers.outgoing"):
        Application.load()


@pytest.mark.parametrize(
    ("config", "is_open"),
    [
        ('{"host": "0.0.0.0"}', True),
        ('{"listen": ["smtp://127.0.0.1:25", "smtps://[::]:465"]}', True),
        ('{"listen": "smtp:systemd"}', True),
        ('{"host": "0.0.0.0", "policy": ""}', True),
        ("{}", False),
        ('{"host": "::1"}', False),
        ('{"socket": "run/smtp"}', False),
        (
            '{"listen": ["smtp://127.0.0.1:25", "smtp://[::1]:25", "smtp://localhost:25", "lmtp:run/lmtp"]}',
            False,
        ),
        ('{"host": "0.0.0.0", "auth_required": True, "auth_file": "conf/passwords"}', False),
        ('{"host": "0.0.0.0", "domains": ["osb.example"]}', False),
        ('{"host": "0.0.0.0", "queue": "run/queue"}', False),
    ],
)
def test_an_open_relay_is_an_error_at_load(project: Write, config: str, is_open: bool) -> None:
    settings = types.ModuleType("app.settings")
    settings.__dict__["queues"] = {"run/outgoing": ["app.posting", "maildefer.handlers.outgoing"]}
    settings.__dict__["receiver_config"] = ast.literal_eval(config)
    if is_open:
        with pytest.raises(ConfigurationError, match="an open relay"):
            provide(settings)
    else:
        provide(settings)


def test_a_relay_of_the_settings_own_stays(project: Write) -> None:
    project("settings.py", TWO_QUEUES + 'relay_config = {"port": 8825}\nrelay = "mine"\n')
    Application.load()
    assert sys.modules["app.settings"].relay == "mine"


@pytest.mark.parametrize("config", ['{"hots": "localhost"}', "3"])
def test_a_relay_config_that_relay_does_not_take_is_named(project: Write, config: str) -> None:
    path = project("settings.py", f"relay_config = {config}\n" + TWO_QUEUES)
    with pytest.raises(ConfigurationError, match=rf"{path}:1: relay_config: .*give the arguments of Relay"):
        Application.load()


@pytest.mark.parametrize("config", ['{"dir": "app/mails"}', '{"dir": "app", "module": "mails"}'])
def test_template_config_is_where_views_find_their_templates(
    project: Write, config: str, tmp_path: Path
) -> None:
    project("settings.py", TWO_QUEUES + f"template_config = {config}\n")
    (tmp_path / "app" / "mails").mkdir()
    (tmp_path / "app" / "mails" / "hello.msg").write_text("Hello {{ name }}")
    Application.load()
    assert view.render({"name": "Ann"}, "hello.msg") == "Hello Ann"


def test_a_template_config_of_the_wrong_kind_is_named(project: Write) -> None:
    path = project("settings.py", "template_config = 'templates'\n" + TWO_QUEUES)
    with pytest.raises(ConfigurationError, match=rf"{path}:1: template_config is 'templates': give"):
        Application.load()


def test_the_servers_whose_results_are_believed_are_set_when_the_project_is_loaded(
    project: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "configured", authentication.TrustedServers())
    project("settings.py", 'authentication_config = {"servers": ["MX.example"]}\n' + TWO_QUEUES)
    Application.load()
    assert authentication.configured.servers == {"mx.example"}


def test_an_authentication_config_that_is_wrong_is_named(project: Write) -> None:
    path = project("settings.py", 'authentication_config = {"server": "mx.example"}\n' + TWO_QUEUES)
    with pytest.raises(ConfigurationError, match=rf"{path}:1: authentication_config is .*give \{{"):
        Application.load()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("3", "dkim_config is 3: give a mapping"),
        (
            '{"osb.example": {"selector": "mail", "key": "dkim.pem"}}',
            "the key .*/dkim.pem cannot be read: No such",
        ),
    ],
)
def test_a_dkim_config_by_which_nothing_could_be_signed_is_named(
    project: Write, config: str, said: str
) -> None:
    path = project("settings.py", f"dkim_config = {config}\n" + TWO_QUEUES)
    with pytest.raises(ConfigurationError, match=f"{path}:1: .*{said}"):
        Application.load()


# What is wrong with handlers


@pytest.mark.parametrize("line", ["1 / 0", "import no_such_module", "raise SystemExit(3)"])
def test_a_handler_module_that_fails_is_named_with_file_line_and_queue(project: Write, line: str) -> None:
    project("settings.py", TWO_QUEUES)
    path = project("index.py", f"a = 1\n{line}\n")
    with pytest.raises(
        ConfigurationError,
        match=rf"{path}:2: app\.index can't be imported: .*handlers of run/posts in app\.settings",
    ):
        Application.load()


def test_a_failure_further_down_is_named_where_it_is(project: Write) -> None:
    project("settings.py", TWO_QUEUES)
    project("index.py", "from app import deep\n")
    path = project("deep.py", "import json\n\njson.loads('{')\n")
    with pytest.raises(ConfigurationError, match=rf"{path}:3: "):
        Application.load()


def test_a_handler_module_that_is_not_there_is_named(project: Write) -> None:
    project("settings.py", 'queues = {"run/queue": ["app.missing"]}\n')
    with pytest.raises(ConfigurationError, match=r"no module app\.missing .*handlers of run/queue"):
        Application.load()


def test_a_handler_module_without_routes_is_refused(project: Write) -> None:
    project("settings.py", TWO_QUEUES)
    project("index.py", "def START(message): ...\n")
    with pytest.raises(ConfigurationError, match=r"app\.index has no routes.*put @route above"):
        Application.load()


def test_a_route_on_a_method_is_refused_with_its_line(project: Write) -> None:
    project("settings.py", TWO_QUEUES)
    project("posting.py", HANDLER)
    project(
        "index.py",
        HANDLER
        + "class Index:\n    @route('(name)@x')\n    @stateless\n    def ADD(self, message, name=None): ...\n",
    )
    with pytest.raises(
        ConfigurationError, match=r"index\.py:\d+: Index\.ADD is a method: @route goes on the fun"
    ):
        Application.load()


def test_a_module_of_states_without_a_first_one_is_refused_with_its_line(project: Write) -> None:
    project("settings.py", TWO_QUEUES)
    project("posting.py", HANDLER)
    project("index.py", HANDLER.replace("@stateless", "").replace("START", "CONFIRMING"))
    with pytest.raises(ConfigurationError, match=r"index\.py:\d+: app\.index has states and no START"):
        Application.load()


@pytest.mark.parametrize(
    "body", ["async def START(message, **groups): yield", "def START(message, **groups): yield"]
)
def test_a_handler_whose_body_no_call_runs_is_refused(project: Write, body: str) -> None:
    project("settings.py", TWO_QUEUES)
    path = project("index.py", f"from maildefer.routing import route\n@route('.*')\n{body}\n")
    with pytest.raises(ConfigurationError, match=rf"{path}:2: app\.index\.START is a generator"):
        Application.load()


def test_an_application_knows_which_queues_have_async_handlers(project: Write) -> None:
    project("settings.py", TWO_QUEUES)
    project("index.py", HANDLER.replace("def START", "async def START"))
    application = Application.load()
    assert [application.has_async(queue) for queue in application.settings.queues] == [False, True]


# Handoffs that can be seen

SENDER = "from maildefer.routing import route\n@route('.*')\ndef START(message, **groups):\n    return {}\n"


def test_a_handoff_that_leads_somewhere_passes(project: Write) -> None:
    project("settings.py", TWO_QUEUES)
    project("posting.py", SENDER.format('"app.index.START"'))
    check_handoffs(Application.load())


@pytest.mark.parametrize("target", ["app.index.MISSING", "app.nowhere.START"])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_handoff_that_leads_nowhere_is_named_with_file_and_line(
    project: Write, target: str, kind: str
) -> None:
    project("settings.py", TWO_QUEUES)
    path = project("posting.py", SENDER.format(f'"{target}"').replace("def START", f"{kind} START"))
    with pytest.raises(HandlerMissing, match=rf"{path}:4: no handler {target}: correct the name"):
        check_handoffs(Application.load())


def looks_at_handlers(project: Write, monkeypatch: pytest.MonkeyPatch, count: int) -> int:
    """How often a handler is looked at while an application of so many modules is loaded and checked."""
    names = [f"m{count}n{number}" for number in range(count)]
    for name in names:
        project(f"{name}.py", SENDER.format(f'"app.{names[0]}.START"').replace(".*", f"{name}@.*"))
    project("settings.py", f"queues = {{'run/queue': {[f'app.{name}' for name in names]}}}")
    looks = 0

    def counted(function: object) -> str:
        nonlocal looks
        looks += 1
        return function.__module__

    monkeypatch.setattr(Router, "REGISTERED", {})
    monkeypatch.setattr(Router, "ORDER", [])
    sys.modules.pop("app.settings", None)
    monkeypatch.setattr(settings_room, "_loaded", None)
    with monkeypatch.context() as patch:
        patch.setattr(handler_marks, "module_of", counted)
        check_handoffs(Application.load())
    return looks


def test_loading_and_checking_looks_at_each_handler_a_bounded_number_of_times(
    project: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = (looks_at_handlers(project, monkeypatch, count) for count in (5, 40))
    assert many <= 8 * few


def test_a_handoff_to_a_module_in_several_queues_is_refused(project: Write) -> None:
    queues = 'queues = {"a": ["app.posting"], "b": ["app.index"], "c": ["app.index"]}\n'
    project("settings.py", CAPTURES + queues)
    project("posting.py", SENDER.format('"app.index.START"'))
    with pytest.raises(HandlerMissing, match="several queues"):
        check_handoffs(Application.load())


@pytest.mark.parametrize(
    "text",
    [
        SENDER.format('"no.handler.at all"'),
        SENDER.format("None") + "def helper():\n    return 'os.path'\n",
        SENDER.format("None").replace("    return", "    def inner():\n        return 'os.path'\n    return"),
    ],
)
def test_other_texts_and_other_functions_are_no_handoffs(project: Write, text: str) -> None:
    project("settings.py", TWO_QUEUES)
    project("posting.py", text)
    check_handoffs(Application.load())


def test_a_decorator_that_settings_import_is_no_setting_of_its_name() -> None:
    imported = module(handlers=["app.one"], concurrency=routing.concurrency)
    assert pool_settings(imported, {}).concurrency == 10
    assert pool_settings(module(handlers=["app.one"], concurrency=7), {}).concurrency == 7
