"""What is believed of Authentication-Results, and what no forger gets believed."""

from __future__ import annotations

from typing import Any

import pytest

from maildefer.errors import ConfigurationError
from maildefer.mail import MailRequest
from maildefer.message import authentication
from maildefer.message.authentication import TrustedServers, trusted_servers

OURS = "mx.osb.example"
TRUSTED = TrustedServers(servers=frozenset({OURS}))
HOP = "Received: from evil.example ([192.0.2.66]) by mx.osb.example; Sat, 28 Nov 2026 11:00:00 +0000\n"
BANK = "From: Bank <ceo@bank.example>\n"
PASS = "dmarc=pass header.from=bank.example; dkim=pass header.d=bank.example; spf=pass smtp.mailfrom=ceo@bank.example"
NONE = f"Authentication-Results: {OURS}; dkim=none; spf=fail smtp.mailfrom=evil.example\n"


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "configured", TRUSTED)


def mail(head: str, line_end: str = "\n") -> MailRequest:
    data = f"{head}\nText.\n".replace("\n", line_end)
    return MailRequest("peer", "x@evil.example", "post@osb.example", data)


def verified_by(head: str) -> str | None:
    return mail(head).authentication.verified_by


@pytest.mark.parametrize(
    ("results", "method"),
    [
        ("dmarc=pass header.from=bank.example", "dmarc"),
        ("dmarc=pass header.from=Bank.Example; dkim=fail", "dmarc"),
        ("dkim=pass header.d=bank.example", "dkim"),
        ("dkim=fail header.d=bank.example; dkim=pass header.d=bank.example", "dkim"),
        ("dkim=pass header.i=@bank.example", "dkim"),
        ("spf=pass smtp.mailfrom=bank.example", "spf"),
        ("spf=pass smtp.mailfrom=bounces@bank.example", "spf"),
        ("dkim=pass header.d=bank.example; dmarc=none header.from=bank.example", "dkim"),
        ("dkim=pass header.d=bank.example; dmarc=bestguesspass header.from=bank.example", "dkim"),
    ],
)
def test_what_our_server_has_verified_is_believed(results: str, method: str) -> None:
    assert verified_by(f"{HOP}Authentication-Results: {OURS}; {results}\n{BANK}") == method
    as_exim_puts_it = f"Authentication-Results: {OURS}; {results}\n{HOP}{BANK}"
    assert verified_by(as_exim_puts_it) == method
    assert mail(as_exim_puts_it, "\r\n").authentication.verified_by == method


def test_the_results_are_values() -> None:
    found = mail(f"{HOP}Authentication-Results: {OURS}; {PASS}\n{BANK}").authentication
    assert (found.server, found.author, found.author_domain) == (OURS, "ceo@bank.example", "bank.example")
    assert (found.result("dkim"), found.result("spf"), found.result("arc")) == ("pass", "pass", "none")
    assert [one.method for one in found.results] == ["dmarc", "dkim", "spf"]
    assert found.is_verified


def test_a_domain_speaks_for_those_below_it_unless_it_is_strict() -> None:
    head = (
        f"{HOP}Authentication-Results: {OURS}; dkim=pass header.d=bank.example\nFrom: ceo@mail.bank.example\n"
    )
    data = f"{head}\n"
    assert authentication.authentication_of(data, TRUSTED).is_verified
    strict = TrustedServers(servers=TRUSTED.servers, strict=True)
    assert not authentication.authentication_of(data, strict).is_verified


def test_with_several_fields_a_message_those_of_the_server_count_together() -> None:
    two = TrustedServers(servers=TRUSTED.servers, fields=2)
    own = f"{HOP}Authentication-Results: {OURS}; spf=pass smtp.mailfrom=x@other.example\n"
    more = f"Authentication-Results: {OURS}; dkim=pass header.d=bank.example\n"
    assert authentication.authentication_of(f"{own}{more}{BANK}\n", two).verified_by == "dkim"
    assert not authentication.authentication_of(f"{own}{more}{BANK}\n", TRUSTED).is_verified
    third = f"{own}Authentication-Results: {OURS}; dkim=fail header.d=bank.example\n{more}{BANK}\n"
    assert not authentication.authentication_of(third, two).is_verified


def test_behind_two_of_our_own_servers_the_first_ones_field_is_below_two_lines() -> None:
    head = f"{HOP}{HOP}Authentication-Results: {OURS}; {PASS}\n{BANK}\n"
    assert not authentication.authentication_of(head, TRUSTED).is_verified
    assert authentication.authentication_of(head, TrustedServers(servers=TRUSTED.servers, hops=2)).is_verified


def test_a_field_of_another_server_above_ours_is_passed_over() -> None:
    head = f"Authentication-Results: filter.osb.example; none\n{HOP}Authentication-Results: {OURS}; {PASS}\n{BANK}"
    assert verified_by(head) == "dmarc"


def ours(results: str, author: str = BANK) -> str:
    """A message about which our server says this."""
    return f"{HOP}Authentication-Results: {OURS}; {results}\n{author}"


def forged(field: str) -> str:
    """A message with a field of a stranger's, in the only place that it would be read at: our server wrote none."""
    return f"{HOP}{field}\n{BANK}"


FORGERIES = {
    "a field in our name below ours": f"{HOP}{NONE}Authentication-Results: {OURS}; {PASS}\n{BANK}",
    "a field in our name below ours, which has found nothing": (
        f"{HOP}Authentication-Results: {OURS}; none\nAuthentication-Results: {OURS}; {PASS}\n{BANK}"
    ),
    "a field in our name from a hop before ours": f"{HOP}{HOP}Authentication-Results: {OURS}; {PASS}\n{BANK}",
    "a field in our name below another that cannot be read": (
        f"{HOP}Authentication-Results: {OURS}; spf=fail (\nAuthentication-Results: {OURS}; {PASS}\n{BANK}"
    ),
    "another server's": forged(f"Authentication-Results: mx.evil.example; {PASS}"),
    "our name as the beginning of another": forged(f"Authentication-Results: {OURS}.evil.example; {PASS}"),
    "our name as the end of another": forged(f"Authentication-Results: evil.{OURS}; {PASS}"),
    "our name in a comment": forged(f"Authentication-Results: mx.evil.example ({OURS}); {PASS}"),
    "our name behind another": forged(f"Authentication-Results: mx.evil.example {OURS}; {PASS}"),
    "our name in letters that look like ours": forged(f"Authentication-Results: mx.osb.ex\u0430mple; {PASS}"),
    "our name as an encoded word": forged(f"Authentication-Results: =?us-ascii?q?{OURS}?=; {PASS}"),
    "another version": forged(f"Authentication-Results: {OURS} 2; {PASS}"),
    "another field": forged(f"ARC-Authentication-Results: i=1; {OURS}; {PASS}"),
    "another field, by a prefix": forged(f"X-Authentication-Results: {OURS}; {PASS}"),
    "a field without a server": forged(f"Authentication-Results: {PASS}"),
    "a field in the body": f"{HOP}{BANK}\nAuthentication-Results: {OURS}; {PASS}\n",
    "a field behind a bare return": f"{HOP}Subject: x\rAuthentication-Results: {OURS}; {PASS}\n{BANK}",
    "a field behind a NUL": f"{HOP}Subject: x\0\nAuthentication-Results: {OURS}; {PASS}\n{BANK}",
    "a field as a folded line of another": f"{HOP}Subject: x\n Authentication-Results: {OURS}; {PASS}\n{BANK}",
    "a result in a comment": ours(f"dkim=fail ({PASS}) header.d=evil.example"),
    "a result in a nested comment": ours(f"dkim=fail (a (b) \\) ; {PASS}) header.d=evil.example"),
    "a result in a reason": ours(f'dkim=fail reason="; {PASS}" header.d=evil.example'),
    "a result in a local part": ours(f'spf=fail smtp.mailfrom="; {PASS} ;"@evil.example'),
    "a result behind an escaped quote": ours(f'spf=fail smtp.mailfrom="a\\"; {PASS}; x=\\""@evil.example'),
    "a word that begins with pass": ours(
        "dkim=passed header.d=bank.example; spf=pass-ish smtp.mailfrom=bank.example"
    ),
    "a signature of another domain": ours(
        "dkim=pass header.d=evil.example; spf=pass smtp.mailfrom=x@evil.example"
    ),
    "a signature of a domain that ends alike": ours(
        "dkim=pass header.d=k.example; spf=pass smtp.mailfrom=xbank.example"
    ),
    "a signature of a domain below": ours("dkim=pass header.d=evil.bank.example"),
    "a signature of a domain above all": ours("dkim=pass header.d=example; spf=pass smtp.mailfrom=example."),
    "a sibling's signature": ours("dkim=pass header.d=evil.bank.example", "From: ceo@mail.bank.example\n"),
    "two domains for one signature": ours("dkim=pass header.d=evil.example header.d=bank.example"),
    "our domain in front of the sign": ours("spf=pass smtp.mailfrom=bank.example@evil.example"),
    "the name of HELO": ours("spf=pass smtp.helo=bank.example smtp.mailfrom=evil.example"),
    "a signature beside a failed policy": ours(
        "dkim=pass header.d=bank.example; dmarc=fail header.from=bank.example"
    ),
    "a policy of another author": ours(
        "dmarc=pass header.from=evil.example; dkim=pass header.d=bank.example"
    ),
    "a policy of no author": ours("dmarc=pass; dkim=pass header.d=bank.example"),
    "two authors in two fields": ours(PASS, f"{BANK}From: x@evil.example\n"),
    "two authors in two fields, one with a space": ours(PASS, f"{BANK}From : x@evil.example\n"),
    "two authors in one field": ours(PASS, "From: ceo@bank.example, x@evil.example\n"),
    "an author within another": ours(PASS, "From: ceo@bank.example <x@evil.example>\n"),
    "an author in a name": ours(PASS, 'From: "ceo@bank.example" <x@evil.example>\n'),
    "an author in a comment": ours(PASS, "From: (ceo@bank.example) x@evil.example\n"),
    "an author in a group": ours(PASS, "From: Bank: ceo@bank.example;\n"),
    "an author in a group that does not end": ours(PASS, "From: Bank: <ceo@bank.example>\n"),
    "an author in a list": ours(PASS, "From: x, <ceo@bank.example>\n"),
    "an author before another": ours(PASS, "From: <ceo@bank.example> x@evil.example\n"),
    "an author in an open bracket": ours(PASS, "From: <ceo@bank.example\n"),
    "an author behind a quote": ours(PASS, 'From: "a" <"x@evil.example"@bank.example>\n'),
    "an author in letters that look alike": ours(PASS, "From: ceo@b\u0430nk.example\n"),
    "no author": ours(PASS, ""),
}


@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_forgery_is_not_believed(forgery: str, line_end: str) -> None:
    found = mail(FORGERIES[forgery], line_end).authentication
    assert not (found.is_verified and found.author_domain.endswith("bank.example"))


@pytest.mark.parametrize("forgery", ["an author in a name", "an author in a comment"])
def test_the_real_author_is_seen_behind_a_forged_one(forgery: str) -> None:
    assert mail(FORGERIES[forgery]).authentication.author == "x@evil.example"


def test_an_author_whom_other_programs_would_see_is_not_verified_as_another() -> None:
    """A lone CR ends a line for `email`, and for no mail server."""
    results = "dkim=pass header.d=evil.example"
    message = mail(ours(results, "Subject: x\rFrom: ceo@bank.example\nFrom: x@evil.example\n"))
    assert message["From"] == "ceo@bank.example"
    assert not message.authentication.is_verified


def test_a_space_before_a_colon_is_no_reason_to_believe_nothing() -> None:
    assert verified_by(ours(PASS, f"Subject : x\n{BANK}")) == "dmarc"


def test_without_the_setting_nothing_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "configured", TrustedServers())
    found = mail(ours(PASS)).authentication
    assert (found.server, found.results, found.is_verified) == ("", (), False)
    assert found.author == "ceo@bank.example"


@pytest.mark.parametrize(
    "author",
    [
        "ceo@bank.example",
        "Bank <ceo@bank.example>",
        '"Bank, Inc." <CEO@Bank.Example> (us)',
        "<ceo@bank.example>",
    ],
)
def test_the_author_is_the_one_address_of_from(author: str) -> None:
    assert mail(ours(PASS, f"From: {author}\n")).authentication.verified_by == "dmarc"


def test_a_changed_request_says_what_came() -> None:
    message = mail(ours("dkim=none", "Subject: none\n"))
    message["From"] = "ceo@bank.example"
    message["Authentication-Results"] = f"{OURS}; {PASS}"
    assert not message.authentication.is_verified


@pytest.mark.parametrize(
    "data",
    ["", "\n", "\n\n", "x", ":\n\n", "From: \n\n", "From ann Sat\nFrom: a@b.example\n\n", b"\xff", "\ud800"],
)
def test_no_bytes_are_an_error(data: Any) -> None:
    assert not MailRequest("peer", "", "post@osb.example", data).authentication.is_verified


def test_headers_below_an_empty_first_line_are_body() -> None:
    assert mail(f"\n{ours(PASS)}").authentication.author == ""


def test_a_huge_message_is_not_copied_for_it() -> None:
    assert not mail(ours(PASS, f"X: {'x' * (2 << 20)}\n{BANK}")).authentication.is_verified
    assert mail(ours(PASS)[:-1] + "\n\n" + "x" * (8 << 20)).authentication.is_verified


def test_the_setting_is_read() -> None:
    read = trusted_servers({"servers": [" MX.osb.example"], "fields": 2, "hops": 3, "alignment": "strict"})
    assert read == TrustedServers(servers=frozenset({OURS}), fields=2, hops=3, strict=True)
    assert trusted_servers({"servers": (OURS,)}) == TRUSTED


@pytest.mark.parametrize(
    "config",
    [
        *(None, [], {}, {"servers": OURS}, {"servers": []}, {"servers": [""]}, {"servers": [1]}),
        *({"servers": [OURS], "fields": 0}, {"servers": [OURS], "hops": True}, {"servers": [OURS], "hop": 1}),
        {"servers": [OURS], "alignment": "loose"},
    ],
)
def test_a_setting_that_is_wrong_says_what_to_give(config: Any) -> None:
    with pytest.raises(ConfigurationError, match="give"):
        trusted_servers(config)
