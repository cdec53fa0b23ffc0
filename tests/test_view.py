"""Templates by the loader that the application sets on the public module."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from maildefer import view


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
