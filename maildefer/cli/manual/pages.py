"""Manual pages, as man(7) has them, made from what the commands say of themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from maildefer.cli.manual.examples import EXAMPLES
from maildefer.version import VERSION

_EXITS: Final = (
    ("0", "It is done."),
    ("1", "It failed; the last line says why."),
    ("2", "The command line is no sentence of this command."),
    ("3, 4", "`status`: nothing runs; something is not as it should be."),
    ("75, 77", "`push`: try again later; this user may not."),
    ("78", "The settings or handlers can't be used."),
)


def manual_pages(program: Any) -> Iterator[tuple[str, str]]:
    """Each page's file name and text, for a click command and all that are below it, except hidden ones."""
    context = program.context_class(program, info_name="maildefer", **program.context_settings)
    yield from _pages(program, context)


def _pages(command: Any, context: Any) -> Iterator[tuple[str, str]]:
    listed = [one for one in getattr(command, "commands", {}) if not command.commands[one].hidden]
    below = {one: command.get_command(context, one) for one in listed}  # which loads it
    yield f"{context.command_path.replace(' ', '-')}.1", _page(command, context, listed)
    for name, one in below.items():
        yield from _pages(one, one.context_class(one, info_name=name, parent=context))


def _page(command: Any, context: Any, below: Sequence[str]) -> str:
    path = context.command_path
    title = path.replace(" ", "-")
    summary = (command.help or "").partition("\n")[0].strip()
    lines = [
        f'.TH "{_text(title.upper())}" "1" "" "maildefer {VERSION}" "maildefer"',
        ".SH NAME",
        rf"{_text(title)} \- {_text(summary.rstrip('.'))}",
        ".SH SYNOPSIS",
        rf".B {_text(path)}",
        _text(" ".join(command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        _text(" ".join((command.help or "").split())),
    ]
    records = [record for one in command.get_params(context) if (record := one.get_help_record(context))]
    lines += _listed("OPTIONS", records)
    commands = [(f"{title}-{name}(1)", command.commands[name].help or "") for name in below]
    lines += _listed("COMMANDS", commands)
    for what, example in EXAMPLES.get(path.partition(" ")[2], ()):
        if ".SH EXAMPLES" not in lines:
            lines.append(".SH EXAMPLES")
        lines += [f".TP\n{_text(what[:1].upper() + what[1:])}:", rf".B {_text(example)}"]
    if context.parent is None:
        lines += _listed("EXIT STATUS", _EXITS)
    return "\n".join(lines) + "\n"


def _listed(title: str, records: Sequence[tuple[str, str]]) -> list[str]:
    items = [f".TP\n.B {_text(name)}\n{_text(' '.join(said.split()))}" for name, said in records]
    return [f".SH {title}", *items] if items else []


def _text(text: str) -> str:
    """Text in which nothing is a request or an escape of troff(1)."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("`", r"\(ga")
    escaped = escaped.replace("^", r"\(ha").replace("~", r"\(ti")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped
