"""Messages made from templates: `view.respond(locals(), "page_ready.msg", From=…, To=…, Subject=…)`.

`LOADER` finds the templates. Set it once, in the boot module or the settings, before the process handles a message.
The code is in `maildefer.message.templates`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from maildefer.handling.project.queue_paths import located
from maildefer.message import templates
from maildefer.message.templates import Loader, Template

if TYPE_CHECKING:
    from maildefer.message.response import MailResponse

__all__ = ["LOADER", "attach", "configured_loader", "jinja_loader", "load", "render", "respond"]

LOADER: Loader | None = None
"""Any object with `get_template(name)` that returns an object with `render(dict)`: Jinja2, Mako, Django."""


def jinja_loader(*paths: str | os.PathLike[str], **options: Any) -> templates.LazyJinjaLoader:
    """A loader of Jinja2 templates in folders of the project; Jinja2 is imported with the first template."""
    return templates.LazyJinjaLoader(*(located(os.fspath(path)) for path in paths), **options)


def configured_loader(config: Mapping[str, str]) -> Loader:
    """The loader for `template_config = {"dir": "workers", "module": "templates"}`: the folder workers/templates."""
    return jinja_loader(f"{config['dir']}/{config.get('module', 'templates').replace('.', '/')}")


def load(template: str) -> Template:
    """The template of that name. Raises `TypeError` while `LOADER` is None."""
    return templates.load(LOADER, template)


def render(variables: Mapping[str, Any], template: str) -> str:
    """The text of a template."""
    return templates.render(LOADER, variables, template)


def respond(
    variables: Mapping[str, Any] | str,
    Body: str | Mapping[str, Any] | None = None,
    Html: str | None = None,
    *,
    autoescape: bool = True,
    **kwd: Any,
) -> MailResponse:
    """A `MailResponse`: `Body` and `Html` name templates; `From`, `To`, `Subject` may have `%(name)s` of them.

    Values of variables in `Html` are escaped, whatever that template's name, except for Markup; with
    `autoescape=False` the loader decides.
    The template may come first, too: `respond("page_ready.msg", locals())`. If the variables have a received message
    by the name of `message`, `From`, `To` and `Subject` that are not given are those of an answer to it.
    Raises `TypeError` with neither template.
    """
    if isinstance(variables, str):
        variables, Body = Body if isinstance(Body, Mapping) else {}, variables
    if Body is not None and not isinstance(Body, str):
        raise TypeError("respond takes variables and a template's name, in either order, not variables twice")
    return templates.respond(LOADER, variables, Body, Html, autoescape=autoescape, **kwd)


def attach(
    msg: MailResponse,
    variables: Mapping[str, Any],
    template: str,
    filename: str | None = None,
    content_type: str | None = None,
    disposition: str | None = None,
) -> None:
    """Attach a rendered template to a response."""
    templates.attach(LOADER, msg, variables, template, filename, content_type, disposition)
