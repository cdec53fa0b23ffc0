"""Templates by the loader that the application sets on the public module."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from markupsafe import Markup

from maildefer import view
from maildefer.message.templates import make_environments


class Fake:
    """A loader of templates that are format strings."""

    def __init__(self, **templates: str) -> None:
        self.templates = templates

    def get_template(self, name: str) -> Fake:
        return Fake(text=self.templates[name])

    def render(self, variables: dict[str, object]) -> str:
        return self.templates["text"].format(**variables)


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "LOADER", Fake(body="Dear {who}", page="<p>{who}"))


def test_without_a_loader_a_template_is_a_type_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "LOADER", None)
    monkeypatch.setattr("maildefer.message.templates.configured", None)
    with pytest.raises(TypeError, match="LOADER"):
        view.load("body")


@pytest.mark.usefixtures("loader")
def test_the_loader_set_on_the_public_module_is_used() -> None:
    assert view.render({"who": "Zed"}, "body") == "Dear Zed"


@pytest.mark.usefixtures("loader")
def test_a_response_has_rendered_texts_and_formatted_headers() -> None:
    message = view.respond(
        {"who": "Zed"}, Body="body", Html="page", From="%(who)s@x", To="r@y", Subject="For %(who)s"
    )
    assert (message.Body, message.Html, message.multipart) == ("Dear Zed", "<p>Zed", True)
    assert (message["From"], message["To"], message["Subject"]) == ("Zed@x", "r@y", "For Zed")


@pytest.mark.usefixtures("loader")
def test_a_variable_cannot_add_a_header() -> None:
    message = view.respond(
        {"who": "x\r\nBcc: victim@x"}, Body="body", From="a@b", To="c@d", Subject="%(who)s"
    )
    assert "Bcc" not in message.to_message()


@pytest.mark.usefixtures("loader")
def test_a_response_names_at_least_one_template() -> None:
    with pytest.raises(TypeError, match="Body, Html"):
        view.respond({}, From="a@b")


@pytest.mark.usefixtures("loader")
def test_a_rendered_template_is_attached() -> None:
    message = view.respond({"who": "Zed"}, Body="body", To="a@b")
    view.attach(message, {"who": "Zed"}, "page", filename="page.html")
    assert [part.body for part in message.all_parts()] == ["Dear Zed", "<p>Zed"]


def test_an_environment_that_cannot_be_made_before_a_fork_is_told_at_the_first_template(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.txt").write_text("{{ a }}")
    sound, wrong = view.jinja_loader(tmp_path), view.jinja_loader(tmp_path, no_option=True)
    make_environments()
    made = vars(sound)["_environment"]
    assert made is sound.environment
    with pytest.raises(TypeError, match="no_option"):
        wrong.get_template("a.txt")


def test_jinja_is_imported_at_the_first_template_only(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "hello.msg").write_text("Hello {{ who }}")
    (tmp_path / "templates" / "hello.html").write_text("Hello {{ who }}")
    code = (
        "import sys\n"
        "from maildefer import view\n"
        f"view.LOADER = view.configured_loader({{'dir': {str(tmp_path)!r}, 'module': 'templates'}})\n"
        "assert 'jinja2' not in sys.modules\n"
        "assert view.render({'who': '<Z>'}, 'hello.msg') == 'Hello <Z>'\n"
        "assert view.render({'who': '<Z>'}, 'hello.html') == 'Hello &lt;Z&gt;'\n"
        "assert 'jinja2' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


EVIL = "<img src=x onerror=alert(1)>"
SAFE = "&lt;img src=x onerror=alert(1)&gt;"


class Post:
    title = EVIL


@pytest.fixture(params=["ours", "the project's own", "with a cache on disk"])
def pages(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates that no name tells to be HTML, by loaders that escape none of them."""
    texts = {
        "page": "{% include 'title' %}: {{ who }} {{ post.title }} {{ names[0] }} {% if safe %}{{ safe }}{% endif %}",
        "title": "{{ post.title }}",
        "raw": "{% autoescape false %}{{ who }}{% endautoescape %} {{ who|safe }}",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    if request.param == "ours":
        monkeypatch.setattr(view, "LOADER", view.jinja_loader(tmp_path))
        return
    import jinja2

    cache = jinja2.FileSystemBytecodeCache(str(tmp_path)) if "cache" in request.param else None
    own = jinja2.Environment(loader=jinja2.FileSystemLoader(tmp_path), bytecode_cache=cache)
    monkeypatch.setattr(view, "LOADER", own)


VARIABLES = {"who": EVIL, "post": Post, "names": [EVIL]}


@pytest.mark.usefixtures("pages")
def test_what_goes_into_html_is_escaped_whatever_the_templates_name() -> None:
    assert EVIL in str(view.respond(VARIABLES, Body="page", To="a@b").Body)  # compiled, and kept, unescaped
    message = view.respond(VARIABLES, Body="page", Html="page", To="a@b")
    assert message.Html.split(SAFE) == ["", ": ", " ", " ", " "]
    assert EVIL in str(message.Body)


@pytest.mark.usefixtures("pages")
def test_markup_is_left_as_it_is_in_html() -> None:
    message = view.respond({**VARIABLES, "safe": Markup("<b>bold</b>")}, Html="page", To="a@b")
    assert message.Html.endswith(" <b>bold</b>")


@pytest.mark.usefixtures("pages")
def test_a_template_or_its_caller_may_say_that_html_is_not_escaped() -> None:
    assert view.respond(VARIABLES, Html="raw", To="a@b").Html == f"{EVIL} {EVIL}"
    assert SAFE not in str(view.respond(VARIABLES, Html="page", To="a@b", autoescape=False).Html)


def test_a_loader_that_was_told_what_is_escaped_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page").write_text("{{ who }}")
    for told, page in ((False, EVIL), (True, SAFE)):
        monkeypatch.setattr(view, "LOADER", view.jinja_loader(tmp_path, autoescape=told))
        assert view.respond(VARIABLES, Html="page", To="a@b").Html == page


def test_another_engine_is_given_text_escaped_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "LOADER", Fake(body="{who}", page="<p>{who}{safe}{post.title}"))
    variables = {**VARIABLES, "safe": Markup("<br>")}
    message = view.respond(variables, Body="body", Html="page", To="a@b", Subject="%(who)s")
    assert (message.Body, message["Subject"]) == (EVIL, EVIL)
    assert message.Html == f"<p>{SAFE}<br>{EVIL}"  # what an engine takes out of an object is its own
    assert view.respond(variables, Html="page", To="a@b", autoescape=False).Html == f"<p>{EVIL}<br>{EVIL}"


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize(
    ("subject", "sent"),
    [
        ("100% sure", "100% sure"),
        ("5 % for %(who)s, 7%", "5 % for Zed, 7%"),
        ("100%% sure", "100% sure"),
        ("%s and %d", "%s and %d"),
        ("%(n)03d of %(who).1s %(who", "007 of Z %(who"),
        ("%%(who)s", "%(who)s"),
    ],
)
def test_of_a_headers_signs_only_those_with_a_name_are_filled_in(subject: str, sent: str) -> None:
    variables = {"who": "Zed", "n": 7, "secret": "TOKEN"}
    message = view.respond(variables, Body="body", From=subject, To="a@b", Subject=subject)
    assert message["Subject"] == message["From"] == sent


@pytest.mark.usefixtures("loader")
def test_a_header_that_asks_for_what_there_is_not_is_an_error() -> None:
    with pytest.raises(KeyError, match="whom"):
        view.respond({"who": "Zed"}, Body="body", To="a@b", Subject="50% for %(whom)s")
