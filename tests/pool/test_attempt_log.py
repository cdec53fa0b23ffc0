from __future__ import annotations

import pytest

from maildefer.handling.outcomes import Defer, Reject
from maildefer.handling.results import failure, outcome_of
from maildefer.mail import MailRequest
from maildefer.message.smtp_error import SMTPError
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


@pytest.mark.parametrize("fault", [Reject("no"), Defer("later"), SMTPError(550), SMTPError(451)])
def test_what_a_handler_asks_for_is_no_failure(fault: Exception, caplog: pytest.LogCaptureFixture) -> None:
    for asked in (fault, ExceptionGroup("several", [fault])):
        log_failure(outcome_of(asked, "m"), None, "m.F", last=True)
    assert caplog.records == []
