"""`replay`: kept messages are pushed again, or shown what would be done with them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from maildefer.handling.tasks.call import Call, call_in, composed
from maildefer.maildir import journal
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.names import EntryName
from maildefer.maildir.operator import entries
from maildefer.maildir.push import Pusher
from maildefer.message.envelope import split
from maildefer.queue import Queue
from tests.support.json_lines import lines_of
from tests.support.queues import LABEL

MESSAGE = b"Subject: x\r\n\r\nb\xf6dy\n"
WORKERS = """
import os
from maildefer.queue import Queue
from maildefer.routing import Defer, route, stateless
from maildefer.server import Relay
from maildefer.tasks import task

AT_IMPORT = Queue("run/other")

@route("order@x.test")
@stateless
def ORDER(message):
    print("printed")
    with message.once("invoice") as first:
        assert first and not first.interrupted
    AT_IMPORT.push("Subject: made\\n\\nx", sender="me@x.test", recipient="you@x.test")
    AT_IMPORT.push("Subject: single\\n\\nx", recipient="you@x.test", unique="one")
    Relay("192.0.2.1", 25).deliver("Subject: sent\\n\\nx", To=["a@x.test", "b@x.test"], From="me@x.test")
    later.defer(5, after=60)
    AT_IMPORT.cancel("1.key")

@route("talk@x.test")
def START(message):
    return SECOND

@route("talk@x.test")
def SECOND(message):
    raise Defer("not yet")

@task
def later(number): ...
"""


@pytest.fixture
def layout(monkeypatch: pytest.MonkeyPatch) -> Layout:
    """The queue of a project that is here."""
    for name, text in (
        ("conf/settings.py", 'queues = {"run/queue": ["workers.orders"], "run/other": []}\nkeep = "7d"\n'),
        ("workers/orders.py", WORKERS),
    ):
        os.makedirs(os.path.dirname(name))
        Path(os.path.dirname(name), "__init__.py").touch()
        Path(name).write_text(text)
    create_queue("run/other")
    return create_queue("run/queue")


def keep(layout: Layout, maildefer: Any, *options: str, ago: float = 0.0) -> str:
    key: str = maildefer("push", layout.path, *options, stdin=MESSAGE).out.strip()
    return keep_pushed(layout, key)


def keep_pushed(layout: Layout, key: str) -> str:
    os.makedirs(layout.done_new, exist_ok=True)
    kept = EntryName(key=key, attempts=1).deferred(int(time.time()) + 3600)
    os.rename(f"{layout.new}/{key}", f"{layout.done_new}/{kept}")
    return key


def everything(folder: str = "run") -> dict[str, bytes]:
    return {str(one): one.read_bytes() for one in Path(folder).rglob("*") if one.is_file()}


def dry(*arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "maildefer", "replay", "run/queue", "--dry-run", "--json", *arguments]
    ended = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr.decode()
    return lines_of("replay", ended.stdout.decode())


def test_a_kept_message_is_pushed_again_under_a_fresh_key_and_stays(layout: Layout, maildefer: Any) -> None:
    journal.begin_journal(layout)
    key = keep(layout, maildefer, "-f", "Ann@x.test", "-r", "order@x.test", "--priority", "high")
    ended = maildefer("replay", "run/queue", key)
    [new] = os.listdir(layout.new)
    assert (ended.code, ended.out) == (0, f"{key}  {new}\n")
    data = Path(layout.new, new).read_bytes()
    envelope, offset = split(data, new)
    assert (envelope, data[offset:]) == (("Ann@x.test", "order@x.test"), MESSAGE)
    assert f"Received: from key {key} by ".encode() in data[:offset]
    assert new != key
    assert ",p=high," in new
    assert [EntryName.parse(name).key for name in os.listdir(layout.done_new)] == [key]
    after = maildefer("explain", new, "--queue", "run/queue").out
    assert f"a replay  replay_of={key}" in after
    assert f"replayed  replay=as {new}" in maildefer("explain", key, "--queue", "run/queue").out


def test_those_of_a_time_and_of_a_filter_are_replayed_once_each(layout: Layout, maildefer: Any) -> None:
    keys = [keep(layout, maildefer, "-r", f"{name}@x.test") for name in ("order", "talk", "order")]
    ended = maildefer("replay", "run/queue", "--since", "1h", "--recipient", "order@x.test")
    assert sorted(line.split()[0] for line in ended.out.splitlines()) == sorted([keys[0], keys[2]])
    assert len(os.listdir(layout.new)) == 2
    assert maildefer("replay", "run/queue", "--since", "0s").out == ""
    assert maildefer("replay", "run/queue").code == 2
    assert maildefer("replay", "run/queue", "17.none").code == 1
    assert len(os.listdir(layout.new)) == 2


def test_the_oldest_is_replayed_first(
    layout: Layout, maildefer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [keep(layout, maildefer, "-r", "order@x.test") for _ in range(4)]
    listed = entries.list_entries
    monkeypatch.setattr(
        entries,
        "list_entries",
        lambda *given: sorted(listed(*given), key=lambda one: one.key, reverse=True),
    )
    assert [line.split()[0] for line in maildefer("replay", "run/queue", "--all").out.splitlines()] == keys


def test_a_replay_is_found_by_its_recipient(layout: Layout, maildefer: Any) -> None:
    journal.begin_journal(layout)
    key = keep(layout, maildefer, "-r", "order@x.test")
    new = maildefer("replay", "run/queue", key).out.split()[1]
    command = [
        sys.executable,
        "-m",
        "maildefer",
        "replay",
        "run/queue",
        key,
    ]  # a process that has pushed nothing
    again = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode().split()[1]
    told = maildefer("explain", "--recipient", "order@x.test", "--queue", "run/queue").out
    assert {key, new, again} <= set(told.splitlines())


def test_what_is_kept_has_sent_all_that_it_sent(layout: Layout, maildefer: Any) -> None:
    key = keep(layout, maildefer, "-r", "order@x.test")
    [name] = os.listdir(layout.done_new)
    os.rename(f"{layout.done_new}/{name}", f"{layout.done_new}/{name.replace(key, f'{key},o=1e39b62320')}")
    told = maildefer("queue", "list", "run/queue", "--in", "kept").out
    assert "kept for" in told
    assert "waits" not in told
    [record] = maildefer("queue", "list", "run/queue", "--in", "kept", "--json").records
    assert record["handled"] is False


@pytest.mark.invariant(12)
def test_a_replay_holds_the_unique_key_or_is_refused(layout: Layout, maildefer: Any) -> None:
    queue = Queue("run/queue")
    key = queue.push(MESSAGE, recipient="order@x.test", unique="17")
    keep_pushed(layout, key)
    for _, _, files in os.walk(f"{layout.control}/unique"):
        assert files == [] or files == [key]
    marker = f"{layout.control}/unique/{key.partition(',q=')[2].partition(',')[0]}/{key}"
    os.unlink(marker)  # as the ack does
    [line] = maildefer("replay", "run/queue", key).out.splitlines()
    new = line.split()[1]
    assert queue.push(MESSAGE, recipient="order@x.test", unique="17") == new
    refused = maildefer("replay", "run/queue", key)
    assert (refused.code, new in refused.err, os.listdir(layout.new)) == (1, True, [new])


def test_a_replayed_call_is_signed_for_its_new_entry_and_a_forged_one_is_not(
    layout: Layout, maildefer: Any
) -> None:
    call = Call(task="later", args=[5], kwargs={})
    pusher = Pusher(layout, host=LABEL)
    key = keep_pushed(layout, pusher.push(composed(call, "later@task.maildefer", layout.path, LABEL)))
    [line] = maildefer("replay", "run/queue", key).out.splitlines()
    data = Path(layout.new, line.split()[1]).read_bytes()
    assert call_in(data[split(data)[1] :], layout.path, line.split()[1]).args == [5]
    [name] = os.listdir(layout.done_new)
    forged = f"{layout.done_new}/{name}"
    Path(forged).write_bytes(Path(forged).read_bytes().replace(b"[5]", b"[6]"))
    [line] = maildefer("replay", "run/queue", key).out.splitlines()
    data = Path(layout.new, line.split()[1]).read_bytes()
    with pytest.raises(Exception, match="not deferred here"):
        call_in(data[split(data)[1] :], layout.path, line.split()[1])


@pytest.mark.slow
def test_a_dry_run_shows_what_handlers_would_push_and_send_and_does_nothing_of_it(
    layout: Layout, maildefer: Any
) -> None:
    key = keep(layout, maildefer, "-r", "order@x.test")
    before = everything()
    [told] = dry(key)
    assert (told["queue_id"], told["outcome"]) == (key, "acked")
    assert told["handlers"] == ["workers.orders.ORDER"]
    assert [(one["effect"], one.get("recipients"), one.get("subject")) for one in told["effects"]] == [
        ("push", ["you@x.test"], "made"),
        ("push", ["you@x.test"], "single"),
        ("send", ["a@x.test", "b@x.test"], "sent"),
        ("push", told["effects"][3]["recipients"], "workers.orders.later"),
        ("cancel", None, None),
    ]
    assert told["effects"][3]["due_time"] > time.time()
    after = everything()
    assert {name: after[name] for name in before} == before
    assert not [name for name in after.keys() - before.keys() if "/.maildefer/" not in name]
    assert os.listdir("run/other/new") == []


@pytest.mark.slow
def test_a_dry_run_goes_by_the_states_that_there_are_and_sets_none(layout: Layout, maildefer: Any) -> None:
    first = keep(layout, maildefer, "-f", "ann@x.test", "-r", "talk@x.test")
    second = keep(layout, maildefer, "-f", "ann@x.test", "-r", "talk@x.test")
    for _ in range(2):
        told = dry(first, second)
        assert [one["outcome"] for one in told] == ["acked", "deferred"]
        assert [one["state"] for one in told[0]["effects"]] == ["SECOND"]
        assert told[1]["reason"] == "not yet"
    assert (
        "would set the state"
        in subprocess.run(
            [sys.executable, "-m", "maildefer", "replay", "run/queue", "--dry-run", first],
            capture_output=True,
            check=True,
            text=True,
        ).stdout
    )
