"""docs/operating.md by symptom: its commands are typed into a shop in that state, and print what the page shows."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import processes
from maildefer.event_table import ERRORS, EVENTS, WARNINGS
from maildefer.maildir import journal
from maildefer.maildir.layout import create_queue
from tests.support.front_end import ROOT, wait_until
from tests.support.shop import Shop, freeze, shop

PAGE = (ROOT / "docs/operating.md").read_text()
SYMPTOMS = PAGE.partition("\n## By symptom\n")[2].partition("\n## ")[0]
BLOCKS = [
    (title, number, block)
    for section in SYMPTOMS.split("\n### ")[1:]
    for title in [section.partition("\n")[0]]
    for number, block in enumerate(
        re.findall(r"^```console\n(.*?)^```", section, re.DOTALL | re.MULTILINE), 1
    )
]
HANG = """import sys, time
from maildefer.cli import status_survey
status_survey.read_queue_status = lambda *_: time.sleep(60)
from maildefer.cli.program import run
run(sys.argv[1:])
"""


def nothing_runs(shop: Shop) -> None:
    shop.push("order@shop.example", "One mug", 12)


def paused(shop: Shop) -> None:
    shop.start()
    shop.sh("maildefer pause run/orders")
    shop.push("order@shop.example", "One mug", 12)
    wait_until(lambda: "orders: paused on all hosts" in shop.sh("maildefer status"))


def slow(shop: Shop) -> None:
    shop.start()
    shop.push("news1@example.com", "News", 100, "run/newsletter")
    wait_until(lambda: "handling" in shop.sh("maildefer status"))
    wait_until(lambda: re.search(r"2 of its workers busy  its pool", shop.sh("maildefer status")))


def dead(shop: Shop) -> None:
    journal.begin_journal(shop.queues["run/orders"])
    shop.start()
    shop.push("order@shop.example", "One teapot")
    shop.push("complaint@shop.example", "It is broken")
    shop.push("nobody@elsewhere.example", "Hello")
    wait_until(lambda: shop.count("dead_new") == 3)


def silent(shop: Shop) -> None:
    pool = shop.start(host="mail2")
    wait_until(lambda: re.search("beat [3-9]", shop.sh("maildefer status")))
    freeze(pool)
    wait_until(lambda: "silent" in shop.sh("maildefer status"))


def fenced(shop: Shop) -> None:
    silent(shop)
    shop.start()
    wait_until(lambda: shop.has_logged("lease.fenced", 2))


def dies_at_once(shop: Shop) -> None:
    pool = shop.start()
    code = (shop.home / "workers/orders.py").read_text()
    shop.write("workers/orders.py", code.replace("STOCK = {", "STOCK == {"))
    roles = processes.by_role(pool.pid)
    for pid in (*roles["template"], *roles["worker"]):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: re.search(r"next fork in ([4-9]|\d\d)", shop.sh("maildefer status")))


def dies_of_a_message(shop: Shop) -> None:
    code = (shop.home / "workers/orders.py").read_text()
    crash = "import ctypes; ctypes.string_at(0)\n    raise Reject"
    shop.write("workers/orders.py", code.replace("raise Reject", crash))
    shop.start()
    shop.push("complaint@shop.example", "It is broken")
    wait_until(lambda: shop.count("dead_new") > 0)


def down(shop: Shop) -> None:
    shop.settings('queues["run/out"] = ["maildefer.handlers.outgoing"]\n')
    shop.settings('outgoing_config = {"host": "127.0.0.1", "port": 1}\n')
    create_queue(f"{shop.home}/run/out")
    shop.start()
    shop.push("ann@example.com", "Your order", 3, "run/out")
    wait_until(lambda: "down for" in shop.sh("maildefer outgoing"))


def short(shop: Shop) -> None:
    shop.settings('receiver_config = {"listen": ["smtp://127.0.0.1:0"], "min_free_bytes": 10**15}\n')
    shop.start("--intake")
    wait_until(lambda: "refuses for now" in shop.sh("maildefer status"))


def refused(shop: Shop) -> None:
    code = (shop.home / "workers/orders.py").read_text()
    shop.start()
    shop.write("workers/orders.py", code.replace("STOCK = {", "STOCK == {"))
    shop.sh("maildefer reload")


def hangs(shop: Shop) -> None:
    shop.start()
    shop.write("hang.py", HANG)
    shop.write("bin/maildefer", f'#!/bin/sh\nexec {sys.executable} {shop.home}/hang.py "$@"\n')


STATES: dict[tuple[str, int], Callable[[Shop], None]] = {
    ("Messages are not handled", 1): nothing_runs,
    ("Messages are not handled", 2): paused,
    ("A queue grows", 1): slow,
    ("A queue grows", 2): slow,
    ("There are dead letters", 1): dead,
    ("There are dead letters", 2): dead,
    ("A host is silent or was fenced", 1): silent,
    ("A host is silent or was fenced", 2): fenced,
    ("Workers die again and again", 1): dies_at_once,
    ("Workers die again and again", 2): dies_of_a_message,
    ("Nothing goes out", 1): down,
    ("Nothing goes out", 2): down,
    ("A front end refuses mail", 1): short,
    ("A mount hangs", 1): hangs,
    ("A reload was refused", 1): refused,
    ("What became of one message", 1): dead,
}


def plain(text: str, home: str = "/srv/shop") -> list[str]:
    """The lines, without what differs from one day and one machine to the next."""
    text = text.replace(home, "/srv/shop").replace(os.uname().nodename, "mail1")
    for pattern, instead in (
        (r"\d+\.M\w+\.[\w.-]*,S=\d+[\w,=]*(:1,[\w.-]+)?", "KEY"),
        (r"\bmail(\d)(-[0-9a-f]{6})?(-\d+-[0-9a-f]{12})?", r"HOST\1"),
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
        (r"127\.0\.0\.1:\d+|mx\.example\.com:\d+", "SERVER"),
        (r"127\.0\.0\.1|mx\.example\.com", "SERVER"),
        (r"\d+(\.\d+)? (ms|s|min|h|d|B|kB|MB|GB|TB)\b", "N"),
        (r"\d+(\.\d+)?", "N"),
        (r"(?<=up N)  N/s", ""),  # in its first second, a pool has no rate
        (r"(?<=busy)  its pool N/s", ""),
        (r"[ \t]+", " "),
    ):
        text = re.sub(pattern, instead, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def steps(block: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a block, each with the lines that it prints."""
    for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = step.partition("\n")
        yield command, plain(output)


@pytest.mark.lifecycle
@pytest.mark.slow
@pytest.mark.parametrize(
    ("title", "number", "block"), BLOCKS, ids=[f"{one}-{number}" for one, number, _ in BLOCKS]
)
def test_the_commands_of_a_symptom_print_what_the_page_shows(
    title: str, number: int, block: str, tmp_path: Path
) -> None:
    with shop(tmp_path / "shop") as there:
        STATES[title, number](there)
        for command, shown in steps(block):
            printed = plain(there.sh(command), str(there.home))
            at, skips = 0, False
            for line in shown:
                if line == "…":
                    skips = True
                    continue
                assert line in printed[at:], (command, line, printed)
                found = printed.index(line, at)
                assert skips or found == at, (command, line, printed)
                at, skips = found + 1, False
            assert skips or at == len(printed), (command, printed[at:])


def test_each_symptom_of_the_table_has_a_section_and_each_section_is_in_the_table() -> None:
    table = SYMPTOMS.partition("\n### ")[0]
    linked = re.findall(r"\]\(#([\w-]+)\)", table)
    titles = re.findall(r"^### (.+)$", SYMPTOMS, re.MULTILINE)
    assert [title.lower().replace(" ", "-") for title in titles] == [
        one for one in linked if one != "the-log"
    ]


def test_each_alert_leads_to_a_symptom() -> None:
    rows = re.findall(
        r"^\| \[(Maildefer\w+)\]\(monitoring\.md#(\w+)\) \| \[.+\]\(#.+\) \| (.*?) ?\|$",
        SYMPTOMS,
        re.MULTILINE,
    )
    rules = re.findall(r"alert: (\w+)", (ROOT / "conf/deploy/alerts.yml").read_text())
    assert [name for name, _, _ in rows] == rules
    assert [anchor for _, anchor, _ in rows] == [name.lower() for name in rules]
    told = re.findall(
        r"^\| `(\w+)` \| .+ \| .+ \|$",
        (ROOT / "docs/monitoring.md").read_text().partition("| `ALERT_EVENT`")[2].partition("\n\n")[0],
        re.MULTILINE,
    )
    assert sorted(cell.strip("`") for _, _, cell in rows if cell) == sorted(told)


def test_each_event_that_is_no_mere_information_is_told_with_what_to_do() -> None:
    table = PAGE.partition("\n| event | what it means, and what to do |\n")[2].partition("\n\n")[0]
    told = {
        name for row in table.splitlines() for name in re.findall(r"`([a-z]+\.[a-z_]+)`", row.split(" | ")[0])
    }
    assert {name for name in EVENTS if name.endswith(".failed")} | ERRORS | WARNINGS <= told
    assert told <= EVENTS.keys()
