"""LMTP (RFC 2033): the same session with LHLO, and one reply for each recipient after DATA."""

from __future__ import annotations

from aiosmtpd.smtp import syntax

from maildefer.intake.session import Session


class LmtpSession(Session):
    """An LMTP connection to the hall's queue."""

    @syntax("LHLO hostname")
    async def smtp_LHLO(self, arg: str) -> None:
        await super().smtp_EHLO(arg)

    async def smtp_HELO(self, arg: str) -> None:
        await self.push("500 5.5.1 this is LMTP: send LHLO")

    async def smtp_EHLO(self, arg: str) -> None:
        await self.push("500 5.5.1 this is LMTP: send LHLO")

    async def answer(self, answers: list[str]) -> None:
        for answer in answers:
            await self.push(answer)
