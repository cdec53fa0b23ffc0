"""The parameters of RFC 3461 that a received message came with, for handlers and for who passes it on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maildefer.message.dsn.parameters import DsnParameters
    from maildefer.message.envelope import Envelope


class HasDsnParameters:
    """`message.dsn`: what the envelope's sender asks of reports."""

    __slots__ = ()
    came_with: Envelope | None = None
    """The envelope as it came, where it has parameters, or an address that is not in lower case."""

    @property
    def dsn(self) -> DsnParameters:
        """What the sender asks of reports: `dsn.notify`, `dsn.ret`, `dsn.envid`, `dsn.orcpt` (RFC 3461)."""
        from maildefer.message.dsn.parameters import parsed  # only for who asks

        return parsed(self.came_with.dsn if self.came_with else "")


class ForwardedBytes(bytes, HasDsnParameters):
    """The bytes of a message that is sent on, with what it came with."""


def passed_on(message: object, sender: str) -> str:
    """The text of the parameters that go on with a message; none if another sender answers for it now."""
    came = message.came_with if isinstance(message, HasDsnParameters) else None
    return came.dsn if came is not None and came.sender.lower() == sender.lower() else ""


def passing_on(message: object, sender: str) -> str:
    """The same for who passes it on: from now on, others report its success."""
    if dsn := passed_on(message, sender):
        message.came_with.is_passed_on = True  # type: ignore[attr-defined]
    return dsn
