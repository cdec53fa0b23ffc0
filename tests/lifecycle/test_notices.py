"""Reports to senders, over real SMTP all along: front end, pool, delivery, and the server that gets the report."""

from __future__ import annotations

import email
import os
import smtplib
from typing import Any

import pytest

from maildefer.maildir.layout import Format, create_queue
from tests.lifecycle.conftest import Start
from tests.lifecycle.project import BEAT_SECONDS, PATIENCE_SECONDS, TTL_SECONDS, Project, eventually
from tests.lifecycle.test_front_ends import address
from tests.support import next_server

pytestmark = pytest.mark.lifecycle
SETTINGS = """
queues["run/outgoing"] = ["maildefer.handlers.outgoing"]
receiver_config = {{"host": "127.0.0.1", "port": 0, "dsn": True}}
outgoing_config = {{"host": "127.0.0.1", "port": {port}, "tls": "off"}}
notices = {{"queue": "run/outgoing", "author": "postmaster@us.example", "rejects": "always"}}
"""


def test_a_sender_hears_once_of_what_a_handler_rejects_and_of_what_the_next_server_refuses(
    project: Project, start: Start
) -> None:
    outgoing = create_queue(
        str(project.path / "run/outgoing"), format=Format(beat_seconds=BEAT_SECONDS, ttl_seconds=TTL_SECONDS)
    )
    with next_server.running() as server:
        server.replies["RCPT TO:<gone@next.example>"] = "550 5.1.1 no such user"
        with open(project.path / "conf/settings.py", "a") as settings:
            settings.write(SETTINGS.format(port=server.port))
        (project.path / "workers/front.py").write_text(
            (project.path / "workers/front.py").read_text()
            + "\n\ndef _onward(argument):\n"
            + "    from maildefer import log_context\n"
            + "    Queue('run/outgoing').push(log_context.current()[0], recipient='gone@next.example')\n"
            + "\n\nACTIONS['onward'] = _onward\n"
        )
        pool = start(intake=True)
        with smtplib.SMTP(*address(pool), timeout=PATIENCE_SECONDS) as client:
            for what in ("reject@test", "onward@test"):
                client.sendmail(
                    "Ann@home.example",
                    [what],
                    b"From: ann@home.example\r\nSubject: a test\r\n\r\nHello\r\n",
                    ["RET=FULL", f"ENVID={what}"],
                    ["NOTIFY=FAILURE", f"ORCPT=rfc822;{what}"],
                )
            client.sendmail("ann@home.example", ["reject@test"], b"List-Id: <l.x>\r\n\r\nx\r\n")
        eventually(lambda: len(server.messages) == 2 and project.is_empty(), "the reports are delivered")
        eventually(lambda: not os.listdir(outgoing.cur), "and done")
        assert pool.stop() == 0
    reports = {one["Original-Envelope-Id"]: one for one in map(fields_of, server.messages)}
    assert (
        reports["reject@test"].items()
        >= {
            "to": "<Ann@home.example>",
            "Final-Recipient": "rfc822; reject@test",
            "Diagnostic-Code": "x-maildefer; never",
        }.items()
    )
    assert (
        reports["onward@test"].items()
        >= {
            "Original-Recipient": "rfc822;onward@test",
            "Final-Recipient": "rfc822; gone@next.example",
            "Status": "5.1.1",
            "Remote-MTA": "dns; 127.0.0.1",
            "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
        }.items()
    )
    assert [event["reason"] for event in pool.events("notice.withheld")] == ["List-Id: <l.x>"]
    assert len(os.listdir(outgoing.dead_new)) == 1


ONWARD = """

def _onward(argument):
    from maildefer import log_context
    Queue('run/outgoing').push(log_context.current()[0], recipient='bob@next.example')

ACTIONS['onward'] = _onward
"""


def test_a_sender_that_asks_hears_once_what_was_done_here_and_what_went_to_a_server_without_dsn(
    project: Project, start: Start
) -> None:
    outgoing = create_queue(
        str(project.path / "run/outgoing"), format=Format(beat_seconds=BEAT_SECONDS, ttl_seconds=TTL_SECONDS)
    )
    with next_server.running() as server:
        with open(project.path / "conf/settings.py", "a") as settings:
            settings.write(SETTINGS.format(port=server.port))
        with open(project.path / "workers/front.py", "a") as front:
            front.write(ONWARD)
        pool = start(intake=True)
        with smtplib.SMTP(*address(pool), timeout=PATIENCE_SECONDS) as client:
            for what, notify in (("quick", "SUCCESS"), ("onward", "SUCCESS"), ("quick", "FAILURE")):
                mail = b"From: ann@home.example\r\nSubject: a test\r\n\r\nHello\r\n"
                client.sendmail(
                    "Ann@home.example", [f"{what}@test"], mail, [f"ENVID={what}"], [f"NOTIFY={notify}"]
                )
        eventually(lambda: len(server.messages) == 3 and project.is_empty(), "all is delivered")
        eventually(lambda: not os.listdir(outgoing.cur), "and done")
        assert pool.stop() == 0
    assert server.copies("bob@next.example") == 1
    reports = [fields_of(one) for one in server.messages if one[0] == "MAIL FROM:<>"]
    assert sorted((one["Original-Envelope-Id"], one["Action"]) for one in reports) == [
        ("onward", "relayed"),
        ("quick", "delivered"),
    ]


def fields_of(message: tuple[str, list[str], bytes]) -> dict[str, Any]:
    """The fields of a report's part for programs."""
    command, recipients, data = message
    assert (command, [one.lower() for one in recipients]) == ("MAIL FROM:<>", ["ann@home.example"])
    whole = email.message_from_bytes(data)
    blocks = whole.get_payload()[1].get_payload()  # type: ignore[union-attr, index]
    found = {name: str(value) for block in blocks for name, value in block.items()}  # type: ignore[union-attr]
    return {"to": whole["To"], **found}
