"""The table of events and the code, held together both ways, by a walk over the source of the package."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import maildefer
from maildefer.event_table import EVENTS
from maildefer.events import quoted

PACKAGE = Path(maildefer.__file__).parent
SENDERS = {"emit", "line", "shows", "level_of"}  # of `events`, each with the event as its first argument
NAMES = {"event", "EVENT", "FAILED"}  # variables that hold an event
EVENT = re.compile(r"[a-z_]+\.[a-z_]+")
READY_MADE = re.compile(r"\bevent=([a-z_]+\.[a-z_]+)")  # in a line of the hot path


def sources() -> dict[str, ast.Module]:
    skeleton = PACKAGE / "skeleton"
    return {
        str(path.relative_to(PACKAGE)): ast.parse(path.read_text())
        for path in PACKAGE.rglob("*.py")
        if skeleton not in path.parents
    }


def sent(tree: ast.AST) -> Iterator[str]:
    """Each event that the source sends; anything that can't be told from it comes as its source text."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name("events"), attr=name), args=[first, *_]):
                if name in SENDERS:
                    yield from told(first)
            case ast.Call(func=ast.Name("_report"), args=[event, *_]):  # as the maildir layer was given it
                yield from filter(EVENT.fullmatch, told(event))
            case ast.Call(func=ast.Name("Chore"), args=[_, event, *_]):
                yield from told(event)
            case (
                ast.Assign(targets=[ast.Name(name)], value=value)
                | ast.AnnAssign(target=ast.Name(name), value=ast.expr() as value)
            ) if name in NAMES:
                # A variable of that name may hold something else.
                yield from filter(EVENT.fullmatch, told(value))
            case ast.Constant(value=str(text)):
                yield from READY_MADE.findall(text)
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "event":
                        yield from filter(EVENT.fullmatch, told(value))


def told(value: ast.expr) -> Iterator[str]:
    match value:
        case ast.Constant(value=str(event)):
            yield event
        case ast.IfExp(body=body, orelse=other):
            yield from told(body)
            yield from told(other)
        case ast.Name(id=name) if name in NAMES:  # told where it is assigned
            pass
        case ast.Attribute(attr="event"):  # a chore's, told where it is made
            pass
        case _:
            yield ast.unparse(value)


@functools.cache  # of what no test changes
def in_package() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path, tree in sources().items():
        if path != "events.py":
            for event in sent(tree):
                found.setdefault(event, set()).add(path)
        else:  # its own; the table and the rendering are no sending
            calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
            for call in calls:
                if isinstance(call.func, ast.Name) and call.func.id == "emit":
                    for event in told(call.args[0]):
                        found.setdefault(event, set()).add(path)
    return found


def test_every_event_that_is_sent_stands_in_the_table() -> None:
    assert {event: paths for event, paths in in_package().items() if event not in EVENTS} == {}


def test_every_event_of_the_table_is_sent_somewhere() -> None:
    assert set(EVENTS) - set(in_package()) == set()


def test_an_event_is_a_noun_and_what_happened_to_it_and_its_explanation_is_one_line() -> None:
    for event, what in EVENTS.items():
        assert EVENT.fullmatch(event), event
        assert what, event
        assert "\n" not in what, event


@pytest.mark.parametrize(
    ("event", "where"),
    [
        ("beat.failed", {"pool/keeper/heartbeat.py"}),
        ("queue.unsafe", {"pool/keeper/pidfile_writer.py"}),
        ("queue.vanished", {"pool/keeper/heartbeat.py"}),
        ("queue.joined", {"pool/keeper/heartbeat.py"}),
        ("pool.throttled", {"host/fork_throttle.py"}),
    ],
)
@pytest.mark.slow
def test_one_event_is_for_one_kind_of_thing_and_sent_where_it_happens(event: str, where: set[str]) -> None:
    assert in_package()[event] == where


@pytest.mark.parametrize(
    ("source", "events"),
    [
        ("events.emit('a.b', x=1)", ["a.b"]),
        ("events.emit('a.b' if x else 'c.d')", ["a.b", "c.d"]),
        ("event = 'a.b' if x else 'c.d'\nevents.emit(event)", ["a.b", "c.d"]),
        ("Chore('sweep', 'sweep.failed', work)", ["sweep.failed"]),
        ("f'ts={stamp} event=a.b queue={queue}'", ["a.b"]),
        ("json.dumps({'ts': stamp, 'event': 'a.b', **facts})", ["a.b"]),
        ("events.emit(chore.event)", []),
        ("events.emit(f'{x}.failed')", ["f'{x}.failed'"]),
        ("events.emit(what)", ["what"]),
    ],
)
def test_the_walk_sees_what_is_sent(source: str, events: list[str]) -> None:
    assert list(sent(ast.parse(source))) == events


def test_what_is_true_is_written_as_json_writes_it_in_logfmt_too() -> None:
    assert (quoted(True), quoted(False), quoted("True")) == ("true", "false", "True")
