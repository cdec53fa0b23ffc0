"""The recipes of docs/middleware.md, with the libraries they are for: each block is a project's `conf/hooks.py`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/middleware.md").read_text(), re.DOTALL)

WORKERS = """
from conf import hooks
from maildefer.routing import Defer, Reject, route, stateless
SEEN = []

@route("(what)@shop.example", what="[a-z]+")
@stateless
def START(message, what):
    SEEN.append(look(message))
    {"good": lambda: None, "fail": lambda: 1 / 0, "defer": defer, "reject": reject}[what]()

def look(message):
    return None

def defer():
    raise Defer("later")

def reject():
    raise Reject("never")
"""

IMPORTS = "from conf.hooks import here, tracer\nfrom workers.blog import rebuild"

HANDLE = """
import json
from maildefer.queue import Queue
from maildefer.routing import Router
from maildefer.server import QueueReceiver
from maildefer.utils import import_settings

def push(*names, headers="", queue="run/queue"):
    for name in names:
        Queue(queue).push(headers + "Subject: x\\n\\n", recipient=f"{name}@shop.example")

def handle(*queues):
    for queue in queues or ("run/queue",):
        QueueReceiver(queue, workers=1).start(one_shot=True)

import_settings(False)
Router.load(["workers.shop"])
from conf import hooks
from workers import shop
"""

SENTRY = """
import sentry_sdk
from sentry_sdk.transport import Transport

class Kept(Transport):
    def capture_envelope(self, envelope):
        events.append(envelope.get_event())

events = []
sentry_sdk.get_client().transport = Kept()
push("good", "defer", "reject", "fail")
handle()
print(json.dumps([
    [event["exception"]["values"][-1]["type"], sorted(event["tags"].items())] for event in events if event
]))
"""

OPENTELEMETRY = """
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
hooks.provider.add_span_processor(SimpleSpanProcessor(exporter))
shop.look = lambda message: trace.get_current_span().get_span_context().span_id
with hooks.tracer.start_as_current_span("publish"):
    header = f"traceparent: {hooks.here()}\\n"
    push("good", headers=header, queue="run/work")  # in a queue of ours
    push("good", headers=header)                    # as a stranger may send it
    push("good", headers="traceparent: 00-nonsense\\n", queue="run/work")
    push("good")
import publish  # the last part, which defers the task

handle("run/queue", "run/work")
spans = {span.name: [] for span in exporter.get_finished_spans()}
for span in exporter.get_finished_spans():
    spans[span.name].append(span)
published = {(span.context.span_id, span.context.trace_id) for span in spans["publish"]}
print(json.dumps({
    name: sorted(span.parent is not None and (span.parent.span_id, span.context.trace_id) in published
                 for span in ones)
    for name, ones in spans.items()
}))
assert set(shop.SEEN) == {span.context.span_id for span in spans["workers.shop.START"]}
"""

DJANGO = """
from django.db import connection

def look(message):
    closed = connection.connection is None
    connection.ensure_connection()
    return closed

shop.look = look
push("good", "good", "fail")
handle()
print(json.dumps(shop.SEEN))
"""

RECIPES = [
    pytest.param(
        "def report(",
        "report",
        SENTRY,
        [
            [
                "ZeroDivisionError",
                [["attempt", "1"], ["handler", "workers.shop.START"], ["key", "…"], ["queue", "run/queue"]],
            ]
        ],
        id="sentry",
    ),
    pytest.param(
        "def tracing(",
        "tracing",
        OPENTELEMETRY,
        {
            "workers.shop.START": [False, False, False, True],
            "workers.blog.rebuild": [True],
            "publish": [False, False],
        },
        id="opentelemetry",
    ),
    pytest.param("def connections(", "connections", DJANGO, [True, True, True], id="django"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("part", "name", "script", "wanted"), RECIPES)
def test_a_recipe_does_what_it_says_with_its_library(
    part: str, name: str, script: str, wanted: Any, tmp_path: Path
) -> None:
    [block] = [code for code in BLOCKS if part in code]
    in_hooks, *elsewhere = re.split(r"\n\n\n# (?:In|Where) .*:\n", block)
    for file, text in (
        ("conf/__init__.py", ""),
        ("conf/hooks.py", in_hooks),
        (
            "conf/settings.py",
            'queues = {"run/queue": ["workers.shop", "workers.blog"], "run/work": ["workers.shop"]}\n'
            f'middleware = ["conf.hooks.{name}"]\nmax_attempts = 1  # the last one is logged as an error\n',
        ),
        ("workers/__init__.py", ""),
        ("workers/blog.py", "".join(elsewhere[:1])),
        ("publish.py", "\n".join([IMPORTS, *elsewhere[1:]]) if elsewhere else ""),
        ("workers/shop.py", WORKERS),
        ("main.py", HANDLE + script),
    ):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    (tmp_path / "run").mkdir()
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("MAILDEFER_", "OTEL_"))}
    ended = subprocess.run(
        [sys.executable, "-W", "error", "main.py"],
        cwd=tmp_path,
        env=environ | {"PYTHONPATH": str(ROOT), "SENTRY_DSN": "http://key@127.0.0.1:9/1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    printed = re.sub(r'"key", "[^"]+"', '"key", "…"', ended.stdout.splitlines()[-1])
    assert json.loads(printed) == wanted, ended.stderr
