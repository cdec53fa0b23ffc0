"""Requests that are pushed once: each has one set of entries, ever, and all who make it are told of these.

A request is known by a number; its fingerprint, a digit, tells it from another one that has the same number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.simulation.oracle import Oracle

_DATA: Final = b"Subject: request "
RECIPIENTS: Final = 2


def data_of(number: int, fingerprint: int, recipient: int) -> bytes:
    return _DATA + b"%d %d %d\n\n" % (number, fingerprint, recipient)


@dataclass(slots=True)
class KeyedRequests:
    oracle: Oracle
    keys: dict[tuple[int, int], str] = field(default_factory=dict)  # by number and recipient
    fingerprints: dict[int, int] = field(default_factory=dict)

    def pushed(self, key: str, data: bytes) -> None:
        """An entry gets from `tmp/` to where it waits."""
        if not data.startswith(_DATA):
            return
        number, fingerprint, recipient = map(int, data.removeprefix(_DATA).split())
        if self.fingerprints.setdefault(number, fingerprint) != fingerprint:
            self.oracle.fail("once", f"two requests of one number are carried out: {key}")
        if self.keys.setdefault((number, recipient), key) != key:
            self.oracle.fail("once", f"a request is carried out twice: {key}")

    def answered(self, number: int, fingerprint: int, told: int, keys: list[str]) -> None:
        """A request of that number has its answer."""
        if self.fingerprints.get(number, told) != told:
            self.oracle.fail("once", f"a request is told of another's fingerprint: {keys}")
        if told != fingerprint:
            return
        if keys != [self.keys.get((number, recipient)) for recipient in range(RECIPIENTS)]:
            self.oracle.fail("once", f"a request is told of entries that are not its own: {keys}")
        for recipient, key in enumerate(keys):
            self.oracle.acknowledged(key, data_of(number, fingerprint, recipient))
