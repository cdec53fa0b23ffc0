"""The doctor's findings: each has a verdict, a fact and a remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "refuse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check. `refuse` means that messages could be lost there, or never be handled."""

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
