"""The client that a policy is asked about: `accept(session: Session, sender: str, recipient: str)`.

A policy is a function of the project, which the front end asks about each recipient: see `docs/delivery.md`. The code
is in `maildefer.handling.policy.decide`.
"""

from __future__ import annotations

from maildefer.handling.policy.decide import Session

__all__ = ["Session"]
