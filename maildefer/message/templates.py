"""Makes messages from templates, by the loader that the application has chosen."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable
from weakref import WeakSet

from maildefer.message.request import MailRequest

if TYPE_CHECKING:
    from maildefer.message.response import MailResponse


class Template(Protocol):
    def render(self, variables: Any, /) -> str: ...


@runtime_checkable
class Loader(Protocol):
    """A finder of templates: Jinja2's Environment, Mako's TemplateLookup, Django's engines."""

    def get_template(self, name: str, /) -> Any: ...


_made: Final[WeakSet[LazyJinjaLoader]] = WeakSet()


class LazyJinjaLoader:
    """A Jinja2 environment over folders, made at the first template: the import is 12 MB, which few processes need.

    Templates named `*.html`, `*.htm` and `*.xml` are escaped, texts are not, and pages of `respond` are, whatever their
    names. `options` go to `jinja2.Environment`; an `autoescape` among them decides instead.
    """

    def __init__(self, *paths: str | os.PathLike[str], **options: Any) -> None:
        self.paths = [os.path.abspath(path) for path in paths]
        self._options = options
        self._environment: Any = None
        _made.add(self)

    @property
    def decides(self) -> bool:
        """Whether the options say what is escaped."""
        return "autoescape" in self._options

    @property
    def environment(self) -> Any:
        """The `jinja2.Environment`, for filters and globals of one's own."""
        if self._environment is None:
            jinja2: Any = importlib.import_module("jinja2")
            options = {"autoescape": jinja2.select_autoescape(("html", "htm", "xml"))} | self._options
            self._environment = jinja2.Environment(loader=jinja2.FileSystemLoader(self.paths), **options)
        return self._environment

    def get_template(self, name: str) -> Any:
        return self.environment.get_template(name)


def make_environments() -> None:
    """Make the environments of all loaders now, before a fork, after which each process would make its own."""
    for loader in _made:
        with suppress(Exception):  # told by the handler that needs it
            _ = loader.environment


configured: Loader | None = None
"""The loader of `template_config` in the settings; used if the application has chosen none."""


def load(loader: Loader | None, template: str) -> Template:
    """The template of that name. Raises `TypeError` without a loader."""
    loader = loader or configured
    if loader is None:
        raise TypeError(
            f"no loader for the template {template!r}: set maildefer.view.LOADER, "
            'for example to maildefer.view.jinja_loader("workers/templates")'
        )
    found: Template = loader.get_template(template)
    return found


def render(loader: Loader | None, variables: Mapping[str, Any], template: str) -> str:
    """The text of a template with these variables."""
    return load(loader, template).render(variables)


def page(loader: Loader | None, variables: Mapping[str, Any], template: str) -> str:
    """The text of a template that makes HTML: values of variables are escaped, whatever the template's name.

    Values with a method `__html__`, as Markup, are not escaped again. Jinja2 escapes all values; another engine gets
    the variables that are text escaped, and treats the rest in its own way.
    """
    loader = loader or configured
    if isinstance(loader, LazyJinjaLoader):
        return render(loader if loader.decides else _escaping(loader.environment), variables, template)
    jinja2 = sys.modules.get("jinja2")
    if jinja2 is not None and isinstance(loader, jinja2.Environment):
        return render(_escaping(loader), variables, template)
    escape: Any = importlib.import_module("markupsafe").escape
    texts = {name: escape(value) if isinstance(value, str) else value for name, value in variables.items()}
    return render(loader, texts, template)


@lru_cache(maxsize=8)
def _escaping(environment: Any) -> Any:
    """The environment with all templates escaped.

    It has no cache on disk, since that may hold templates that were compiled without escaping.
    """
    if environment.autoescape is True:
        return environment
    return environment.overlay(autoescape=True, bytecode_cache=None)


def respond(
    loader: Loader | None,
    variables: Mapping[str, Any],
    Body: str | None = None,
    Html: str | None = None,
    *,
    autoescape: bool = True,
    **kwd: Any,
) -> MailResponse:
    """A response whose body and page come from the templates named; the headers have `%(name)s` filled in.

    Without `autoescape`, the loader decides what is escaped in the page.
    Raises `TypeError` with neither template, and `KeyError` for a variable that a header names and that is missing.
    """
    if not Body and not Html:
        raise TypeError("name a template: Body, Html or both")
    from maildefer.message.response import MailResponse  # the e-mail package, for processes that send

    headers = {
        name: filled_in(value, variables) if isinstance(value, str) else value for name, value in kwd.items()
    }
    response = MailResponse(**{**_answering(variables.get("message")), **headers})
    if Body:
        response.Body = render(loader, variables, Body)
    if Html:
        response.Html = (page if autoescape else render)(loader, variables, Html)
    response.multipart = bool(response.Body and response.Html)
    return response


_FORM = re.compile(r"%(?:%|\([^()]*\)[#0 +-]*\d*(?:\.\d+)?[diouxXeEfFgGcrsa])")


def filled_in(text: str, variables: Mapping[str, Any]) -> str:
    """The text with each `%(name)s` replaced, and `%%` by one sign; other signs, as in "100% sure", stay.

    Python's own formatting would put all variables in the place of a `%s`. Raises `KeyError` for an unknown name.
    """
    return _FORM.sub(lambda form: form[0] % variables, text)


def _answering(message: object) -> dict[str, str]:
    """The headers of an answer; none if `message` is no received message, or has no sender."""
    if not isinstance(message, MailRequest) or not message.From:
        return {}
    subject = message["Subject"] or ""
    answered = subject if subject.lower().startswith("re:") else f"Re: {subject}".rstrip()
    return {"To": message.From, "From": message.To, "Subject": answered}


def attach(
    loader: Loader | None,
    message: MailResponse,
    variables: Mapping[str, Any],
    template: str,
    filename: str | None = None,
    content_type: str | None = None,
    disposition: str | None = None,
) -> None:
    """Attach a rendered template as `MailResponse.attach` does: with a type, or a name from which it is guessed."""
    data = render(loader, variables, template)
    message.attach(filename=filename, content_type=content_type, data=data, disposition=disposition)
