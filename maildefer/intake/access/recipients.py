"""The recipients that a route takes, by the table that the probe made in another process (I11)."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping

from maildefer import events
from maildefer.errors import ConfigurationError, RouteTooSlow, RouteUntried
from maildefer.intake import replies
from maildefer.intake.access.domains import Domains
from maildefer.intake.replies import Reply
from maildefer.matching.index import LONGEST, RE_FAULTS, Match, RouteIndex, limited, match_of
from maildefer.message.addresses import TASK_DOMAIN


class RecipientTable:
    """The route table's patterns for one queue; `path` None takes every recipient of the `domains`, or of any."""

    def __init__(self, queue: str, path: str | None, domains: str = "") -> None:
        self._queue = os.path.abspath(queue)
        self._path = path
        self._domain_names = domains
        self._domains = Domains((), domains)
        self._patterns: list[re.Pattern[str]] = []
        self._index: RouteIndex[Match] = RouteIndex(())
        self._slow_table = False
        self._slow_domains = False  # matching the domain of an address takes too long
        self.read()

    def read(self) -> None:
        """Read the table, again at HUP; a table that can't be used leaves the old one. Raises ConfigurationError."""
        if self._path is None:
            return
        try:
            if self._path == "-":
                text, self._path = sys.stdin.read(), None if self._patterns else "-"
            else:
                with open(self._path, encoding="utf-8") as file:
                    text = file.read()
            rows = self._rows(json.loads(text))
            self._patterns = [re.compile(row, re.IGNORECASE) for row in rows]
            self._index = RouteIndex([(pattern.pattern, match_of(pattern)) for pattern in self._patterns])
            self._slow_table = self._slow_domains = False
            self._domains = Domains(rows, self._domain_names)
        except (OSError, ValueError, TypeError, AttributeError, KeyError, re.error) as fault:
            raise ConfigurationError(
                f"the route table {self._path} can't be used ({fault}): "
                "make it anew by `python -m maildefer.pool.probe_process`"
            ) from fault

    @property
    def checked(self) -> bool:
        return self._path is not None

    @property
    def empty(self) -> bool:
        """Whether there is a table, without a route for this queue: a fault of the set-up, not of the sender."""
        return self.checked and not self._patterns

    def refusal(self, address: str) -> Reply | None:
        """The reply for a recipient that is not taken; None for one that is."""
        if self.empty:
            return replies.NO_TABLE
        if self._domains.forbids(address):
            return replies.NO_RELAY
        if self.takes(address):
            return None
        return replies.NO_ROUTE if self._domain_is_known(address) else replies.NO_RELAY

    def _domain_is_known(self, address: str) -> bool:
        try:
            return self._slow_domains or limited(lambda: self._domains.knows(address), "table", address)
        except RouteTooSlow as fault:
            events.emit("route.slow", queue=self._queue, error=str(fault))
            self._slow_domains = True  # not asked again, since others wait meanwhile
            return True
        except RE_FAULTS:
            return True

    def qualified(self, address: str, host: str) -> str:
        """Add its domain to `postmaster` alone (RFC 5321, section 4.5.1); other addresses stay as they are.

        It is the first domain with a postmaster, of those that are given, or else of this host's name and those that
        it is in.
        """
        if address.lower() != "postmaster":
            return address
        labels = host.split(".")
        parents = [".".join(labels[at:]) for at in range(max(1, len(labels) - 1))]
        known = [f"{address}@{domain}" for domain in self._domain_names.split() or parents]
        tried = known if self._domain_names.split() else [address, *known]
        return next((each for each in tried if self.refusal(each) is None), tried[0])

    def takes(self, address: str) -> bool:
        """Whether a route takes it, as `Router.match` does: the address in lower case, from its beginning.

        Addresses of tasks are for the project's own calls.
        """
        address = address.lower()
        if address.endswith(f"@{TASK_DOMAIN}"):
            return False
        if not self.checked:
            return True
        try:
            if self._slow_table or len(address) <= LONGEST:
                return self._slow_table or self._matches(address)
            return limited(lambda: self._matches(address), "table", address)
        except RouteTooSlow as fault:
            # Taken, so that the dead letters tell what is wrong; and not asked again, since others wait meanwhile.
            events.emit("route.slow", queue=self._queue, error=str(fault))
            self._slow_table = True
            return True
        except (RouteUntried, *RE_FAULTS):
            return True

    def _matches(self, address: str) -> bool:
        return any(match(address) for match in self._index.rows(address))

    def _rows(self, table: object) -> list[str]:
        """The patterns of the routes that this queue sees; a route without a queue counts for all."""
        routes = table.get("routes", []) if isinstance(table, Mapping) else table
        if not isinstance(routes, list):
            raise TypeError("it holds no list of routes")
        rows = [row for row in routes if self._is_ours(row.get("queue"))]
        return list(dict.fromkeys(row["pattern"] for row in rows))

    def _is_ours(self, queue: str | None) -> bool:
        return queue is None or os.path.abspath(queue) == self._queue
