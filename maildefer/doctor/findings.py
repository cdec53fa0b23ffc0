"""What the doctor says: a verdict, a fact, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "refuse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One examined thing. `refuse` means that messages could be lost or never handled there."""

    check: str
    verdict: Verdict
    fact: str
    remedy: str = ""


def ok(check: str, fact: str) -> Finding:
    return Finding(check=check, verdict="ok", fact=fact)


def warn(check: str, fact: str, remedy: str) -> Finding:
    return Finding(check=check, verdict="warn", fact=fact, remedy=remedy)


def refuse(check: str, fact: str, remedy: str) -> Finding:
    return Finding(check=check, verdict="refuse", fact=fact, remedy=remedy)
