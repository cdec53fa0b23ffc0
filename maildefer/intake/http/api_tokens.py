"""API tokens: a file that says which token may push to which queue, one a line.

    # what is behind a token are the queues that it is for; with none, it is for all
    4f7c2e0b9a5d4e6f8a1b2c3d4e5f6071
    0c9d8e7f6a5b4c3d2e1f0a9b8c7d6e5f   queue,posts

A token has at least sixteen characters; the file may not be readable for others.
"""

from __future__ import annotations

import hmac
import os
import stat
from typing import Final

from maildefer.errors import ConfigurationError

LEAST_CHARACTERS: Final = 16


class ApiTokens:
    """Read again at HUP. Raises ConfigurationError for a file that can't be used, and keeps what it had."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._tokens: dict[bytes, frozenset[str]] = {}
        self.read()

    def read(self) -> None:
        found: dict[bytes, frozenset[str]] = {}
        for number, line in enumerate(self._lines(), 1):
            token, _, queues = line.partition("#")[0].strip().partition(" ")
            if not token:
                continue
            if len(token) < LEAST_CHARACTERS:
                raise ConfigurationError(
                    f"{self._path}:{number}: a token of less than {LEAST_CHARACTERS} characters can be guessed: "
                    "make one by `openssl rand -hex 32`"
                )
            found[token.encode()] = frozenset(queues.replace(",", " ").split())
        self._tokens = found

    @property
    def has_general(self) -> bool:
        """Whether any token is for all queues, and so opens the pages of `maildefer web`."""
        return not all(self._tokens.values())

    def allows(self, header: str, queue: str) -> bool | None:
        """Whether the bearer in an Authorization header may push to it; None for a token that is not known.

        All tokens are compared, each in constant time: how long it takes tells nothing of them.
        """
        kind, presented = header.partition(" ")[0], bearer(header)
        matching = [queues for token, queues in self._tokens.items() if hmac.compare_digest(token, presented)]
        if kind.lower() != "bearer" or not matching:
            return None
        return not matching[0] or queue in matching[0]

    def _lines(self) -> list[str]:
        try:
            with open(self._path, encoding="utf-8") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                if mode & 0o007:
                    raise ConfigurationError(
                        f"{self._path} can be read by everybody (mode {mode:o}): chmod o= {self._path}"
                    )
                return file.read().splitlines()
        except (OSError, ValueError) as fault:
            raise ConfigurationError(
                f"the token file {self._path} can't be read ({fault}): make one, as docs/delivery.md shows"
            ) from fault


def bearer(header: str) -> bytes:
    """The token in an Authorization header."""
    return header.partition(" ")[2].strip().encode("utf-8", "surrogateescape")
