"""For policies, which the front end asks about each recipient: `accept(session: Session, sender: str, recipient: str)`.

See `docs/delivery.md`. The real thing lives in `maildefer.handling.policy.decide`.
"""

from __future__ import annotations

from maildefer.handling.policy.decide import Session

__all__ = ["Session"]
