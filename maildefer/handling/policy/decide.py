"""The call of a policy, and the meaning of its answers.

A policy is a function `accept(session, sender, recipient)` of the project, named by `receiver_config["policy"]`. It
is asked about each recipient that a route takes, in a process of its own (`maildefer.handling.policy.process`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from maildefer.errors import MaildeferError
from maildefer.handling.outcomes import Defer, Reject
from maildefer.handling.results import ensure_run
from maildefer.message.smtp_error import SMTPError

REFUSED: Final = "refused by the policy of this server"
_REPLY: Final = re.compile(r"([245])\d\d[ -]\S.*", re.DOTALL).fullmatch
_STATUS: Final = re.compile(r"[245]\.\d{1,3}\.\d{1,3}\s").match
_UNPRINTABLE: Final = re.compile(r"[^ -~]+")
_MOST_CHARACTERS: Final = 450  # RFC 5321, section 4.5.3.1.5: a reply line has at most 512 bytes


class PolicyFault(MaildeferError):
    """The policy returned a value that is no answer."""

    def __init__(self, verdict: object) -> None:
        super().__init__(
            f"the policy returned {verdict!r}: return True, False, None, or a reply such as '450 4.7.1 later'"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The client that sends a message, as far as the front end knows it."""

    address: str = ""
    """The client's IP address; empty for a client on a socket file, or by HTTP."""
    port: int = 0
    name: str = ""
    """The client's host name, if a trusted proxy has given it."""
    helo: str = ""
    tls: str = ""
    """The version of the encryption, such as `TLSv1.3`; empty without."""
    user: str = ""
    """The user name that the client has proved by AUTH; empty without."""

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Session:
        """Make it from the facts of a front end of this or another version; what is absent there is empty."""
        return cls(**{field.name: facts[field.name] for field in fields(cls) if field.name in facts})


Accept = Callable[[Session, str, str], object]


def decide(accept: Accept, session: Session, sender: str, recipient: str) -> str | None:
    """The SMTP reply of a refusal, or None. Raises what the policy raises, except for exceptions that are answers."""
    try:
        verdict = accept(session, sender, recipient)
        ensure_run(accept, verdict)
    except Defer as later:
        return _line(f"451 4.7.1 {later.reason}")
    except Reject as never:
        return _line(f"550 5.7.1 {never.reason}")
    except SMTPError as reply:
        verdict = f"{reply.code} {reply.message}"
    match verdict:
        case None | True:
            return None
        case False:
            return f"550 5.7.1 {REFUSED}"
        case str() if (found := _REPLY(verdict)) is not None:
            return None if found[1] == "2" else _with_status(verdict)
        case _:
            raise PolicyFault(verdict)


def _with_status(reply: str) -> str:
    """Add the enhanced status code that each reply has (RFC 2034)."""
    code, text = reply[:3], reply[4:]
    return _line(f"{code} {text}" if _STATUS(text) else f"{code} {code[0]}.7.1 {text}")


def _line(reply: str) -> str:
    return _UNPRINTABLE.sub(" ", reply)[:_MOST_CHARACTERS]
