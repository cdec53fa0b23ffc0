"""What people are told is text: bytes that it quotes are not shown as Python writes them."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from maildefer.intake.smtp import proxy_protocol
from maildefer.message import mbox


@pytest.mark.parametrize(
    "provoke",
    [
        lambda: list(mbox.mbox(io.BytesIO(b"Subject: caf\xe9\n"))),
        lambda: proxy_protocol.parse_version_1(b"PROXY caf\xe9\r\n"),
        lambda: proxy_protocol.parse_version_1(b"PROXY TCP4 1 2 3 4\r\n"),
    ],
    ids=["mbox", "proxy", "address"],
)
def test_bytes_are_quoted_as_text(provoke: Callable[[], object]) -> None:
    with pytest.raises(Exception, match=r".") as raised:
        provoke()
    assert "b'" not in str(raised.value)
    assert 'b"' not in str(raised.value)
