"""What `status --json` says of real pools in every state, against the schema that `status --json-schema` prints."""

from __future__ import annotations

import json
import os
import signal
import smtplib
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.ports import free_port
from maildefer.cli.schemas.schema import Schema, schema_text
from tests.lifecycle.commands import answered, maildefer
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import Project, eventually
from tests.lifecycle.test_front_ends import send

pytestmark = pytest.mark.lifecycle

DEFINITIONS: dict[str, Any] = json.loads(schema_text("status"))["$defs"]
SETTINGS = """
queues = {"run/queue": ["workers.front"], "run/later": ["workers.back"], "run/out": ["maildefer.handlers.outgoing"]}
receiver_config = {"host": "127.0.0.1", "port": 0}
health_config = {"socket": "run/health.sock"}
outgoing_config = {"host": "127.0.0.1", "port": %d}
"""


def told(pool: Pool) -> list[dict[str, Any]]:
    """The lines of a status, which `maildefer` holds to the schema."""
    ended = answered(pool, "status", "--json")
    assert ended.returncode == 4, ended.stderr
    return lines_of(ended.stdout)


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def of_process(lines: list[dict[str, Any]]) -> dict[str, Any]:
    return next(line for line in lines if line["kind"] == "supervise")


def of_queue(lines: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(line for line in lines if line["kind"] == "queue" and line["queue"].endswith(name))


def named(value: Any, rule: dict[str, Any], path: str) -> Iterator[str]:
    """The properties of the schema that are in a value, each with the definition to which it belongs."""
    if "$ref" in rule:
        path = rule["$ref"].rpartition("/")[2]
        rule = DEFINITIONS[path]
    for one in value if isinstance(value, list) else ():
        yield from named(one, rule["items"], path)
    for name in value if isinstance(value, dict) and "properties" in rule else ():
        yield f"{path}.{name}"
        yield from named(value[name], rule["properties"][name], f"{path}.{name}")


def test_each_state_of_a_pool_is_told_as_the_schema_describes_it_and_nothing_is_left_out(
    project: Project, start: Start
) -> None:
    port = free_port()
    project.edit("conf/settings.py", '"""\n', f'"""\n{SETTINGS % port}\n')
    project.edit(
        "conf/settings.py", 'queues = {"run/queue": ["workers.front"], "run/later": ["workers.back"]}\n', ""
    )
    pool = start(intake=True)
    send(pool, "quick@test")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(pool, "no.such.recipient@test")
    eventually(lambda: pool.status()["front_ends"][0].get("refused"), "the front end tells of it")
    project.push("reject")
    [key] = project.push("wait")
    eventually(lambda: project.notes("start", key), "a handler has it")
    eventually(lambda: project.names("dead_new"), "the other one is buried")
    eventually(lambda: pool.status()["rate_per_second"] is not None, "it has a rate")
    push(pool, "nobody@a.example")
    eventually(lambda: maildefer(pool, "outgoing", "--json").stdout, "a destination is told of")
    eventually(lambda: '"down_since"' in maildefer(pool, "outgoing", "--json").stdout, "and is down")
    eventually(lambda: pool.status()["deliveries"][0]["outcomes"]["deferred"], "and counted")
    lines = told(pool)
    [down] = of_queue(lines, "run/queue")["degraded"]
    assert f"127.0.0.1:{port} is down for " in down
    seen = {
        name
        for line in lines
        for name in named(line, {"$ref": "queue" if line["kind"] == "queue" else "process"}, "")
    }
    raw = pool.status()
    assert Schema("status").fitted(raw, "process_status") == raw, (
        "all that a pool of this version says is described"
    )
    assert [one["handler"] for one in raw["attempts"]]
    assert [one["event"] for one in raw["notable"]] == ["buried"]

    assert maildefer(pool, "pause", "run/later").returncode == 0
    eventually(
        lambda: of_queue(told(pool), "run/later")["serving"][0]["status"].get("paused_everywhere"), "paused"
    )
    pause = of_queue(told(pool), "run/later")["pause"]
    assert pause["user"]
    seen |= set(named(pause, {"$ref": "pause"}, ""))

    project.edit("workers/front.py", "@route(", "no python\n@route(")
    assert maildefer(pool, "reload").returncode == 78
    refused = of_process(told(pool))
    assert refused["status"]["reload"]["refused"] == refused["status"]["reload_refused"] is not None

    [unknown] = lines_of(maildefer(pool, "status", "run/none", "--json").stdout)[1:]
    seen |= set(named(unknown, {"$ref": "unknown"}, ""))
    every = {f"{name}.{one}" for name, rule in DEFINITIONS.items() for one in rule["properties"]}
    only_in_faults = {f"fault.{one}" for one in DEFINITIONS["fault"]["properties"]} | {
        "front_end_group.error"
    }
    assert every - seen - only_in_faults == set(), "what the schema describes is there"

    pool.signal(signal.SIGSTOP)
    stopped = of_process(lines_of(maildefer(pool, "status", "--json").stdout))
    assert stopped["status"] is None
    assert "stopped" in stopped["problem"]
    pool.signal(signal.SIGCONT)
    project.go()
    eventually(project.is_empty, "all is handled")
    assert maildefer(pool, "resume", "run/later").returncode == 0
    assert pool.stop() == 0
    ended = answered(pool, "status", "--json")
    assert ended.returncode == 3
    assert [line["kind"] for line in lines_of(ended.stdout)] == ["queue"] * 3


@pytest.mark.slow
def test_a_silent_host_and_a_fenced_one_are_told_as_the_schema_describes_it(
    project: Project, start: Start
) -> None:
    first = start(host="a")
    frozen = first.tree()
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    second = start(host="b", ready=False)
    states = []

    def note_states() -> None:
        leases = of_queue(lines_of(answered(second, "status", "--json").stdout), "run/queue")["serving"]
        states.append({"silent" if one["silent_seconds"] else one["status"].get("state") for one in leases})

    def is_fenced() -> bool:
        note_states()
        return bool(second.events("lease.fenced", queue="run/queue"))

    eventually(is_fenced, "b fences a")
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)

    def both_serve() -> bool:
        note_states()
        return states[-1] == {"served"} and len(first.events("lease.joined", queue="run/queue")) > 1

    eventually(both_serve, "a is back")


def push(pool: Pool, recipient: str) -> None:
    from maildefer.queue import Queue

    Queue(f"{pool.project.path}/run/out").push(b"Subject: x\n\n", sender="a@test", recipient=recipient)
