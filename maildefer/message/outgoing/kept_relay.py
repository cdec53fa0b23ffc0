"""A relay that keeps its connections for the next message."""

from __future__ import annotations

import importlib
import sys
import threading
from typing import TYPE_CHECKING, Any

from maildefer.message.outgoing.relay import Relay

if TYPE_CHECKING:
    import smtplib

    from maildefer.message.outgoing.kept_connections import KeptConnections


class KeptRelay(Relay):
    """Sends by connections that it keeps, for many threads at a time; `idle_seconds` for the next message."""

    def __init__(
        self, host: str | None = "127.0.0.1", port: int = 25, *, idle_seconds: float = 2.0, **options: Any
    ) -> None:
        super().__init__(host, port, **options)
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._connections: KeptConnections | None = None

    @property
    def kept(self) -> KeptConnections:
        with self._lock:
            if self._connections is None:
                # With smtplib, 10 MB with ssl: only for a process that sends.
                from maildefer.message.outgoing.kept_connections import KeptConnections

                self._connections = KeptConnections(idle_seconds=self._idle_seconds)
            return self._connections

    def relay_hosts(self, To: str) -> list[str]:
        """As a `Relay`, but what the DNS has said is kept for as long as it says."""
        hosts = super().relay_hosts(To)
        if "dns.resolver" in sys.modules:  # an extra; another thread may be loading it
            dns: Any = importlib.import_module("dns.resolver")
            if (resolver := dns.get_default_resolver()).cache is None:
                resolver.cache = dns.LRUCache()
        return hosts

    def open_connection(self, hostname: str) -> smtplib.SMTP:
        """A kept connection, or a new one."""
        return self.kept.take(hostname) or self.configure_relay(hostname)

    def end_connection(self, hostname: str, connection: Any, *, is_good: bool) -> None:
        """Keep the connection, if it is good for another message."""
        if is_good:
            self.kept.keep(hostname, connection)
        else:
            connection.close()

    def _kinds(self) -> tuple[type[smtplib.SMTP], type[smtplib.SMTP], type[smtplib.SMTP]]:
        from maildefer.message.outgoing import connection  # as above

        return connection.SmtpConnection, connection.SmtpsConnection, connection.LmtpConnection
