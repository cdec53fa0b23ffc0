"""The certificate and its key, read again at HUP. Only imported where there is one: ssl is 4 MB a process."""

from __future__ import annotations

import ssl

from maildefer.errors import ConfigurationError


class Certificate:
    """The TLS context of new connections; those that are open keep the one they began with."""

    context: ssl.SSLContext

    def __init__(self, path: str, key_path: str | None) -> None:
        """`key_path` None: the key is in the certificate's file. Raises ConfigurationError."""
        self._path = path
        self._key_path = key_path
        self.read()

    def read(self) -> None:
        """Read both files, again at HUP; one that can't be used leaves the old. Raises ConfigurationError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            context.load_cert_chain(self._path, self._key_path, password=_no_password)
        except (OSError, ValueError) as fault:  # ssl.SSLError is an OSError
            raise ConfigurationError(
                f"the certificate {self._path} can't be used ({fault}): it takes a PEM file with the chain, and the "
                f"key in it or in {self._key_path or 'a file of its own'}, without a password"
            ) from fault
        self.context = context


def _no_password() -> str:
    raise ValueError("the key has a password")
