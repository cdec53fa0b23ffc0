"""The metrics: what they are made of, whatever is in it, and that the format is Prometheus'."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from maildefer.control.local_processes import LocalStatus
from maildefer.control.queue_status import read_queue_status
from maildefer.host.bounded_call import TimedOut
from maildefer.host.identity import this_host
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.push import Planned, Pusher
from maildefer.maildir.upkeep.closures import Closures
from maildefer.monitoring.looks import Found
from maildefer.monitoring.metrics import exposition
from tests.support.front_end import ROOT, wait_until
from tests.support.monitor import Monitor, Starter, monitoring

DOCUMENT = ROOT / "docs" / "monitoring.md"
STATUS: dict[str, Any] = {
    "host": "h1",
    "worker_deaths": 4,
    "workers": [{"state": "idle"}, {"state": "handling"}],
    "queues": [
        {
            "queue": "run/queue",
            "state": "served",
            "may_claim": True,
            "hosts": 2,
            "beats": 7,
            "fences": 1,
            "reclaims": 3,
            "beat_age_seconds": 1.5,
            "faults": [{"chore": "sweep", "since": 1, "entries": 0, "error": "EIO"}],
        }
    ],
    "attempts": [
        {
            "queue": "run/queue",
            "handler": 'workers."a"\n.START',
            "outcomes": {"acked": 2, "failed": 1},
            "buckets": [1, 0, 2] + [0] * 10,
            "seconds": 0.5,
        }
    ],
    "notable": [
        {
            "queue": "run/queue",
            "event": "buried",
            "kind": "ValueError",
            "handler": "a",
            "count": 2,
            "last": "",
        },
        {
            "queue": "run/queue",
            "event": "buried",
            "kind": "ValueError",
            "handler": "b",
            "count": 1,
            "last": "",
        },
        {"queue": "run/queue", "event": "fenced", "kind": "h2", "count": 1, "last": ""},
    ],
    "deliveries": [{"destination": "b.example", "outcomes": {"sent": 7, "refused": 1}}],
    "front_end_groups": [
        {"kind": "intake", "wanted": 1, "up": 1, "accepted": 5, "refused": {"5.1.1": 2, "4.3.1": 1}},
        {"kind": "monitor", "wanted": 1, "up": 1},
    ],
    "front_ends": [{"kind": "intake", "connections": 3, "shortages": {"/q": "full"}}],
}


def local(status: dict[str, Any] | None) -> LocalStatus:
    record: Any = SimpleNamespace(project="/p", kind="supervise", status_socket="s", queues=())
    return LocalStatus(record=record, status=status, problem="" if status else "no answer")


WORKING = local(STATUS)


def metrics(process: Found = WORKING, **queues: Found) -> dict[str, float]:
    text = exposition(process, {f"/p/run/{name}": found for name, found in queues.items()}, "")[0].decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name.removeprefix("maildefer_"): float(value) for name, _, value in lines}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create_queue(str(tmp_path / "queue"))


def test_a_status_is_told_in_full():
    found = metrics()
    told = {
        "live": 1,
        "ready": 1,
        "sound": 0,
        'workers{state="handling"}': 1,
        "worker_deaths_total": 4,
        'lease_beats_total{queue="run/queue"}': 7,
        'takeovers_total{queue="run/queue"}': 1,
        'reclaimed_total{queue="run/queue"}': 3,
        'lease_beat_age_seconds{queue="run/queue"}': 1.5,
        'chore_failing{chore="sweep",queue="run/queue"}': 1,
        'attempts_total{handler="workers.\\"a\\"\\n.START",outcome="failed",queue="run/queue"}': 1,
        'buried_total{queue="run/queue",reason="ValueError"}': 3,
        'deliveries_total{destination="b.example",outcome="sent"}': 7,
        'accepted_total{front_end="intake"}': 5,
        'refused_total{front_end="intake",status="5.1.1"}': 2,
        'connections{front_end="intake"}': 3,
        'front_end_short{front_end="intake",queue="/q"}': 1,
    }
    assert {name: found.get(name) for name in told} == told


def test_the_process_is_named_with_its_host_also_where_it_does_not_say_it():
    texts = [name for name in metrics(local({})) if name.startswith("info")]
    assert len(texts) == 1
    assert f'host="{this_host().label}"' in texts[0]


def test_a_histogram_adds_its_buckets_up():
    found = {name: value for name, value in metrics().items() if "duration" in name}
    counts = [value for name, value in found.items() if "_bucket" in name]
    assert counts == [1, 1] + [3] * 11
    assert [value for name, value in found.items() if "_sum" in name] == [0.5]


def test_who_does_not_answer_is_not_live_and_has_no_counts():
    assert metrics(None) == {"live": 0, "ready": 0, "sound": 0}
    assert metrics(local(None)) == {"live": 0, "ready": 0, "sound": 0}
    assert metrics(TimedOut(1.0)) == {"live": 0, "ready": 0, "sound": 0}


def test_entries_are_counted_by_what_becomes_of_them(layout: Layout):
    pusher = Pusher(layout, host="h")
    for after in (None, None, 3600.0):
        pusher.push_all([Planned(compose=lambda stem: [b"Subject: x\n\n"], due=pusher.due(after=after))])
    name = os.listdir(layout.new)[0]
    os.rename(f"{layout.new}/{name}", f"{layout.later_new}/{name},a=1,n=1,d=9999999999")
    found = metrics(queue=read_queue_status(layout.path, 5.0))
    states = {name[27:-2]: int(value) for name, value in found.items() if name.startswith("queue_entries")}
    assert {word.partition('state="')[2]: count for word, count in states.items()} == {
        "waiting": 1, "claimed": 0, "deferred": 1, "later": 1, "dead": 0,
    }  # fmt: skip
    assert found['queue_counted{queue="run/queue"}'] == 1
    assert 0 <= found['queue_oldest_seconds{queue="run/queue"}'] < 3600


def test_destinations_that_are_down_are_told_by_name_as_far_as_there_are_few(layout: Layout):
    closures = Closures(layout, now=time.time)
    for number in range(60):
        closures.close(f"mx{number:02}.example", "450 no")
    found = metrics(queue=read_queue_status(layout.path, 5.0))
    assert found["destinations_down"] == 60
    names = [name for name in found if name.startswith("destination_down_seconds")]
    assert len(names) == 50
    assert all(0 <= found[name] < 3600 for name in names)
    assert 'destination_down_seconds{destination="mx' in names[0]


def test_a_queue_that_does_not_answer_is_told_of_and_has_no_counts():
    found = metrics(queue=TimedOut(12.0), other=None)
    assert found['queue_readable{queue="run/queue"}'] == 0
    assert not [name for name in found if "entries" in name or "run/other" in name]


@pytest.mark.parametrize(
    "value", [None, [], "x", {"workers": 3, "queues": [[]], "attempts": [], "notable": [{}]}]
)
def test_a_status_of_any_shape_is_no_fault(value: Any):
    strange = dict.fromkeys(STATUS, value) if not isinstance(value, dict) else value
    assert metrics(local({**STATUS, **strange}))["live"] in (0, 1)


def test_names_that_are_no_text_are_written_all_the_same():
    strange = [
        {
            "queue": "run/\udcff",
            "handler": "\udcff\0",
            "outcomes": {"acked": 1},
            "buckets": [0] * 13,
            "seconds": 0,
        }
    ]
    assert 1 in metrics(local({**STATUS, "attempts": strange})).values()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: .ci/setup test")
def test_promtool_finds_nothing_wrong_with_the_format(layout: Layout):
    found = exposition(local(STATUS), {"/p/run/queue": read_queue_status(layout.path, 5.0)}, "")[0]
    done = subprocess.run(["promtool", "check", "metrics"], input=found, capture_output=True, check=False)
    assert (done.returncode, done.stderr + done.stdout) == (0, b"")


def test_each_metric_is_documented_and_no_other(layout: Layout):
    text = exposition(local(STATUS), {"/p/run/queue": read_queue_status(layout.path, 5.0)}, "")[0].decode()
    told = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    written = set(re.findall(r"^\| `(maildefer_\w+)", DOCUMENT.read_text(), re.MULTILINE))
    assert told == written


def test_of_each_metric_it_is_said_what_to_do():
    rows = re.findall(r"^\| `maildefer_\w+` \|(.*)\|(.*)\|$", DOCUMENT.read_text(), re.MULTILINE)
    assert len(rows) > 30
    assert [told for told, remedy in rows if not told.strip() or not remedy.strip()] == []


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitor]:
    folder = tmp_path_factory.mktemp("monitor")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAILDEFER_RUNTIME_DIR", str(folder / "runtime"))
        create_queue(str(folder / "run" / "queue"))
        starter = Starter(folder, (str(folder / "run" / "queue"),))
        starter.status = STATUS
        with monitoring(starter.pidfile, folder / "log") as monitor:
            yield monitor


def test_a_queue_is_looked_at_for_who_asks(monitor: Monitor):
    waiting = 'maildefer_queue_entries{queue="run/queue",state="waiting"} 0.0'
    wait_until(lambda: waiting in monitor.get("/metrics")[1])  # a look may take longer than one is patient


@pytest.mark.slow
def test_a_client_gets_the_format_that_it_asks_for(monitor: Monitor):
    connection = http.client.HTTPConnection("127.0.0.1", monitor.port, timeout=60)
    for accept, beginning in (
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text"),
        ("*/*", "text/plain"),
        ("garbage;;=,\u00e9", "text/plain"),
    ):
        connection.request("GET", "/metrics", headers={"Accept": accept})
        response = connection.getresponse()
        assert response.headers["Content-Type"].startswith(beginning)
        response.read()
    connection.close()
