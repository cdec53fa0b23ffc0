"""Messages out of templates, by whatever loader the application has chosen."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from maildefer.message.request import MailRequest

if TYPE_CHECKING:
    from maildefer.message.response import MailResponse


class Template(Protocol):
    def render(self, variables: Any, /) -> str: ...


@runtime_checkable
class Loader(Protocol):
    """What Jinja2's Environment, Mako's TemplateLookup and Django's engines are."""

    def get_template(self, name: str, /) -> Any: ...


class LazyJinjaLoader:
    """A Jinja2 environment over folders, made at the first template: the import is 12 MB that few processes need.

    Templates named `*.html`, `*.htm` and `*.xml` are escaped, texts are not, and pages of `respond` are, whatever their
    names. `options` go to `jinja2.Environment`; an `autoescape` among them decides instead.
    """

    def __init__(self, *paths: str | os.PathLike[str], **options: Any) -> None:
        self.paths = [os.path.abspath(path) for path in paths]
        self._options = options
        self._environment: Any = None

    @property
    def decides(self) -> bool:
        """Whether it was told what is escaped."""
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


configured: Loader | None = None
"""What `template_config` of the settings names; used where the application has not chosen a loader itself."""


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
    """The text of a template that makes HTML: what variables bring into it is escaped, whatever the template's name.

    What has a method `__html__`, as Markup, is left. Jinja2 escapes all that it puts in; another engine is given its
    variables escaped as far as they are text, and escapes the rest as it does.
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
    """The environment, as one in which all templates are escaped.

    With their compiled form in its own memory: what a cache on disk holds may have been compiled without.
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

    Without `autoescape`, the page is what its template makes of the variables, as the loader has it.
    Raises `TypeError` with neither template, and `KeyError` for a variable that a header asks for and there isn't.
    """
    if not Body and not Html:
        raise TypeError("name a template: Body, Html or both")
    from maildefer.message.response import MailResponse  # the e-mail package: for who answers

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

    Python's own formatting would put all variables in the place of a `%s`. Raises `KeyError` for a name that is none.
    """
    return _FORM.sub(lambda form: form[0] % variables, text)


def _answering(message: object) -> dict[str, str]:
    """The headers of an answer; none for what isn't a received message, or has no sender to be answered."""
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
