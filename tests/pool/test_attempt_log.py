from __future__ import annotations

import pytest

from maildefer.handling.results import failure
from maildefer.mail import MailRequest
from maildefer.pool.attempt_log import log_failure


class Untold(Exception):
    def __str__(self) -> str:
        return self.missing  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (ValueError("boom"), "ValueError: boom"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (Untold(), "Untold: <exception str() failed>"),
    ],
)
def test_any_exception_of_a_handler_can_be_logged(
    fault: BaseException, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    message = MailRequest("peer", "ann@example.org", "post@osb", b"Subject: x\n\nhi\n")
    log_failure(failure(fault, "m"), message, "m.F", last=False)
    assert [record.message for record in caplog.records] == [text]
