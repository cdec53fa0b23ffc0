"""What is told, when and how often; and the command that tells it, which may do anything."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from maildefer.control.local_processes import LocalStatus
from maildefer.control.queue_status import DownDestination, EntryCounts
from maildefer.host.bounded_call import TimedOut
from maildefer.host.identity import this_host
from maildefer.monitoring.alerts import Alert, AlertCommand, AlertFinder

LIMITS = {"oldest_seconds": 900.0, "free_bytes": 1000, "down_seconds": 900.0}


def process(up_seconds: float = 1.0, **status: Any) -> LocalStatus:
    record: Any = SimpleNamespace(project="/p", kind="supervise", status_socket="s", queues=())
    return LocalStatus(record=record, status={"up_seconds": up_seconds, **status})


def buried(count: int, kind: str = "ValueError", last: str = "k1\nboom") -> dict[str, Any]:
    facts = {"queue": "run/queue", "event": "buried", "kind": kind, "handler": "workers.a.START"}
    return {**facts, "count": count, "last": last}


def counts(
    oldest: float | None = None,
    free: int | None = None,
    down: tuple[DownDestination, ...] = (),
    filesystem: int = 0,
) -> EntryCounts:
    numbers: Any = dict.fromkeys(("waiting", "claimed", "deferred", "later", "dead"), 3)
    more: Any = {"complete": True, "partial": (), "serving": (), "down": down, "filesystem": filesystem}
    return EntryCounts(queue="/p/run/queue", oldest_seconds=oldest, free_bytes=free, **numbers, **more)


class Watch:
    """A finder, and looks at times that the test says."""

    def __init__(self) -> None:
        self.finder = AlertFinder(LIMITS)

    def at(self, now: float, found: Any = None, **queues: Any) -> list[Alert]:
        looks = {f"/p/run/{name}": one for name, one in queues.items()}
        return list(self.finder.find(process() if found is None else found, looks, now))

    def events_at(self, now: float, found: Any = None, **queues: Any) -> list[tuple[str, int]]:
        return [(alert.event, alert.count) for alert in self.at(now, found, **queues)]


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_the_first_burial_of_a_reason_is_told_with_what_is_known_of_it(watch: Watch):
    assert watch.at(0, process(notable=[])) == []
    assert watch.at(2, process(notable=[buried(1)])) == [
        Alert(event="buried", text="boom", queue="run/queue", key="k1", handler="workers.a.START")
    ]


def test_a_thousand_more_of_the_same_are_one_a_minute(watch: Watch):
    told = [watch.events_at(second, process(notable=[buried(second * 10)])) for second in range(1, 181)]
    assert [one for each in told for one in each] == [("buried", 10), ("buried", 600), ("buried", 600)]


def test_what_is_told_is_complete_in_the_end(watch: Watch):
    assert watch.events_at(0, process(notable=[buried(1)])) == [("buried", 1)]
    assert watch.events_at(5, process(notable=[buried(9)])) == []
    assert watch.events_at(100, process(notable=[buried(9)])) == [("buried", 8)]
    assert watch.events_at(200, process(notable=[buried(9)])) == []


def test_another_reason_is_another_thing_to_tell(watch: Watch):
    watch.at(0, process(notable=[buried(1)]))
    assert watch.events_at(1, process(notable=[buried(1), buried(2, "KeyError")])) == [("buried", 2)]


def test_what_was_buried_before_anybody_looked_is_told_of_a_pool_that_has_just_begun_and_of_no_other(
    watch: Watch,
):
    assert watch.events_at(0, process(5.0, notable=[buried(1)])) == [("buried", 1)]
    again = Watch()  # a monitor that died, and was started anew
    assert again.events_at(0, process(500.0, notable=[buried(7)])) == []
    assert again.events_at(2, process(502.0, notable=[buried(8)])) == [("buried", 1)]


def test_a_host_that_was_fenced_is_told(watch: Watch):
    fenced = {"queue": "run/queue", "event": "fenced", "kind": "h2", "count": 1, "last": "h2-7-ab"}
    [alert] = watch.at(0, process(notable=[fenced]))
    assert (alert.event, alert.text, alert.key) == ("fenced", "the lease h2-7-ab was fenced", "")


def test_a_host_that_was_fenced_in_several_queues_is_told_once(watch: Watch):
    def fenced(queue: str, last: str = "h2-7-ab", count: int = 1) -> dict[str, Any]:
        return {"queue": queue, "event": "fenced", "kind": "h2", "count": count, "last": last}

    both = [fenced("run/a"), fenced("run/b")]
    assert watch.events_at(0, process(notable=both)) == [("fenced", 1)]
    assert watch.events_at(2, process(notable=[*both, fenced("run/c")])) == []
    again = [fenced("run/a", "h2-9-cd", 2), fenced("run/b", "h2-9-cd", 2)]
    assert [alert.text for alert in watch.at(62, process(notable=again))] == ["the lease h2-9-cd was fenced"]


def test_an_old_queue_is_told_once_while_it_is_old(watch: Watch):
    assert watch.events_at(0, queue=counts(899)) == []
    assert watch.events_at(2, queue=counts(901)) == [("queue_old", 1)]
    for second in range(4, 400, 2):
        assert watch.events_at(second, queue=counts(900 + second)) == []
    assert watch.events_at(400, queue=counts(1)) == []
    assert watch.events_at(402, queue=counts(1000)) == [("queue_old", 1)]


def test_what_comes_and_goes_is_told_once_a_minute(watch: Watch):
    told = [watch.events_at(second, queue=counts(1000 * (second % 2))) for second in range(121)]
    assert len([one for each in told for one in each]) == 2


def test_a_queue_that_does_not_answer_is_as_it_was(watch: Watch):
    watch.at(0, queue=counts(1000))
    assert watch.at(70, queue=TimedOut(12.0)) == watch.at(72, queue=None) == []
    assert watch.at(140, queue=counts(1000)) == []


def test_a_disk_that_is_nearly_full_is_told_and_one_that_does_not_say_is_not(watch: Watch):
    assert watch.at(0, a=counts(free=None), b=counts(free=1001)) == []
    [alert] = watch.at(2, a=counts(free=None), b=counts(free=999))
    assert (alert.event, alert.queue, alert.text) == ("disk_nearly_full", "run/b", "999 bytes are free")


def test_a_disk_with_several_queues_is_told_once(watch: Watch):
    queues = {name: counts(free=999, filesystem=7) for name in ("a", "b")}
    assert watch.events_at(0, **queues, c=counts(free=9, filesystem=8)) == [("disk_nearly_full", 1)] * 2
    assert watch.at(70, **queues) == []


def test_a_server_of_the_settings_that_is_down_for_long_is_told_once_and_strangers_domains_are_not(
    watch: Watch,
):
    def down(seconds: float, name: str = "mx.example:25") -> EntryCounts:
        known = DownDestination(
            destination=name, seconds=seconds, words="421 no", is_server=name.endswith(":25")
        )
        return counts(down=(known,))

    assert watch.at(0, queue=down(899)) == watch.at(2, queue=down(99999, "b.example")) == []
    [alert] = watch.at(4, queue=down(901))
    assert (alert.event, alert.queue) == ("destination_down", "run/queue")
    assert alert.text == "mx.example:25 is down for 901 s: 421 no"
    assert watch.at(100, queue=down(997)) == watch.at(102, queue=counts()) == []
    assert watch.events_at(104, queue=down(901)) == [("destination_down", 1)]


def test_each_refused_reload_is_told_by_its_reason(watch: Watch):
    [alert] = watch.at(0, process(reload_refused="a.py:1: no"))
    assert (alert.event, alert.text.endswith(": a.py:1: no")) == ("reload_refused", True)
    assert watch.at(100, process(reload_refused="a.py:1: no")) == []
    assert len(watch.at(102, process(reload_refused="a.py:2: no"))) == 1
    assert watch.at(200, process(reload_refused=None)) == []
    assert len(watch.at(202, process(reload_refused="a.py:2: no"))) == 1


@pytest.mark.parametrize("found", [None, TimedOut(1.0), "x"])
def test_of_a_process_that_does_not_answer_nothing_is_known(found: Any):
    assert list(AlertFinder(LIMITS).find(found, {}, 0)) == []


# The command


def run(
    folder: Path,
    told: list[dict[str, Any]],
    script: str,
    *alerts: Alert,
    seconds: float = 30.0,
    program: str = "/bin/sh",
) -> None:
    """Have the alerts told by a shell's script, until all are, or have failed."""

    async def main() -> None:
        config = {"command": [program, "-c", script], "project": str(folder), "timeout_seconds": seconds}
        command = AlertCommand(config)
        for alert in alerts:
            command.add(alert)
        running = asyncio.ensure_future(command.run())
        while len(told) < len(alerts):
            await asyncio.sleep(0.01)
        running.cancel()

    asyncio.run(asyncio.wait_for(main(), 60))


NASTY = Alert(
    event="buried", text="no \0 route\n'; rm -rf \udcff $(reboot)", queue="run/queue", key="k", count=3
)


def test_the_command_gets_the_facts_by_its_environment_and_its_input(
    tmp_path: Path, told: list[dict[str, Any]]
):
    run(tmp_path, told, 'printf %s "$ALERT_EVENT $ALERT_COUNT $ALERT_TEXT" > env; cat > json', NASTY)
    assert (tmp_path / "env").read_bytes() == "buried 3 no ␀ route\n'; rm -rf \\udcff $(reboot)".encode()
    facts = json.loads((tmp_path / "json").read_text())
    assert (facts["text"], facts["queue"], facts["key"]) == (NASTY.text, "run/queue", "k")
    assert (facts["host"], time.time() - facts["time"] < 60) == (this_host().label, True)
    assert told == [{"event": "alert.told", "alert": "buried", "queue": "run/queue", "count": 3}]


@pytest.mark.slow
def test_alerts_are_told_one_at_a_time_in_their_order(tmp_path: Path, told: list[dict[str, Any]]):
    script = "mkdir lock || exit 9; echo $ALERT_TEXT >> told; rmdir lock"
    run(tmp_path, told, script, *(Alert(event="buried", text=str(number)) for number in range(5)))
    assert (tmp_path / "told").read_text().split() == ["0", "1", "2", "3", "4"]
    assert [line["event"] for line in told] == ["alert.told"] * 5


@pytest.mark.parametrize(
    ("program", "script", "error"),
    [
        ("/bin/sh", "exit 3", "/bin/sh ended with 3"),
        ("/bin/sh", "kill -9 $$", "/bin/sh ended with -9"),
        ("/no/such", "", "/no/such can't be executed: No such file or directory"),
        ("no-such-program", "", "no-such-program can't be executed: No such file or directory"),
        ("/etc/passwd", "", "/etc/passwd can't be executed: Permission denied"),
    ],
)
def test_a_command_that_fails_is_told_in_the_log(
    tmp_path: Path, told: list[dict[str, Any]], program: str, script: str, error: str
):
    run(tmp_path, told, script, NASTY, program=program)
    assert [(line["event"], line["error"]) for line in told] == [("alert.failed", error)]


@pytest.mark.slow
def test_a_command_that_hangs_is_killed_with_all_that_it_has_started(
    tmp_path: Path, told: list[dict[str, Any]]
):
    run(tmp_path, told, "sleep 600 & echo $! > pid; wait", NASTY, NASTY, seconds=3.0)
    assert [line["error"] for line in told] == ["/bin/sh took longer than 3 s, and was killed"] * 2
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 60
    while is_running(pid):
        assert time.monotonic() < deadline


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_command_that_says_much_and_reads_nothing_hurts_nothing(tmp_path: Path, told: list[dict[str, Any]]):
    big = Alert(event="buried", text="x" * 100_000)
    run(tmp_path, told, "exec <&-; yes | head -c 10000000; yes >&2 | head -c 100", big, seconds=5.0)
    assert len(told) == 1


def test_of_very_many_that_wait_the_oldest_are_dropped_and_that_is_told(told: list[dict[str, Any]]):
    async def main() -> None:
        command = AlertCommand({"command": ["true"], "project": "/", "timeout_seconds": 1.0})
        for number in range(105):
            command.add(Alert(event="buried", text=str(number)))
        assert command._waiting[0][0].text == "5"

    asyncio.run(main())
    assert [line["event"] for line in told] == ["alert.failed"] * 5
