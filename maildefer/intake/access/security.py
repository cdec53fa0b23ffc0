"""Certificate, credentials and trusted networks of a front end; it reads all before it drops its privileges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maildefer import events
from maildefer.errors import ConfigurationError
from maildefer.intake.access.networks import Networks
from maildefer.intake.options import IntakeOptions, SocketProtocol

if TYPE_CHECKING:
    from maildefer.intake.access.credentials import Credentials
    from maildefer.intake.access.tls import Certificate


class AccessSecurity:
    """The access data of one process. Raises ConfigurationError for what is unusable or contradictory."""

    def __init__(self, options: IntakeOptions) -> None:
        self.certificate: Certificate | None = None
        self.credentials: Credentials | None = None
        self.proxies = Networks(options.proxy_networks)
        self.forwarders = Networks(options.xclient_networks)
        _check_options(options)
        # ssl is 4 MB, hashlib 2: only where there is something for them.
        if options.tls_certificate:
            from maildefer.intake.access.tls import Certificate

            self.certificate = Certificate(options.tls_certificate, options.tls_key or None)
        if options.auth_file or options.auth_check:
            from maildefer.intake.access.credentials import Credentials

            self.credentials = Credentials(options)

    def read(self) -> None:
        """Read all again, at HUP; what can't be used leaves what was there."""
        for each in (self.certificate, self.credentials):
            if each is not None:
                try:
                    each.read()
                except ConfigurationError as fault:
                    events.emit("intake.stale", reason=str(fault))


def _check_options(options: IntakeOptions) -> None:
    sockets = [each for each in options.sockets if each.protocol is SocketProtocol.SMTPS]
    encrypted = [f"--socket-fd {each.fd}:{each.protocol}" for each in sockets]
    for wanting in (
        *encrypted,
        *(["tls_required"] if options.tls_required else []),
        *(["auth_file"] if options.auth_file else []),
        *(["auth_check"] if options.auth_check else []),
        *(["tls_key"] if options.tls_key else []),
    ):
        if not options.tls_certificate:
            raise ConfigurationError(f"{wanting} needs encryption: name a PEM file in tls_certificate")
    if options.auth_file and options.auth_check:
        raise ConfigurationError("auth_file and auth_check are two ways to know a password: name one")
    if options.auth_required and not (options.auth_file or options.auth_check):
        raise ConfigurationError(
            "auth_required needs somebody to know passwords: name auth_file or auth_check"
        )
