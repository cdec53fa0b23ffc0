"""What it means that a handler raised: its own words for later and never, or a failure."""

from __future__ import annotations

from maildefer.handling.outcomes import Buried, Defer, Deferred, Outcome, Reject
from maildefer.message.smtp_error import SMTPError


def outcome_of(fault: BaseException, module: str) -> Outcome:
    """`Defer` and `Reject` as asked, an SMTP reply by its class; anything else is a failure of the handler's."""
    if isinstance(fault, Defer):
        at, until = (None if one is None else one.timestamp() for one in (fault.at, fault.until))
        return Deferred(fault.reason, fault.after, at=at, until=until)
    if isinstance(fault, Reject):
        return Buried(fault.reason)
    if isinstance(fault, SMTPError):
        if 400 <= fault.code < 500:
            return Deferred(str(fault))
        if 500 <= fault.code < 600:
            return Buried(str(fault))
    return failure(fault, module)


def failure(fault: BaseException, module: str | None) -> Deferred:
    """An exception that nobody meant: again by the usual backoff, with its traceback for the log."""
    import traceback  # needed only here, and not by an idle pool

    text = "".join(traceback.format_exception_only(fault)).strip()
    detail = "".join(traceback.format_exception(fault))
    return Deferred(text, error=text, detail=detail, module=module, fault=fault)
