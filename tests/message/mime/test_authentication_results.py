"""Authentication-Results as servers write them, and as strangers would like them to be read."""

from __future__ import annotations

from typing import Any

import pytest

from maildefer.message.mime import authentication_results as module
from maildefer.message.mime.authentication_results import AuthenticationResult, read_field


def results(text: str) -> dict[str, str]:
    found = read_field(text)
    assert found is not None
    return {one.method: one.result for one in found.results}


def only(text: str) -> AuthenticationResult:
    found = read_field(text)
    assert found is not None
    [one] = found.results
    return one


# In the forms that these programs write.
WRITTEN = {
    "OpenDKIM": (
        "mx.osb.example;\n\tdkim=pass (2048-bit key; unprotected) header.d=s.example header.i=@s.example"
        ' header.a=rsa-sha256\n\theader.s=mail header.b="aB/+c="',
        {"dkim": "pass"},
        {
            "header.d": "s.example",
            "header.i": "@s.example",
            "header.a": "rsa-sha256",
            "header.s": "mail",
            "header.b": "aB/+c=",
        },
    ),
    "OpenDMARC": (
        "mx.osb.example; dmarc=pass (p=none dis=none) header.from=s.example",
        {"dmarc": "pass"},
        {"header.from": "s.example"},
    ),
    "OpenDMARC, SPF": (
        'mx.osb.example; spf=pass smtp.mailfrom="ann b"@s.example',
        {"spf": "pass"},
        {"smtp.mailfrom": "ann b@s.example"},
    ),
    "rspamd": (
        "mx.osb.example;\r\n\tdkim=pass header.d=s.example header.s=2020 header.b=Ab1/x+y;\r\n\t"
        "dmarc=pass (policy=none) header.from=s.example;\r\n\tspf=pass (mx.osb.example: domain of ann@s.example "
        "designates 192.0.2.1 as permitted sender) smtp.mailfrom=ann@s.example",
        {"dkim": "pass", "dmarc": "pass", "spf": "pass"},
        None,
    ),
    "Exim": (
        "mx.osb.example;\n\tiprev=pass (out.s.example) smtp.remote-ip=2001:db8::1;\n\tspf=pass smtp.mailfrom=s.example;"
        "\n\tdkim=pass header.d=s.example header.s=mail header.a=rsa-sha256;\n\tdmarc=pass header.from=s.example",
        {"iprev": "pass", "spf": "pass", "dkim": "pass", "dmarc": "pass"},
        None,
    ),
    "Exchange": (
        "mx.osb.example; spf=pass (sender IP is 192.0.2.1)\r\n smtp.mailfrom=s.example; "
        "dkim=pass (signature was verified)\r\n header.d=s.example;dmarc=pass action=none "
        "header.from=s.example;compauth=pass\r\n reason=100",
        {"spf": "pass", "dkim": "pass", "dmarc": "pass", "compauth": "pass"},
        None,
    ),
    "nothing found": ("mx.osb.example 1; none", {}, None),
    "RFC 8601, B.7": (
        "foo.example.net (foobar) 1 (baz);\n dkim (Because I like it) / 1 (One yay) = (wait for it) fail\n"
        " policy (A dot can go here) . (like that) expired\n (this surprised me) = (as I wasn't expecting it)"
        " 1362471462",
        {"dkim": "fail"},
        {"policy.expired": "1362471462"},
    ),
}


@pytest.mark.parametrize("server", WRITTEN)
def test_what_servers_write_is_read(server: str) -> None:
    text, words, properties = WRITTEN[server]
    assert results(text) == words
    assert properties is None or only(text).properties == properties


def test_the_servers_name_is_compared_without_case_and_may_be_quoted() -> None:
    assert read_field("MX.osb.Example; none").server == "mx.osb.example"
    assert read_field('"mx.osb.example" (ours) 1;none').server == "mx.osb.example"


def test_a_reason_is_text() -> None:
    assert only('mx; dkim=fail reason="x; dkim=pass" header.d=s.example').reason == "x; dkim=pass"


@pytest.mark.parametrize(
    "comment",
    ["(\\); dmarc=pass (\\)))", "(a (b); dmarc=pass (c) d)", "(((;)) dmarc=pass;)", '(" ; dmarc=pass) ("x)'],
)
def test_a_comment_ends_where_all_within_it_have_ended(comment: str) -> None:
    assert results(f"mx; dkim=fail {comment} header.d=s.example") == {"dkim": "fail"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "; dkim=pass",
        "(only a comment",
        "mx (a (b) c; dkim=pass",
        'mx; dkim=fail reason="a; dkim=pass',
        "mx; dkim=pass \\",
        "mx; dkim=pass)",
        "mx 2; dkim=pass",
        "mx 1 1; dkim=pass",
        "mx one; dkim=pass",
        "mx=1; dkim=pass",
        "dkim=pass header.d=s.example",
        "mx; dkim=pass\0",
        "mx; dkim=\x0bpass",
        "mx;\xa0dkim=pass",
        f"mx; dkim=pass ({'x' * (64 << 10)})",
    ],
)
def test_a_field_that_is_not_in_order_is_not_read(text: str) -> None:
    assert read_field(text) is None


@pytest.mark.parametrize(
    "result",
    [
        *(
            "dkim",
            "dkim=",
            "=pass",
            "dkim==pass",
            "dkim=pass header.d",
            "dkim=pass header.d=",
            "dkim=pass =s.example",
        ),
        *("dkim/2=pass", "dkim/x=pass", '"dkim"=pass', "dk im=p ass=", "dkim=-pass", "dkim=(pass)"),
        *("dkim=pass header.d=a header.d=b", "dkim=pass header.d=a HEADER.D=b", 'dkim=pass "header.d"=a'),
        *("dkim=pass header.d.x=a", "(dkim=pass)", '"dkim=pass"'),
    ],
)
def test_a_result_that_is_not_in_order_is_left_out_and_the_others_stay(result: str) -> None:
    assert results(f"mx; spf=fail; {result}; dmarc=none") == {"spf": "fail", "dmarc": "none"}


@pytest.mark.parametrize(
    "piece",
    ["(", ")", '"', "\\", ";", "=", "a=b ", "(a)", '""', '"\\', "( ", "((", "a.b=", " ", "\n ", "a/1="],
)
@pytest.mark.slow
def test_no_byte_is_looked_at_twice(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pattern can go back within a match: `++` and `*+` keep what they have."""
    steps: list[int] = []

    def counted(match: Any) -> Any:
        def count(text: str, at: int) -> Any:
            found = match(text, at)
            steps.append(found.end() - at if found else len(text) - at)
            return found

        return count

    monkeypatch.setattr(module, "_TOKEN", counted(module._TOKEN))
    monkeypatch.setattr(module, "_COMMENT_SIGN", counted(module._COMMENT_SIGN))
    text = "mx; " + piece * (60_000 // len(piece))
    read_field(text)
    assert 0 < len(steps) <= sum(steps) <= 2 * len(text)
