"""Recipients: nobody of that name here, or a domain that is none of ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maildefer.intake import replies
from maildefer.intake.access.domains import part_behind_at
from maildefer.intake.access.recipients import RecipientTable


@pytest.fixture
def table(tmp_path: Path):
    def make(*patterns: str, domains: str = "") -> RecipientTable:
        path = tmp_path / "routes.json"
        path.write_text(json.dumps({"routes": [{"pattern": pattern} for pattern in patterns]}))
        return RecipientTable("queue", str(path), domains)

    return make


@pytest.mark.parametrize(
    ("pattern", "behind"),
    [
        (r"^(?P<name>[a-z]+)@osb\.example$", r"osb\.example$"),
        (r"^(?P<name>[^@]+)\@(?P<host>.+)$", r"(?P<host>.+)$"),
        (r"^a@(?P<host>(x|y)\.example)$", r"(?P<host>(x|y)\.example)$"),
        (r"^[]@]+@b$", "b$"),
        (r"^.+$", None),
        (r"^(?P<all>.+@.+)$", None),
        (r"^a@b|c@d$", None),
        (r"^a@b@c$", None),
        (r"^a@b|c$", None),
        (r"^(?P<name>.+)@(?P=name)\.example$", None),
    ],
)
def test_what_stands_behind_the_at_of_a_pattern_is_its_domain(pattern: str, behind: str | None) -> None:
    found = part_behind_at(pattern)
    assert (found and found.pattern) == behind


@pytest.mark.parametrize(
    ("address", "reply"),
    [
        ("post@osb.example", None),
        ("post1@osb.example", replies.NO_ROUTE),
        ("POST1@OSB.EXAMPLE", replies.NO_ROUTE),
        ("post@other.example", replies.NO_RELAY),
        ("post@osb.example.org", replies.NO_RELAY),
        ("list@x.lists.example", None),
        ("2@x.lists.example", replies.NO_ROUTE),
        ("postmaster", replies.NO_ROUTE),
        ("workers.index.rebuild@task.invalid", replies.NO_RELAY),
    ],
)
def test_a_stranger_of_our_domain_is_unknown_and_another_domain_is_not_relayed_to(
    table, address: str, reply: str | None
) -> None:
    recipients = table(r"^(?P<name>[a-z]+)@osb\.example$", r"^list@(?P<host>.+\.lists\.example)$")
    assert recipients.refusal(address) == reply


def test_where_a_pattern_does_not_tell_its_domain_nothing_is_said_of_domains(table) -> None:
    assert table(r"^(?P<all>.+@osb.example)$").refusal("a@other.example") == replies.NO_ROUTE


def test_domains_that_are_given_are_all_there_are(table) -> None:
    recipients = table(r"^(?P<name>[a-z]+)@(?P<host>.+)$", domains="osb.example LISTS.example")
    assert recipients.refusal("post@Osb.Example") is None
    assert recipients.refusal("post@lists.example") is None
    assert recipients.refusal("1@lists.example") == replies.NO_ROUTE
    assert recipients.refusal("post@other.example") == replies.NO_RELAY
    assert RecipientTable("queue", None, "osb.example").refusal("post@other.example") == replies.NO_RELAY


@pytest.mark.parametrize(
    ("patterns", "domains", "meant"),
    [
        ([r"^postmaster@(?P<host>.+)$"], "", "Postmaster@mx.osb.example"),
        ([r"^postmaster@osb\.example$"], "", "Postmaster@osb.example"),
        ([r"^postmaster@lists\.example$"], "osb.example lists.example", "Postmaster@lists.example"),
        ([r"^postmaster$", r"^postmaster@osb\.example$"], "", "Postmaster"),
        ([r"^postmaster@example$"], "", "Postmaster"),
        ([r"^post@osb\.example$"], "", "Postmaster"),
        ([r"^post@osb\.example$"], "osb.example lists.example", "Postmaster@osb.example"),
    ],
)
def test_a_postmaster_without_a_domain_is_that_of_ours(
    table, patterns: list[str], domains: str, meant: str
) -> None:
    recipients = table(*patterns, domains=domains)
    assert recipients.qualified("Postmaster", "mx.osb.example") == meant
    assert recipients.qualified("post", "mx.osb.example") == "post"


def test_a_table_without_routes_is_no_permanent_refusal(table) -> None:
    assert table().refusal("a@osb.example") == replies.NO_TABLE
